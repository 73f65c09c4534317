//! Model folders that mean harm: what is wrong in them is an error, and takes no more memory or time than
//! the folder is worth. `tests/fuzz` looks for more of them.

use std::path::Path;

use inference::codec::Decoder;
use inference::model::card::{ModelCard, ModelTask};
use inference::model::{LoadError, LoadOptions, LoadedModel, load};
use inference::spec::Codec;
use serde_json::{Value, json};

/// Loads a copy of a folder of `golden/text`, where all of them have BERT's tokenizer, with one file changed.
fn changed(
    golden: &str,
    file: &str,
    change: impl FnOnce(Value) -> Value,
) -> Result<LoadedModel, LoadError> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text");
    let copy = tempfile::tempdir().expect("a folder");
    for (golden, name) in [
        (golden, "config.json"),
        (golden, "model.safetensors"),
        ("bert", "tokenizer.json"),
    ] {
        std::fs::copy(all.join(golden).join(name), copy.path().join(name)).expect("a copy");
    }
    let path = copy.path().join(file);
    let json = std::fs::read(&path).expect("the file");
    let json = change(serde_json::from_slice(&json).expect("JSON"));
    std::fs::write(&path, json.to_string()).expect("written");
    let options = LoadOptions {
        task: Some(ModelTask::Embed),
        ..LoadOptions::default()
    };
    load("hostile", "1", copy.path(), &options)
}

fn with_config(golden: &str, key: &str, value: Value) -> String {
    let loaded = changed(golden, "config.json", |mut json| {
        json[key] = value;
        json
    });
    message(loaded)
}

fn with_tokenizer(change: impl FnOnce(&mut Value)) -> Result<LoadedModel, LoadError> {
    changed("bert", "tokenizer.json", |mut json| {
        change(&mut json);
        json
    })
}

/// Why it is refused, without the folder's name.
fn message(loaded: Result<LoadedModel, LoadError>) -> String {
    let message = loaded.expect_err("refused").to_string();
    let known = message.rsplit_once(".json: ");
    known.map_or(message.clone(), |(_, reason)| reason.to_owned())
}

#[test]
fn numbers_at_the_end_of_their_range_are_refused() {
    assert_eq!(
        with_config("xlm-roberta", "pad_token_id", json!(u64::MAX)),
        "max_position_embeddings: 66 leave none behind the padding token, 18446744073709551615"
    );
    assert_eq!(
        with_config("xlm-roberta", "pad_token_id", json!(65)),
        "max_position_embeddings: 66 leave none behind the padding token, 65"
    );
}

#[test]
fn rotations_are_of_the_weights_that_there_are() {
    // Tables of a hundred MB, if they were made before the weights are looked at.
    let loaded = changed("modernbert", "config.json", |mut json| {
        json["max_position_embeddings"] = json!(1 << 17);
        json["hidden_size"] = json!(1 << 14);
        json["num_attention_heads"] = json!(128);
        json
    });
    assert_eq!(
        message(loaded),
        "tensor model.embeddings.tok_embeddings.weight has shape [80, 24], expected [80, 16384]"
    );
    let loaded = changed("modernbert", "config.json", |mut json| {
        json["max_position_embeddings"] = json!(1 << 17);
        json["hidden_size"] = json!(1 << 14);
        json["num_attention_heads"] = json!(1);
        json
    });
    assert_eq!(
        message(loaded),
        "max_position_embeddings: 131072 positions of heads of 16384 numbers are over 8388608 rotations"
    );
}

#[test]
fn a_card_of_many_names_is_read_in_time() {
    // Each compared with each would take hours.
    let names: Vec<String> = (0..500_000).map(|n| n.to_string()).collect();
    let card = json!({"model_type": "linear", "task": "classify", "labels": names, "output": names.len(),
        "inputs": [{"path": "$.x", "one_of": names}]});
    let error = ModelCard::parse(card.to_string().as_bytes()).expect_err("refused");
    assert!(
        error.reason.starts_with("a layer of 500000 inputs"),
        "{error}"
    );
    let card = json!({"model_type": "linear", "task": "regress", "output": 1,
        "inputs": [{"path": "$.x", "one_of": ["a", "b", "a"]}]});
    let error = ModelCard::parse(card.to_string().as_bytes()).expect_err("refused");
    assert_eq!(error.to_string(), "inputs[0]: one_of names a text twice");
}

