//! What the quick parser takes is what the other one takes, with the same fields.

use super::*;
use crate::model::card::ModelCard;

const RECORDS: [&[u8]; 12] = [
    br#"{"a":1.5,"x":[1,2,{"y":null,"z":"qq"}],"b":-0,"c":{"d":1e400},"t":true}"#,
    br#"{"a":12345678901234567890,"b":-1,"s":"text","c":{"d":0.1}}"#,
    br#" {"a" : 1 , "c" : {"d": [1, {"e": 2}], "d": "last"} } "#,
    br#"{"a":"text","b":12,"c":{"d":1E5},"f":-1.5e-7}"#,
    br#"{"k":tru,"a":1}"#,
    b"{\"k\":\"\x01\",\"a\":1}",
    b"{\"k\":\"\xff\xfe\",\"a\":\"\xc3\xa9\"}",
    b"{\"a\":\"\\ud83d\\ude00\",\"b\":\"\\n\"}",
    br#"{"a":01,"b":1.,"c":.5}"#,
    br#"{"a":1,"a":2,"a":{"d":3}}"#,
    b"[]",
    b"",
];

fn decoder() -> JsonDecoder {
    let card = br#"{"model_type":"linear","task":"regress","output":1,"inputs":[
        {"path":"$.a","default":0},{"path":"$.b","default":0},{"path":"$.c.d","default":0},{"path":"$.x[2].y","default":0}]}"#;
    JsonDecoder::new(Features::new(&ModelCard::parse(card).unwrap().inputs)).unwrap()
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

fn mutate(record: &mut Vec<u8>, random: &mut Random) {
    const BYTES: &[u8] = b"{}[]\",:\\0123456789.-+eEtrufalsnd \x00\x1f\x7f\x80\xc3\xa9\xff\n";
    let at = random.below(record.len() + 1);
    let byte = BYTES[random.below(BYTES.len())];
    match random.below(4) {
        0 if at < record.len() => record[at] = byte,
        1 if at < record.len() => {
            record.remove(at);
        }
        2 => record.insert(at, byte),
        _ => record.truncate(at),
    }
}

fn same(quick: &[Field<'_>], thorough: &[Field<'_>]) -> bool {
    quick.iter().zip(thorough).all(|pair| match pair {
        // Of more digits than a float has, serde_json may miss the last one.
        (Field::Number(quick), Field::Number(thorough)) => {
            (quick - thorough).abs() <= 1e-14 * thorough.abs()
        }
        (quick, thorough) => quick == thorough,
    })
}

#[test]
fn both_parsers_agree_on_what_both_may_read() {
    let decoder = decoder();
    let mut random = Random(88_172_645_463_325_252);
    let mut read_quickly = 0;
    for round in 0..300_000 {
        let mut record = RECORDS[round % RECORDS.len()].to_vec();
        if round >= RECORDS.len() {
            for _ in 0..=random.below(4) {
                mutate(&mut record, &mut random);
            }
        }
        let Some(quick) = decoder.picker.pick_quickly(&record) else {
            continue;
        };
        read_quickly += 1;
        let thorough = decoder.picker.pick_or_explain(&record);
        assert!(
            thorough
                .as_ref()
                .is_ok_and(|thorough| same(&quick, thorough)),
            "{:?}: {quick:?}, {thorough:?}",
            String::from_utf8_lossy(&record)
        );
    }
    assert!(read_quickly > 10_000, "{read_quickly}");
}

#[test]
fn nesting_is_bounded_for_the_quick_parser_alone() {
    let decoder = decoder();
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"a":7,"skipped":{open}{close}}}"#).into_bytes()
    };
    assert!(
        decoder
            .picker
            .pick_quickly(&nested(MAX_BRACKETS - 1))
            .is_some()
    );
    for depth in [MAX_BRACKETS, 1_000_000] {
        let record = nested(depth);
        assert!(decoder.picker.pick_quickly(&record).is_none());
        let mut row = Vec::new();
        decoder.decode(&record, &mut row).unwrap();
        assert_eq!(row, [7.0, 0.0, 0.0, 0.0]);
    }
}

#[test]
fn what_no_path_gives_needs_a_feature() {
    let inputs = serde_json::from_str::<Vec<_>>(r#"[{"path":"$.a"},{"name":"n_5m"}]"#).unwrap();
    let error = JsonDecoder::new(Features::new(&inputs)).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"feature: input "n_5m" has no path: it needs a feature of that name"#
    );
}
