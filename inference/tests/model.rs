//! Model folders with real weights: what they give, and which ones are refused.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use inference::codec::JsonDecoder;
use inference::feature::{Features, Field};
use inference::model::card::ModelCard;
use inference::model::{LoadError, LoadOptions, Rows, load};

const CARD: &str = r#"{
  "model_type": "mlp", "task": "classify", "labels": ["ok", "fraud"],
  "inputs": [
    { "name": "amount", "path": "$.amount", "default": 1.5, "transform": "log1p", "mean": 3.0, "std": 2.0 },
    { "path": "$.card.country", "one_of": ["CZ", "DE"] },
    { "path": "$.items[1].price" }
  ],
  "hidden": [5, 3], "activation": "ACTIVATION", "output": 1
}"#;
const SHAPES: [(usize, usize); 3] = [(5, 4), (3, 5), (1, 3)];

fn tensor(shape: &[usize], seed: usize) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|i| ((i * 7 + seed * 13) % 19) as f32 / 9.5 - 1.0)
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn tensors() -> HashMap<String, Tensor> {
    let mut tensors = HashMap::new();
    for (i, (outputs, inputs)) in SHAPES.iter().enumerate() {
        tensors.insert(
            format!("layers.{i}.weight"),
            tensor(&[*outputs, *inputs], i),
        );
        tensors.insert(format!("layers.{i}.bias"), tensor(&[*outputs], i + 5));
    }
    tensors
}

fn write(folder: &Path, card: &str, tensors: &HashMap<String, Tensor>) {
    std::fs::write(folder.join("config.json"), card).unwrap();
    candle_core::safetensors::save(tensors, folder.join("model.safetensors")).unwrap();
}

fn load_error(
    change: impl FnOnce(&mut HashMap<String, Tensor>),
    options: &LoadOptions,
) -> LoadError {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = tensors();
    change(&mut tensors);
    write(folder.path(), &CARD.replace("ACTIVATION", "relu"), &tensors);
    load("fraud", "1", folder.path(), options).unwrap_err()
}

fn by_hand(activation: &str, row: &[f32]) -> f64 {
    let tensors = tensors();
    let mut x: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
    for i in 0..SHAPES.len() {
        let weight = tensors[&format!("layers.{i}.weight")]
            .to_vec2::<f32>()
            .unwrap();
        let bias = tensors[&format!("layers.{i}.bias")]
            .to_vec1::<f32>()
            .unwrap();
        x = weight
            .iter()
            .zip(bias)
            .map(|(weights, bias)| {
                let sum: f64 = weights.iter().zip(&x).map(|(w, x)| f64::from(*w) * x).sum();
                sum + f64::from(bias)
            })
            .collect();
        if i + 1 < SHAPES.len() {
            for v in &mut x {
                *v = match activation {
                    "relu" => v.max(0.0),
                    "tanh" => v.tanh(),
                    "sigmoid" => 1.0 / (1.0 + (-*v).exp()),
                    "silu" => *v / (1.0 + (-*v).exp()),
                    // x/2 (1 + erf(x/√2)), erf by its series
                    _ => {
                        let z = *v / std::f64::consts::SQRT_2;
                        let (mut term, mut sum) = (z, z);
                        for n in 1..80 {
                            term *= -z * z / f64::from(n);
                            sum += term / f64::from(2 * n + 1);
                        }
                        0.5 * *v * (1.0 + 2.0 / std::f64::consts::PI.sqrt() * sum)
                    }
                };
            }
        }
    }
    x[0]
}

#[test]
fn runs_as_by_hand_at_any_batch_size() {
    for activation in ["relu", "tanh", "gelu", "silu", "sigmoid"] {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            &CARD.replace("ACTIVATION", activation),
            &tensors(),
        );
        let mut loaded = load("fraud", "1", folder.path(), &LoadOptions::default()).unwrap();
        for count in [1, 2, 7, 64, 300] {
            let values: Vec<f32> = (0..count * 4)
                .map(|i| ((i * 31 + 7) % 97) as f32 / 40.0 - 1.2)
                .collect();
            let rows = Rows::from_values(4, values).unwrap();
            let logits = loaded.model.infer(&rows.clone().into()).unwrap();
            assert_eq!((logits.len(), logits.width()), (count, 1));
            for i in 0..count {
                let expected = by_hand(activation, rows.row(i));
                let found = f64::from(logits.row(i)[0]);
                assert!(
                    (found - expected).abs() < 1e-5,
                    "{activation}, row {i} of {count}: {found}, by hand {expected}"
                );
            }
        }
        let mut replica = loaded.model.replica();
        let row = Rows::from_values(4, vec![0.1, 0.2, 0.3, 0.4]).unwrap();
        let row = row.into();
        assert_eq!(
            replica.infer(&row).unwrap(),
            loaded.model.infer(&row).unwrap()
        );
    }
}

