//! What the run costs the broker, from `/proc` and `/metrics`.

use std::path::Path;

use tests::Milena;

/// What the broker has used and done so far.
#[derive(Default)]
pub struct Usage {
    pub cpu_s: f64,
    pub peak_rss_mb: u64,
    pub rebalances: u64,
}

impl Usage {
    pub fn of(milena: &Milena) -> Self {
        let proc = Path::new("/proc").join(milena.pid().to_string());
        let read = |file: &str| std::fs::read_to_string(proc.join(file)).unwrap_or_default();
        // The fields after the parenthesised name: utime and stime are the 12th and 13th.
        let stat = read("stat");
        let ticks: u64 = stat
            .rsplit(')')
            .next()
            .into_iter()
            .flat_map(|fields| fields.split_whitespace().skip(11).take(2))
            .filter_map(|ticks| ticks.parse::<u64>().ok())
            .sum();
        // SAFETY: sysconf has no preconditions.
        let ticks_per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        let status = read("status");
        let peak_kb = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next())
            .and_then(|kb| kb.parse::<u64>().ok());
        Self {
            cpu_s: ticks as f64 / ticks_per_s as f64,
            peak_rss_mb: peak_kb.unwrap_or(0) / 1_000,
            rebalances: milena.metric("milena_group_rebalances_total") as u64,
        }
    }
}
