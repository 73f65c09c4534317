//! Which topics model topics write and read, and what is wrong with that: clashes, and cycles.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Problem, SpecError, check_name};
use crate::spec::{ModelTopicSpec, Spanned};

/// A topic that a model topic writes.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenTopic {
    /// Its name.
    pub topic: String,
    /// What it is of the model topic: `the derived topic`.
    pub what: &'static str,
    /// Whether nobody else has any business with it.
    pub internal: bool,
    /// The key that names it, as `on_error.dlq`.
    key: String,
    span: Range<usize>,
}

/// A topic that a model topic reads.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadTopic {
    /// Its name.
    pub topic: String,
    /// Whether it is looked up, and no input.
    pub table: bool,
    key: String,
    span: Range<usize>,
}

impl ModelTopicSpec {
    /// The topics that it writes, each once.
    pub fn written_topics(&self) -> Vec<WrittenTopic> {
        let named = |topic, what, internal| WrittenTopic {
            topic,
            what,
            internal,
            key: "name".to_owned(),
            span: self.name.span(),
        };
        let mut written = vec![
            named(self.name().to_owned(), "the derived topic", false),
            named(self.changelog_topic(), "the changelog", true),
        ];
        if let Some(between) = self.repartition_topic() {
            let positions = format!("{between}.changelog");
            written.push(named(between, "the repartition topic", true));
            written.push(named(
                positions,
                "the changelog of the repartition topic",
                true,
            ));
        }
        if let Some(topic) = self.dead_letter_topic() {
            let given = self.on_error.dlq.as_ref();
            written.push(WrittenTopic {
                topic,
                what: "the dead-letter topic",
                internal: false,
                key: given.map_or("name", |_| "on_error.dlq").to_owned(),
                span: given.unwrap_or(&self.name).span(),
            });
        }
        let alerts = self.rule.iter().map(|rule| &rule.produce);
        let mut seen: Vec<&str> = Vec::new();
        for (index, produce) in alerts.enumerate() {
            if !seen.contains(&produce.get_ref().as_str()) {
                seen.push(produce.get_ref());
                written.push(WrittenTopic {
                    topic: produce.get_ref().clone(),
                    what: "an alert topic",
                    internal: false,
                    key: format!("rule[{index}].produce"),
                    span: produce.span(),
                });
            }
        }
        written
    }

    /// The topics that it reads: inputs, and then tables, which may come more than once.
    pub fn read_topics(&self) -> Vec<ReadTopic> {
        let inputs = self.input.0.iter().enumerate().map(|(number, input)| {
            let key = match self.input.0.len() {
                1 => "input".to_owned(),
                _ => format!("input[{number}]"),
            };
            (key, input, false)
        });
        let features = self.feature.iter().enumerate();
        let tables = features.filter_map(|(index, feature)| {
            let table = &feature.lookup.as_ref()?.table;
            Some((format!("feature[{index}].lookup.table"), table, true))
        });
        inputs
            .chain(tables)
            .map(|(key, topic, table)| ReadTopic {
                topic: topic.get_ref().clone(),
                table,
                key,
                span: topic.span(),
            })
            .collect()
    }
}

fn error(index: usize, key: &str, span: &Range<usize>, problem: Problem) -> SpecError {
    SpecError {
        key: format!("model_topic[{index}].{key}"),
        span: span.clone(),
        problem,
    }
}

/// What is no name of a topic, is written by two or is read by those who must not.
pub(super) fn check(model_topics: &[Spanned<ModelTopicSpec>], faults: &mut Vec<SpecError>) {
    let mut taken: BTreeMap<String, (String, bool)> = BTreeMap::new();
    for (index, spec) in model_topics.iter().enumerate() {
        let mut is_named = true;
        for written in spec.get_ref().written_topics() {
            let refused = |problem| error(index, &written.key, &written.span, problem);
            if let Err(problem) = check_name(&written.topic) {
                // What else is made of a name that is none is not told again.
                if written.key != "name" || std::mem::take(&mut is_named) {
                    faults.push(refused(problem));
                }
                continue;
            }
            let by = format!("{} of model_topic[{index}]", written.what);
            match taken.get(&written.topic) {
                Some((by, _)) => faults.push(refused(Problem::Duplicate {
                    name: written.topic.clone(),
                    by: by.clone(),
                })),
                None => {
                    taken.insert(written.topic.clone(), (by, written.internal));
                }
            }
        }
    }
    for (index, spec) in model_topics.iter().enumerate() {
        let spec = spec.get_ref();
        if spec.input.0.is_empty() {
            faults.push(error(index, "input", &spec.name.span(), Problem::NoInput));
        }
        let reads = spec.read_topics();
        for (number, read) in reads.iter().enumerate() {
            let same = |before: &&ReadTopic| before.topic == read.topic && !before.table;
            let by = match taken.get(&read.topic) {
                Some((by, true)) => Some(by.clone()),
                _ if read.table => None,
                _ => {
                    let before = reads.iter().take(number).find(same);
                    before.map(|_| "an input".to_owned())
                }
            };
            let problem = match (check_name(&read.topic), by) {
                (Err(problem), _) => problem,
                (_, Some(by)) => Problem::Duplicate {
                    name: read.topic.clone(),
                    by,
                },
                _ => continue,
            };
            faults.push(error(index, &read.key, &read.span, problem));
        }
    }
    check_cycles(model_topics, faults);
}

/// Follows what each model topic reads to whoever writes that.
fn check_cycles(model_topics: &[Spanned<ModelTopicSpec>], faults: &mut Vec<SpecError>) {
    let mut writers: BTreeMap<String, usize> = BTreeMap::new();
    for (index, spec) in model_topics.iter().enumerate() {
        for written in spec.get_ref().written_topics() {
            writers.entry(written.topic).or_insert(index);
        }
    }
    let reads: Vec<Vec<ReadTopic>> = model_topics
        .iter()
        .map(|spec| spec.get_ref().read_topics())
        .collect();
    let mut done = vec![false; reads.len()];
    for start in 0..reads.len() {
        // The way so far: each model topic with the next of what it reads.
        let mut way: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some(&mut (at, ref mut next)) = way.last_mut() {
            let read = reads.get(at).and_then(|reads| reads.get(*next));
            let Some(read) = read.filter(|_| !done[at]) else {
                done[at] = true;
                way.pop();
                continue;
            };
            *next += 1;
            let Some(&writer) = writers.get(&read.topic) else {
                continue;
            };
            match way.iter().position(|&(seen, _)| seen == writer) {
                Some(from) => faults.push(cycle(&reads, &way[from..], at, read)),
                None => way.push((writer, 0)),
            }
        }
    }
}

/// `way` goes from the model topic that writes what `closing` reads upstream to the one that reads it.
fn cycle(
    reads: &[Vec<ReadTopic>],
    way: &[(usize, usize)],
    index: usize,
    closing: &ReadTopic,
) -> SpecError {
    // What each step reads the next model topic upstream writes; data flows the other way.
    let mut names = vec![closing.topic.clone()];
    for &(at, next) in way.iter().rev().skip(1) {
        let read = reads.get(at).and_then(|reads| reads.get(next - 1));
        names.extend(read.map(|read| read.topic.clone()));
    }
    names.push(closing.topic.clone());
    let problem = Problem::Cycle(names.join(" -> "));
    error(index, &closing.key, &closing.span, problem)
}
