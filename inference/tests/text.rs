//! Text encoders give what transformers gives: folders and vectors are from `golden/text.py`.

use std::path::{Path, PathBuf};

use candle_core::Device;
use inference::codec::Decoder;
use inference::model::card::{Card, ModelTask};
use inference::model::text::{Overflow, Pooling, TextModel, TextTask, Tokens};
use inference::model::{Input, LoadError, LoadOptions, LoadedModel, Rows, Takes, load};
use inference::spec::{Codec, Spanned, TextSpec};
use serde::Deserialize;

/// Of numbers between about -3 and 3, in float32 here and there, rounded to six digits.
const TOLERANCE: f32 = 5e-6;

#[derive(Deserialize)]
struct Golden {
    ids: Vec<Vec<u32>>,
    mean: Vec<Vec<f32>>,
    cls: Vec<Vec<f32>>,
    logits: Vec<Vec<f32>>,
}

const EMBED_MEAN: TextTask = embed(Pooling::Mean, false);

const fn embed(pooling: Pooling, normalize: bool) -> TextTask {
    TextTask::Embed { pooling, normalize }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/text")
        .join(name)
}

fn golden(name: &str) -> Golden {
    let json = std::fs::read(folder(name).join("golden.json")).expect("golden.json");
    serde_json::from_slice(&json).expect("golden vectors")
}

fn read(folder: &Path, task: TextTask) -> Result<TextModel, LoadError> {
    TextModel::read(folder, task, &Device::Cpu)
}

fn tokens(texts: &[Vec<u32>]) -> Tokens {
    let mut tokens = Tokens::default();
    texts.iter().for_each(|ids| tokens.push(ids));
    tokens
}

fn assert_close(found: &Rows, expected: &[Vec<f32>], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (row, expected) in expected.iter().enumerate() {
        assert_eq!(found.row(row).len(), expected.len(), "{what}");
        for (found, expected) in found.row(row).iter().zip(expected) {
            assert!(
                (found - expected).abs() < TOLERANCE,
                "{what}, text {row}: {found}, not {expected}"
            );
        }
    }
}