#[test]
fn widens_half_precision_weights() {
    for dtype in [DType::F16, DType::BF16] {
        let folder = tempfile::tempdir().unwrap();
        let card = r#"{"model_type":"linear","task":"regress","inputs":[{"path":"$.x"},{"path":"$.y"}],"output":1}"#;
        let weight = Tensor::new(&[[0.5f32, -2.0]], &Device::Cpu)
            .unwrap()
            .to_dtype(dtype)
            .unwrap();
        let bias = Tensor::new(&[0.25f32], &Device::Cpu)
            .unwrap()
            .to_dtype(dtype)
            .unwrap();
        let tensors = HashMap::from([
            ("layers.0.weight".to_owned(), weight),
            ("layers.0.bias".to_owned(), bias),
        ]);
        write(folder.path(), card, &tensors);
        let mut loaded = load("line", "1", folder.path(), &LoadOptions::default()).unwrap();
        let rows = Rows::from_values(2, vec![1.0, 1.0, 4.0, 0.0]).unwrap();
        let logits = loaded.model.infer(&rows.into()).unwrap();
        assert_eq!(logits.values(), [-1.25, 2.25]);
    }
}

#[test]
fn names_the_tensor_that_is_wrong() {
    let none = LoadOptions::default();
    let error = load_error(
        |tensors| {
            tensors.insert("layers.1.weight".into(), tensor(&[5, 3], 1));
        },
        &none,
    );
    assert_eq!(
        error.to_string(),
        "tensor layers.1.weight has shape [5, 3], expected [3, 5]"
    );
    let error = load_error(
        |tensors| {
            tensors.remove("layers.2.bias");
        },
        &none,
    );
    assert_eq!(
        error.to_string(),
        "tensor layers.2.bias of shape [1] is missing"
    );
    let error = load_error(
        |tensors| {
            tensors.insert("layers.3.bias".into(), tensor(&[1], 1));
        },
        &none,
    );
    assert_eq!(
        error.to_string(),
        "tensor layers.3.bias is not one of the 6 that the card's layers have"
    );
    let error = load_error(
        |tensors| {
            let bias = tensors["layers.0.bias"].to_dtype(DType::F64).unwrap();
            tensors.insert("layers.0.bias".into(), bias);
        },
        &none,
    );
    assert_eq!(
        error.to_string(),
        "tensor layers.0.bias has dtype F64, expected F32, F16 or BF16"
    );
    let error = load_error(
        |tensors| {
            let bias = Tensor::new(&[0.0, f32::NAN, 0.0], &Device::Cpu).unwrap();
            tensors.insert("layers.1.bias".into(), bias);
        },
        &none,
    );
    assert_eq!(
        error.to_string(),
        "tensor layers.1.bias has NaN at 1, expected finite numbers"
    );
}

#[test]
fn pins_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        &CARD.replace("ACTIVATION", "relu"),
        &tensors(),
    );
    let loaded = load("fraud", "1", folder.path(), &LoadOptions::default()).unwrap();
    let sha256 = loaded.info.sha256.clone();
    assert_eq!(sha256.len(), 64);
    let pinned = |sha256: &str| LoadOptions {
        sha256: Some(sha256.to_owned()),
        ..LoadOptions::default()
    };
    load("fraud", "1", folder.path(), &pinned(&sha256.to_uppercase())).unwrap();
    let wrong = "0".repeat(64);
    let error = load("fraud", "1", folder.path(), &pinned(&wrong))
        .unwrap_err()
        .to_string();
    assert!(error.contains(&wrong) && error.contains(&sha256), "{error}");
}

