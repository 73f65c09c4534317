//! What a history is made of: drawn from its seed.

use broker::group::machine::{Limits, Millis};

use crate::random::Random;

/// How a client rebalances, and what it offers. The three stages of KIP-429's rolling upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Offers `range` alone; gives up everything before it rejoins.
    Eager,
    /// Offers both, and still gives up everything.
    Upgrading,
    /// Offers `cooperative-sticky` alone; keeps what it has while it rejoins.
    Cooperative,
}

impl Kind {
    pub fn protocols(self) -> &'static [&'static str] {
        match self {
            Self::Eager => &["range"],
            Self::Upgrading => &["cooperative-sticky", "range"],
            Self::Cooperative => &["cooperative-sticky"],
        }
    }
}

/// How often what goes wrong, in a thousand.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub lost_requests: u64,
    pub lost_responses: u64,
    /// A request comes again later, when nobody waits for its answer.
    pub repeated: u64,
    pub slow_messages: u64,
    pub slow_writes: u64,
    pub failed_writes: u64,
    /// A member never asks for its assignment, or never rejoins, and is alive all the same.
    pub stuck: u64,
    /// Milliseconds between two incidents (deaths, pauses, restarts...), at most.
    pub incidents_every_ms: Millis,
    pub restarts: bool,
}

pub const NO_FAULTS: Faults = Faults {
    lost_requests: 0,
    lost_responses: 0,
    repeated: 0,
    slow_messages: 0,
    slow_writes: 0,
    failed_writes: 0,
    stuck: 0,
    incidents_every_ms: Millis::MAX,
    restarts: false,
};

#[derive(Clone, Debug)]
pub struct Plan {
    pub limits: Limits,
    pub clients: usize,
    pub partitions: u16,
    /// The longest that a client asks for.
    pub rebalance_timeout_ms: Millis,
    pub kinds: Vec<Kind>,
    /// Of a thousand clients, so many are static members.
    pub static_members: u64,
    pub faults: Faults,
    /// How long things go wrong.
    pub trouble_ms: Millis,
}

impl Plan {
    pub fn draw(random: &mut Random) -> Self {
        let clients = match random.between(0, 19) {
            0 => random.between(12, 40),
            1..=4 => random.between(1, 2),
            _ => random.between(2, 7),
        };
        let mixes: &[&[Kind]] = &[
            &[Kind::Eager],
            &[Kind::Cooperative],
            &[Kind::Cooperative],
            &[Kind::Eager, Kind::Upgrading],
            &[Kind::Upgrading, Kind::Cooperative],
        ];
        let max_size = match random.between(0, 7) {
            0 => random.between(1, clients),
            _ => 1_000,
        };
        let slow = random.chance(250);
        // In some, rebalances may take far longer than new members are kept. Then there is no
        // initial delay: those who wait for it would have to join again and again.
        let (new_member_join_timeout_ms, rebalance_timeout_ms, delays) = if slow {
            (random.between(2_000, 6_000), 60_000, [0, 0, 0])
        } else {
            (random.between(10_000, 40_000), 20_000, [0, 500, 3_000])
        };
        let badness = *random.pick(&[0, 1, 1, 3, 10]);
        Self {
            limits: Limits {
                max_size: max_size as usize,
                initial_rebalance_delay_ms: *random.pick(&delays),
                new_member_join_timeout_ms,
                max_pending: random.between(2, 50) as usize,
                max_subscription_bytes: 1 << 20,
            },
            clients: clients as usize,
            partitions: random.between(1, 12) as u16,
            rebalance_timeout_ms,
            kinds: random.pick(mixes).to_vec(),
            static_members: *random.pick(&[0, 0, 300, 700, 1_000]),
            faults: Faults {
                lost_requests: badness * random.between(0, 15),
                lost_responses: badness * random.between(0, 15),
                repeated: badness * random.between(0, 15),
                slow_messages: badness * random.between(0, 15),
                slow_writes: *random.pick(&[badness * 5, badness * 20, 600]),
                failed_writes: badness * random.between(0, 30),
                stuck: badness.min(1) * random.between(0, 150),
                incidents_every_ms: random.between(500, 10_000),
                restarts: random.chance(500),
            },
            trouble_ms: random.between(10_000, 120_000),
        }
    }

    /// Many clients, few faults.
    pub fn crowd(clients: usize, random: &mut Random) -> Self {
        let plan = Self::draw(random);
        Self {
            limits: Limits {
                max_size: clients,
                initial_rebalance_delay_ms: 3_000,
                max_pending: clients,
                max_subscription_bytes: 1 << 30,
                ..plan.limits
            },
            clients,
            partitions: (clients + clients / 2) as u16,
            rebalance_timeout_ms: plan.rebalance_timeout_ms,
            kinds: vec![Kind::Cooperative],
            static_members: 300,
            faults: Faults {
                lost_requests: 1,
                lost_responses: 1,
                repeated: 1,
                slow_messages: 1,
                incidents_every_ms: 5_000,
                restarts: true,
                ..NO_FAULTS
            },
            trouble_ms: 30_000,
        }
    }
}
