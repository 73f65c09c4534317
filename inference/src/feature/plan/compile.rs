//! From what the user wrote to a plan, or what is wrong with it.

use sha2::{Digest, Sha256};

use super::{Default, EventTime, Feature, Form, Kind, Lookup, PaneUse, Plan, RowPlan, Source};
use crate::codec::{CodecError, Decoder, Picker};
use crate::expression::{Root, Template};
use crate::feature::aggregate::Parts;
use crate::feature::pane::Pane;
use crate::feature::window::{Window, ms};
use crate::feature::{Features, JsonPath};
use crate::model::card::{Card, InputSpec, ModelCard};
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

/// What is wrong with a feature: the key within it, and why.
type FeatureFault = (&'static str, String);

fn of_feature(reason: impl Into<String>) -> FeatureFault {
    ("", reason.into())
}

impl Plan {
    /// Of a model topic, for its model. Event times are in the order of its inputs. `None` where there is nothing to plan:
    /// a record's fields are the model's row, and nothing else is wanted of them.
    pub fn new(
        spec: &ModelTopicSpec,
        card: &Card,
        event_times: &[Option<EventTimeSpec>],
    ) -> Result<Option<Self>, PlanError> {
        let mut faults = Vec::new();
        let plan = Self::compile(spec, Some(card), event_times, &mut faults);
        match faults.into_iter().next() {
            Some(fault) => Err(fault),
            None => Ok(plan),
        }
    }

    /// Everything that keeps a model topic's features from fitting one another, its codecs and, where its card is known, its
    /// model.
    pub fn faults(spec: &ModelTopicSpec, card: Option<&Card>) -> Vec<PlanError> {
        let mut faults = Vec::new();
        check_key(spec, &mut faults);
        // Where event times are does not matter.
        let plan = Self::compile(spec, card, &[], &mut faults);
        if let (None, Some(card)) = (plan, card)
            && let Err(error) = Decoder::new(card, spec.codec.r#in, spec.text.as_ref())
        {
            faults.push(error.into());
        }
        faults
    }

    fn compile(
        spec: &ModelTopicSpec,
        card: Option<&Card>,
        event_times: &[Option<EventTimeSpec>],
        faults: &mut Vec<PlanError>,
    ) -> Option<Self> {
        check(spec, faults);
        if !spec.has_plan() {
            return None;
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
            match plan.feature(feature, &mut slots) {
                Ok(feature) => plan.features.push(feature),
                Err((key, reason)) => faults.push(PlanError {
                    key: match key {
                        "" => format!("feature[{index}]"),
                        key => format!("feature[{index}].{key}"),
                    },
                    span: Some(feature.name.span()),
                    reason: format!("{:?}: {reason}", feature.name.get_ref()),
                }),
            }
        }
        plan.check_ttl(spec, faults);
        plan.take_references(spec, &mut slots, faults);
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
            // A feature that is refused is missing here, and that was told.
            (Some(_), _) if plan.features.len() < spec.feature.len() => {}
            (Some(Card::Tabular(card)), Codec::Json) => {
                plan.row = Some(plan.row_plan(card, &mut slots, faults));
            }
            (Some(card), _) => match Decoder::new(card, spec.codec.r#in, spec.text.as_ref()) {
                Ok(decoder) => plan.decoder = Some(decoder),
                Err(error) => faults.push(error.into()),
            },
            (None, _) => {}
        }
        if let Some(field) = slots.known.first() {
            if spec.codec.r#in != Codec::Json {
                faults.push(PlanError {
                    key: "codec.in".to_owned(),
                    span: None,
                    reason: format!(
                        "the field {field} is of a JSON record, and codec.in is not \"json\"",
                    ),
                });
            }
            plan.picker = Some(slots.picker);
        }
        Some(plan)
    }

    /// What templates and rules refer to is picked, or is a feature.
    fn take_references(
        &mut self,
        spec: &ModelTopicSpec,
        slots: &mut Slots,
        faults: &mut Vec<PlanError>,
    ) {
        let rules = spec.rule.iter().enumerate();
        let conditions = rules.clone().flat_map(|(index, rule)| {
            let references = rule.when.references().iter();
            references.map(move |reference| (format!("rule[{index}].when"), reference))
        });
        let templates = rules.flat_map(|(index, rule)| {
            let references = rule.template.iter().flat_map(Template::references);
            references.map(move |reference| (format!("rule[{index}].template"), reference))
        });
        let output = spec.output.template.iter().flat_map(Template::references);
        let output = output.map(|reference| ("output.template".to_owned(), reference));
        for (key, reference) in output.chain(templates).chain(conditions) {
            match (reference.root, &reference.path) {
                (Root::In, Some(path)) => {
                    let slot = slots.of(path, path.as_str());
                    self.wanted.push((path.clone(), slot));
                }
                (Root::Features, Some(path)) => {
                    let name = match path.steps() {
                        [crate::feature::Step::Name(name), ..] => name.as_str(),
                        _ => "",
                    };
                    let mut known = spec.feature.iter().map(|feature| feature.name.get_ref());
                    if !known.any(|known| known == name) {
                        faults.push(PlanError {
                            key,
                            span: None,
                            reason: format!("there is no feature {name:?}"),
                        });
                    }
                }
                _ => {}
            }
        }
    }

    fn feature(&mut self, spec: &FeatureSpec, slots: &mut Slots) -> Result<Feature, FeatureFault> {
        let name = spec.name.get_ref();
        let (shift, divisor) = match &spec.scale {
            Some(scale) => scale
                .get_ref()
                .shift_and_divisor()
                .map_err(|reason| ("scale", reason))?,
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
            (Some(_), true) => return Err(of_feature("the default of a text is a text")),
            (Some(_), false) => return Err(of_feature("the default of a number is a number")),
            (None, _) if spec.agg.is_some() => Default::Number(0.0),
            (None, _) => Default::Required,
        };
        if is_text && (spec.op.is_some() || spec.scale.is_some()) {
            return Err(of_feature("op and scale are of numbers"));
        }
        let kind = match (&spec.path, spec.agg, &spec.lookup) {
            (path, Some(aggregate), None) => {
                if is_text || spec.cast.is_some() {
                    return Err(of_feature(
                        "an aggregate is a number: cast, one_hot and hash are of fields",
                    ));
                }
                self.aggregate(spec, path.as_ref(), aggregate, slots)?
            }
            (_, None, _) if spec.window.is_some() => {
                return Err(("window", "a window is of an aggregate: give agg".to_owned()));
            }
            (Some(path), None, None) => Kind::Field(slots.of(path, name)),
            (None, None, Some(lookup)) => Kind::Lookup(self.lookup(lookup, slots)),
            (None, None, None) => {
                return Err(of_feature(
                    "a feature is a field (path), an aggregate (agg) or a lookup",
                ));
            }
            (_, _, Some(_)) => return Err(of_feature("a lookup has its path in it, and no agg")),
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
    ) -> Result<Kind, FeatureFault> {
        if path.is_none() && !aggregate.counts_records() {
            return Err(of_feature(format!(
                "{aggregate} is of a field: give its path"
            )));
        }
        let window = Window::new(spec.window.as_ref().map(Spanned::get_ref))
            .map_err(|reason| ("window", reason))?;
        if aggregate == Aggregate::Rate && window == Window::All {
            return Err(of_feature("a rate is of a window: give one"));
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
    fn check_ttl(&self, spec: &ModelTopicSpec, faults: &mut Vec<PlanError>) {
        let windows = self.panes().filter_map(|pane| pane.window.retention_ms());
        if let Some(longest) = windows.max()
            && longest > self.ttl_ms
        {
            faults.push(PlanError {
                key: "state.ttl".to_owned(),
                span: Some(spec.state.ttl.span()),
                reason: format!(
                    "{} ms is less than the longest window with its grace, {longest} ms",
                    self.ttl_ms
                ),
            });
        }
    }

    fn row_plan(
        &self,
        card: &ModelCard,
        slots: &mut Slots,
        faults: &mut Vec<PlanError>,
    ) -> RowPlan {
        let mut sources = Vec::with_capacity(card.inputs.len());
        for (index, input) in card.inputs.iter().enumerate() {
            match self.source(input, slots) {
                Ok(source) => sources.push(source),
                Err(reason) => faults.push(PlanError {
                    key: "feature".to_owned(),
                    span: None,
                    reason: format!("the model's input {index}, {:?}, {reason}", input.label()),
                }),
            }
        }
        RowPlan {
            inputs: Features::new(&card.inputs),
            sources,
        }
    }

    /// Where an input of the model comes from.
    fn source(&self, input: &InputSpec, slots: &mut Slots) -> Result<Source, String> {
        let named = input.name.as_deref();
        let mut features = self.features.iter();
        match (
            features.position(|feature| Some(feature.name.as_str()) == named),
            &input.path,
        ) {
            (Some(feature), _) => {
                let width = self.features.get(feature).and_then(Feature::width);
                let fits = match (&input.one_of, width) {
                    (Some(_), width) => width.is_none(),
                    (None, width) => width == Some(input.width()),
                };
                if fits {
                    return Ok(Source::Feature(feature));
                }
                let numbers = |width| format!("{width} numbers");
                let is = width.map_or("a text".to_owned(), numbers);
                let needed = match &input.one_of {
                    Some(_) => "a text".to_owned(),
                    None => numbers(input.width()),
                };
                Err(format!("is {needed}, and the feature of that name is {is}"))
            }
            (None, Some(path)) => Ok(Source::Slot(slots.of(path, input.label()))),
            (None, None) => Err("has no path: it needs a feature of that name".to_owned()),
        }
    }
}

fn form(spec: &FeatureSpec) -> Result<Form, FeatureFault> {
    let width = |key: &'static str, width: usize| match (1..=MAX_WIDTH).contains(&width) {
        true => Ok(()),
        false => Err((key, format!("is from 1 to {MAX_WIDTH} wide, not {width}"))),
    };
    match (&spec.one_hot, &spec.hash) {
        (None, None) => Ok(Form::Plain),
        (Some(texts), None) => {
            let texts = texts.get_ref();
            width("one_hot", texts.len())?;
            for (index, text) in texts.iter().enumerate() {
                if texts[..index].contains(text) {
                    return Err(("one_hot", format!("names {text:?} twice")));
                }
            }
            Ok(Form::OneHot(texts.clone()))
        }
        (None, Some(buckets)) => {
            width("hash", *buckets.get_ref())?;
            Ok(Form::Hash(*buckets.get_ref()))
        }
        (Some(_), Some(_)) => Err(of_feature("one_hot and hash are two ways: choose one")),
    }
}

fn check_key(spec: &ModelTopicSpec, faults: &mut Vec<PlanError>) {
    let Some(key) = &spec.key else { return };
    let reason = if !spec.is_stateful() {
        "nothing is kept by it: no feature has an agg".to_owned()
    } else if spec.codec.r#in != Codec::Json {
        format!("the field {key} is of a JSON record, and codec.in is not \"json\"")
    } else {
        return;
    };
    faults.push(PlanError {
        key: "key".to_owned(),
        span: None,
        reason,
    });
}

/// What does not depend on the model, nor on what features are.
fn check(spec: &ModelTopicSpec, faults: &mut Vec<PlanError>) {
    let refused = |key: &str, reason: String| PlanError {
        key: key.to_owned(),
        span: None,
        reason,
    };
    for (key, what, found) in [
        ("feature", "features", spec.feature.len()),
        ("rule", "rules", spec.rule.len()),
    ] {
        if found > MAX_FEATURES {
            let reason = format!("{found} {what}, and there may be {MAX_FEATURES}");
            faults.push(refused(key, reason));
        }
    }
    if spec.output.template.is_some() && spec.codec.out != Codec::Json {
        let reason = "a template is JSON, and codec.out is not \"json\"".to_owned();
        faults.push(refused("output.template", reason));
    }
    for (index, feature) in spec.feature.iter().enumerate() {
        let name = feature.name.get_ref();
        let mut refused = |reason: &str| {
            faults.push(PlanError {
                key: format!("feature[{index}].name"),
                span: Some(feature.name.span()),
                reason: format!("{name:?} {reason}"),
            });
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || name.len() > 128 || !name.bytes().all(is_plain) {
            refused("is not a name of up to 128 letters, digits and '_'");
        }
        let mut before = spec.feature.iter().take(index);
        if before.any(|before| before.name == feature.name) {
            refused("is another feature's name already");
        }
    }
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