#[test]
fn refuses_what_is_no_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nowhere");
    let none = LoadOptions::default();
    assert!(matches!(
        load("fraud", "1", &missing, &none).unwrap_err(),
        LoadError::NoFolder { path } if path == missing
    ));
    let card = CARD.replace("ACTIVATION", "relu");
    std::fs::write(folder.path().join("config.json"), card).unwrap();
    std::fs::write(folder.path().join("pytorch_model.bin"), b"\x80\x02}q\x00.").unwrap();
    let error = load("fraud", "1", folder.path(), &none).unwrap_err();
    assert!(matches!(&error, LoadError::Pickle { .. }));
    assert!(error.to_string().contains("pytorch_model.bin"), "{error}");

    let weights = folder.path().join("model.safetensors");
    let huge_header = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    let outside = br#"{"layers.0.bias":{"dtype":"F32","shape":[5],"data_offsets":[0,20]}}"#;
    let outside = [&(outside.len() as u64).to_le_bytes()[..], outside].concat();
    for bytes in [&b""[..], b"abc", b"12345678{", &huge_header, &outside] {
        std::fs::write(&weights, bytes).unwrap();
        let error = load("fraud", "1", folder.path(), &none).unwrap_err();
        assert!(matches!(error, LoadError::Malformed(_)), "{error}");
    }
    std::fs::File::create(&weights)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let error = load("fraud", "1", folder.path(), &none).unwrap_err();
    assert!(matches!(error, LoadError::TooLarge { .. }), "{error}");
}

#[test]
fn names_what_is_wrong_in_a_card() {
    for (from, to, expected) in [
        ("\"mean\"", "\"maen\"", "inputs[0].maen"),
        ("\"$.amount\"", "\"amount\"", "inputs[0].path"),
        ("\"std\": 2.0", "\"std\": 0", "inputs[0]"),
        ("\"default\": 1.5", "\"default\": \"x\"", "inputs[0]"),
        ("[\"CZ\", \"DE\"]", "[]", "inputs[1]"),
        ("[\"ok\", \"fraud\"]", "[\"ok\"]", "labels"),
        ("[\"ok\", \"fraud\"]", "[\"ok\",\"ok\"]", "labels[1]"),
        ("[5, 3]", "[]", "hidden"),
        ("[5, 3]", "[5, 0]", "."),
        ("[5, 3]", "[60000, 60000]", "."),
        ("relu", "step", "activation"),
        ("\"mlp\"", "\"linear\"", "hidden"),
        ("\"output\": 1", "\"output\": 0", "labels"),
    ] {
        let card = CARD.replace("ACTIVATION", "relu");
        assert!(card.contains(from), "{from}");
        let error = ModelCard::parse(card.replace(from, to).as_bytes()).unwrap_err();
        assert_eq!(error.path, expected, "{from} -> {to}: {error}");
    }
}

fn decoder() -> JsonDecoder {
    let card = ModelCard::parse(CARD.replace("ACTIVATION", "relu").as_bytes()).unwrap();
    JsonDecoder::new(Features::new(&card.inputs)).unwrap()
}

fn decode(record: &str) -> Result<Vec<f32>, String> {
    let mut row = vec![9.0];
    let decoded = decoder().decode(record.as_bytes(), &mut row);
    match decoded {
        Ok(()) => Ok(row.split_off(1)),
        Err(error) => {
            assert_eq!(row, [9.0], "a failed record left something");
            Err(error.to_string())
        }
    }
}

const AUTOENCODER: &str = r#"{
  "model_type": "mlp", "task": "anomaly", "threshold": 0.5,
  "inputs": [{ "path": "$.x", "mean": 1.0 }, { "name": "f", "width": 3 }],
  "hidden": [2], "activation": "relu", "output": 4
}"#;

