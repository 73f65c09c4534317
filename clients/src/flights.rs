//! Which records of an end-to-end run are on their way.
//!
//! Records have the numbers 0, 1, 2, … in the order of their start. What is kept is bounded by how far
//! the oldest that has not arrived is behind the newest, 8 bytes a record: a block of numbers is
//! dropped when all of it has arrived.

use std::collections::VecDeque;

const BLOCK: u64 = 4096;
const ARRIVED: u64 = u64::MAX;

/// The records that have started.
#[derive(Debug, Default)]
pub struct Flights {
    blocks: VecDeque<Block>,
    /// The number of the first block that is kept.
    first_block: u64,
    started: u64,
    arrived: u64,
    duplicated: u64,
    foreign: u64,
}

#[derive(Debug)]
struct Block {
    due_us: Vec<u64>,
    arrived: u64,
}

/// What an arrival was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The first of this record, which was due then.
    First(u64),
    /// This record had arrived before.
    Again,
    /// No such record has started.
    Foreign,
}

impl Flights {
    /// The next record starts; its number.
    pub fn start(&mut self, due_us: u64) -> u64 {
        let number = self.started;
        if number.is_multiple_of(BLOCK) {
            self.blocks.push_back(Block {
                due_us: Vec::with_capacity(BLOCK as usize),
                arrived: 0,
            });
        }
        if let Some(block) = self.blocks.back_mut() {
            block.due_us.push(due_us);
        }
        self.started += 1;
        number
    }

    /// A record with this key has arrived.
    pub fn arrive(&mut self, key: &[u8]) -> Arrival {
        let arrival = match number(key) {
            Some(number) if number < self.started => self.land(number),
            _ => Arrival::Foreign,
        };
        match arrival {
            Arrival::First(_) => self.arrived += 1,
            Arrival::Again => self.duplicated += 1,
            Arrival::Foreign => self.foreign += 1,
        }
        arrival
    }

    fn land(&mut self, number: u64) -> Arrival {
        let Some(index) = (number / BLOCK).checked_sub(self.first_block) else {
            return Arrival::Again;
        };
        let block = &mut self.blocks[index as usize];
        let due_us = std::mem::replace(&mut block.due_us[(number % BLOCK) as usize], ARRIVED);
        if due_us == ARRIVED {
            return Arrival::Again;
        }
        block.arrived += 1;
        while self
            .blocks
            .front()
            .is_some_and(|block| block.arrived == BLOCK)
        {
            self.blocks.pop_front();
            self.first_block += 1;
        }
        Arrival::First(due_us)
    }

    /// How many have started.
    pub fn started(&self) -> u64 {
        self.started
    }

    /// How many have started and not arrived.
    pub fn missing(&self) -> u64 {
        self.started - self.arrived
    }

    /// How many arrivals were of records that had arrived.
    pub fn duplicated(&self) -> u64 {
        self.duplicated
    }

    /// How many arrivals were of records that had not started.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }
}

fn number(key: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(key).ok()?;
    let plain = key.iter().all(u8::is_ascii_digit) && (key.len() == 1 || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn each_arrives_once() {
        let mut flights = Flights::default();
        assert_eq!([flights.start(10), flights.start(20)], [0, 1]);
        assert_eq!(flights.arrive(b"1"), Arrival::First(20));
        assert_eq!(flights.arrive(b"1"), Arrival::Again);
        assert_eq!(flights.arrive(b"2"), Arrival::Foreign);
        for foreign in [&b""[..], b"x", b"-1", b"+1", b"01", b"99999999999999999999"] {
            assert_eq!(flights.arrive(foreign), Arrival::Foreign, "{foreign:?}");
        }
        assert_eq!(flights.missing(), 1);
        assert_eq!(flights.arrive(b"0"), Arrival::First(10));
        assert_eq!(
            (flights.missing(), flights.duplicated(), flights.foreign()),
            (0, 1, 7)
        );
    }

    #[test]
    fn out_of_order_in_bounded_memory() {
        let mut flights = Flights::default();
        let mut random = Random::seeded(1);
        let mut flying: Vec<u64> = Vec::new();
        for n in 0..100_000 {
            flying.push(flights.start(n * 3));
            if flying.len() > 1000 {
                // The oldest ones go first, more or less.
                let number = flying.remove(random.below(500) as usize);
                assert_eq!(
                    flights.arrive(number.to_string().as_bytes()),
                    Arrival::First(number * 3)
                );
            }
        }
        assert!(flights.blocks.len() < 5, "{} blocks", flights.blocks.len());
        assert_eq!(
            flights.arrive(b"0"),
            Arrival::Again,
            "of a block that was dropped"
        );
        for number in flying {
            assert_eq!(
                flights.arrive(number.to_string().as_bytes()),
                Arrival::First(number * 3)
            );
        }
        assert_eq!(flights.missing(), 0);
    }
}
