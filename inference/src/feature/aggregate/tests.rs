use super::*;
use crate::random::Random;

const ALL: Parts = Parts(127);

fn encoded(of: &Accumulator) -> Vec<u8> {
    let mut bytes = Vec::new();
    of.encode(&mut bytes);
    bytes
}

fn of_numbers(parts: Parts, numbers: impl IntoIterator<Item = f64>) -> Accumulator {
    let mut all = Accumulator::new(parts);
    for (time, number) in numbers.into_iter().enumerate() {
        all.add(time as i64, Value::Number(number));
    }
    all
}

/// The accumulator's bytes around a sketch, where nothing else is asked for.
fn around(sketch: &[u8]) -> Vec<u8> {
    let mut bytes = encoded(&Accumulator::new(Parts(0)));
    bytes.put_u32(sketch.len() as u32);
    bytes.put_slice(sketch);
    bytes
}

fn near(one: f64, other: f64) -> bool {
    one == other || (one - other).abs() <= 1e-9 * one.abs().max(other.abs())
}

const AGGREGATES: [Aggregate; 9] = [
    Aggregate::Count,
    Aggregate::Sum,
    Aggregate::Mean,
    Aggregate::Std,
    Aggregate::Min,
    Aggregate::Max,
    Aggregate::Last,
    Aggregate::Rate,
    Aggregate::Quantile(0.5),
];

#[test]
fn what_is_merged_and_written_is_what_all_together_are() {
    let mut random = Random(2);
    for round in 0..60 {
        let most = *random.one_of(&[3, 40, 400]);
        let (mut all, mut merged) = (Accumulator::new(ALL), Accumulator::new(ALL));
        for part in 0..random.below(6) {
            let mut own = Accumulator::new(ALL);
            for _ in 0..random.below(most) {
                let number = match random.below(5) {
                    0 => 0.0,
                    1 => -(random.below(1000) as f64),
                    _ => random.below(100_000) as f64 / 8.0,
                };
                let time = 1000 * part as i64 + random.between(0, 900);
                own.add(time, Value::Number(number));
                all.add(time, Value::Number(number));
            }
            let own = Accumulator::decode(ALL, &encoded(&own)).unwrap();
            merged.merge(&own);
            merged = Accumulator::decode(ALL, &encoded(&merged)).unwrap();
        }
        assert_eq!(merged.count, all.count);
        assert_eq!(merged.last_ms, all.last_ms);
        for aggregate in AGGREGATES {
            match (merged.value(aggregate, 2.0), all.value(aggregate, 2.0)) {
                (Some(one), Some(other)) => assert!(near(one, other), "{aggregate:?}, {round}"),
                (one, other) => assert_eq!(one, other, "{aggregate:?}, {round}"),
            }
        }
        let distinct = |of: &Accumulator| of.value(Aggregate::Distinct, 0.0).unwrap();
        let slack = if distinct(&all) < 30.0 {
            0.0
        } else {
            0.05 * distinct(&all)
        };
        assert!(
            (distinct(&merged) - distinct(&all)).abs() <= slack,
            "{round}"
        );
    }
}

