//! Templates and rules: what a derived record says in place of the model's own words, and what is produced besides.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::prepare::Seen;
use crate::codec::OutputEncoder;
use crate::expression::{Reference, Root, Scope, Template, write_json};
use crate::feature::plan::{FeatureValue, Plan};
use crate::feature::{Field, JsonPath, Step};
use crate::spec::{ModelTopicSpec, RuleSpec};
use crate::stream_log::InputRecord;

/// Writes derived records' values by a template, and those of rules.
pub(super) struct Writer {
    plan: Arc<Plan>,
    template: Option<Template>,
    rules: Vec<(RuleSpec, usize)>,
    /// The features in the order of their names, as they are written: `"n_5m":`.
    members: Vec<(String, usize)>,
    /// What the model says, as JSON.
    out: OutputEncoder,
}

impl Writer {
    /// None where a model topic has neither. `out` encodes JSON.
    pub(super) fn new(spec: &ModelTopicSpec, plan: Arc<Plan>, out: OutputEncoder) -> Option<Self> {
        let template = spec.output.template.clone();
        if template.is_none() && spec.rule.is_empty() {
            return None;
        }
        let topics = spec.alert_topics();
        let topic_of = |rule: &RuleSpec| {
            let mut topics = topics.iter();
            topics
                .position(|topic| topic == rule.produce.get_ref())
                .unwrap_or(0)
        };
        let rules = spec.rule.iter().map(|rule| (rule.clone(), topic_of(rule)));
        let mut members: Vec<(&str, usize)> = plan.names().zip(0..).collect();
        members.sort_unstable();
        // A feature's name has nothing to be escaped.
        let members = members
            .into_iter()
            .map(|(name, index)| (format!("\"{name}\":"), index));
        Some(Self {
            members: members.collect(),
            rules: rules.collect(),
            plan,
            template,
            out,
        })
    }

    /// The derived record's value, and the topic's number and the value of what each rule produces.
    pub(super) fn write(
        &mut self,
        encoder: &mut OutputEncoder,
        logits: &[f32],
        record: &InputRecord,
        seen: Option<&Seen>,
        buffer: &mut BytesMut,
    ) -> Result<(Bytes, Vec<(usize, Bytes)>), String> {
        self.out.encode(logits, buffer);
        let out = buffer.split().freeze();
        let scope = RecordScope {
            plan: &self.plan,
            members: &self.members,
            out: &out,
            record,
            seen,
            parsed_out: OnceCell::new(),
            parsed_in: OnceCell::new(),
        };
        let value = match &self.template {
            Some(template) => rendered(template, &scope, buffer)?,
            None => {
                encoder.encode(logits, buffer);
                buffer.split().freeze()
            }
        };
        let mut alerts = Vec::new();
        for (rule, topic) in &self.rules {
            if rule
                .when
                .is_true(&scope)
                .map_err(|error| error.to_string())?
            {
                let value = match &rule.template {
                    Some(template) => rendered(template, &scope, buffer)?,
                    None => value.clone(),
                };
                alerts.push((*topic, value));
            }
        }
        Ok((value, alerts))
    }
}

fn rendered(
    template: &Template,
    scope: &RecordScope<'_>,
    buffer: &mut BytesMut,
) -> Result<Bytes, String> {
    if let Err(error) = template.render(scope, buffer) {
        buffer.clear();
        return Err(error.to_string());
    }
    Ok(buffer.split().freeze())
}

/// What is known of one record.
struct RecordScope<'r> {
    plan: &'r Plan,
    members: &'r [(String, usize)],
    out: &'r Bytes,
    record: &'r InputRecord,
    seen: Option<&'r Seen>,
    parsed_out: OnceCell<serde_json::Value>,
    parsed_in: OnceCell<serde_json::Value>,
}

