//! Seeds of `model_folder`: each kind of file by itself, whole, so that the fuzzer can change it beside
//! sound ones; files that are wrong in one place; and what once failed.

use serde_json::{Value, json};

use super::seeds::Seeds;
use crate::models::{Change, FOLDERS, golden, input};

/// Writes them.
pub fn model_folders() {
    let seeds = Seeds::of("model_folder");
    let write = |name: &str, folder: &str, how: u8, changes: &[(&str, Change<'_>)]| {
        seeds.write(name, &[], &input(folder, how, changes));
    };
    for folder in FOLDERS {
        write(&format!("sound-{folder}"), folder, 0, &[]);
        let config = file(folder, "config.json");
        let config = [("config.json", Change::Whole(config))];
        write(&format!("config-{folder}"), folder, 0, &config);
        let weights = match folder {
            "bert-shards" => "model-00001-of-00003.safetensors",
            _ => "model.safetensors",
        };
        let header = header(file(folder, weights));
        let header = [(weights, Change::Header(0, header.len(), header))];
        write(&format!("header-{folder}"), folder, 0, &header);
    }
    for how in 1..64 {
        if how % 9 == 1 {
            write(&format!("used-{how}"), "bert", how, &[]);
        }
    }
    for name in [
        "modules.json",
        "1_Pooling/config.json",
        "model.safetensors.index.json",
    ] {
        let whole = [(name, Change::Whole(file("bert-shards", name)))];
        let name = name.replace('/', "-");
        write(&name, "bert-shards", 0, &whole);
    }
    for (name, tokenizer) in tokenizers() {
        let json = tokenizer.to_string();
        let whole = [("tokenizer.json", Change::Whole(json.as_bytes()))];
        write(&format!("tokenizer-{name}"), "distilbert", 1, &whole);
    }
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        write(&format!("no-{name}"), "bert", 0, &[(name, Change::Gone)]);
    }
    // Weights that are NaN, end early, are followed by others, or have a header of another length.
    let nan = f32::NAN.to_le_bytes();
    let length = u64::MAX.to_le_bytes();
    for (name, change) in [
        ("nan", Change::Splice(5_000, 4, &nan)),
        ("short", Change::Splice(50_000, 60_000, &[])),
        ("long", Change::Splice(57_060, 0, b"more")),
        ("length", Change::Splice(0, 8, &length)),
        ("no-length", Change::Whole(b"\x02\0\0\0\0\0\0\0{}")),
    ] {
        let changes = [("model.safetensors", change)];
        write(&format!("weights-{name}"), "bert", 0, &changes);
    }
    once_failed();
}

