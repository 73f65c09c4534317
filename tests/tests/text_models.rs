//! Model topics of text encoders, through the real binary: a small BERT of random weights, whose answers
//! transformers has given (`inference/tests/golden/text.py`).

use std::path::{Path, PathBuf};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use tests::{Milena, PATIENCE, Received, eventually};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../inference/tests/golden/text/bert")
}

fn config(model: &str, model_topic: &str) -> String {
    format!(
        "[[topic]]\nname = \"in\"\npartitions = 1\n\
         [[model]]\nname = \"m\"\nsource = {:?}\n{model}\n\
         [[model_topic]]\nname = \"out\"\ninput = \"in\"\nmodel = \"m\"\n{model_topic}\n",
        folder()
    )
}

fn produce(milena: &Milena, records: &[&[u8]]) {
    let producer: BaseProducer = milena.client_with(&[("acks", "all")]);
    for record in records {
        let record = BaseRecord::<str, [u8]>::to("in").payload(record);
        producer.send(record).map_err(|(e, _)| e).expect("queued");
    }
    producer.flush(PATIENCE).expect("delivered");
}

fn wait_for(milena: &Milena, topic: &str, end: i64) -> Vec<Received> {
    eventually(&format!("{topic} reaches {end}"), || {
        (milena.ends(topic).get(&0).copied() >= Some(end)).then_some(())
    });
    milena.read_topic(topic).remove(&0).unwrap_or_default()
}

fn json(record: &Received) -> Value {
    serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON")
}

#[test]
fn texts_are_classified_as_the_folder_says() {
    let milena = Milena::start(&config("", "codec = { in = \"text\" }"));
    produce(
        &milena,
        &[b"hello world", b"\xff\xfe", b"", "caf\u{e9} ok".as_bytes()],
    );
    let outputs = wait_for(&milena, "out", 3);
    for output in &outputs {
        let output = json(output);
        let scores = output["scores"].as_object().expect("scores");
        assert_eq!(scores.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        let sum: f64 = scores.values().filter_map(Value::as_f64).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{output}");
    }
    assert_ne!(outputs[0].value, outputs[2].value, "texts are told apart");
    let letters = wait_for(&milena, "out.dlq", 1);
    assert_eq!(letters[0].value.as_deref(), Some(&b"\xff\xfe"[..]));
    assert_eq!(letters[0].header("stage"), Some("decode"));
    assert_eq!(
        letters[0].header("reason"),
        Some("not UTF-8 from byte 0 on")
    );
}

#[test]
fn fields_are_embedded_and_equal_texts_are_equal() {
    let topic = "codec = { in = \"json\", out = \"f32le\" }\n\
                 text = { path = \"$.body\", max_tokens = 6, on_overflow = \"error\" }\n\
                 batch = { max_tokens = 16 }";
    let milena = Milena::start(&config("task = \"embed\"\npooling = \"mean\"", topic));
    let record = |body: Value| serde_json::to_vec(&json!({ "id": 1, "body": body })).expect("JSON");
    let records = [
        record(json!("hello world")),
        record(json!("a b c d e")),
        record(json!(null)),
        record(json!("hello world")),
        record(json!("ok")),
    ];
    produce(&milena, &records.each_ref().map(Vec::as_slice));
    let outputs = wait_for(&milena, "out", 3);
    for output in &outputs {
        let (numbers, rest) = output.value.as_deref().expect("a value").as_chunks::<4>();
        assert_eq!((numbers.len(), rest.len()), (24, 0));
        let squares: f32 = numbers
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes).powi(2))
            .sum();
        assert!((squares - 1.0).abs() < 1e-5, "of length 1");
    }
    assert_eq!(outputs[0].value, outputs[1].value, "in whatever batch");
    let letters = wait_for(&milena, "out.dlq", 2);
    let reasons = letters
        .iter()
        .map(|letter| letter.header("reason").unwrap_or_default());
    assert_eq!(
        reasons.collect::<Vec<_>>(),
        [
            "the text has 7 tokens, over max_tokens = 6",
            "field \"$.body\": is null, not a text"
        ]
    );
}
