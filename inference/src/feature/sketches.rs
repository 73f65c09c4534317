//! Sketches as bytes: what is read is looked through before the libraries see it, as they trust what they are given.
//!
//! Only what is written here is read: distinct counts are HyperLogLog of 2^[`LG_K`] registers in the compact form of Apache
//! DataSketches, quantiles are DDSketch in the form of `sketches-java`. Of anything else a library might panic, reserve what a
//! length claims, or merge to nothing.

use std::collections::HashSet;
use std::sync::OnceLock;

use bytes::Buf;
use datasketches::hll::{HllSketch, HllType, HllUnion};
use sketches_ddsketch::{Config, DDSketch};

/// Registers of a distinct count, as a power of 2.
pub const LG_K: u8 = 12;
const REGISTERS: usize = 1 << LG_K;
/// Values in one sketch of quantiles: [`crate::spec::MAX_SLICES`] of them can be added up. Above 2^53 they are rounded.
const MOST_VALUES: u64 = 1 << 54;

pub(super) fn new_distinct() -> HllSketch {
    // LG_K is in the range that it can refuse.
    HllSketch::new(LG_K, HllType::Hll8).unwrap_or_else(|_| unreachable!("LG_K is valid"))
}

pub(super) fn union(one: &HllSketch, other: &HllSketch) -> HllSketch {
    let mut union = HllUnion::new(LG_K).unwrap_or_else(|_| unreachable!("LG_K is valid"));
    union.update(one);
    union.update(other);
    union.to_sketch(HllType::Hll8)
}

/// With the configuration that one has which was written and read: only such can be merged.
pub(super) fn new_quantiles() -> DDSketch {
    static EMPTY: OnceLock<DDSketch> = OnceLock::new();
    let empty = EMPTY.get_or_init(|| {
        let new = DDSketch::new(Config::defaults());
        DDSketch::from_java_bytes(&new.to_java_bytes()).unwrap_or(new)
    });
    empty.clone()
}

/// A distinct count from its bytes, or why they are none.
pub(super) fn read_distinct(bytes: &[u8]) -> Result<HllSketch, String> {
    check_distinct(bytes).map_err(|reason| format!("no distinct count: {reason}"))?;
    HllSketch::deserialize(bytes).map_err(|error| format!("no distinct count: {error}"))
}

/// Quantiles from their bytes, or why they are none.
pub(super) fn read_quantiles(bytes: &[u8]) -> Result<DDSketch, String> {
    check_quantiles(bytes).map_err(|reason| format!("no quantiles: {reason}"))?;
    DDSketch::from_java_bytes(bytes).map_err(|error| format!("no quantiles: {error}"))
}

const SERIAL_VERSION: u8 = 1;
const HLL_FAMILY: u8 = 7;
const COMPACT: u8 = 8;
const OUT_OF_ORDER: u8 = 16;

fn check_distinct(bytes: &[u8]) -> Result<(), String> {
    let (header, rest) = bytes.split_first_chunk::<8>().ok_or("it is too short")?;
    // HLL with 8 bits a register, as a list of what was seen, a set of it, and registers.
    match *header {
        [
            2,
            SERIAL_VERSION,
            HLL_FAMILY,
            LG_K,
            3,
            COMPACT,
            count @ 1..=7,
            8,
        ] => check_coupons(rest, usize::from(count)),
        [
            3,
            SERIAL_VERSION,
            HLL_FAMILY,
            LG_K,
            lg_size @ 5..=9,
            COMPACT,
            0,
            9,
        ] => {
            let (count, rest) = rest.split_first_chunk().ok_or("it is too short")?;
            let count = u32::from_le_bytes(*count) as usize;
            match count * 4 <= 3 << lg_size {
                true => check_coupons(rest, count),
                false => Err(format!("{count} in a set of 2^{lg_size}")),
            }
        }
        [
            10,
            SERIAL_VERSION,
            HLL_FAMILY,
            LG_K,
            0,
            0 | OUT_OF_ORDER,
            0,
            10,
        ] => check_registers(rest),
        _ => Err(format!("its header is {header:02x?}")),
    }
}

/// The hashes of what was seen, while that is little: 26 bits of a place, 6 bits of a register's value, which is not 0.
fn check_coupons(bytes: &[u8], count: usize) -> Result<(), String> {
    let (coupons, rest) = bytes.as_chunks::<4>();
    if coupons.len() != count || !rest.is_empty() {
        return Err(format!("{} bytes are not {count} hashes", bytes.len()));
    }
    let coupons = coupons.iter().map(|coupon| u32::from_le_bytes(*coupon));
    let mut different = HashSet::with_capacity(count);
    for coupon in coupons {
        if coupon >> 26 == 0 || !different.insert(coupon) {
            return Err(format!("hash {coupon:08x} is none, or there twice"));
        }
    }
    Ok(())
}

