//! What grows where inputs of model topics get more partitions.
//!
//! A model topic's inputs have equally many partitions, and its outputs as many as they. So its
//! outputs grow with its inputs, and what is derived from those in turn; and several inputs grow
//! together or not at all.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::Growth;

/// A model topic's topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Feed {
    pub model_topic: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    /// Keys must stay in their partitions: what is remembered of them is there.
    pub keeps_keys: bool,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// All of this at once.
    pub growths: Vec<Growth>,
    /// What was asked for and can't be, and why.
    pub refused: BTreeMap<String, String>,
}

/// Plans a growth of topics, by name, to so many partitions. `feeds` are in an order in which every
/// input comes before what is derived from it; `count` tells how many partitions a topic has.
pub(super) fn plan(
    feeds: &[Feed],
    mut asked: BTreeMap<String, i32>,
    count: impl Fn(&str) -> Option<i32>,
) -> Plan {
    let mut refused = BTreeMap::new();
    loop {
        match spread(feeds, &asked, &count) {
            Ok(all) => {
                let growths = all.into_iter();
                let growths = growths.map(|(topic, partitions)| Growth { topic, partitions });
                return Plan {
                    growths: growths.collect(),
                    refused,
                };
            }
            Err((blamed, reason)) => {
                for topic in blamed {
                    asked.remove(&topic);
                    refused.insert(topic, reason.clone());
                }
            }
        }
    }
}

/// Everything that grows with what was asked for; or the topics of `asked` that would leave a model
/// topic with unequal inputs.
fn spread(
    feeds: &[Feed],
    asked: &BTreeMap<String, i32>,
    count: &impl Fn(&str) -> Option<i32>,
) -> Result<BTreeMap<String, i32>, (BTreeSet<String>, String)> {
    let mut grown = asked.clone();
    let mut because: BTreeMap<&str, BTreeSet<String>> = asked
        .keys()
        .map(|topic| (topic.as_str(), BTreeSet::from([topic.clone()])))
        .collect();
    for feed in feeds {
        let causes: BTreeSet<String> = feed
            .inputs
            .iter()
            .filter_map(|input| because.get(input.as_str()))
            .flatten()
            .cloned()
            .collect();
        if causes.is_empty() {
            continue;
        }
        if feed.keeps_keys {
            let reason = format!(
                "model topic '{}' keeps state by the records' keys, which would be in other partitions: give it a key \
                 ('key = \"$.field\"'), and its state is kept in partitions of its own",
                feed.model_topic
            );
            return Err((causes, reason));
        }
        let mut counts = feed
            .inputs
            .iter()
            .map(|input| grown.get(input).copied().or_else(|| count(input)));
        let first = counts.next().flatten();
        let Some(partitions) = first.filter(|_| counts.all(|other| other == first)) else {
            let reason = format!(
                "the inputs of model topic '{}' must have the same number of partitions: grow {} \
                 in one request",
                feed.model_topic,
                feed.inputs.join(", ")
            );
            return Err((causes, reason));
        };
        for output in &feed.outputs {
            if count(output).is_some_and(|current| current < partitions) {
                grown.insert(output.clone(), partitions);
                because
                    .entry(output)
                    .or_default()
                    .extend(causes.iter().cloned());
            }
        }
    }
    Ok(grown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(model_topic: &str, inputs: &[&str]) -> Feed {
        Feed {
            model_topic: model_topic.to_owned(),
            inputs: inputs.iter().map(|input| (*input).to_owned()).collect(),
            outputs: vec![model_topic.to_owned(), format!("{model_topic}.dlq")],
            keeps_keys: false,
        }
    }

    /// Every topic has two partitions.
    fn planned(feeds: &[Feed], asked: &[(&str, i32)]) -> (Vec<(String, i32)>, Vec<String>) {
        let asked = asked.iter().map(|(name, n)| ((*name).to_owned(), *n));
        let plan = plan(feeds, asked.collect(), |_| Some(2));
        let growths = plan.growths.into_iter().map(|g| (g.topic, g.partitions));
        (growths.collect(), plan.refused.into_keys().collect())
    }

    fn to(names: &[&str], partitions: i32) -> Vec<(String, i32)> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), partitions))
            .collect()
    }

    #[test]
    fn outputs_grow_with_their_input_and_so_does_what_is_derived_from_them() {
        let feeds = [feed("b", &["a"]), feed("c", &["b"]), feed("z", &["y"])];
        let all = to(&["a", "b", "b.dlq", "c", "c.dlq"], 5);
        assert_eq!(planned(&feeds, &[("a", 5)]), (all, vec![]));
        let plain = to(&["plain"], 3);
        assert_eq!(planned(&feeds, &[("plain", 3)]), (plain, vec![]));
    }

    #[test]
    fn several_inputs_grow_together_or_not_at_all() {
        let feeds = [feed("m", &["a", "b"])];
        let all = to(&["a", "b", "m", "m.dlq"], 4);
        assert_eq!(planned(&feeds, &[("a", 4), ("b", 4)]), (all, vec![]));
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(planned(&feeds, &[("a", 4)]), (vec![], names(&["a"])));
        let unequal = planned(&feeds, &[("a", 4), ("b", 5), ("plain", 3)]);
        assert_eq!(unequal, (to(&["plain"], 3), names(&["a", "b"])));
    }

    #[test]
    fn what_can_not_grow_further_on_is_refused_where_it_begins() {
        let feeds = [feed("b", &["a"]), feed("m", &["b", "other"])];
        let refused = (vec![], vec!["a".to_owned()]);
        assert_eq!(planned(&feeds, &[("a", 4)]), refused);
        let all = to(&["a", "b", "b.dlq", "m", "m.dlq", "other"], 4);
        assert_eq!(planned(&feeds, &[("a", 4), ("other", 4)]), (all, vec![]));
    }
}