/// Files that once made the loader panic, or hold more than they are worth.
fn once_failed() {
    let seeds = Seeds::within("regressions", "model_folder");
    let write = |name: &str, folder: &str, file: &str, json: &Value| {
        let json = json.to_string();
        let whole = [(file, Change::Whole(json.as_bytes()))];
        seeds.write(name, &[], &input(folder, 1, &whole));
    };
    let json_of = |folder: &str, name: &str| -> Value {
        serde_json::from_slice(file(folder, name)).expect("JSON")
    };
    let mut config = json_of("xlm-roberta", "config.json");
    config["pad_token_id"] = json!(u64::MAX);
    write(
        "a-padding-token-at-the-end",
        "xlm-roberta",
        "config.json",
        &config,
    );
    let mut config = json_of("modernbert", "config.json");
    config["max_position_embeddings"] = json!(1 << 17);
    config["hidden_size"] = json!(1 << 14);
    for heads in [1, 128] {
        config["num_attention_heads"] = json!(heads);
        let name = format!("rotations-without-weights-{heads}");
        write(&name, "modernbert", "config.json", &config);
    }
    let tokenizer = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut json = json_of("bert", "tokenizer.json");
        change(&mut json);
        write(name, "bert", "tokenizer.json", &json);
    };
    tokenizer("a-frame-without-its-tokens", &|json| {
        json["post_processor"]["special_tokens"] = json!({});
    });
    tokenizer("a-frame-of-three-texts", &|json| {
        let text = json["post_processor"]["single"][1].clone();
        json["post_processor"]["single"] = json!([text, text]);
        json["post_processor"]["pair"] = json!([text, text, text]);
        let frame = json["post_processor"].clone();
        json["post_processor"] = json!({"type": "Sequence", "processors": vec![frame; 3]});
    });
    tokenizer("a-frame-of-a-million", &|json| {
        let frame = &mut json["post_processor"];
        frame["special_tokens"]["[CLS]"]["ids"] = json!(vec![1; 1000]);
        frame["special_tokens"]["[CLS]"]["tokens"] = json!(vec!["x"; 1000]);
        let special = frame["single"][0].clone();
        frame["single"] = json!(vec![special; 1000]);
    });
    tokenizer("a-mark-longer-than-a-token", &|json| {
        json["model"] = json!({"type": "BPE", "continuing_subword_prefix": "long",
            "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]});
    });
    tokenizer("a-deep-token", &|json| {
        json["model"] =
            json!({"type": "Unigram", "unk_id": 0, "vocab": [["x".repeat(60_000), 0.0]]});
    });
    tokenizer("pieces-of-no-length", &|json| {
        json["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0});
    });
    let table =
        |bytes: &[u8]| json!({"type": "Precompiled", "precompiled_charsmap": base64(bytes)});
    tokenizer("a-table-that-announces", &|json| {
        json["normalizer"] = table(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    });
    tokenizer("a-table-that-leads-out", &|json| {
        json["normalizer"] = table(&[4, 0, 0, 0, 0, 0, 0, 0]);
    });
    tokenizer("a-text-that-doubles", &|json| {
        let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        json["normalizer"] = json!({"type": "Sequence", "normalizers": vec![double; 30]});
    });
    tokenizer("added-tokens-that-grow", &|json| {
        json["normalizer"] =
            json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(1000)});
        json["added_tokens"] = json!([{"id": 70, "content": "a".repeat(2000), "special": false,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": true}]);
    });
    tokenizer("bytes-that-double", &|json| {
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": false});
        json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": vec![bytes; 30]});
    });
    tokenizer("expressions", &|json| {
        let wide = json!({"type": "Split", "pattern": {"Regex": "\\w{200}"},
            "behavior": "Isolated", "invert": false});
        json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": vec![wide; 100]});
    });
}

fn file(folder: &str, name: &str) -> &'static [u8] {
    let files = golden(folder);
    let file = files.into_iter().find(|(known, _)| *known == name);
    file.expect("a sound folder's file").1
}

/// Of a safetensors file.
fn header(weights: &[u8]) -> &[u8] {
    let (length, rest) = weights.split_first_chunk::<8>().expect("a length");
    &rest[..u64::from_le_bytes(*length) as usize]
}

/// One of each model, normalizer, way to split and frame that there is.
fn tokenizers() -> Vec<(&'static str, Value)> {
    let frame = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}});
    let added = |id: u32, content: &str| {
        json!([{"id": id, "content": content, "special": true, "single_word": false, "lstrip": true,
            "rstrip": false, "normalized": false}])
    };
    let of = |parts: [Value; 5]| {
        let [
            added_tokens,
            normalizer,
            pre_tokenizer,
            post_processor,
            model,
        ] = parts;
        json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added_tokens,
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
            "post_processor": post_processor, "decoder": null, "model": model})
    };
    let none = || Value::Null;
    let unigram = json!({"type": "Unigram", "unk_id": 0, "byte_fallback": false,
        "vocab": [["<unk>", 0.0], ["\u{2581}", -1.0], ["\u{2581}hello", -2.0], ["l", -3.5], ["o", -3.0]]});
    let bpe = json!({"type": "BPE", "dropout": null, "unk_token": "u", "continuing_subword_prefix": "##",
        "end_of_word_suffix": "</w>", "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
        "vocab": {"u": 0, "a": 1, "##b": 2, "ab": 3, "<0x00>": 4, "##b</w>": 5, "ab</w>": 6},
        "merges": [["a", "##b"], ["a", "##b</w>"]]});
    let words = json!({"type": "WordLevel", "vocab": {"[UNK]": 0, "hello": 1, "world": 2},
        "unk_token": "[UNK]"});
    let normalizers = json!({"type": "Sequence", "normalizers": [
        {"type": "Precompiled", "precompiled_charsmap": charsmap()},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u{2581}"},
        {"type": "Replace", "pattern": {"String": "``"}, "content": "\""},
        {"type": "Strip", "strip_left": true, "strip_right": true}, {"type": "StripAccents"},
        {"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Nmt"}, {"type": "Prepend", "prepend": "\u{2581}"}]});
    let splits = json!({"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"}, {"type": "Digits", "individual_digits": true},
        {"type": "Split", "pattern": {"Regex": "(?!\\S)|b+"}, "behavior": "Isolated", "invert": false},
        {"type": "Punctuation", "behavior": "MergedWithPrevious"}, {"type": "UnicodeScripts"},
        {"type": "FixedLength", "length": 7}, {"type": "CharDelimiterSplit", "delimiter": "-"}]});
    let metaspace = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first",
        "split": true});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
        "use_regex": true});
    let bert = json!({"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]});
    let roberta = json!({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1],
        "trim_offsets": true, "add_prefix_space": false});
    let both = json!({"type": "Sequence", "processors": [bytes.clone(), frame.clone()]});
    vec![
        (
            "unigram",
            of([
                added(5, "<mask>"),
                normalizers,
                metaspace,
                frame,
                unigram.clone(),
            ]),
        ),
        (
            "bpe",
            of([
                added(7, "[MASK]"),
                json!({"type": "NFD"}),
                bytes.clone(),
                roberta,
                bpe.clone(),
            ]),
        ),
        (
            "bpe-bytes",
            of([
                added(7, " "),
                json!({"type": "ByteLevel"}),
                none(),
                bytes,
                bpe,
            ]),
        ),
        (
            "words",
            of([added(3, "</s>"), none(), splits, bert, words.clone()]),
        ),
        (
            "words-both",
            of([
                json!([]),
                json!({"type": "NFC"}),
                json!({"type": "Whitespace"}),
                both,
                words,
            ]),
        ),
        (
            "plain-unigram",
            of([json!([]), none(), none(), none(), unigram]),
        ),
    ]
}

/// What SentencePiece normalizes by: a trie, in which `A` leads to `a`.
fn charsmap() -> String {
    let mut units = [0u32; 256];
    units[0x41] = 0x41 | 1 << 8 | 0x40 << 10;
    let trie: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    base64(&[&(trie.len() as u32).to_le_bytes()[..], &trie, b"a\0"].concat())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let at = |n: usize| u32::from(three.get(n).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for n in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * n)) as usize & 63];
            text.push(if n <= three.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}
