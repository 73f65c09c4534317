//! What expressions give.

use serde_json::json;

use super::*;

const TWO_TO_63: f64 = 9.223_372_036_854_776e18;

#[test]
fn refers() {
    all(&[
        ("$in.i", json!(7)),
        (" $in.items[0].price ", json!(10)),
        ("$in.items[0].price * 2", json!(20)),
        ("$in.items[1].price", json!(null)),
        ("$in.object[\"user-agent\"] == 'curl'", json!(true)),
        ("$in.in in [$in.in]", json!(true)),
        ("label", json!("fraud")),
        ("score == $out.score", json!(true)),
        ("scores.fraud > scores.ok", json!(true)),
        ("scores['ok']", json!(0.1)),
        ("value + embedding[1]", json!(3)),
        ("is_null(anomaly)", json!(true)),
        ("$f.n_5m", json!(4)),
        ("$f", json!({"n_5m": 4, "ratio": 0.25})),
        ("len($in.object)", json!(2)),
        ("($in.list)", json!(["a", 1, 2.0, null, {"k": 1}])),
        (
            "$in.nothing ?? $in.object",
            json!({"k": 1, "user-agent": "curl"}),
        ),
    ]);
    let expression =
        Expression::parse("score > 1 && $out.score < $f.n[2] || $in == label").unwrap();
    let references: Vec<String> = expression
        .references()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(references, ["$out.score", "$f.n[2]", "$in", "$out.label"]);
}

#[test]
fn keeps_what_is_one_reference() {
    all(&[
        ("$in.big", json!(9_007_199_254_740_993_i64)),
        ("$in.big + 0", json!(9_007_199_254_740_993_i64)),
        ("$in.big == 9007199254740993", json!(true)),
        ("$in.big == 9007199254740992", json!(false)),
        ("$in.huge", json!(u64::MAX)),
        ("$in.huge > $in.most - 1", json!(true)),
    ]);
}

#[test]
fn computes() {
    all(&[
        ("1 + 2", json!(3)),
        ("1 + 0.5", json!(1.5)),
        ("0.5 + 1", json!(1.5)),
        ("0.5 + 0.5", json!(1.0)),
        ("'a' + \"b\"", json!("ab")),
        ("7 - 8", json!(-1)),
        ("7 - 0.5", json!(6.5)),
        ("6 * 7", json!(42)),
        ("6 * 0.5", json!(3.0)),
        ("7 / 2", json!(3.5)),
        ("6 / 2", json!(3.0)),
        ("$in.i / 100", json!(0.07)),
        ("7 % 4", json!(3)),
        ("-7 % 4", json!(-3)),
        ("7.5 % 2", json!(1.5)),
        ("-$in.i", json!(-7)),
        ("-$in.x", json!(-2.5)),
        ("+$in.i", json!(7)),
        ("--1", json!(1)),
        ("1e3", json!(1000.0)),
        ("2.5e-1", json!(0.25)),
        ("1e300 * 100", json!(1e302)),
        ("9223372036854775807", json!(i64::MAX)),
        ("9223372036854775808", json!(TWO_TO_63)),
        ("$in.most + 1", json!(TWO_TO_63)),
        ("-$in.least", json!(TWO_TO_63)),
        ("$in.least - 1", json!(-TWO_TO_63)),
        ("$in.most * 2", json!(1.8446744073709552e19)),
    ]);
}