#[test]
fn encoders_give_what_transformers_gives() {
    for name in [
        "bert",
        "bert-shards",
        "distilbert",
        "xlm-roberta",
        "modernbert",
    ] {
        let golden = golden(name);
        let mut tasks = vec![
            (EMBED_MEAN, &golden.mean),
            (embed(Pooling::Cls, false), &golden.cls),
        ];
        if !golden.logits.is_empty() {
            tasks.push((TextTask::Classify, &golden.logits));
        }
        for (task, expected) in tasks {
            let model = read(&folder(name), task).unwrap_or_else(|error| panic!("{name}: {error}"));
            let what = format!("{name}, {task:?}");
            let together = model.forward(&tokens(&golden.ids)).expect("answers");
            assert_close(&together, expected, &what);
            // Whatever a text shares its batch with.
            for (ids, expected) in golden.ids.iter().zip(expected) {
                let alone = model
                    .forward(&tokens(std::slice::from_ref(ids)))
                    .expect("an answer");
                assert_close(&alone, std::slice::from_ref(expected), &what);
            }
        }
    }
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_device_that_this_build_has_not_is_refused() {
    use inference::model::DeviceChoice;

    let options = |device| LoadOptions {
        device,
        ..LoadOptions::default()
    };
    let load = |device| load("m", "1", &folder("bert"), &options(device));
    let refused = load(DeviceChoice::Cuda).expect_err("no CUDA").to_string();
    assert!(
        refused.starts_with("device \"cuda\" can't be used: "),
        "{refused}"
    );
    for device in [DeviceChoice::Cpu, DeviceChoice::Auto] {
        let loaded = load(device).expect("a model");
        assert_eq!(loaded.model.device().to_string(), "cpu");
    }
}

#[test]
fn embeddings_are_of_length_one_where_that_is_asked() {
    let golden = golden("bert");
    let model = read(&folder("bert"), embed(Pooling::Mean, true)).expect("a model");
    let rows = model.forward(&tokens(&golden.ids)).expect("answers");
    for (row, expected) in golden.mean.iter().enumerate() {
        let length = expected.iter().map(|x| x * x).sum::<f32>().sqrt();
        for (found, expected) in rows.row(row).iter().zip(expected) {
            assert!((found - expected / length).abs() < TOLERANCE);
        }
    }
}

#[test]
fn tokens_that_the_model_does_not_have_are_an_error() {
    let model = read(&folder("bert"), EMBED_MEAN).expect("a model");
    let error = model
        .forward(&tokens(&[vec![1, 80]]))
        .expect_err("no such token");
    assert_eq!(error.to_string(), "token 80, of a vocabulary of 80");
    let error = model
        .forward(&tokens(&[vec![1; 65]]))
        .expect_err("too long");
    assert_eq!(
        error.to_string(),
        "a text of 65 tokens, over the model's 64"
    );
}

/// A copy of a folder, with `change` made to it.
fn changed(name: &str, change: impl FnOnce(&Path)) -> Result<TextModel, LoadError> {
    let copy = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(folder(name)).expect("the folder") {
        let entry = entry.expect("a file");
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("a copy");
    }
    change(copy.path());
    read(copy.path(), TextTask::Classify)
}

/// The message where a text of the config is replaced.
fn with_config(from: &str, to: &str) -> String {
    let outcome = changed("bert", |folder| {
        let path = folder.join("config.json");
        let json = std::fs::read_to_string(&path).expect("config.json");
        assert!(json.contains(from), "{json}");
        std::fs::write(path, json.replace(from, to)).expect("config.json");
    });
    let message = outcome.expect_err("refused").to_string();
    // The folder's name is another one each time.
    message
        .rsplit_once("config.json: ")
        .map_or(message.clone(), |(_, problem)| problem.to_owned())
}

#[test]
fn configs_that_do_not_run_are_named() {
    assert_eq!(
        with_config(r#""model_type": "bert""#, r#""model_type": "foo""#),
        "model_type: \"foo\" is not supported; supported: bert, distilbert, modernbert, xlm-roberta"
    );
    assert_eq!(
        with_config(r#""hidden_act": "gelu""#, r#""hidden_act": "swiglu""#),
        "hidden_act: \"swiglu\" is not supported"
    );
    assert_eq!(
        with_config(r#""num_attention_heads": 3"#, r#""num_attention_heads": 5"#),
        "num_attention_heads: 5 heads do not divide a width of 24"
    );
    assert_eq!(
        with_config(
            r#""num_hidden_layers": 2"#,
            r#""num_hidden_layers": 3000000000"#
        ),
        "num_hidden_layers: 3000000000 is over 256"
    );
    assert_eq!(
        with_config(r#""num_hidden_layers": 2"#, r#""num_hidden_layers": 3"#),
        "tensor bert.encoder.layer.2.attention.output.LayerNorm.weight of shape [24] is missing"
    );
    assert_eq!(
        with_config(r#""intermediate_size": 40"#, r#""intermediate_size": 41"#),
        "tensor bert.encoder.layer.0.intermediate.dense.weight has shape [40, 24], expected [41, 24]"
    );
}

#[test]
fn weights_that_lie_are_refused() {
    let with_weights = |change: &dyn Fn(&mut Vec<u8>)| {
        let outcome = changed("bert", |folder| {
            let path = folder.join("model.safetensors");
            let mut bytes = std::fs::read(&path).expect("weights");
            change(&mut bytes);
            std::fs::write(path, bytes).expect("weights");
        });
        outcome.expect_err("refused").to_string()
    };
    let truncated = with_weights(&|bytes| bytes.truncate(bytes.len() - 1));
    assert!(
        truncated.contains("model.safetensors is malformed"),
        "{truncated}"
    );
    // A header as long as no file is.
    let endless = with_weights(&|bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes()));
    assert!(
        endless.contains("model.safetensors is malformed"),
        "{endless}"
    );
    let not_finite = with_weights(&|bytes| {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert!(not_finite.contains("has NaN at "), "{not_finite}");
    let larger = with_weights(&|bytes| bytes.resize(100 << 20, 0));
    assert!(
        larger.contains("is 104857600 bytes long, over the "),
        "{larger}"
    );
    let missing = changed("bert-shards", |folder| {
        let shard = std::fs::read_dir(folder)
            .expect("the folder")
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().contains("-of-"));
        std::fs::remove_file(shard.expect("a shard").path()).expect("removed");
    });
    let missing = missing.expect_err("refused").to_string();
    assert!(
        missing.contains("-of-") && missing.contains("can't be read"),
        "{missing}"
    );
    let outside = changed("bert-shards", |folder| {
        let path = folder.join("model.safetensors.index.json");
        let json = std::fs::read_to_string(&path).expect("the index");
        std::fs::write(path, json.replace("model-00001", "../model-00001")).expect("the index");
    });
    let outside = outside.expect_err("refused").to_string();
    assert!(
        outside.contains("is not the name of a safetensors file beside it"),
        "{outside}"
    );
}

#[derive(Deserialize)]
struct Tokenized {
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
    cut_to_6: Vec<Vec<u32>>,
}

fn loaded(options: &LoadOptions) -> LoadedModel {
    load("bert", "1", &folder("bert"), options).expect("a model")
}

fn text_spec(max_tokens: Option<usize>, on_overflow: Overflow) -> TextSpec {
    TextSpec {
        path: None,
        max_tokens: max_tokens.map(|max| Spanned::new(0..0, max)),
        on_overflow,
    }
}

fn decoded(decoder: &Decoder, record: &[u8]) -> Result<Vec<u32>, String> {
    let mut batch = Takes::Tokens.none();
    let decoded = decoder.decode(record, &mut batch);
    decoded.map_err(|error| error.to_string())?;
    match batch {
        Input::Tokens(tokens) => Ok(tokens.ids().to_vec()),
        Input::Rows(_) => panic!("rows for a text"),
    }
}

#[test]
fn texts_have_the_tokens_that_the_python_library_gives() {
    let json = std::fs::read(folder("bert").join("tokens.json")).expect("tokens.json");
    let golden: Tokenized = serde_json::from_slice(&json).expect("golden tokens");
    let card = loaded(&LoadOptions::default()).card;
    let decoder =
        |spec: TextSpec| Decoder::new(&card, Codec::Text, Some(&spec)).expect("a decoder");
    // The longest text is longer than the model looks at.
    let all = decoder(text_spec(None, Overflow::Truncate));
    let cut = decoder(text_spec(Some(6), Overflow::Truncate));
    let strict = decoder(text_spec(Some(6), Overflow::Error));
    for ((text, ids), cut_ids) in golden.texts.iter().zip(&golden.ids).zip(&golden.cut_to_6) {
        let record = text.as_bytes();
        if ids.len() <= 64 {
            assert_eq!(decoded(&all, record).as_ref(), Ok(ids), "{text:?}");
        }
        assert_eq!(decoded(&cut, record).as_ref(), Ok(cut_ids), "{text:?}");
        let expected = match ids.len() {
            0..=6 => Ok(ids.clone()),
            found => Err(format!("the text has {found} tokens, over max_tokens = 6")),
        };
        assert_eq!(decoded(&strict, record), expected, "{text:?}");
    }
    assert_eq!(
        decoded(&all, b"ok \xff"),
        Err("not UTF-8 from byte 3 on".to_owned())
    );
}

#[test]
fn a_text_is_picked_out_of_json() {
    let card = loaded(&LoadOptions::default()).card;
    let spec = TextSpec {
        path: Some("$.ticket.body".parse().expect("a path")),
        ..TextSpec::default()
    };
    let decoder = Decoder::new(&card, Codec::Json, Some(&spec)).expect("a decoder");
    let plain = Decoder::new(&card, Codec::Text, None).expect("a decoder");
    for (record, text) in [
        (r#"{"id":1,"ticket":{"body":"hello world"}}"#, "hello world"),
        (
            r#"{"ticket":{"body":"caf\u00e9 \"ok\""}}"#,
            "caf\u{e9} \"ok\"",
        ),
    ] {
        assert_eq!(
            decoded(&decoder, record.as_bytes()),
            decoded(&plain, text.as_bytes())
        );
    }
    for (record, reason) in [
        (
            r#"{"ticket":{}}"#,
            "field \"$.ticket.body\": is required, but is absent",
        ),
        (
            r#"{"ticket":{"body":7}}"#,
            "field \"$.ticket.body\": is 7, not a text",
        ),
        (
            r#"{"ticket":{"body":null}}"#,
            "field \"$.ticket.body\": is null, not a text",
        ),
    ] {
        assert_eq!(decoded(&decoder, record.as_bytes()), Err(reason.to_owned()));
    }
}

#[test]
fn codecs_that_do_not_fit_are_named() {
    let card = loaded(&LoadOptions::default()).card;
    let refused = |codec, spec: Option<TextSpec>| {
        let refused = Decoder::new(&card, codec, spec.as_ref()).expect_err("refused");
        refused.to_string()
    };
    assert_eq!(
        refused(Codec::Json, None),
        "text.path: is needed to find the text in JSON; where the whole record is the text, codec.in is \"text\""
    );
    assert_eq!(
        refused(Codec::Raw, None),
        "codec.in: a model of texts reads \"text\" or \"json\", not \"raw\""
    );
    assert_eq!(
        refused(Codec::Text, Some(text_spec(Some(2), Overflow::Error))),
        "text.max_tokens: 2 is not between 3 and 64, the model's own"
    );
    assert_eq!(
        refused(Codec::Text, Some(text_spec(Some(65), Overflow::Error))),
        "text.max_tokens: 65 is not between 3 and 64, the model's own"
    );
}

#[test]
fn a_folder_says_what_it_is_for() {
    let Card::Text(card) = &*loaded(&LoadOptions::default()).card else {
        panic!("a model of texts")
    };
    assert_eq!(card.task, ModelTask::Classify);
    assert_eq!(card.labels, ["a", "b", "c"]);
    let options = LoadOptions {
        task: Some(ModelTask::Embed),
        pooling: Some(Pooling::Cls),
        ..LoadOptions::default()
    };
    let Card::Text(card) = &*loaded(&options).card else {
        panic!("a model of texts")
    };
    assert_eq!(
        (card.pooling, card.normalize),
        (Some(Pooling::Cls), Some(true))
    );
    assert_eq!(card.outputs, 24);
    let options = LoadOptions {
        labels: Some(vec!["one".to_owned(), "two".to_owned()]),
        ..LoadOptions::default()
    };
    let error = load("bert", "1", &folder("bert"), &options).expect_err("refused");
    assert_eq!(error.to_string(), "2 labels for a model of 3 classes");
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let copy = tempfile::tempdir().expect("a folder");
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(folder("bert").join(name), copy.path().join(name)).expect("a copy");
    }
    let path = copy.path().join("tokenizer.json");
    let json = std::fs::read_to_string(&path).expect("tokenizer.json");
    assert!(json.contains("\"ok\":65"), "{json}");
    std::fs::write(&path, json.replace("\"ok\":65", "\"ok\":80")).expect("tokenizer.json");
    let error = load("bert", "1", copy.path(), &LoadOptions::default()).expect_err("refused");
    let error = error.to_string();
    assert!(
        error.ends_with(
            "it is of another model: its token \"ok\" is number 80, and the model has 80"
        ),
        "{error}"
    );
    std::fs::write(&path, "{}").expect("tokenizer.json");
    let error = load("bert", "1", copy.path(), &LoadOptions::default()).expect_err("refused");
    assert!(error.to_string().contains("tokenizer.json: "), "{error}");
}
