//! From what the user wrote to a plan, or what is wrong with it.

use sha2::{Digest, Sha256};

use super::{Default, EventTime, Feature, Form, Kind, Lookup, PaneUse, Plan, RowPlan, Source};
use crate::codec::{CodecError, Decoder, Picker};
use crate::expression::Root;
use crate::feature::aggregate::Parts;
use crate::feature::pane::Pane;
use crate::feature::window::{Window, ms};
use crate::feature::{Features, JsonPath};
use crate::model::card::{Card, ModelCard};
use crate::spec::{
    Aggregate, Cast, Codec, EventTimeSpec, FeatureDefault, FeatureSpec, LookupSpec, MAX_FEATURES,
    ModelTopicSpec, Spanned,
};

/// Most buckets of a hash, and most texts of a one-hot feature.
const MAX_WIDTH: usize = 4096;

/// Features that do not fit one another, their records or their model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct PlanError {
    /// The key, as `feature[2].window`.
    pub key: String,
    /// Where it stands in the file, in bytes, if that is known.
    pub span: Option<std::ops::Range<usize>>,
    /// What is wrong.
    pub reason: String,
}

impl From<CodecError> for PlanError {
    fn from(error: CodecError) -> Self {
        Self {
            key: error.key.to_owned(),
            span: None,
            reason: error.reason,
        }
    }
}

/// The fields that are picked, each once.
#[derive(Default)]
struct Slots {
    picker: Picker,
    known: Vec<JsonPath>,
}

impl Slots {
    fn of(&mut self, path: &JsonPath, label: &str) -> usize {
        match self.known.iter().position(|known| known == path) {
            Some(slot) => slot,
            None => {
                self.known.push(path.clone());
                self.picker.add(path, label)
            }
        }
    }
}

