//! The payments, and what has to come of them.

use std::collections::{BTreeMap, BTreeSet};

/// A payment, by where it is.
pub(super) type Payment = (i32, i64);

/// An output, as a consumer sees it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scored {
    pub(super) source: Payment,
    /// Where it is itself.
    pub(super) at: Payment,
    pub(super) customer: String,
    pub(super) n: f64,
    pub(super) sum: f64,
    pub(super) value: String,
}

/// The customer that a payment is of, unless something is wrong with it.
pub(super) fn customer((partition, offset): Payment) -> Option<String> {
    match (offset * 3 + i64::from(partition)) % 8 {
        5 | 6 => None,
        n => Some(format!("c-{n}")),
    }
}

pub(super) fn amount((partition, offset): Payment) -> f64 {
    f64::from(1 + partition) + (offset % 7) as f64
}

pub(super) fn json(payment: Payment) -> String {
    let (partition, offset) = payment;
    let ts = 1_000_000 + 100 * offset;
    let id = format!("{partition}/{offset}");
    let amount = amount(payment);
    match (customer(payment), offset % 2) {
        (Some(customer), _) => {
            format!(
                "{{\"id\":\"{id}\",\"customer\":\"{customer}\",\"amount\":{amount},\"ts\":{ts}}}"
            )
        }
        (None, 0) => format!("{{\"id\":\"{id}\",\"amount\":{amount},\"ts\":{ts}}}"),
        (None, _) => format!("no JSON: {id}"),
    }
}

/// Whether outputs, in order partition by partition, and dead letters are what payments up to these ends have to give.
pub(super) fn check(
    ends: &BTreeMap<i32, i64>,
    outputs: &[Scored],
    dead: &[Payment],
) -> Result<(), String> {
    let all = ends
        .iter()
        .flat_map(|(&partition, &end)| (0..end).map(move |offset| (partition, offset)));
    let (sound, bad): (BTreeSet<Payment>, BTreeSet<Payment>) =
        all.partition(|payment| customer(*payment).is_some());
    let found: BTreeSet<Payment> = outputs.iter().map(|output| output.source).collect();
    if found != sound || outputs.len() != sound.len() {
        return Err(format!("not one output for each: {outputs:?}"));
    }
    let found: BTreeSet<Payment> = dead.iter().copied().collect();
    if found != bad || dead.len() != bad.len() {
        return Err(format!("not one dead letter for each: {dead:?}"));
    }
    let mut known: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for output in outputs {
        let expected = customer(output.source);
        let (n, sum) = known.entry(&output.customer).or_default();
        *n += 1.0;
        *sum += amount(output.source);
        if expected.as_ref() != Some(&output.customer) || output.n != *n || output.sum != *sum {
            return Err(format!("{n} and {sum} are right: {output:?}"));
        }
    }
    Ok(())
}
