//! MiniLM with its real weights: a thousand real texts, each embedding as PyTorch's (`tests/minilm`).

use std::path::{Path, PathBuf};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tests::{Milena, PATIENCE, eventually};

const WIDTH: usize = 384;
const LEAST_COSINE: f64 = 0.9999;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("minilm")
        .join(name)
}

/// An IEEE half, of a normal number or zero.
fn half(bits: u16) -> f64 {
    let magnitude = match (bits >> 10) & 0x1f {
        0 => f64::from(bits & 0x3ff) * 2f64.powi(-24),
        exponent => (1.0 + f64::from(bits & 0x3ff) / 1024.0) * 2f64.powi(i32::from(exponent) - 15),
    };
    if bits >> 15 == 1 {
        -magnitude
    } else {
        magnitude
    }
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
#[ignore = "MiniLM's weights have to be there: MILENA_MINILM=$(tests/minilm/fetch)"]
fn a_thousand_texts_are_embedded_as_by_pytorch() {
    let folder = std::env::var("MILENA_MINILM").expect("MILENA_MINILM, the folder of the weights");
    let texts = std::fs::read_to_string(golden("texts.txt")).expect("the texts");
    let texts: Vec<&str> = texts.lines().collect();
    let expected = std::fs::read(golden("embeddings.f16")).expect("the embeddings");
    let (expected, rest) = expected.as_chunks::<2>();
    assert_eq!(
        (texts.len(), expected.len(), rest.len()),
        (1000, 1000 * WIDTH, 0)
    );

    let milena = Milena::start(&format!(
        "[[topic]]\nname = \"texts\"\npartitions = 1\n\
         [[model]]\nname = \"minilm\"\nsource = {folder:?}\n\
         [[model_topic]]\nname = \"embedded\"\ninput = \"texts\"\nmodel = \"minilm\"\n\
         codec = {{ in = \"text\", out = \"f32le\" }}\ntext = {{ max_tokens = 256 }}\n"
    ));
    let producer: BaseProducer = milena.client_with(&[("acks", "all")]);
    for text in &texts {
        let record = BaseRecord::<str, str>::to("texts").payload(text);
        producer.send(record).map_err(|(e, _)| e).expect("queued");
    }
    producer.flush(PATIENCE).expect("delivered");
    // Slow enough without optimisation to be waited for several times.
    for part in 1..=10 {
        eventually(&format!("{part} tenths are embedded"), || {
            let end = milena.ends("embedded").get(&0).copied();
            (end >= Some(part * 100)).then_some(())
        });
    }
    let embedded = milena
        .read_topic("embedded")
        .remove(&0)
        .expect("embeddings");
    assert_eq!(embedded.len(), texts.len());
    let mut least: f64 = 1.0;
    for ((text, output), expected) in texts.iter().zip(&embedded).zip(expected.chunks(WIDTH)) {
        let (numbers, _) = output.value.as_deref().expect("a value").as_chunks::<4>();
        let found: Vec<f64> = numbers
            .iter()
            .map(|bytes| f64::from(f32::from_le_bytes(*bytes)))
            .collect();
        let expected: Vec<f64> = expected
            .iter()
            .map(|bytes| half(u16::from_le_bytes(*bytes)))
            .collect();
        assert_eq!(found.len(), WIDTH);
        let cosine = cosine(&found, &expected);
        assert!(cosine >= LEAST_COSINE, "{cosine} of {text:?}");
        least = least.min(cosine);
    }
    println!(
        "the lowest cosine of {} texts is 1 - {:.1e}",
        texts.len(),
        1.0 - least
    );
}