#[test]
fn tokenizers_that_panic_are_refused() {
    // The library takes these for sound, or has no error for them.
    let no_such_token = with_tokenizer(|json| json["post_processor"]["special_tokens"] = json!({}));
    let twice = with_tokenizer(|json| {
        let text = json["post_processor"]["single"][1].clone();
        json["post_processor"]["single"] = json!([text, text]);
    });
    let prefix = with_tokenizer(|json| {
        json["model"] = json!({"type": "BPE", "continuing_subword_prefix": "long",
            "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]});
    });
    let no_length = with_tokenizer(|json| {
        json["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0});
    });
    for (loaded, reason) in [
        (no_length, "it panics on a text"),
        (no_such_token, "it panics when it frames a text"),
        (twice, "it frames a text with 0 tokens, and makes 2 of 1"),
        (prefix, "its library panics on it"),
    ] {
        let message = message(loaded);
        assert!(message.starts_with(reason), "{message}");
    }
}

#[test]
fn a_text_that_a_tokenizer_panics_on_is_an_error_of_its_record() {
    // A trie of 128 nodes, out of which the first byte of é leads.
    let charsmap = format!("AAIA{}", "A".repeat(684));
    let loaded = with_tokenizer(|json| {
        json["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": charsmap});
    });
    let loaded = loaded.expect("a model");
    let decoder = Decoder::new(&loaded.card, Codec::Text, None).expect("a decoder");
    let mut batch = loaded.card.takes().none();
    let error = decoder.decode("\u{e9}".as_bytes(), &mut batch);
    let error = error.expect_err("a panic").to_string();
    assert!(
        error.starts_with("the tokenizer fails: it panicked"),
        "{error}"
    );
    assert!(batch.is_empty());
}

#[test]
fn the_longest_tokens_leave_room_on_a_small_stack() {
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let loaded = thread.spawn(|| {
        with_tokenizer(|json| {
            json["model"] =
                json!({"type": "Unigram", "unk_id": 0, "vocab": [["x".repeat(2048), 0.0]]});
        })
        .map(drop)
    });
    let loaded = loaded.expect("a thread").join().expect("no panic");
    loaded.expect("a model");
}

#[test]
fn tokenizers_do_not_take_more_than_they_are_worth() {
    // Its first four bytes announce four GiB.
    let announced = with_tokenizer(|json| {
        json["normalizer"] = json!({"type": "Sequence", "normalizers": [{"type": "Precompiled",
                "precompiled_charsmap": "/////wAAAAA="}]});
    });
    // Twice the text, thirty times over.
    let doubled = with_tokenizer(|json| {
        let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        json["normalizer"] = json!({"type": "Sequence", "normalizers": vec![double; 30]});
    });
    let bytes = with_tokenizer(|json| {
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": false});
        json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": vec![bytes; 30]});
    });
    let expressions = with_tokenizer(|json| {
        let wide = json!({"type": "Split", "pattern": {"Regex": "\\w{200}"}, "behavior": "Isolated",
            "invert": false});
        json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": vec![wide; 100]});
    });
    let frames = with_tokenizer(|json| {
        let ids = vec![1; 1000];
        json["post_processor"]["special_tokens"]["[CLS]"]["ids"] = json!(ids);
        json["post_processor"]["special_tokens"]["[CLS]"]["tokens"] = json!(vec!["x"; 1000]);
        let special = json["post_processor"]["single"][0].clone();
        json["post_processor"]["single"] = json!(vec![special; 1000]);
    });
    // Its trie is as deep as the token is long, and is dropped by recursion.
    let deep = with_tokenizer(|json| {
        json["model"] =
            json!({"type": "Unigram", "unk_id": 0, "vocab": [["x".repeat(1 << 20), 0.0]]});
    });
    let prefixes = with_tokenizer(|json| {
        json["model"]["continuing_subword_prefix"] = json!("#".repeat(1000));
    });
    let added = with_tokenizer(|json| {
        json["normalizer"] =
            json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(1000)});
        json["added_tokens"] = json!([{"id": 70, "content": "a".repeat(2000), "special": false,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": true}]);
    });
    for (loaded, reason) in [
        (
            added,
            "2000 bytes of added tokens may grow to 1000 times that, over 262144",
        ),
        (
            announced,
            "precompiled_charsmap announces 4294967295 bytes, and has 4",
        ),
        (doubled, "a text may grow to 1073741824 times its length"),
        (bytes, "a text may grow to 1073741824 times its length"),
        (expressions, "it has 100 regular expressions, over 16"),
        (frames, "it frames a text with 1000000 tokens, over 1024"),
        (deep, "a text of it is 1048576 bytes long, over 2048"),
        (
            prefixes,
            "a mark of a word's parts is 1000 bytes long, over 64",
        ),
    ] {
        let message = message(loaded);
        assert!(message.starts_with(reason), "{message}");
    }
}
