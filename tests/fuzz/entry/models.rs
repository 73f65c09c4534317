//! Where the fuzzer enters a model's folder: files of any bytes beside sound ones, as a broker loads
//! them when it starts, and what it does with the model then.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::BytesMut;
use inference::codec::{Decoder, OutputEncoder};
use inference::model::card::{Card, ModelCard, ModelTask};
use inference::model::text::Pooling;
use inference::model::{Input, LargestBatch, LoadOptions, LoadedModel, Rows, load};
use inference::spec::{Codec, TextSpec};

use crate::folder::Folder;

/// What an input may change, by number.
pub const FILES: [&str; 8] = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "modules.json",
    "1_Pooling/config.json",
    "model.safetensors.index.json",
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
];
/// Changes of one input.
const MAX_CHANGES: usize = 16;

macro_rules! golden {
    ($folder:literal, $($file:literal),+) => {
        vec![$((
            $file,
            &include_bytes!(concat!("../../../", $folder, "/", $file))[..],
        )),+]
    };
}

/// The sound folders, by number.
pub const FOLDERS: [&str; 6] = [
    "fraud",
    "bert",
    "bert-shards",
    "distilbert",
    "modernbert",
    "xlm-roberta",
];

/// A text in any form, and what has tokens of its own in some tokenizers.
const TEXTS: [&str; 6] = [
    "",
    "hello world",
    "  Na\u{ef}ve caf\u{e9}s,\tof 12 \u{6f22}\u{5b57}\u{1f600}\n\u{0}[MASK] <s>",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t u v w x y z \
     a b c d e f g h i j k l m n o p q r s t u v w x y z",
    "\u{fdfa}\u{301}\u{200d}\u{feff}\u{ffff}",
];

/// The files of a sound folder.
pub fn golden(folder: &str) -> Vec<(&'static str, &'static [u8])> {
    let mut files = match folder {
        "fraud" => {
            return golden!(
                "tests/models/fraud_by_row",
                "config.json",
                "model.safetensors"
            );
        }
        "bert" => golden!(
            "inference/tests/golden/text/bert",
            "config.json",
            "model.safetensors"
        ),
        "bert-shards" => golden!(
            "inference/tests/golden/text/bert-shards",
            "config.json",
            "model.safetensors.index.json",
            "model-00001-of-00003.safetensors",
            "model-00002-of-00003.safetensors",
            "model-00003-of-00003.safetensors"
        ),
        "distilbert" => golden!(
            "inference/tests/golden/text/distilbert",
            "config.json",
            "model.safetensors"
        ),
        "modernbert" => golden!(
            "inference/tests/golden/text/modernbert",
            "config.json",
            "model.safetensors"
        ),
        _ => golden!(
            "inference/tests/golden/text/xlm-roberta",
            "config.json",
            "model.safetensors"
        ),
    };
    // One tokenizer is enough for all of them.
    files.extend(golden!(
        "inference/tests/golden/text/bert",
        "tokenizer.json"
    ));
    if folder == "bert-shards" {
        let modules = br#"[{"path":"","type":"m.Transformer"},{"path":"1_Pooling","type":"m.Pooling"},{"type":"m.Normalize"}]"#;
        files.push(("modules.json", modules));
        files.push((
            "1_Pooling/config.json",
            br#"{"pooling_mode_mean_tokens":true}"#,
        ));
    }
    files
}

