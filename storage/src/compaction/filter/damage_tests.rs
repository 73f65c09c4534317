//! Batches that nothing is decided about.

use bytes::Bytes;

use super::{Pass, THREE};
use crate::batch::Compression;
use crate::compaction::filter::Refused;
use crate::compaction::test_batches::{changed, plain};
use crate::error::Error;

#[test]
fn a_batch_expands_no_further_than_an_append_would_let_it() {
    let zeros = "0".repeat(2 << 20);
    let record = |value| (1, Some("a"), Some(value));
    // From a KiB to 2 MiB, where 16 KiB may become 1 MiB.
    let bomb = plain(0, Compression::Zstd, &[record(zeros.as_str())]);
    let mut pass = Pass::new(&[("a", 1)], 2);
    let refused = pass.filter(&bomb).unwrap_err();
    assert!(matches!(refused, Refused::Damaged(Error::CorruptBatch(_))));
    // As large as no batch of the topic may be any more.
    let mut state = 1u32;
    let noise: String = (0..100_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b' ' + (state >> 24) as u8 % 90)
        })
        .collect();
    let large = [record(noise.as_str()), record(zeros.as_str())];
    let large = plain(0, Compression::Zstd, &large);
    assert!(large.len() > 1 << 15);
    assert_eq!(pass.filter(&large).unwrap().counts.records_kept, 1);
}

#[test]
fn nothing_is_decided_about_a_damaged_batch() {
    let sound = plain(0, Compression::None, &THREE);
    let mut wrong_crc = sound.to_vec();
    *wrong_crc.last_mut().unwrap() ^= 1;
    let too_many = changed(&sound, |bytes| bytes[60] = 4);
    let garbage = changed(&plain(0, Compression::Gzip, &THREE), |bytes| {
        bytes[61] ^= 0xff
    });
    let outside = changed(&sound, |bytes| bytes[26] = 1);
    for batch in [Bytes::from(wrong_crc), too_many, garbage, outside] {
        let mut pass = Pass::new(&[("a", 97), ("b", 98), ("c", 99)], 100);
        let refused = pass.filter(&batch).unwrap_err();
        assert!(
            matches!(refused, Refused::Damaged(Error::CorruptBatch(_))),
            "{refused:?}"
        );
    }
}