#[test]
fn compares() {
    all(&[
        ("1 < 2", json!(true)),
        ("1 <= 1.0", json!(true)),
        ("2 > 1.5", json!(true)),
        ("1.5 >= 2", json!(false)),
        ("1 == 1.0", json!(true)),
        ("1 != 1.0", json!(false)),
        ("'a' < 'b'", json!(true)),
        ("'Z' < 'a'", json!(true)),
        ("label == \"fraud\"", json!(true)),
        ("label != 'fraud'", json!(false)),
        ("true == $in.t", json!(true)),
        ("'1' == 1", json!(false)),
        ("'1' != 1", json!(true)),
        ("true == 1", json!(false)),
        ("score >= 0.9", json!(true)),
        // Not nearly so.
        ("0.8999999999999999 >= 0.9", json!(false)),
        ("0.1 + 0.2 == 0.3", json!(false)),
        ("1e-300 > 1e-301", json!(true)),
        ("'u' in 'fraud'", json!(true)),
        ("'x' in label", json!(false)),
        ("label in ['ok', 'fraud']", json!(true)),
        ("label in []", json!(false)),
        ("3 in [1, 2.0, 3.0]", json!(true)),
        ("'a' in $in.list", json!(true)),
        ("2 in $in.list", json!(true)),
        ("'1' in $in.list", json!(false)),
        ("!(label in ['ok'])", json!(true)),
    ]);
}

#[test]
fn decides() {
    all(&[
        ("true && false", json!(false)),
        ("true && true", json!(true)),
        ("false || true", json!(true)),
        ("false || false", json!(false)),
        ("!true", json!(false)),
        ("!$in.t", json!(false)),
        // What decides is enough.
        ("$in.zero != 0 && 1 / $in.zero > 1", json!(false)),
        ("$in.zero == 0 || 1 / $in.zero > 1", json!(true)),
        ("1 ?? 1 / 0", json!(1)),
    ]);
}

#[test]
fn binds() {
    all(&[
        ("1 + 2 * 3", json!(7)),
        ("(1 + 2) * 3", json!(9)),
        ("10 - 3 - 2", json!(5)),
        ("2 * 9 % 4", json!(2)),
        ("-2 + 3", json!(1)),
        ("-2 * -3", json!(6)),
        ("1 + 1 == 2 && 2 < 3", json!(true)),
        ("true || false && false", json!(true)),
        ("$in.nothing ?? 5 > 3", json!(true)),
        ("$in.nothing ?? 1 + 1", json!(2)),
        ("$in.nothing ?? $in.none ?? 3", json!(3)),
        ("1 < 2 == true", json!(true)),
        ("'a' in 'ab' == true", json!(true)),
        ("!false && false", json!(false)),
    ]);
}

#[test]
fn calls() {
    all(&[
        ("abs(-3)", json!(3)),
        ("abs(-2.5)", json!(2.5)),
        ("abs($in.least)", json!(TWO_TO_63)),
        ("sign(-2.5)", json!(-1)),
        ("sign(0)", json!(0)),
        ("sign(9)", json!(1)),
        ("sqrt(9)", json!(3.0)),
        ("exp(0)", json!(1.0)),
        ("log(1)", json!(0.0)),
        ("log10(1000)", json!(3.0)),
        ("log1p(0)", json!(0.0)),
        ("pow(2, 10)", json!(1024)),
        ("pow(2, -1)", json!(0.5)),
        ("pow(2, 0.5)", json!(2f64.sqrt())),
        ("pow(10, 30)", json!(1e30)),
        ("floor(2.7)", json!(2)),
        ("floor(-2.1)", json!(-3)),
        ("ceil(2.1)", json!(3)),
        ("round(2.5)", json!(3)),
        ("round(-2.5)", json!(-3)),
        ("round(1e300)", json!(1e300)),
        ("round(7)", json!(7)),
        ("round(2.71828, 2)", json!(2.72)),
        ("round(1e300, 15)", json!(1e300)),
        ("round(7, 2)", json!(7)),
        ("min(1, 0.5)", json!(0.5)),
        ("max(1, 0.5)", json!(1)),
        ("len($in.s)", json!(9)),
        ("len($in.list)", json!(5)),
        ("lower('ŽLUŤ')", json!("žluť")),
        ("upper(label)", json!("FRAUD")),
        ("trim('  a b ')", json!("a b")),
        ("starts_with(label, 'fr')", json!(true)),
        ("ends_with(label, 'fr')", json!(false)),
        ("text(1)", json!("1")),
        ("text(1.0)", json!("1.0")),
        ("text(true)", json!("true")),
        ("text(label) + '/' + text($in.i)", json!("fraud/7")),
        ("number(' 12 ')", json!(12)),
        ("number('1.5e3')", json!(1500.0)),
        ("number('NaN')", json!(null)),
        ("number('inf') ?? 0", json!(0)),
        ("number(true)", json!(1)),
        ("number(2.5)", json!(2.5)),
        ("is_null($in.nothing)", json!(true)),
        ("is_null(0)", json!(false)),
        ("round (\n1.2 )", json!(1)),
    ]);
    // Each is in the documentation.
    for (name, _) in functions::FUNCTIONS {
        assert!(
            include_str!("../mod.rs").contains(&format!("`{name}(")),
            "{name}"
        );
    }
}