/// What is done to a file of a sound folder.
#[derive(Clone, Debug)]
pub enum Change<'a> {
    /// It is these bytes.
    Whole(&'a [u8]),
    /// Behind so many bytes, some are cut out and others put in.
    Splice(usize, usize, &'a [u8]),
    /// The same in the header of a safetensors file, whose length in front is made right.
    Header(usize, usize, &'a [u8]),
    /// It is not there.
    Gone,
}

/// The first byte says which sound folder it is, the second one what the config says of it: bits 0 and 1 the
/// task, bit 2 the pooling, bit 3 that it is not normalized, bit 4 two labels, bit 5 a pin. Then changes: a byte
/// with the file in bits 0 to 2 and what is done in bits 3 and 4, for a splice three bytes where and two how many
/// bytes are cut out; two bytes of length, and what is put in.
pub fn model_folder(data: &[u8]) {
    let Some(([folder, how], changes)) = data.split_first_chunk::<2>() else {
        return;
    };
    let name = FOLDERS[usize::from(*folder) % FOLDERS.len()];
    let mut files: BTreeMap<&str, Vec<u8>> = golden(name)
        .into_iter()
        .map(|(name, bytes)| (name, bytes.to_vec()))
        .collect();
    let mut rest = changes;
    for _ in 0..MAX_CHANGES {
        let Some((file, change)) = next_change(&mut rest) else {
            break;
        };
        apply(&mut files, FILES[file], &change);
    }
    let folder = Folder::new();
    lay_out(folder.path(), &files);
    match load("fuzzed", "1", folder.path(), &options(*how)) {
        Ok(mut loaded) => runs(&mut loaded),
        Err(error) => {
            assert!(
                *how != 0 || !changes.is_empty(),
                "a sound folder is refused: {error}"
            );
            assert!(!error.to_string().is_empty());
        }
    }
}

/// An input of these changes.
pub fn input(folder: &str, how: u8, changes: &[(&str, Change<'_>)]) -> Vec<u8> {
    let at = |all: &[&str], name: &str| all.iter().position(|known| *known == name);
    let folder = at(&FOLDERS, folder).expect("a sound folder");
    let mut bytes = vec![folder as u8, how];
    for (file, change) in changes {
        let file = at(&FILES, file).expect("a file") as u8;
        let splice = |kind: u8, at: usize, cut: usize| {
            let (at, cut) = ((at as u32).to_be_bytes(), (cut as u16).to_be_bytes());
            [&[file | (kind << 3)][..], &at[1..], &cut].concat()
        };
        let (head, put) = match change {
            Change::Whole(put) => (vec![file], *put),
            Change::Splice(at, cut, put) => (splice(1, *at, *cut), *put),
            Change::Header(at, cut, put) => (splice(2, *at, *cut), *put),
            Change::Gone => (vec![file | (3 << 3)], &[][..]),
        };
        bytes.extend(head);
        bytes.extend((put.len() as u16).to_be_bytes());
        bytes.extend(put);
    }
    bytes
}

fn next_change<'a>(rest: &mut &'a [u8]) -> Option<(usize, Change<'a>)> {
    let [first] = *take(rest)?;
    let kind = (first >> 3) & 3;
    let (mut at, mut cut) = (0, 0);
    if kind == 1 || kind == 2 {
        let [a, b, c, d, e] = *take(rest)?;
        at = u32::from_be_bytes([0, a, b, c]) as usize;
        cut = usize::from(u16::from_be_bytes([d, e]));
    }
    let length = usize::from(u16::from_be_bytes(*take(rest)?));
    let (put, others) = rest.split_at(length.min(rest.len()));
    *rest = others;
    let change = match kind {
        0 => Change::Whole(put),
        1 => Change::Splice(at, cut, put),
        2 => Change::Header(at, cut, put),
        _ => Change::Gone,
    };
    Some((usize::from(first & 7), change))
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, others) = rest.split_first_chunk()?;
    *rest = others;
    Some(taken)
}

fn apply(files: &mut BTreeMap<&str, Vec<u8>>, name: &'static str, change: &Change<'_>) {
    match *change {
        Change::Whole(put) => drop(files.insert(name, put.to_vec())),
        Change::Gone => drop(files.remove(name)),
        Change::Splice(at, cut, put) => {
            let bytes = files.entry(name).or_default();
            splice(bytes, at, cut, put);
        }
        Change::Header(at, cut, put) => {
            let bytes = files.entry(name).or_default();
            let Some((length, _)) = bytes.split_first_chunk::<8>() else {
                return;
            };
            let length = (u64::from_le_bytes(*length) as usize).min(bytes.len() - 8);
            let data = bytes.split_off(8 + length);
            let mut header = bytes.split_off(8);
            splice(&mut header, at, cut, put);
            *bytes = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
        }
    }
}

fn splice(bytes: &mut Vec<u8>, at: usize, cut: usize, put: &[u8]) {
    let start = at % (bytes.len() + 1);
    let end = (start + cut).min(bytes.len());
    bytes.splice(start..end, put.iter().copied());
}

fn lay_out(folder: &Path, files: &BTreeMap<&str, Vec<u8>>) {
    fs::create_dir_all(folder.join("1_Pooling")).expect("creates the folder");
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).expect("writes");
    }
}

