//! What `milena check` and `milena serve` refuse, and how they say it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;
use tests::{Milena, binary};

fn check(config: &str) -> Output {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("milena.toml");
    std::fs::write(&path, config).expect("the config");
    Command::new(binary())
        .args(["check", "--config"])
        .arg(&path)
        .output()
        .expect("milena check")
}

/// Checks the config, expects a refusal, and that the words say all of `names`.
fn refused(config: &str, names: &[&str]) {
    let output = check(config);
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &*String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "accepted: {config}");
    for name in names {
        assert!(said.contains(name), "{name:?} is not named in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

fn regressor(dir: &Path, weight_shape: &[usize], weights: &[f32]) {
    let card = json!({
        "model_type": "linear", "task": "regress", "output": 1,
        "inputs": [{ "path": "$.a" }, { "path": "$.b" }],
    });
    let tensors: [(&str, &[usize], &[f32]); 2] = [
        ("layers.0.weight", weight_shape, weights),
        ("layers.0.bias", &[1], &[0.0]),
    ];
    tests::write_model(dir, &card, &tensors);
}

fn with_model(source: &Path, more: &str) -> String {
    format!(
        "[[model]]\nname = \"m\"\nsource = {source:?}\n{more}\
         [[model_topic]]\nname = \"out\"\ninput = \"in\"\nmodel = \"m\"\n"
    )
}

#[test]
fn an_empty_config_is_sound() {
    assert!(check("").status.success());
}

#[test]
fn an_unknown_key_is_named_with_its_path_and_line() {
    refused(
        "[broker]\nnode_id = 1\nlissten = \"x\"\n",
        &["lissten", "milena.toml:3"],
    );
    refused(
        "[[model_topic]]\nname = \"out\"\ninput = \"in\"\nmodel = \"m\"\ndrift = 1\n",
        &["drift", "milena.toml:5"],
    );
    refused(
        "[broker]\nnode_id = \"one\"\n",
        &["node_id", "milena.toml:2"],
    );
}

#[test]
fn a_cycle_is_spelled_out() {
    let dir = tempfile::tempdir().expect("a folder");
    regressor(dir.path(), &[1, 2], &[1.0, 2.0]);
    refused(
        &format!(
            "[[model]]\nname = \"m\"\nsource = {:?}\n\
             [[model_topic]]\nname = \"a\"\ninput = \"b\"\nmodel = \"m\"\n\
             [[model_topic]]\nname = \"b\"\ninput = \"a\"\nmodel = \"m\"\n",
            dir.path()
        ),
        &["a -> b -> a"],
    );
}

#[test]
fn a_missing_model_folder_is_named() {
    refused(
        &with_model(Path::new("/nowhere/model"), ""),
        &["/nowhere/model", "model[0].source"],
    );
    refused(
        "[[model_topic]]\nname = \"out\"\ninput = \"in\"\nmodel = \"none\"\n",
        &["none", "model_topic[0].model"],
    );
}

#[test]
fn a_tensor_of_the_wrong_shape_is_named_with_both_shapes() {
    let dir = tempfile::tempdir().expect("a folder");
    regressor(dir.path(), &[1, 3], &[1.0, 2.0, 3.0]);
    refused(
        &with_model(dir.path(), ""),
        &["layers.0.weight", "[1, 3]", "[1, 2]"],
    );
}

#[test]
fn weights_of_another_hash_are_refused_with_both_hashes() {
    let dir = tempfile::tempdir().expect("a folder");
    regressor(dir.path(), &[1, 2], &[1.0, 2.0]);
    let pin = "0".repeat(64);
    refused(
        &with_model(dir.path(), &format!("sha256 = \"{pin}\"\n")),
        &[&pin, "sha256"],
    );
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    regressor(dir.path(), &[1, 2], &[1.0, f32::NAN]);
    refused(&with_model(dir.path(), ""), &["layers.0.weight"]);
}

#[test]
fn a_port_in_use_is_named() {
    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = holder.local_addr().expect("its address").to_string();
    let mut milena = Milena::prepare("", "");
    let config = milena.config().replace(&milena.bootstrap(), &address);
    milena.set_config(config);
    milena.spawn();
    assert!(!milena.wait_for_exit().success());
    assert!(milena.log().contains(&address), "{}", milena.log());
}

#[test]
fn a_data_folder_in_use_is_named() {
    let running = Milena::start("");
    let mut second = Milena::prepare("", "");
    let config = second.config().replace(
        second.data_dir().to_str().expect("a path"),
        running.data_dir().to_str().expect("a path"),
    );
    second.set_config(config);
    second.spawn();
    assert!(!second.wait_for_exit().success());
    let log = second.log();
    assert!(
        log.contains(running.data_dir().to_str().expect("a path")),
        "{log}"
    );
    assert!(log.contains("in use"), "{log}");
}

#[test]
fn a_codec_that_does_not_fit_its_model_is_named() {
    let texts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../inference/tests/golden/text/bert");
    refused(
        &with_model(&texts, ""),
        &[
            "model_topic[0].text.path",
            "codec.in is \"text\"",
            "milena.toml:4",
        ],
    );
    refused(
        &(with_model(&texts, "") + "codec = { in = \"text\" }\ntext = { max_tokens = 65 }\n"),
        &["model_topic[0].text.max_tokens", "65", "milena.toml:9"],
    );
    refused(
        &with_model(&texts, "task = \"regress\"\n"),
        &["model[0].source", "regress", "classify"],
    );
    let rows = tempfile::tempdir().expect("a folder");
    regressor(rows.path(), &[1, 2], &[1.0, 2.0]);
    refused(
        &(with_model(rows.path(), "") + "text = { path = \"$.a\" }\n"),
        &["model_topic[0].text", "models of texts"],
    );
    refused(
        &with_model(rows.path(), "pooling = \"mean\"\n"),
        &["model[0].source", "pooling is about models of texts"],
    );
}

#[test]
fn a_model_over_its_memory_is_refused_with_what_it_takes() {
    let texts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../inference/tests/golden/text/bert");
    let with_memory = |memory: &str, batch: &str| {
        with_model(
            &texts,
            &format!("workers = 2\nlimits = {{ max_memory = {memory} }}\n"),
        ) + "codec = { in = \"text\" }\n"
            + batch
    };
    assert!(check(&with_memory("\"8MiB\"", "")).status.success());
    refused(
        &with_memory("\"8MiB\"", "batch = { max_tokens = 1000000 }\n"),
        &[
            "model_topic[0].batch",
            "1000000 tokens on each of 2 workers",
            "limits.max_memory of 8.0 MiB",
        ],
    );
    refused(
        &with_memory("\"8 apples\"", ""),
        &["\"8 apples\" is not a size like", "milena.toml:5"],
    );
    refused(
        &with_model(&texts, "limits = { timeout = \"2h\" }\n"),
        &["\"2h\" is longer than 3600s", "milena.toml:4"],
    );
}