#[test]
fn an_anomaly_is_what_is_reconstructed_badly() {
    // 4 numbers through 2: each the mean of two, which reconstructs rows of two pairs.
    let folder = tempfile::tempdir().unwrap();
    let of =
        |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    let halves = [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5];
    let copies = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0];
    let tensors = HashMap::from([
        ("layers.0.weight".to_owned(), of(&halves, &[2, 4])),
        ("layers.0.bias".to_owned(), of(&[0.0; 2], &[2])),
        ("layers.1.weight".to_owned(), of(&copies, &[4, 2])),
        ("layers.1.bias".to_owned(), of(&[0.0; 4], &[4])),
    ]);
    write(folder.path(), AUTOENCODER, &tensors);
    let loaded = load("machines", "1", folder.path(), &LoadOptions::default()).unwrap();
    assert_eq!(loaded.model.output_width(), 1);
    // Pairs score 0; [1, 3, 2, 2] is off by 1, 1, 0, 0; [1, 3, -4, -4], by 1, 1, and by 4, 4 since ReLU cuts.
    let rows = vec![1.0, 1.0, 2.0, 2.0, 1.0, 3.0, 2.0, 2.0, 1.0, 3.0, -4.0, -4.0];
    let rows = Rows::from_values(4, rows).unwrap();
    for mut model in [loaded.model.replica(), loaded.model] {
        let scores = model.infer(&rows.clone().into()).unwrap();
        assert_eq!((scores.width(), scores.values()), (1, &[0.0, 0.5, 8.5][..]));
    }

    let options = LoadOptions {
        labels: Some(vec!["ok".to_owned(), "odd".to_owned()]),
        ..LoadOptions::default()
    };
    let error = load("machines", "1", folder.path(), &options).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("config.json: labels: an anomaly score has none"),
        "{error}"
    );
}

#[test]
fn the_sensors_example_scores_as_numpy() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples/sensors/model");
    let mut loaded = load("sensors", "1", &folder, &LoadOptions::default()).unwrap();
    let card = loaded.card.tabular().unwrap();
    let features = Features::new(&card.inputs);
    let readings = 300f64.ln_1p();
    // A healthy machine, and one that shakes; by numpy in f64.
    let expected = [0.002_743_919, 3.120_791];
    let mut rows = Rows::new(features.width());
    for [vibration, mean, std] in [[2.1, 2.08, 0.09], [3.4, 2.3, 0.4]] {
        let fields = [
            71.3, vibration, 5.02, 1462.0, 0.63, mean, std, 71.8, -0.2, readings,
        ]
        .map(Field::Number);
        features.encode(&fields, rows.values_mut()).unwrap();
    }
    let scores = loaded.model.infer(&rows.into()).unwrap();
    for (score, expected) in scores.values().iter().zip(expected) {
        let off = (f64::from(*score) / expected - 1.0).abs();
        assert!(off < 1e-4, "{score}, expected {expected}");
    }
    let threshold = loaded.card.threshold().unwrap();
    assert!(expected[0] < threshold && threshold < expected[1]);
}