impl Plan {
    /// Of a model topic, for its model. Event times are in the order of its inputs. `None` where there is nothing to plan:
    /// a record's fields are the model's row, and nothing else is wanted of them.
    pub fn new(
        spec: &ModelTopicSpec,
        card: &Card,
        event_times: &[Option<EventTimeSpec>],
    ) -> Result<Option<Self>, PlanError> {
        check(spec)?;
        let templates = spec
            .output
            .template
            .iter()
            .chain(spec.rule.iter().filter_map(|rule| rule.template.as_ref()));
        let wants_outputs = spec.output.template.is_some() || !spec.rule.is_empty();
        if spec.feature.is_empty() && !wants_outputs {
            return Ok(None);
        }
        let mut slots = Slots::default();
        let mut plan = Self {
            picker: None,
            wanted: Vec::new(),
            decoder: None,
            event_times: Vec::new(),
            features: Vec::new(),
            panes: Vec::new(),
            lookups: Vec::new(),
            row: None,
            late: spec.late,
            ttl_ms: ms(*spec.state.ttl.get_ref()),
        };
        for (index, feature) in spec.feature.iter().enumerate() {
            let compiled = plan
                .feature(feature, &mut slots)
                .map_err(|reason| PlanError {
                    key: format!("feature[{index}]"),
                    span: Some(feature.name.span()),
                    reason: format!("{:?}: {reason}", feature.name.get_ref()),
                })?;
            plan.features.push(compiled);
        }
        plan.check_ttl(spec)?;
        let references = templates
            .flat_map(|template| template.references())
            .chain(spec.rule.iter().flat_map(|rule| rule.when.references()));
        for reference in references {
            match (reference.root, &reference.path) {
                (Root::In, Some(path)) => {
                    let slot = slots.of(path, path.as_str());
                    plan.wanted.push((path.clone(), slot));
                }
                (Root::Features, Some(path)) => plan.check_name(path)?,
                _ => {}
            }
        }
        // An input's event time is nothing to those who keep nothing.
        if plan.is_stateful() {
            for event_time in event_times {
                plan.event_times
                    .push(event_time.as_ref().map(|spec| EventTime {
                        slot: slots.of(&spec.field, spec.field.as_str()),
                        label: spec.field.as_str().to_owned(),
                        format: spec.format,
                    }));
            }
        }
        match (card, spec.codec.r#in) {
            (Card::Tabular(card), Codec::Json) => plan.row = Some(plan.row_plan(card, &mut slots)?),
            _ => plan.decoder = Some(Decoder::new(card, spec.codec.r#in, spec.text.as_ref())?),
        }
        if !slots.known.is_empty() {
            if spec.codec.r#in != Codec::Json {
                return Err(PlanError {
                    key: "codec.in".to_owned(),
                    span: None,
                    reason: format!(
                        "the field {} is of a JSON record, and codec.in is not \"json\"",
                        slots.known[0]
                    ),
                });
            }
            plan.picker = Some(slots.picker);
        }
        Ok(Some(plan))
    }

    fn check_name(&self, path: &JsonPath) -> Result<(), PlanError> {
        let name = match path.steps() {
            [crate::feature::Step::Name(name), ..] => name.as_str(),
            _ => "",
        };
        match self.names().any(|known| known == name) {
            true => Ok(()),
            false => Err(PlanError {
                key: "output.template or rule".to_owned(),
                span: None,
                reason: format!("there is no feature {name:?}"),
            }),
        }
    }

    fn feature(&mut self, spec: &FeatureSpec, slots: &mut Slots) -> Result<Feature, String> {
        let name = spec.name.get_ref();
        let (shift, divisor) = match &spec.scale {
            Some(scale) => scale
                .get_ref()
                .shift_and_divisor()
                .map_err(|reason| format!("scale: {reason}"))?,
            None => (0.0, 1.0),
        };
        let form = form(spec)?;
        let default = spec.default.as_ref().or_else(|| {
            let lookup = spec.lookup.as_ref();
            lookup.and_then(|lookup| lookup.default.as_ref())
        });
        let is_text = form != Form::Plain || spec.cast == Some(Cast::Text);
        let default = match (default.map(Spanned::get_ref), is_text) {
            (Some(FeatureDefault::Number(number)), false) => Default::Number(*number),
            (Some(FeatureDefault::Text(text)), true) => Default::Text(text.clone()),
            (Some(_), true) => return Err("the default of a text is a text".to_owned()),
            (Some(_), false) => return Err("the default of a number is a number".to_owned()),
            (None, _) if spec.agg.is_some() => Default::Number(0.0),
            (None, _) => Default::Required,
        };
        if is_text && (spec.op.is_some() || spec.scale.is_some()) {
            return Err("op and scale are of numbers".to_owned());
        }
        let kind = match (&spec.path, spec.agg, &spec.lookup) {
            (path, Some(aggregate), None) => {
                if is_text || spec.cast.is_some() {
                    return Err(
                        "an aggregate is a number: cast, one_hot and hash are of fields".to_owned(),
                    );
                }
                self.aggregate(spec, path.as_ref(), aggregate, slots)?
            }
            (Some(path), None, None) if spec.window.is_none() => Kind::Field(slots.of(path, name)),
            (Some(_), None, None) => return Err("a window is of an aggregate: give agg".to_owned()),
            (None, None, Some(lookup)) => Kind::Lookup(self.lookup(lookup, slots)),
            (None, None, None) => {
                return Err(
                    "a feature is a field (path), an aggregate (agg) or a lookup".to_owned(),
                );
            }
            (_, _, Some(_)) => return Err("a lookup has its path in it, and no agg".to_owned()),
        };
        Ok(Feature {
            name: name.clone(),
            kind,
            form,
            default,
            cast: spec.cast,
            op: spec.op,
            shift,
            divisor,
        })
    }

    fn aggregate(
        &mut self,
        spec: &FeatureSpec,
        path: Option<&JsonPath>,
        aggregate: Aggregate,
        slots: &mut Slots,
    ) -> Result<Kind, String> {
        if path.is_none() && !aggregate.counts_records() {
            return Err(format!("{aggregate} is of a field: give its path"));
        }
        let window = Window::new(spec.window.as_ref().map(Spanned::get_ref))
            .map_err(|reason| format!("window: {reason}"))?;
        if aggregate == Aggregate::Rate && window == Window::All {
            return Err("a rate is of a window: give one".to_owned());
        }
        let slot = path.map(|path| slots.of(path, spec.name.get_ref()));
        let needs_before = matches!(
            aggregate,
            Aggregate::Last | Aggregate::Delta | Aggregate::TimeSinceLast
        );
        let parts = Parts::of(aggregate);
        let same = |used: &PaneUse| used.slot == slot && used.pane.window == window;
        let at = self.panes.iter().position(same).unwrap_or_else(|| {
            self.panes.push(PaneUse {
                pane: Pane {
                    id: 0,
                    window,
                    parts,
                    needs_before,
                },
                slot,
                label: path.map_or_else(String::new, |path| path.as_str().to_owned()),
            });
            self.panes.len() - 1
        });
        if let Some(used) = self.panes.get_mut(at) {
            used.pane.parts = used.pane.parts.with(parts);
            used.pane.needs_before |= needs_before;
            used.pane.id = id(used);
        }
        Ok(Kind::Aggregate(at, aggregate))
    }

    fn lookup(&mut self, spec: &LookupSpec, slots: &mut Slots) -> usize {
        self.lookups.push(Lookup {
            table: spec.table.get_ref().clone(),
            path: spec.path.clone(),
            slot: slots.of(&spec.key, spec.key.as_str()),
        });
        self.lookups.len() - 1
    }

    /// State that a window needs must not be forgotten before.
    fn check_ttl(&self, spec: &ModelTopicSpec) -> Result<(), PlanError> {
        let longest = self
            .panes()
            .filter_map(|pane| pane.window.retention_ms())
            .max();
        match longest {
            Some(longest) if longest > self.ttl_ms => Err(PlanError {
                key: "state.ttl".to_owned(),
                span: Some(spec.state.ttl.span()),
                reason: format!(
                    "{} ms is less than the longest window with its grace, {longest} ms",
                    self.ttl_ms
                ),
            }),
            _ => Ok(()),
        }
    }

    fn row_plan(&self, card: &ModelCard, slots: &mut Slots) -> Result<RowPlan, PlanError> {
        let mut sources = Vec::with_capacity(card.inputs.len());
        for (index, input) in card.inputs.iter().enumerate() {
            let refused = |reason: String| PlanError {
                key: "feature".to_owned(),
                span: None,
                reason: format!("the model's input {index}, {:?}, {reason}", input.label()),
            };
            let named = input.name.as_deref();
            let feature = self
                .features
                .iter()
                .position(|feature| Some(feature.name.as_str()) == named);
            let source = match (feature, &input.path) {
                (Some(feature), _) => {
                    let width = self.features.get(feature).and_then(Feature::width);
                    let fits = match (&input.one_of, width) {
                        (Some(_), width) => width.is_none(),
                        (None, width) => width == Some(input.width()),
                    };
                    if !fits {
                        let is =
                            width.map_or("a text".to_owned(), |width| format!("{width} numbers"));
                        let needed = match &input.one_of {
                            Some(_) => "a text".to_owned(),
                            None => format!("{} numbers", input.width()),
                        };
                        return Err(refused(format!(
                            "is {needed}, and the feature of that name is {is}"
                        )));
                    }
                    Source::Feature(feature)
                }
                (None, Some(path)) => Source::Slot(slots.of(path, input.label())),
                (None, None) => {
                    return Err(refused(
                        "has no path: it needs a feature of that name".to_owned(),
                    ));
                }
            };
            sources.push(source);
        }
        Ok(RowPlan {
            inputs: Features::new(&card.inputs),
            sources,
        })
    }
}

fn form(spec: &FeatureSpec) -> Result<Form, String> {
    let width = |key: &str, width: usize| match (1..=MAX_WIDTH).contains(&width) {
        true => Ok(()),
        false => Err(format!("{key} is from 1 to {MAX_WIDTH}, not {width}")),
    };
    match (&spec.one_hot, &spec.hash) {
        (None, None) => Ok(Form::Plain),
        (Some(texts), None) => {
            let texts = texts.get_ref();
            width("one_hot", texts.len())?;
            for (index, text) in texts.iter().enumerate() {
                if texts[..index].contains(text) {
                    return Err(format!("one_hot names {text:?} twice"));
                }
            }
            Ok(Form::OneHot(texts.clone()))
        }
        (None, Some(buckets)) => {
            width("hash", *buckets.get_ref())?;
            Ok(Form::Hash(*buckets.get_ref()))
        }
        (Some(_), Some(_)) => Err("one_hot and hash are two ways: choose one".to_owned()),
    }
}

/// What does not depend on the model.
fn check(spec: &ModelTopicSpec) -> Result<(), PlanError> {
    if spec.feature.len() > MAX_FEATURES {
        return Err(PlanError {
            key: "feature".to_owned(),
            span: None,
            reason: format!(
                "{} features, and there may be {MAX_FEATURES}",
                spec.feature.len()
            ),
        });
    }
    for (index, feature) in spec.feature.iter().enumerate() {
        let name = feature.name.get_ref();
        let refused = |reason: &str| PlanError {
            key: format!("feature[{index}].name"),
            span: Some(feature.name.span()),
            reason: format!("{name:?} {reason}"),
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || name.len() > 128 || !name.bytes().all(is_plain) {
            return Err(refused(
                "is not a name of up to 128 letters, digits and '_'",
            ));
        }
        if spec.feature[..index]
            .iter()
            .any(|before| before.name == feature.name)
        {
            return Err(refused("is another feature's name already"));
        }
    }
    Ok(())
}

/// A pane that is the same has the same state; 0 is not a pane's.
fn id(used: &PaneUse) -> u32 {
    let what = format!(
        "{:?} {:?} {}",
        used.label,
        used.pane.window,
        used.pane.parts.bits()
    );
    let digest = Sha256::digest(what);
    let bytes = digest.first_chunk::<4>().copied().unwrap_or_default();
    u32::from_be_bytes(bytes).max(1)
}