/// What is made of the registers, which has to be just that, and they.
fn check_registers(mut bytes: &[u8]) -> Result<(), String> {
    if bytes.len() != 32 + REGISTERS {
        return Err(format!("{} bytes are not its registers", bytes.len()));
    }
    let (estimate, low, high) = (bytes.get_f64_le(), bytes.get_f64_le(), bytes.get_f64_le());
    let (zeros, exceptions) = (bytes.get_u32_le(), bytes.get_u32_le());
    if let Some(value) = bytes.iter().find(|value| **value > 63) {
        return Err(format!("a register is {value}"));
    }
    // Both are sums of powers of 2 within 53 bits, and so the same in any order.
    let sum = |wanted: std::ops::Range<u8>| -> f64 {
        let values = bytes.iter().filter(|value| wanted.contains(value));
        values.map(|value| (-f64::from(*value)).exp2()).sum()
    };
    let is_zero = bytes.iter().filter(|value| **value == 0).count();
    if exceptions != 0 || zeros as usize != is_zero || low != sum(0..32) || high != sum(32..64) {
        return Err("what it says of its registers is not so".to_owned());
    }
    match estimate.is_finite() && estimate >= 0.0 {
        true => Ok(()),
        false => Err(format!("its estimate is {estimate}")),
    }
}

const COUNT: u8 = 0xa0;
const MIN: u8 = 0x88;
const MAX: u8 = 0x8c;
const SUM: u8 = 0x84;
const MAPPING: u8 = 0x02;
const ZEROS: u8 = 0x04;
const POSITIVE: u8 = 0x05;
const NEGATIVE: u8 = 0x07;

fn check_quantiles(mut bytes: &[u8]) -> Result<(), String> {
    let from = &mut bytes;
    let config = Config::defaults();
    expect(from, COUNT)?;
    let count = get_count(from)?;
    expect(from, MIN)?;
    let least = get_f64(from)?;
    expect(from, MAX)?;
    let greatest = get_f64(from)?;
    if !least.is_finite() || !greatest.is_finite() || least > greatest {
        return Err(format!("they are from {least} to {greatest}"));
    }
    if take(from, SUM) {
        get_f64(from)?;
    }
    expect(from, MAPPING)?;
    let (gamma, offset) = (get_f64(from)?, get_f64(from)?);
    if gamma != config.gamma || offset != 0.0 {
        return Err(format!("they are of gamma {gamma}, offset {offset}"));
    }
    let mut total = 0;
    if take(from, ZEROS) {
        total += get_count(from)?;
    }
    for sign in [POSITIVE, NEGATIVE] {
        if take(from, sign) {
            total += check_bins(from, &config)?;
        }
    }
    if !from.is_empty() {
        return Err(format!("{} bytes are left over", from.len()));
    }
    // Each was rounded to a double by itself.
    match total.abs_diff(count) <= total >> 50 {
        true => Ok(()),
        false => Err(format!("{total} values in bins, and {count} in all")),
    }
}

/// How many values are in a store's bins: those of numbers that there are, each once and in order, no further apart than it
/// has room.
fn check_bins(from: &mut &[u8], config: &Config) -> Result<u64, String> {
    let (least, greatest) = (config.key(config.min_possible()), config.key(f64::MAX));
    let bins = get_var(from)?;
    let (mut first, mut last): (Option<i64>, i64) = (None, 0);
    let mut total = 0;
    for _ in 0..bins {
        let delta = get_var(from)?;
        let delta = (delta >> 1) as i64 ^ -((delta & 1) as i64);
        let key = last.saturating_add(delta);
        let is_next = first.is_none() || key > last;
        let from_first = key.saturating_sub(*first.get_or_insert(key));
        let is_number = (i64::from(least)..=i64::from(greatest)).contains(&key);
        if !is_next || !is_number || from_first >= i64::from(config.max_num_bins) {
            return Err(format!("bin {key} after {last}"));
        }
        last = key;
        total += get_count(from)?;
        if total > MOST_VALUES {
            return Err(format!("{total} values"));
        }
    }
    Ok(total)
}

fn take(from: &mut &[u8], flag: u8) -> bool {
    let is_there = from.first() == Some(&flag);
    if is_there {
        from.advance(1);
    }
    is_there
}

fn expect(from: &mut &[u8], flag: u8) -> Result<(), String> {
    match take(from, flag) {
        true => Ok(()),
        false => Err(format!("{flag:02x} is not there")),
    }
}

fn get_f64(from: &mut &[u8]) -> Result<f64, String> {
    from.try_get_f64_le().map_err(|_| "too short".to_owned())
}

fn get_u8(from: &mut &[u8]) -> Result<u8, String> {
    from.try_get_u8().map_err(|_| "too short".to_owned())
}

/// Seven bits a byte, the lowest first; all eight of the ninth.
fn get_var(from: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..56).step_by(7) {
        let byte = get_u8(from)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Ok(value | u64::from(get_u8(from)?) << 56)
}

/// A whole number from 1 as a double: its bits less those of 1, turned by 6, seven a byte, the highest first.
fn get_count(from: &mut &[u8]) -> Result<u64, String> {
    let mut bits: u64 = 0;
    for shift in (1..=57).rev().step_by(7) {
        let byte = get_u8(from)?;
        if shift == 1 {
            bits |= u64::from(byte);
            break;
        }
        bits |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    let number = f64::from_bits(bits.rotate_right(6).wrapping_add(1f64.to_bits())) - 1.0;
    match (1.0..=MOST_VALUES as f64).contains(&number) && number.fract() == 0.0 {
        true => Ok(number as u64),
        false => Err(format!("a count of {number}")),
    }
}
