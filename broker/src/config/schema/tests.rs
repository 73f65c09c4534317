use std::collections::HashSet;
use std::path::Path;

use super::super::load::deserialize;
use super::super::reference;
use super::*;

/// A file that is made from the code, as it is in the repository.
fn is_current(file: &str, made: &str, command: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../config")
        .join(file);
    let committed = std::fs::read_to_string(&path).expect("it is there");
    assert!(
        committed == made,
        "config/{file} is not what the code says: cargo run -- {command} > config/{file}"
    );
}

#[test]
fn the_schema_in_the_repository_is_current() {
    is_current("milena.schema.json", &format!("{:#}\n", schema()), "schema");
}

#[test]
fn the_reference_in_the_repository_is_current() {
    is_current("REFERENCE.md", &reference(), "schema --reference");
}

/// The example configs, and the documented file with all that it shows.
fn shown_configs() -> Vec<(String, toml::Table)> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let text = std::fs::read_to_string(config.join("milena.toml")).expect("it is there");
    let shown: String = text
        .lines()
        .filter_map(|line| line.strip_prefix("#| ").or((line != "#|").then_some(line)))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut files = vec![("milena.toml".to_owned(), shown)];
    for example in std::fs::read_dir(config.join("examples")).expect("a folder") {
        let path = example.expect("an example").path().join("milena.toml");
        let text = std::fs::read_to_string(&path).expect("a config");
        files.push((path.display().to_string(), text));
    }
    let parsed = files
        .into_iter()
        .map(|(name, text)| (name, text.parse().expect("it is TOML")));
    parsed.collect()
}

#[test]
fn the_schema_takes_what_is_taken() {
    let validator = jsonschema::validator_for(&schema()).expect("a schema");
    for (name, config) in shown_configs() {
        let config = serde_json::to_value(config).expect("JSON has it all");
        let faults: Vec<String> = validator
            .iter_errors(&config)
            .map(|fault| format!("{}: {fault}", fault.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{name}: {faults:#?}");
    }
}

#[test]
fn the_schema_refuses_what_types_refuse() {
    let validator = jsonschema::validator_for(&schema()).expect("a schema");
    let topic = "[[model_topic]]\nname = \"o\"\ninput = \"i\"\nmodel = \"m\"\n";
    let feature = format!("{topic}[[model_topic.feature]]\nname = \"f\"\n");
    let is_legal = |text: &str| {
        let table: toml::Table = text.parse().expect("it is TOML");
        validator.is_valid(&serde_json::to_value(table).expect("JSON has it all"))
    };
    assert!(is_legal(topic) && is_legal(&feature));
    for text in [
        "[broken]\n".to_owned(),
        "[broker]\nnode_id = \"one\"\n".to_owned(),
        "[broker]\nlog_format = \"xml\"\n".to_owned(),
        "[http]\nport = 1\n".to_owned(),
        "[[topic]]\npartitions = 4\n".to_owned(),
        "[[model]]\nsource = \"x\"\n".to_owned(),
        format!("{topic}drift = 1\n"),
        format!("{topic}late = \"never\"\n"),
        format!("{topic}idle_timeout = \"1w\"\n"),
        format!("{topic}key = \"customer\"\n"),
        format!("{topic}state = {{ max_bytes = \"much\" }}\n"),
        format!("{feature}agg = \"sun\"\n"),
        format!("{feature}agg = \"quantile(1.5)\"\n"),
        format!("{feature}window = {{ sliding = 5 }}\n"),
        format!("{feature}lookup = {{ table = \"t\", key = \"$.k\" }}\n"),
    ] {
        assert!(!is_legal(&text), "the schema takes: {text}");
        let types = deserialize(&text, Path::new("milena.toml"));
        assert!(types.is_err(), "the types take: {text}");
    }
}

/// The keys of a table of the schema, as `model_topic.state.ttl`.
fn schema_keys(
    root: &serde_json::Value,
    at: &serde_json::Value,
    path: &str,
    keys: &mut Vec<String>,
) {
    let pointer = at.get("$ref").or(at.pointer("/allOf/0/$ref"));
    if let Some(target) = pointer.and_then(|pointer| pointer.as_str()?.strip_prefix('#')) {
        let target = root.pointer(target).expect("a definition");
        return schema_keys(root, target, path, keys);
    }
    if let Some(items) = at.get("items") {
        schema_keys(root, items, path, keys);
    }
    let properties = at.get("properties").and_then(|all| all.as_object());
    for (name, schema) in properties.into_iter().flatten() {
        let key = format!("{path}.{name}");
        keys.push(key.clone());
        schema_keys(root, schema, &key, keys);
    }
}

fn written_keys(value: &toml::Value, path: &str, keys: &mut HashSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let key = format!("{path}.{name}");
                keys.insert(key.clone());
                written_keys(value, &key, keys);
            }
        }
        toml::Value::Array(list) => {
            for value in list {
                written_keys(value, path, keys);
            }
        }
        _ => {}
    }
}

#[test]
fn every_key_of_the_schema_is_shown() {
    let mut written = HashSet::new();
    for (_, config) in shown_configs() {
        written_keys(&toml::Value::Table(config), "", &mut written);
    }
    let schema = schema();
    let mut keys = Vec::new();
    schema_keys(&schema, &schema, "", &mut keys);
    assert!(keys.len() > 100, "{keys:?}");
    let missing: Vec<&String> = keys.iter().filter(|key| !written.contains(*key)).collect();
    assert!(
        missing.is_empty(),
        "neither config/milena.toml nor an example shows {missing:?}"
    );
}