impl RecordScope<'_> {
    fn input(&self) -> &serde_json::Value {
        self.parsed_in.get_or_init(|| {
            let value = self.record.value.as_deref().unwrap_or_default();
            serde_json::from_slice(value).unwrap_or_default()
        })
    }

    fn features(&self) -> serde_json::Value {
        let Some(seen) = self.seen else {
            return serde_json::Value::Null;
        };
        let names = self.plan.names().map(str::to_owned);
        let values = seen.features.iter().map(|value| value.to_json());
        serde_json::Value::Object(names.zip(values).collect())
    }

    /// As [`RecordScope::features`], without a value in between.
    fn write_features(&self, seen: &Seen, out: &mut BytesMut) {
        let mut before = b'{';
        for (member, index) in self.members {
            out.put_u8(std::mem::replace(&mut before, b','));
            out.put_slice(member.as_bytes());
            // A growing buffer can't fail.
            let _ = match seen.features.get(*index) {
                Some(FeatureValue::Number(number)) => serde_json::to_writer(out.writer(), number),
                Some(FeatureValue::Text(text)) => serde_json::to_writer(out.writer(), text),
                Some(FeatureValue::Numbers(numbers)) => {
                    serde_json::to_writer(out.writer(), numbers)
                }
                Some(FeatureValue::Null) | None => serde_json::to_writer(out.writer(), &()),
            };
        }
        if self.members.is_empty() {
            out.put_u8(before);
        }
        out.put_u8(b'}');
    }

    fn feature(&self, path: &JsonPath) -> serde_json::Value {
        let (Some(seen), Some(Step::Name(name))) = (self.seen, path.steps().first()) else {
            return serde_json::Value::Null;
        };
        let index = self.plan.names().position(|known| known == name);
        let value = index.and_then(|index| seen.features.get(index));
        let value = value.map(|value| value.to_json()).unwrap_or_default();
        match path.steps() {
            [_] => value,
            [_, rest @ ..] => at(&value, rest).cloned().unwrap_or_default(),
            [] => serde_json::Value::Null,
        }
    }

    fn field(&self, path: &JsonPath) -> serde_json::Value {
        let slot = self.plan.slot(path);
        let field = slot.and_then(|slot| self.seen?.picked.fields.get(slot));
        match field {
            Some(Field::Integer(number)) => (*number).into(),
            Some(Field::Number(number)) if *number < 9.0e15 => (*number).into(),
            Some(Field::Bool(bool)) => (*bool).into(),
            Some(Field::Text(text)) => text.as_ref().into(),
            Some(Field::Absent | Field::Null) => serde_json::Value::Null,
            // What has parts, and what would lose digits.
            _ => at(self.input(), path.steps()).cloned().unwrap_or_default(),
        }
    }
}

impl Scope for RecordScope<'_> {
    fn write(&self, reference: &Reference, out: &mut BytesMut) {
        match (reference.root, &reference.path, self.seen) {
            (Root::Features, None, Some(seen)) => self.write_features(seen, out),
            _ => write_json(&self.get(reference), out),
        }
    }

    fn get(&self, reference: &Reference) -> Cow<'_, serde_json::Value> {
        match (reference.root, &reference.path) {
            (Root::In, None) => Cow::Borrowed(self.input()),
            (Root::In, Some(path)) => Cow::Owned(self.field(path)),
            (Root::Features, None) => Cow::Owned(self.features()),
            (Root::Features, Some(path)) => Cow::Owned(self.feature(path)),
            (Root::Out, path) => {
                let out = self
                    .parsed_out
                    .get_or_init(|| serde_json::from_slice(self.out).unwrap_or_default());
                let steps = path.as_ref().map_or(&[][..], JsonPath::steps);
                match at(out, steps) {
                    Some(value) => Cow::Borrowed(value),
                    None => Cow::Owned(serde_json::Value::Null),
                }
            }
        }
    }
}

fn at<'v>(value: &'v serde_json::Value, steps: &[Step]) -> Option<&'v serde_json::Value> {
    steps.iter().try_fold(value, |value, step| match step {
        Step::Name(name) => value.get(name.as_str()),
        Step::Index(index) => value.get(*index),
    })
}
