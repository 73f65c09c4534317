//! The config file as a JSON Schema, made from the types, for editors.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Config;

/// Draft 7, which is what editors of TOML read.
pub fn schema() -> Value {
    let generator = SchemaSettings::draft07().into_generator();
    let mut schema = Value::from(generator.into_root_schema_for::<Config>());
    plain(&mut schema);
    schema
}

/// TOML has no null, and formats of numbers are Rust's. A default that is a table is told by its keys.
fn plain(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.remove("format");
            if matches!(
                members.get("default"),
                Some(Value::Null | Value::Object(_) | Value::Array(_))
            ) {
                members.remove("default");
            }
            if let Some(Value::Array(types)) = members.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    members.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(mut either)) = members.remove("anyOf") {
                either.retain(|schema| schema.get("type").is_none_or(|name| name != "null"));
                let key = if either.len() == 1 { "allOf" } else { "anyOf" };
                members.insert(key.to_owned(), either.into());
            }
            for (key, value) in members {
                match value {
                    // By names that may be anything.
                    Value::Object(named) if key == "properties" || key == "definitions" => {
                        named.values_mut().for_each(plain);
                    }
                    value => plain(value),
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(plain),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
