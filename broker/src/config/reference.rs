//! The keys of the config file for people to read, made from the schema and so from the types.

use std::fmt::Write;

use serde_json::Value;

use super::schema;

/// Markdown: a section for each table, a line for each key.
pub fn reference() -> String {
    let schema = schema();
    let reference = Reference { root: &schema };
    let mut text = String::from(
        "# Every key of the configuration\n\n\
         Made from the code by `milena schema --reference`. `milena.toml` beside this file shows the keys with their\n\
         defaults, and says more of them; `milena.schema.json` is the same for editors.\n",
    );
    for (name, section) in properties(&schema) {
        reference.section(name, section, &mut text);
    }
    text
}

struct Reference<'a> {
    root: &'a Value,
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let keys = schema.get("properties").and_then(Value::as_object);
    keys.into_iter().flatten()
}

/// Whether it is a table of keys that are known.
fn has_keys(schema: &Value) -> bool {
    properties(schema).next().is_some()
}

impl<'a> Reference<'a> {
    /// What a reference to a definition stands for.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let mut schema = schema;
        loop {
            let only = schema
                .get("allOf")
                .and_then(Value::as_array)
                .and_then(|all| all.first());
            let target = schema.get("$ref").and_then(Value::as_str);
            let target = target.and_then(|target| self.root.pointer(target.strip_prefix('#')?));
            schema = match target.or(only) {
                Some(next) => next,
                None => return schema,
            };
        }
    }

    /// A table of the file, or a list of them, and those within.
    fn section(&self, name: &str, schema: &'a Value, text: &mut String) {
        let resolved = self.resolve(schema);
        let (heading, table) = match resolved.get("items") {
            Some(items) => (format!("[[{name}]]"), self.resolve(items)),
            None => (format!("[{name}]"), resolved),
        };
        let description = self.description(schema);
        let _ = write!(text, "\n## `{heading}`\n\n");
        if !description.is_empty() {
            let _ = write!(text, "{description}\n\n");
        }
        text.push_str("| key | | default | |\n|---|---|---|---|\n");
        let mut lists = Vec::new();
        self.keys("", table, &mut lists, text);
        for (key, schema) in lists {
            self.section(&format!("{name}.{key}"), schema, text);
        }
    }

    /// A line for each key of a table; those of a table within it have its name before theirs.
    fn keys(
        &self,
        prefix: &str,
        table: &'a Value,
        lists: &mut Vec<(String, &'a Value)>,
        text: &mut String,
    ) {
        let required = table.get("required").and_then(Value::as_array);
        for (name, schema) in properties(table) {
            let key = format!("{prefix}{name}");
            let resolved = self.resolve(schema);
            let items = resolved.get("items").map(|items| self.resolve(items));
            if items.is_some_and(has_keys) {
                lists.push((key, schema));
                continue;
            }
            let is_required = required.is_some_and(|all| all.iter().any(|known| known == name));
            let default = match (schema.get("default"), is_required) {
                (_, true) => "required".to_owned(),
                (Some(default), _) => format!("`{}`", shown(default)),
                (None, _) => String::new(),
            };
            let kind = kind(resolved);
            let description = self.description(schema).replace('|', "\\|");
            let _ = writeln!(text, "| `{key}` | {kind} | {default} | {description} |");
            if has_keys(resolved) {
                self.keys(&format!("{key}."), resolved, lists, text);
            }
        }
    }

    /// Its own words, then those about its type and its choices.
    fn description(&self, schema: &'a Value) -> String {
        let words = |schema: &Value| {
            let words = schema.get("description").and_then(Value::as_str);
            let words = words.map(|words| words.replace('\n', " "));
            // A section's words begin with what its heading says.
            words.map(|words| {
                match words
                    .strip_prefix("`[")
                    .and_then(|rest| rest.split_once("]`"))
                {
                    Some((_, rest)) => rest.trim_start_matches([']', ':', ' ']).to_owned(),
                    None => words,
                }
            })
        };
        let resolved = self.resolve(schema);
        let mut parts: Vec<String> = words(schema).into_iter().collect();
        let choices = resolved.get("oneOf").and_then(Value::as_array);
        let choices = choices.into_iter().flatten().filter_map(|choice| {
            let name = choice.get("const").or(choice.pointer("/enum/0"))?;
            let words = words(choice)?;
            Some(format!("{} ({})", shown(name), words.trim_end_matches('.')))
        });
        let choices: Vec<String> = choices.collect();
        if !choices.is_empty() {
            parts.push(format!("{}.", choices.join("; ")));
        } else if !has_keys(resolved) && !std::ptr::eq(schema, resolved) {
            parts.extend(words(resolved).filter(|words| !parts.contains(words)));
        }
        parts.retain(|words| !words.is_empty());
        parts.join(" ")
    }
}

/// As TOML has it.
fn shown(value: &Value) -> String {
    value.to_string()
}

/// What may stand there.
fn kind(schema: &Value) -> String {
    let name = match schema.get("type") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Array(names)) => {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            names.join(" or ")
        }
        _ => match (schema.get("anyOf"), schema.get("enum"), schema.get("oneOf")) {
            (Some(Value::Array(kinds)), _, _) => {
                let kinds: Vec<String> = kinds.iter().map(kind).collect();
                kinds.join(" or ")
            }
            (_, Some(_), _) | (_, _, Some(_)) => "string".to_owned(),
            _ => String::new(),
        },
    };
    name.replace("object", "table").replace("array", "list")
}