/// What the config file says about the model.
fn options(how: u8) -> LoadOptions {
    let is = |bit: u8| how & (1 << bit) != 0;
    LoadOptions {
        task: match how & 3 {
            0 => None,
            1 => Some(ModelTask::Embed),
            2 => Some(ModelTask::Classify),
            _ => Some(ModelTask::Regress),
        },
        pooling: is(2).then_some(Pooling::Cls),
        normalize: is(3).then_some(false),
        labels: is(4).then(|| vec!["no".to_owned(), "yes".to_owned()]),
        sha256: is(5).then(|| "0".repeat(64)),
        ..LoadOptions::default()
    }
}

/// What a model topic does with a model: records to a batch, a row for each, and its bytes.
fn runs(loaded: &mut LoadedModel) {
    let largest = LargestBatch {
        records: 1000,
        tokens: 1 << 20,
        longest: 1 << 17,
    };
    assert!(loaded.model.footprint().bytes(2, largest) > 0);
    let card = loaded.card.clone();
    let is_text = matches!(&*card, Card::Text(_));
    for codec in [Codec::Json, Codec::Raw, Codec::Text] {
        let of_json = is_text && codec == Codec::Json;
        let spec = of_json.then(|| TextSpec {
            path: "$.text".parse().ok(),
            ..TextSpec::default()
        });
        let Ok(decoder) = Decoder::new(&card, codec, spec.as_ref()) else {
            let is_read = !is_text && codec != Codec::Text;
            assert!(
                !is_read || needs_feature(&card, codec),
                "a card without {codec:?}"
            );
            continue;
        };
        let mut batch = card.takes().none();
        for record in records(codec, &card) {
            let before = batch.len();
            let decoded = decoder.decode(&record, &mut batch);
            let added = usize::from(decoded.is_ok());
            assert_eq!(batch.len(), before + added, "{decoded:?}");
        }
        if let (Input::Tokens(tokens), Card::Text(card)) = (&batch, &*card) {
            let longest = tokens.lengths().as_slice().iter().max();
            assert!(longest.is_none_or(|longest| *longest <= card.positions));
        }
        answers(loaded, &batch);
    }
}

/// Whether records alone do not give the model's row.
fn needs_feature(card: &Card, codec: Codec) -> bool {
    let pathless = |card: &ModelCard| card.inputs.iter().any(|input| input.path.is_none());
    codec == Codec::Json && card.tabular().is_some_and(pathless)
}

/// Records that some models can read.
fn records(codec: Codec, card: &Card) -> Vec<Vec<u8>> {
    let texts = TEXTS.into_iter();
    match (codec, card) {
        (Codec::Text, _) => texts.map(|text| text.as_bytes().to_vec()).collect(),
        (Codec::Json, _) => texts
            .take(2)
            .map(|text| {
                format!(
                    r#"{{"text":"{text}","amount":12.5,"amount_vs_mean":1,"n_last_hour":0,
                    "account_age_days":400,"distance_km":3,"hour":23,"card_present":true,
                    "merchant":{{"category":"fuel","country":"CZ"}}}}"#
                )
                .into_bytes()
            })
            .chain([b"{}".to_vec(), b"[1,".to_vec()])
            .collect(),
        (Codec::Raw, Card::Text(_)) => Vec::new(),
        (Codec::Raw, Card::Tabular(card)) => [0.0f32, -1.5, f32::MAX, f32::NAN]
            .map(|number| number.to_le_bytes().repeat(card.width()))
            .to_vec(),
    }
}

/// A row for each record; only texts may have none. What is not finite is an error of its record, and is
/// not encoded.
fn answers(loaded: &mut LoadedModel, batch: &Input) {
    let width = loaded.model.output_width();
    let counted = |rows: &Rows, records: usize| {
        let found = (rows.len(), rows.width());
        assert_eq!(found, (records, width), "rows of so many numbers");
    };
    let Ok(rows) = loaded.model.infer(batch) else {
        assert!(matches!(batch, Input::Tokens(_)), "rows have an answer");
        for record in 0..batch.len() {
            let alone = batch.slice(record..record + 1);
            if let Ok(rows) = loaded.model.infer(&alone) {
                counted(&rows, 1);
            }
        }
        return;
    };
    counted(&rows, batch.len());
    let again = loaded.model.replica().infer(batch);
    counted(&again.expect("a replica answers, too"), batch.len());
    for codec in [Codec::Json, Codec::Raw] {
        let mut encoder = OutputEncoder::new(&loaded.card, codec);
        for row in 0..rows.len() {
            let logits = rows.row(row);
            if logits.iter().all(|logit| logit.is_finite()) {
                let mut out = BytesMut::new();
                encoder.encode(logits, &mut out);
                assert!(!out.is_empty());
            }
        }
    }
}