#[test]
fn bytes_of_other_lengths_are_refused() {
    for parts in [
        ALL,
        Parts(0),
        Parts::of(Aggregate::Std),
        Parts::of(Aggregate::Distinct),
    ] {
        for numbers in [0, 1, 500] {
            let bytes = encoded(&of_numbers(parts, (0..numbers).map(f64::from)));
            for length in (0..bytes.len())
                .rev()
                .take(200)
                .chain(0..40.min(bytes.len()))
            {
                assert!(
                    Accumulator::decode(parts, &bytes[..length]).is_err(),
                    "{length}"
                );
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(Accumulator::decode(parts, &longer).is_err());
        }
    }
}

/// What is done with what was read, wherever it came from.
fn use_all(mut read: Accumulator, others: &[Accumulator]) {
    for other in others {
        let mut more = other.clone();
        more.merge(&read);
        read.merge(other);
    }
    for number in 0..300 {
        read.add(1, Value::Number(f64::from(number) * 0.37 - 9.0));
    }
    for aggregate in AGGREGATES.into_iter().chain([Aggregate::Distinct]) {
        read.value(aggregate, 1.0);
    }
    let parts = read.parts;
    Accumulator::decode(parts, &encoded(&read)).expect("what was written");
}

#[test]
fn sketches_that_were_damaged_are_refused_or_can_be_used() {
    let mut random = Random(3);
    for aggregate in [Aggregate::Distinct, Aggregate::Quantile(0.5)] {
        let parts = Parts::of(aggregate);
        let sizes = [1, 6, 20, 300, 3000];
        let sound = sizes.map(|size| of_numbers(parts, (0..size).map(|n| f64::from(n * n - 900))));
        let mut refused = 0;
        for _ in 0..1500 {
            let mut bytes = encoded(random.one_of(&sound));
            let near_start = bytes
                .len()
                .min(if random.below(3) == 0 { 4200 } else { 80 });
            for _ in 0..1 + random.below(3) {
                let at = 16 + random.below(near_start - 16);
                bytes[at] =
                    *random.one_of(&[0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 1, bytes[at] ^ 64]);
            }
            match Accumulator::decode(parts, &bytes) {
                Ok(read) => use_all(read, &sound),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 700, "{refused} were refused");
    }
}

#[test]
fn sketches_that_no_one_wrote_are_refused() {
    let distinct = |size: u32| {
        let all = of_numbers(Parts::of(Aggregate::Distinct), (0..size).map(f64::from));
        encoded(&all)[20..].to_vec()
    };
    let changed = |mut sketch: Vec<u8>, at: usize, to: &[u8]| {
        sketch[at..at + to.len()].copy_from_slice(to);
        sketch
    };
    let many = distinct(3000);
    let with_register = |value: u8| {
        let at = 40
            + many[40..]
                .iter()
                .position(|register| *register > 1)
                .unwrap();
        changed(many.clone(), at, &[value])
    };
    let of_other_registers = {
        let mut sketch = HllSketch::new(21, datasketches::hll::HllType::Hll4).unwrap();
        sketch.update(1);
        sketch.serialize()
    };
    for (what, sketch) in [
        ("a register of 200", with_register(200)),
        ("a register that was not counted", with_register(1)),
        ("no zeros", changed(many.clone(), 32, &0u32.to_le_bytes())),
        (
            "an estimate of NaN",
            changed(many.clone(), 8, &f64::NAN.to_le_bytes()),
        ),
        ("the same hash twice", {
            let few = distinct(5);
            let hash = few[8..12].to_vec();
            changed(few, 12, &hash)
        }),
        ("a hash of nothing", changed(distinct(5), 12, &[0; 4])),
        ("a full set", changed(distinct(10), 8, &31u32.to_le_bytes())),
        (
            "2^32 in a set",
            changed(distinct(10), 8, &u32::MAX.to_le_bytes()),
        ),
        ("other registers", of_other_registers),
        ("2^200 registers", changed(many.clone(), 3, &[200])),
    ] {
        let read = Accumulator::decode(Parts::of(Aggregate::Distinct), &around(&sketch));
        assert!(read.is_err(), "{what}");
    }

    let quantiles = |bins: &[u8]| {
        // 1 value from 1 to 1, and its gamma.
        let mut sketch = vec![0xa0, 0x02, 0x88];
        sketch.extend(1f64.to_le_bytes());
        sketch.push(0x8c);
        sketch.extend(1f64.to_le_bytes());
        sketch.push(0x02);
        sketch.extend((1.01f64 / 0.99).to_le_bytes());
        sketch.extend(0f64.to_le_bytes());
        sketch.extend(bins);
        sketch
    };
    let read =
        |sketch: &[u8]| Accumulator::decode(Parts::of(Aggregate::Quantile(0.5)), &around(sketch));
    let sound = quantiles(&[5, 1, 0, 2]);
    assert!(read(&sound).is_ok());
    let other_gamma = changed(sound.clone(), 22, &1.5f64.to_le_bytes());
    let no_gamma = changed(sound.clone(), 22, &f64::NAN.to_le_bytes());
    for (what, sketch) in [
        ("other bins", other_gamma),
        ("no bins", no_gamma),
        ("nothing in it", vec![0x02; 17]),
        (
            "a bin beyond all numbers",
            quantiles(&[5, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f, 2]),
        ),
        (
            "a bin beyond i64",
            quantiles(&[5, 2, 2, 2, 254, 255, 255, 255, 255, 255, 255, 255, 255, 2]),
        ),
        ("the same bin twice", quantiles(&[5, 2, 2, 2, 0, 2])),
        ("more than it says", quantiles(&[5, 1, 0, 3])),
        (
            "2^56 bins",
            quantiles(&[5, 255, 255, 255, 255, 255, 255, 255, 127, 0, 2]),
        ),
        (
            "bins another way",
            quantiles(&[13, 255, 255, 255, 127, 0, 2]),
        ),
        ("bins far apart", quantiles(&[5, 2, 0, 2, 0xc0, 0xb8, 2, 2])),
        ("bins twice", quantiles(&[5, 1, 0, 2, 5, 1, 0, 2])),
    ] {
        assert!(read(&sketch).is_err(), "{what}");
    }
}

#[test]
fn quantiles_of_any_finite_numbers_are_read_again() {
    let mut random = Random(4);
    let parts = Parts::of(Aggregate::Quantile(0.9));
    let mut all = Accumulator::new(parts);
    for _ in 0..400 {
        let number = f64::from_bits(random.next());
        if number.is_finite() {
            all.add(0, Value::Number(number));
        }
        let read = Accumulator::decode(parts, &encoded(&all)).expect("what was written");
        let mut merged = read.clone();
        merged.merge(&all);
        Accumulator::decode(parts, &encoded(&merged)).expect("what was merged");
    }
}

#[test]
fn counts_are_exact_beyond_2_to_the_53() {
    let parts = Parts::of(Aggregate::Sum);
    for count in [(1 << 53) + 1, (1 << 60) + 3, u64::MAX] {
        let mut many = of_numbers(parts, [1.0]);
        many.count = count;
        let mut read = Accumulator::decode(parts, &encoded(&many)).unwrap();
        assert_eq!(read.count, count);
        read.add(1, Value::Number(1.0));
        assert_eq!(read.count, count.saturating_add(1));
        many.merge(&read);
        assert_eq!(many.count, count.saturating_mul(2).saturating_add(1));
    }
}

#[test]
fn as_many_quantiles_as_there_can_be_are_read_again() {
    let parts = Parts::of(Aggregate::Quantile(0.5));
    let mut all = of_numbers(parts, [-3.0, 0.0, 5.0, 1.0, 7.0]);
    for _ in 0..51 {
        let same = all.clone();
        all.merge(&same);
        all = Accumulator::decode(parts, &encoded(&all)).expect("what was written");
    }
    let median = all.value(Aggregate::Quantile(0.5), 0.0).unwrap();
    assert!((0.989..1.011).contains(&median), "{median}");
}

#[test]
fn what_is_merged_into_nothing_is_as_it_was() {
    for numbers in [
        &[1e200, 3e200][..],
        &[-1e308, -1.5e308],
        &[0.1, 0.2, 0.3],
        &[-5.0],
        &[7.0, 7.0],
    ] {
        let parts = Parts(127 & !Parts::QUANTILES);
        let some = of_numbers(parts, numbers.iter().copied());
        let mut merged = Accumulator::new(parts);
        merged.merge(&some);
        merged.merge(&Accumulator::new(parts));
        assert_eq!(encoded(&merged), encoded(&some), "{numbers:?}");
    }
}

#[test]
fn whole_numbers_that_no_double_is_are_told_apart() {
    let mut all = Accumulator::new(ALL);
    let big = 1i64 << 53;
    for number in [
        big,
        big + 1,
        big + 2,
        big + 1,
        7,
        i64::MAX,
        i64::MAX - 1,
        i64::MIN,
    ] {
        all.add(0, Value::of_integer(number));
    }
    all.add(0, Value::Number(7.0));
    assert_eq!(all.value(Aggregate::Distinct, 0.0), Some(7.0));
    assert_eq!(all.value(Aggregate::Max, 0.0), Some(i64::MAX as f64));
}
