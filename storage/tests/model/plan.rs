//! What happens in a history, drawn from its seed before it begins, so that steps can be left out.
//! Numbers are taken for what there is when their step comes.

use faulty_disk::Random;

/// One step. `u64`s are seeds for whatever else the step needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One client batch, and whether its durability is waited for.
    Append(u64, bool),
    /// Several batches of the broker's own, all or none.
    Several(u64),
    /// A batch of an idempotent producer: the next, a repeated one, one out of order, or of another epoch.
    Produce(u64, bool),
    /// A part of a producer's transaction, or its end.
    Transact(u64, bool),
    /// A batch that has to be refused.
    Refused(u64),
    Read(u64),
    LookUp(u64),
    /// Wait until everything is durable.
    Wait,
    Checkpoint,
    Delete(u64),
    /// What the configuration does not keep goes, and files that are due.
    Retain,
    /// Logs that need it are compacted.
    Compact,
    Configure(u64),
    /// The clock goes on.
    Tick(u64),
    /// Derived: stages batches.
    Stage(u64),
    /// Derived: makes what is staged durable, records its end, and publishes it.
    Commit,
    /// Derived: cuts some of what is staged off.
    Discard(u64),
    /// Some calls begin to fail.
    Fault(u64),
    /// The disk is nearly full.
    Fill(u64),
    /// Nothing fails any more, and there is room.
    Heal,
    /// A clean stop, and a start.
    Stop,
    /// The process or the machine goes down, and comes up.
    Crash(u64),
    /// It goes down in the middle of what comes next.
    CrashSoon(u64),
}

const MOST_STEPS: u64 = 70;

/// The steps of a history. With `compacting`, more of them come in between, and with `transacting`.
pub fn draw(random: &mut Random, compacting: bool, transacting: bool) -> Vec<Step> {
    let count = 10 + random.below(MOST_STEPS - 10);
    // In some histories nothing goes wrong but the power.
    let faults = random.below(3) > 0;
    let mut steps: Vec<Step> = (0..count).map(|_| step(random, faults)).collect();
    if compacting {
        steps = with_more(steps, |others, all| match others.below(12) {
            0 | 1 => all.push(Step::Compact),
            // Goes down in the midst of it.
            2 => all.extend([Step::CrashSoon(others.next()), Step::Compact]),
            3 => all.push(Step::Tick(others.next())),
            4 if others.one_in(3) => all.push(Step::Configure(others.next())),
            _ => {}
        });
    }
    if transacting {
        steps = with_more(steps, |others, all| {
            for _ in 0..others.below(3) {
                all.push(Step::Transact(others.next(), others.one_in(8)));
            }
        });
    }
    steps
}

/// Has `more` put others before each of the steps.
fn with_more(steps: Vec<Step>, mut more: impl FnMut(&mut Random, &mut Vec<Step>)) -> Vec<Step> {
    let mut others = Random::new(steps.len() as u64);
    let mut all = Vec::new();
    for step in steps {
        others = Random::new(others.next() ^ seed_of(step));
        more(&mut others, &mut all);
        all.push(step);
    }
    all
}

fn seed_of(step: Step) -> u64 {
    match step {
        Step::Append(seed, _) | Step::Produce(seed, _) | Step::Several(seed) => seed,
        _ => 0,
    }
}

fn step(random: &mut Random, faults: bool) -> Step {
    let seed = random.next();
    match random.below(if faults { 100 } else { 88 }) {
        0..19 => Step::Append(seed, random.one_in(4)),
        19..24 => Step::Several(seed),
        24..40 => Step::Produce(seed, random.one_in(4)),
        40..43 => Step::Refused(seed),
        43..49 => Step::Read(seed),
        49..53 => Step::LookUp(seed),
        53..57 => Step::Wait,
        57..60 => Step::Checkpoint,
        60..62 => Step::Delete(seed),
        62 => Step::Retain,
        63..66 => Step::Configure(seed),
        66..68 => Step::Tick(seed),
        68..74 => Step::Stage(seed),
        74..78 => Step::Commit,
        78..80 => Step::Discard(seed),
        80..82 => Step::Stop,
        82..86 => Step::Crash(seed),
        86..88 => Step::CrashSoon(seed),
        88..93 => Step::Fault(seed),
        93..95 => Step::Fill(seed),
        _ => Step::Heal,
    }
}
