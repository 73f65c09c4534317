//! Who takes part: the groups, and which clients are in each.

use std::path::PathBuf;
use std::process::Command;

/// A client program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    /// rdkafka in [`crate::member`].
    Rdkafka,
    /// An example program, by its folder in `clients/`.
    Example(&'static str),
}

use Client::{Example, Rdkafka};

impl Client {
    pub fn name(self) -> &'static str {
        match self {
            Rdkafka => "rdkafka",
            Example(folder) => folder,
        }
    }
}

/// A group.
pub struct Group {
    pub name: &'static str,
    pub assignor: &'static str,
    /// Share of the rdkafka members, in percent.
    pub share: usize,
    /// Its members have an instance id.
    pub is_static: bool,
    pub examples: &'static [(&'static str, usize)],
}

/// All groups read the whole topic.
pub const GROUPS: [Group; 4] = [
    Group {
        name: "range",
        assignor: "range",
        share: 55,
        is_static: false,
        examples: &[
            ("go", 2),
            ("python", 2),
            ("python/kafka_python", 2),
            ("python/aiokafka", 2),
            ("java", 2),
        ],
    },
    Group {
        name: "cooperative",
        assignor: "cooperative-sticky",
        share: 32,
        is_static: false,
        examples: &[("go", 2), ("python", 1), ("java", 1)],
    },
    Group {
        name: "static",
        assignor: "range",
        share: 13,
        is_static: true,
        examples: &[("go", 1), ("python", 1)],
    },
    Group {
        name: "kafkajs",
        assignor: "",
        share: 0,
        is_static: false,
        examples: &[("node", 4)],
    },
];

/// One who is to take part.
#[derive(Clone, Debug)]
pub struct Part {
    pub group: usize,
    pub client: Client,
    pub name: String,
}

/// `consumers` in all: the example programs, and rdkafka for the rest.
pub fn parts(consumers: usize) -> Vec<Part> {
    let mut parts = Vec::new();
    let part = |group: usize, client: Client, number: usize| Part {
        group,
        client,
        name: format!(
            "{}-{}-{number}",
            GROUPS[group].name,
            client.name().replace('/', "-")
        ),
    };
    for (group, cast) in GROUPS.iter().enumerate() {
        for &(folder, count) in cast.examples {
            parts.extend((0..count).map(|number| part(group, Example(folder), number)));
        }
    }
    let rdkafka = consumers.saturating_sub(parts.len());
    for (group, cast) in GROUPS.iter().enumerate() {
        let count = rdkafka * cast.share / 100;
        parts.extend((0..count).map(|number| part(group, Rdkafka, number)));
    }
    // What the shares' rounding leaves.
    let missing = consumers.saturating_sub(parts.len());
    parts.extend((0..missing).map(|number| part(0, Rdkafka, consumers + number)));
    parts
}

impl Part {
    /// The consumer's command line. `patient`: with sessions that do not expire on a busy machine.
    pub fn command(&self, bootstrap: &str, topic: &str, group_id: &str, patient: bool) -> Command {
        let group = &GROUPS[self.group];
        match self.client {
            Rdkafka => {
                let own = std::env::current_exe().expect("the soak's own path");
                let mut command = Command::new(own);
                let session_ms = if patient { "20000" } else { "6000" };
                command.args(["member", bootstrap, topic, group_id, group.assignor]);
                command.arg(session_ms);
                if group.is_static {
                    command.arg(&self.name);
                }
                command
            }
            Example(folder) => {
                let mut command = Command::new(clients().join(folder).join("consumer"));
                command.args([bootstrap, topic, group_id]);
                if !group.assignor.is_empty() {
                    command.args(["--assignor", group.assignor]);
                }
                if group.is_static {
                    command.args(["--instance-id", &self.name]);
                }
                command
            }
        }
    }
}

/// Builds the example programs that take part.
pub fn build(parts: &[Part]) -> Result<(), String> {
    let mut languages: Vec<&str> = parts
        .iter()
        .filter_map(|part| match part.client {
            Example(folder) => folder.split('/').next(),
            Rdkafka => None,
        })
        .collect();
    languages.sort_unstable();
    languages.dedup();
    for language in languages {
        let build = clients().join(language).join("build");
        match Command::new(&build).status() {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(format!("{}: {status}", build.display())),
            Err(error) => return Err(format!("{}: {error}", build.display())),
        }
    }
    Ok(())
}

fn clients() -> PathBuf {
    tests::repository().join("clients")
}