#[test]
fn refuses_cards_of_autoencoders_with_the_reason() {
    for (from, to, expected) in [
        (
            "\"output\": 4",
            "\"output\": 3",
            "output: 3 numbers do not reconstruct a row of 4",
        ),
        (
            "0.5,",
            "-0.5,",
            "threshold: -0.5 is not 0 or a finite f32 above it",
        ),
        (
            "0.5,",
            "1e39,",
            "threshold: 1e39 is not 0 or a finite f32 above it",
        ),
        (
            "\"anomaly\"",
            "\"regress\"",
            "threshold: is for the task anomaly, and this is regress",
        ),
        (
            "0.5,",
            "0.5, \"labels\": [\"ok\"],",
            "labels: an anomaly score has none",
        ),
        (
            "\"name\": \"f\", ",
            "",
            "inputs[1]: an input without a path needs a name: its feature's",
        ),
        (
            "\"width\": 3",
            "\"one_of\": [\"a\"]",
            "inputs[1]: one_of goes with a path: a feature gives numbers",
        ),
        (
            "\"width\": 3",
            "\"width\": 0",
            "inputs[1].width: 0 is not between 1 and 32768",
        ),
        (
            "\"mean\": 1.0",
            "\"width\": 1",
            "inputs[0]: width goes without a path: it is a feature's",
        ),
    ] {
        assert!(AUTOENCODER.contains(from), "{from}");
        let card = AUTOENCODER.replace(from, to);
        let error = ModelCard::parse(card.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{from} -> {to}");
    }
    let linear = AUTOENCODER
        .replace("\"mlp\"", "\"linear\"")
        .replace("\"hidden\": [2], \"activation\": \"relu\", ", "");
    let error = ModelCard::parse(linear.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "task: anomaly needs an mlp");
    let card = ModelCard::parse(AUTOENCODER.as_bytes()).unwrap();
    assert_eq!(card.width(), 4);
    let again = serde_json::to_vec(&card).unwrap();
    assert_eq!(ModelCard::parse(&again).unwrap(), card);
}

#[test]
fn picks_fields_by_path() {
    let log1p = |x: f64| ((x.ln_1p() - 3.0) / 2.0) as f32;
    for (record, expected) in [
        (
            r#"{"amount":7,"card":{"country":"DE"},"items":[{},{"price":3.5,"x":[1,2]},{}]}"#,
            [log1p(7.0), 0.0, 1.0, 3.5],
        ),
        (
            r#" {"x":{"amount":"no"},"items":[[],{"price":true}],"card":{"a":null,"country":"C\u005A"},"amount":null} "#,
            [log1p(1.5), 1.0, 0.0, 1.0],
        ),
        (
            r#"{"amount":1e3,"amount":-0.5,"card":{"country":"US"},"items":[1,{"price":-2}]}"#,
            [log1p(-0.5), 0.0, 0.0, -2.0],
        ),
    ] {
        assert_eq!(decode(record).unwrap(), expected, "{record}");
    }
}

#[test]
fn says_which_field_is_wrong_and_how() {
    for (record, field, value) in [
        ("not json", "not JSON", ""),
        ("", "not JSON", ""),
        ("[1, 2", "not JSON", ""),
        ("\u{0}", "not JSON", ""),
        ("17", "\"$.card.country\"", "required, but is absent"),
        (r#"{"amount":"12"}"#, "\"amount\"", "not the text \"12\""),
        (r#"{"amount":{}}"#, "\"amount\"", "not an object"),
        (r#"{"amount":[1]}"#, "\"amount\"", "not an array"),
        (r#"{"amount":NaN}"#, "\"amount\"", "NaN is not JSON"),
        (
            r#"{"amount": Infinity,"b":1}"#,
            "\"amount\"",
            "Infinity is not JSON",
        ),
        (
            r#"{"amount":-Infinity}"#,
            "\"amount\"",
            "-Infinity is not JSON",
        ),
        (r#"{"amount":1e999}"#, "\"amount\"", "1e999 is not JSON"),
        (r#"{"amount":-1}"#, "\"amount\"", "-1 is not finite"),
        (
            r#"{"amount":1,"card":{"country":5}}"#,
            "\"$.card.country\"",
            "a text is needed, not 5",
        ),
        (
            r#"{"amount":1,"card":null}"#,
            "\"$.card.country\"",
            "absent",
        ),
        (
            r#"{"card":{"country":"CZ"},"items":[{"price":1}]}"#,
            "\"$.items[1].price\"",
            "required, but is absent",
        ),
        (
            r#"{"card":{"country":"CZ"},"items":[0,{"price":1e300}]}"#,
            "\"$.items[1].price\"",
            "is not finite",
        ),
        (r#"{"amount":1} x"#, "not JSON", "trailing"),
    ] {
        let error = decode(record).unwrap_err();
        assert!(
            error.contains(field) && error.contains(value),
            "{record}: {error}"
        );
    }
}

#[test]
fn survives_any_bytes() {
    let record = br#"{"amount":7,"card":{"country":"D\u00e9"},"items":[{},{"price":3.5}]}"#;
    let decoder = decoder();
    let mut row = Vec::new();
    for at in 0..record.len() {
        for byte in [0, b'"', b'{', b'[', b'9', b'\\', 0xff] {
            let mut changed = record.to_vec();
            changed[at] = byte;
            let _ = decoder.decode(&changed, &mut row);
            let _ = decoder.decode(&record[..at], &mut row);
        }
    }
    assert!(decoder.decode(&b"[".repeat(1 << 20), &mut row).is_err());
    assert!(
        decoder
            .decode(&br#"{"a":"#.repeat(1 << 18), &mut row)
            .is_err()
    );
    assert!(
        decoder
            .decode(&br#"{"items":[0,{"price":"#.repeat(1 << 16), &mut row)
            .is_err()
    );
}
