//! What the quickstart prints: the way in at the start, a live line, alerts, a summary.
//!
//! On a terminal the line rewrites itself; anywhere else one is printed each second.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::example::{ALERTS, DERIVED, INPUT};
use super::feed;
use super::session::{Outcome, Start};
use super::tracker::{ALERT_SCORE, Alert, Counts, Latency};

/// Alerts that are printed between two lines, at most; the line counts them all.
const ALERTS_A_LINE: usize = 3;

/// Writes to stdout.
#[derive(Debug)]
pub struct Display<W> {
    out: W,
    live: bool,
    alerts: Vec<Alert>,
    last: (Instant, u64),
}

impl Display<io::Stdout> {
    /// On stdout.
    pub fn stdout() -> Display<io::Stdout> {
        let out = io::stdout();
        let live = out.is_terminal();
        Display::new(out, live)
    }
}

impl<W: Write> Display<W> {
    /// `live` where a line can be rewritten.
    pub fn new(out: W, live: bool) -> Display<W> {
        Display {
            out,
            live,
            alerts: Vec::new(),
            last: (Instant::now(), 0),
        }
    }

    /// How often [`Display::line`] is to be called.
    pub fn interval(&self) -> Duration {
        if self.live {
            Duration::from_millis(250)
        } else {
            Duration::from_secs(1)
        }
    }

    /// What runs, and how to join in.
    pub fn opening(
        &mut self,
        address: SocketAddr,
        http: Option<SocketAddr>,
        folder: &Path,
        start: &Start,
    ) -> io::Result<()> {
        let (partitions, earlier) = (start.input_ends.len(), start.earlier());
        let out = &mut self.out;
        writeln!(out, "milena is a broker for Kafka clients at {address}")?;
        writeln!(
            out,
            "  {INPUT}         {partitions} partitions, fed by this command"
        )?;
        writeln!(out, "  {DERIVED}  the model topic's answers, one for each")?;
        writeln!(out, "  {ALERTS}         those of them that are alarming")?;
        writeln!(out, "  data             {}", folder.display())?;
        if earlier > 0 {
            let earlier = grouped(earlier);
            writeln!(
                out,
                "  goes on after    {earlier} transactions of earlier runs"
            )?;
        }
        if let Some(http) = http {
            writeln!(out, "  metrics          http://{http}/metrics")?;
        }
        writeln!(out)?;
        writeln!(out, "join in with any Kafka client, such as kcat:")?;
        writeln!(out, "  kcat -b {address} -t {DERIVED} -C -o end")?;
        writeln!(out, "  kcat -b {address} -t {INPUT} -C -o -5 -e")?;
        // With its customer as the key, and where the feed has that customer's: what is remembered of it is there.
        let example = feed::transaction(earlier).transaction;
        let json = serde_json::to_string(&example)?;
        writeln!(out, "  echo '{}|{json}' |", example.customer_id)?;
        writeln!(
            out,
            "    kcat -b {address} -t {INPUT} -P -K '|' -X topic.partitioner=murmur2_random"
        )?;
        writeln!(out)?;
        out.flush()
    }

    /// To be printed with the next line.
    pub fn alert(&mut self, alert: Alert) {
        if self.alerts.len() < ALERTS_A_LINE {
            self.alerts.push(alert);
        }
    }

    /// The alerts since the last line, and the line.
    pub fn line(&mut self, counts: Counts, latency: Option<Latency>) -> io::Result<()> {
        let elapsed = self.last.0.elapsed().as_secs_f64().max(1e-3);
        let per_second = (counts.scored - self.last.1.min(counts.scored)) as f64 / elapsed;
        self.last = (Instant::now(), counts.scored);
        self.clear()?;
        for alert in self.alerts.drain(..) {
            let transaction = feed::transaction(alert.index).transaction;
            writeln!(
                self.out,
                "  alert  {}  {:>9.2} {}  score {:.3}",
                transaction.tx_id, transaction.amount, transaction.currency, alert.score
            )?;
        }
        let latency = latency.map_or_else(String::new, |latency| {
            let (p50, p99) = (millis(latency.p50), millis(latency.p99));
            format!("   end to end p50 {p50}  p99 {p99}")
        });
        write!(
            self.out,
            "{:>12} scored   {:>9}/s{latency}   alerts {}",
            grouped(counts.scored),
            grouped(per_second.round() as u64),
            grouped(counts.alerts),
        )?;
        if !self.live {
            writeln!(self.out)?;
        }
        self.out.flush()
    }

    /// What came of it.
    pub fn summary(&mut self, outcome: &Outcome) -> io::Result<()> {
        self.clear()?;
        let counts = outcome.counts;
        let seconds = outcome.elapsed.as_secs_f64();
        let out = &mut self.out;
        writeln!(out)?;
        writeln!(
            out,
            "{} transactions scored in {seconds:.2} s: {} a second",
            grouped(counts.scored),
            grouped((counts.scored as f64 / seconds.max(1e-3)).round() as u64),
        )?;
        if let Some(latency) = outcome.latency {
            let (p50, p99) = (millis(latency.p50), millis(latency.p99));
            writeln!(out, "end to end: p50 {p50}, p99 {p99}")?;
        }
        writeln!(
            out,
            "alerts (score {ALERT_SCORE} and above): {}, and {} records in {ALERTS}",
            grouped(counts.alerts),
            grouped(outcome.alert_records)
        )?;
        match (outcome.fault(), outcome.recount) {
            (Some(fault), _) => writeln!(out, "{fault}")?,
            (None, None) => writeln!(out, "every transaction scored exactly once")?,
            (None, Some(recount)) => writeln!(
                out,
                "every transaction scored exactly once ({} counted again from the topic)",
                grouped(recount.scored)
            )?,
        }
        out.flush()
    }

    /// What is remembered of a customer.
    pub fn state(&mut self, customer: &str, url: &str, state: &str) -> io::Result<()> {
        writeln!(self.out, "what is remembered of {customer}: curl {url}")?;
        writeln!(self.out, "  {state}")?;
        self.out.flush()
    }

    fn clear(&mut self) -> io::Result<()> {
        if self.live {
            write!(self.out, "\r\x1b[2K")?;
        }
        Ok(())
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits or so.
fn millis(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(millis(Duration::from_micros(1234)), "1.23 ms");
        assert_eq!(millis(Duration::from_micros(123_456)), "123 ms");
    }

    #[test]
    fn prints_a_few_alerts_and_a_line() {
        let mut display = Display::new(Vec::new(), false);
        for index in 0..10 {
            display.alert(Alert { index, score: 0.95 });
        }
        let counts = Counts {
            scored: 1500,
            alerts: 10,
            ..Counts::default()
        };
        let latency = Latency {
            p50: Duration::from_micros(800),
            p99: Duration::from_millis(12),
        };
        display.line(counts, Some(latency)).unwrap();
        let text = String::from_utf8(display.out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), ALERTS_A_LINE + 1);
        assert!(lines[0].contains("t-000000000") && lines[0].contains("score 0.950"));
        assert!(lines[3].contains("1,500 scored") && lines[3].contains("p50 0.80 ms  p99 12.0 ms"));
        assert!(lines[3].contains("alerts 10"));
    }
}
