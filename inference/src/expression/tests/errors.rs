//! What is refused, and what has no value.

use serde_json::json;

use super::*;

#[test]
fn says_what_has_no_value() {
    let reason = |text: &str| {
        let error = Expression::parse(text)
            .unwrap()
            .evaluate(&record())
            .unwrap_err();
        assert_eq!(error.expression, text);
        error.reason
    };
    for text in ["1 / 0", "1.5 / 0", "0 / 0", "1 / 0.0", "1 % 0", "1.5 % 0"] {
        assert!(reason(text).ends_with(" gives no finite number"), "{text}");
    }
    assert_eq!(reason("1 / $in.zero > 5"), "/ gives no finite number");
    assert_eq!(reason("sqrt(-1)"), "sqrt gives no finite number");
    assert_eq!(reason("log(0)"), "log gives no finite number");
    assert_eq!(reason("pow(10, 400)"), "pow gives no finite number");
    assert_eq!(reason("1e308 * 10"), "* gives no finite number");
    assert_eq!(
        reason("1 + 'a'"),
        "+ takes two numbers or two texts, not a number and a text"
    );
    assert_eq!(
        reason("1 < 'a'"),
        "< takes two numbers or two texts, not a number and a text"
    );
    assert_eq!(
        reason("true < false"),
        "< takes two numbers or two texts, not a boolean and a boolean"
    );
    assert_eq!(
        reason("$in.list == $in.list"),
        "== takes numbers, texts and booleans, not a list and a list"
    );
    assert_eq!(
        reason("$in.object != 1"),
        "!= takes numbers, texts and booleans, not an object and a number"
    );
    assert_eq!(
        reason("true in 2"),
        "in takes a list at its right, or two texts, not a boolean and a number"
    );
    assert_eq!(reason("!1"), "! takes true or false, not a number");
    assert_eq!(reason("$in.i && true"), "&& and || take true or false");
    assert_eq!(
        reason("round(1.5, 16)"),
        "round takes a number, and how many digits, at most 15, not a number and a number"
    );
    let long = Record(json!({"in": {"s": "x".repeat(600_000)}}));
    let twice = Expression::parse("$in.s + $in.s")
        .unwrap()
        .evaluate(&long)
        .unwrap_err();
    assert!(twice.reason.contains("1 MiB"), "{twice}");
    assert!(twice.to_string().len() < 250, "{twice}");
}

