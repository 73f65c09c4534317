//! What came out: a line as each case ends, and the table for the docs.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// The client has no way to do it, and why.
    Lacking(&'static str),
    /// The case holds but for this, which the client has no way to do.
    PassedBut(&'static str),
    /// It went wrong.
    Failed(String),
}

/// What a case gives.
pub type Case = Result<Outcome, String>;

/// All outcomes of a run.
pub struct Report {
    begin: Instant,
    outcomes: Mutex<BTreeMap<(&'static str, &'static str), Outcome>>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            begin: Instant::now(),
            outcomes: Mutex::default(),
        }
    }
}

impl Report {
    /// Runs a case of a client and prints how it ended.
    pub fn case(&self, client: &'static str, case: &'static str, run: impl FnOnce() -> Case) {
        let begin = Instant::now();
        let outcome = run().unwrap_or_else(Outcome::Failed);
        let (at, took) = (
            self.begin.elapsed().as_secs_f64(),
            begin.elapsed().as_secs_f64(),
        );
        let what = match &outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Lacking(why) => format!("- ({why})"),
            Outcome::PassedBut(what) => format!("passed ({what})"),
            Outcome::Failed(error) => format!("FAILED: {error}"),
        };
        println!("{at:6.1} s  {client:<16} {case:<24} {took:5.1} s  {what}");
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.insert((client, case), outcome);
    }

    /// The cases that failed, as "client: case".
    pub fn failures(&self) -> Vec<String> {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = outcomes
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
        failed
            .map(|((client, case), _)| format!("{client}: {case}"))
            .collect()
    }

    /// Markdown: a row for each client with its version, a column for each case that was run, and
    /// below it what a client has no way to do.
    pub fn table(&self, clients: &[(&'static str, String)], cases: &[&'static str]) -> String {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let run = |case: &&&str| outcomes.keys().any(|(_, c)| *c == **case);
        let cases: Vec<&str> = cases.iter().filter(run).copied().collect();
        let mut table = format!(
            "| client | version | {} |\n|---|---|{}\n",
            cases.join(" | "),
            ":-:|".repeat(cases.len())
        );
        let mut notes: Vec<&str> = Vec::new();
        for (client, version) in clients {
            table.push_str(&format!("| {client} | {version} |"));
            for case in &cases {
                let mut noted = |sign: &str, why: &'static str| {
                    let known = notes.iter().position(|note| *note == why);
                    let number = known.unwrap_or_else(|| {
                        notes.push(why);
                        notes.len() - 1
                    }) + 1;
                    format!("{sign} ({number})")
                };
                let cell = match outcomes.get(&(*client, *case)) {
                    None => "not run".to_owned(),
                    Some(Outcome::Passed) => "✓".to_owned(),
                    Some(Outcome::Failed(_)) => "**failed**".to_owned(),
                    Some(Outcome::Lacking(why)) => noted("-", why),
                    Some(Outcome::PassedBut(what)) => noted("✓", what),
                };
                table.push_str(&format!(" {cell} |"));
            }
            table.push('\n');
        }
        for (number, note) in notes.iter().enumerate() {
            table.push_str(&format!("\n{}. {note}", number + 1));
        }
        table
    }
}
