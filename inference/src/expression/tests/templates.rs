//! Templates, and expressions in TOML.

use bytes::BytesMut;

use super::*;

fn template(text: &str) -> Result<Template, String> {
    #[derive(serde::Deserialize)]
    struct Output {
        template: Template,
    }
    let output: Result<Output, _> = toml::from_str(text);
    output
        .map(|output| output.template)
        .map_err(|error| error.to_string())
}

fn rendered(text: &str) -> String {
    let mut out = BytesMut::from("before ");
    template(text).unwrap().render(&record(), &mut out).unwrap();
    String::from_utf8(out[7..].to_vec()).unwrap()
}

#[test]
fn renders_templates() {
    assert_eq!(
        rendered(
            r#"template = { z = "$in.big", p = "$out.score", a = { n = "$f.n_5m + 1", "q\"" = [1, 2.0, "$label", "$$in.i", "a$b", true] }, f = "$f" }"#
                .replace("$label", "$(label)").as_str()
        ),
        r#"{"z":9007199254740993,"p":0.9,"a":{"n":5,"q\"":[1,2.0,"fraud","$in.i","a$b",true]},"f":{"n_5m":4,"ratio":0.25}}"#
    );
    assert_eq!(
        rendered(
            "[template]\nb = '$in.none'\na = '$(round(score * 100))'\n[template.t]\nc = '$'\n"
                .replace("'$'", "'$$'")
                .as_str()
        ),
        r#"{"b":null,"a":90,"t":{"c":"$"}}"#
    );
    assert_eq!(rendered("template = {}"), "{}");
    assert_eq!(
        rendered("template = { a = \"é\\n\\u0001\" }"),
        "{\"a\":\"é\\n\\u0001\"}"
    );
}

#[test]
fn templates_are_all_or_nothing() {
    let template = template("template = { a = 1, b = '$in.i', c = '$in.none + 1' }").unwrap();
    let references: Vec<String> = template.references().map(ToString::to_string).collect();
    assert_eq!(references, ["$in.i", "$in.none"]);
    let mut out = BytesMut::from("before");
    let error = template.render(&record(), &mut out).unwrap_err();
    assert_eq!(error.expression, "$in.none + 1");
    assert_eq!(&out[..], b"before");
}

#[test]
fn templates_say_where_they_are_wrong() {
    for (text, reason) in [
        (
            "template = { a = { b = [1, '$in.'] } }",
            "template.a.b[1]: \"$in.\" is not an expression",
        ),
        (
            "template = { p = '$score' }",
            "template.p: \"$score\" is not an expression: there is no \"$score\"",
        ),
        ("template = { p = '$' }", "template.p: \"$\""),
        ("template = { p = nan }", "template.p: JSON has no NaN"),
        ("template = { p = -inf }", "template.p: JSON has no -inf"),
        (
            "template = { p = 2024-01-01 }",
            "template.p: JSON has no dates: write \"2024-01-01\"",
        ),
        ("template = 'a'", "expected a"),
    ] {
        let error = template(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn templates_keep_as_they_were_written() {
    #[derive(PartialEq, Debug, serde::Serialize, serde::Deserialize)]
    struct Output {
        template: Template,
    }
    let text = "[template]\nz = \"$in.a + 1\"\nb = 1\na = \"$$\"\n";
    let output: Output = toml::from_str(text).unwrap();
    assert_eq!(toml::to_string(&output).unwrap(), text);
    let reordered: Output =
        toml::from_str("[template]\nb = 1\nz = \"$in.a + 1\"\na = \"$$\"\n").unwrap();
    assert_ne!(output, reordered);
}

#[test]
fn stands_in_toml() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Rule {
        when: Expression,
    }
    let rule: Rule = toml::from_str("when = \"label == 'a'\"\n").unwrap();
    assert_eq!(rule.when, Expression::parse("label == 'a'").unwrap());
    assert_eq!(toml::to_string(&rule).unwrap(), "when = \"label == 'a'\"\n");
    let error = toml::from_str::<Rule>("when = \"scor > 1\"")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("\"scor > 1\" is not an expression"),
        "{error}"
    );
}