#[test]
fn takes_null_for_unlike_anything() {
    for operator in ["<", "<=", ">", ">=", "==", "in"] {
        for (left, right) in [
            ("$in.none", "1"),
            ("'a'", "$in.none"),
            ("$in.none", "$in.nothing"),
        ] {
            let text = format!("{left} {operator} {right}");
            assert_eq!(value(&text), json!(false), "{text}");
        }
    }
    all(&[
        ("$in.none != 1", json!(true)),
        ("$in.none != $in.nothing", json!(true)),
        ("$in.none != $in.object", json!(true)),
        ("$in.nothing in $in.list", json!(false)),
        ("$in.none ?? $in.nothing", json!(null)),
        ("$in.i.deeper.still[3]", json!(null)),
    ]);
    assert_eq!(
        failure("$in.amount / 100 > $f.n_5m"),
        "expression \"$in.amount / 100 > $f.n_5m\" has no value: / takes two numbers, not null and a number, where \
         $in.amount is null and $f.n_5m is 4"
    );
    for text in [
        "$in.none + 1",
        "'a' + $in.none",
        "-$in.none",
        "!$in.none",
        "len($in.none)",
        "round(1, $in.none)",
    ] {
        assert!(failure(text).contains("null"), "{text}");
    }
    assert!(
        failure("$in.none && true")
            .contains("&& and || take true or false, where $in.none is null")
    );
}

#[test]
fn reads_texts() {
    all(&[
        (r#" '$in.i' "#, json!("$in.i")),
        (
            r#" "costs $5 {x} `y` ${z}" "#,
            json!("costs $5 {x} `y` ${z}"),
        ),
        (r#" 'say "hi"' "#, json!("say \"hi\"")),
        (r#" "it's" "#, json!("it's")),
        (r#" "\\ \" \' \n \r \t" "#, json!("\\ \" ' \n \r \t")),
        ("'a\nb\0c\u{1}\u{7f}'", json!("a\nb\0c\u{1}\u{7f}")),
        ("'Žluťoučký 🐎 // /* */'", json!("Žluťoučký 🐎 // /* */")),
        ("'r_0' + label", json!("r_0fraud")),
        ("''", json!("")),
    ]);
}

#[test]
fn is_true_or_not() {
    let is_true = |text: &str| Expression::parse(text).unwrap().is_true(&record());
    assert_eq!(is_true("label == 'fraud' && $f.n_5m > 3"), Ok(true));
    assert_eq!(is_true("$in.t"), Ok(true));
    assert_eq!(is_true("score > 0.9"), Ok(false));
    assert_eq!(
        is_true("$in.s").unwrap_err().to_string(),
        "expression \"$in.s\" has no value: it gives \"Žluťoučký\", neither true nor false, where $in.s is \"Žluťoučký\""
    );
    assert_eq!(
        is_true("$in.none").unwrap_err().reason,
        "it gives null, neither true nor false"
    );
    assert_eq!(
        is_true("score + 1").unwrap_err().values,
        ", where score is 0.9"
    );
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    let record = record();
    for text in [
        "score",
        "score >= 0.9",
        "label == \"fraud\" && $f.n_5m > 3",
        "round($in.x * 2 + 1, 2)",
    ] {
        let expression = Expression::parse(text).unwrap();
        let started = std::time::Instant::now();
        for _ in 0..200_000 {
            std::hint::black_box(expression.evaluate(&record)).unwrap();
        }
        println!("{text}: {:?}", started.elapsed() / 200_000);
    }
}