#[test]
fn refuses() {
    for (text, reason) in [
        ("", "it ends where a value or an operator is missing"),
        ("   ", "it ends where a value or an operator is missing"),
        ("1 +", "it ends where a value or an operator is missing"),
        (
            "score >= ",
            "it ends where a value or an operator is missing",
        ),
        ("score >= > 1", "unexpected \">\""),
        ("* 2", "unexpected \"*\""),
        ("1 2", "unexpected \"2\""),
        ("label score", "unexpected \"score\""),
        ("$in.a $in.b", "unexpected \"$in.b\""),
        ("'ž' 'š'", "unexpected \"'š'\""),
        (
            "a",
            "there is no \"a\": the names are label, score, scores, value, embedding, anomaly; ",
        ),
        ("score > 1 and true", "there is no \"and\""),
        ("null", "there is no \"null\""),
        ("r_0", "there is no \"r_0\""),
        (
            "$x.y",
            "there is no \"$x\": references begin with $in, $out or $f",
        ),
        ("$", "there is no \"$\""),
        ("$$in", "there is no \"$\""),
        ("$input", "there is no \"$input\""),
        ("$in.", "\"$in.\": a name is empty"),
        ("$in..a", "\"$in..a\": a name is empty"),
        ("$in.a[", "\"$in.a[\": a [ is not closed"),
        (
            "$in.a[-1]",
            "\"$in.a[-1]\": what is in [] is not a position",
        ),
        ("$in.a[x]", "\"$in.a[x]\": what is in [] is not a position"),
        ("$in['a'", "a [ is not closed"),
        (
            "$in['a.b']",
            "\"$in['a.b']\": a name in [] is plain: no . or [",
        ),
        (
            "$in['a b']",
            "\"$in['a b']\": names are plain: no quotes, wildcards or blanks",
        ),
        ("$in['']", "\"$in['']\": a name is empty"),
        ("$in.*", "\"$in.\": a name is empty"),
        ("$in.user-agent", "there is no \"agent\""),
        (
            "label.len()",
            "\"label.len\" is no function: functions are called as in len(label)",
        ),
        ("$in.a(1)", "\"$in.a\" is no function"),
        (
            "size(label)",
            "there is no function \"size\": the functions are abs, ceil,",
        ),
        ("score(1)", "there is no function \"score\""),
        ("eval('1')", "there is no function \"eval\""),
        ("print('1')", "there is no function \"print\""),
        ("contains('a', 'b')", "there is no function \"contains\""),
        ("abs()", "abs takes 1 values, not 0"),
        ("abs(1, 2)", "abs takes 1 values, not 2"),
        ("round(1, 2, 3)", "round takes 1 or 2 values, not 3"),
        ("min(1)", "min takes 2 values, not 1"),
        ("min(1,", "a ( is not closed"),
        ("(1", "a ( is not closed"),
        ("1)", "unexpected \")\""),
        ("()", "unexpected \")\""),
        ("(1, 2)", "unexpected \",\""),
        ("(1]", "unexpected \"]\""),
        ("[1]", "a list stands only after in"),
        ("label in [1", "a [ is not closed"),
        ("label in ['a', 'b'][0]", "a list stands only after in"),
        ("'a", "a ' is not closed"),
        ("\"a\\", "a \" is not closed"),
        ("\"\\x41\"", "\"\\x\" is no escape"),
        ("1.", "\"1.\" is not a number"),
        ("1_000", "\"1_000\" is not a number"),
        ("0x10", "\"0x10\" is not a number"),
        ("1e999", "\"1e999\" is not a number"),
        ("1e", "\"1e\" is not a number"),
        (".5", "unexpected \".\""),
        ("1 && true", "&& and || take true or false, not \"1\""),
        ("true || 'a'", "&& and || take true or false, not \"'a'\""),
        ("score = 1", "unexpected \"=\": what is equal is written =="),
        ("score += 1", "unexpected \"=\""),
        ("score === 1", "unexpected \"=\""),
        ("score & 1", "unexpected \"&\""),
        ("score | 1", "unexpected \"|\""),
        ("2 ** 3", "unexpected \"*\""),
        ("1 << 2", "unexpected \"<\""),
        ("1..2", "\"1.\" is not a number"),
        ("label !in ['a']", "unexpected \"in\""),
        ("1 // 2", "unexpected \"/\""),
        ("1 /* 2 */", "unexpected \"*\""),
        ("1; 2", "unexpected \";\""),
        ("{ 1 }", "unexpected \"{\""),
        ("#{}", "unexpected \"#\""),
        ("`a`", "unexpected \"`\""),
        ("|x| x", "unexpected \"|\""),
        ("let x = 1", "there is no \"let\""),
        ("if true", "there is no \"if\""),
        ("while(true)", "there is no function \"while\""),
        ("fn f()", "there is no \"fn\""),
        ("import 'a'", "there is no \"import\""),
        ("true ? 1 : 2", "unexpected \"?\""),
        ("score\0", "unexpected \"\\0\""),
        ("score ≥ 1", "unexpected \"≥\""),
    ] {
        let found = refusal(text);
        assert!(found.starts_with(reason), "{text:?}: {found}");
    }
    assert_eq!(
        Expression::parse("scor > 1").unwrap_err().to_string(),
        "\"scor > 1\" is not an expression: there is no \"scor\": the names are label, score, scores, value, \
         embedding, anomaly; fields of the record are $in.name, members of the output $out.name, features $f.name"
    );
}
