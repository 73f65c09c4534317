//! The arm `bare`: decoding, model and encoding of records in memory, in one thread. There is no broker:
//! no sockets, no batches to take apart and to make, no headers, no disk.

use std::hint::black_box;
use std::time::Instant;

use super::scorer::Scorer;
use super::workload::Workload;
use crate::process::thread_cpu_seconds;
use crate::versus::scenario::Figures;

/// Scores this many records.
pub fn run(workload: &Workload, records: u64) -> anyhow::Result<Figures> {
    let mut scorer = Scorer::load(workload.kind, &workload.model)?;
    let mut left = records;
    let (began, cpu_before) = (Instant::now(), thread_cpu_seconds());
    while left > 0 {
        for batch in workload.values.chunks(workload.kind.batch_records()) {
            let batch = &batch[..batch.len().min(usize::try_from(left)?)];
            scorer.score(batch.iter().map(String::as_bytes), |_, output| {
                black_box(output);
                Ok(())
            })?;
            left -= batch.len() as u64;
        }
    }
    let cpu = thread_cpu_seconds() - cpu_before;
    Ok(Figures::from([
        ("records/s", records as f64 / began.elapsed().as_secs_f64()),
        ("CPU-s per million", cpu / records as f64 * 1e6),
    ]))
}
