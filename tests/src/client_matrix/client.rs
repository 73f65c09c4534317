//! The clients of the matrix: how each is built, started and asked for its version, and what it has
//! no way to do.

use std::path::PathBuf;
use std::process::Command;

use super::kcat;
use super::program::{Output, Program};
use super::record::{Event, Record};
use crate::repository;

/// Something that not every client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// The cooperative-sticky assignor.
    Cooperative,
    /// Writing a header whose value is null.
    NullHeaders,
    /// Giving its user every record whose position it commits.
    AtLeastOnce,
    /// Static members of a group.
    StaticMembers,
    /// Waiting for a broker that is away.
    Reconnecting,
    /// Saying a record's time when it is written.
    WritingTimestamps,
    /// Sending on one producer while it runs, and hearing where each record went.
    StreamingProducer,
    /// Writing in transactions.
    Transactions,
}

/// Where a client's version is written down.
enum Version {
    /// `name==version` in clients/python/requirements.txt.
    Requirements(&'static str),
    /// The first version after this text in a file of the repository.
    After(&'static str, &'static str),
    /// What kcat says of itself.
    Kcat,
}

/// One client of the matrix.
pub struct Client {
    /// As it is known.
    pub name: &'static str,
    /// The folder of its programs; kcat has none, it is a program.
    folder: Option<&'static str>,
    /// The folder of its `build`.
    build: Option<&'static str>,
    version: Version,
    lacks: &'static [(Feature, &'static str)],
}

/// Every client of the matrix.
pub static CLIENTS: [Client; 7] = [
    Client {
        name: "kcat",
        folder: None,
        build: None,
        version: Version::Kcat,
        lacks: &[
            (
                Feature::AtLeastOnce,
                "kcat does not print the record that it gets together with SIGTERM, but commits it",
            ),
            (
                Feature::Reconnecting,
                "kcat ends when no broker is up; a new one goes on in its group",
            ),
            (
                Feature::WritingTimestamps,
                "kcat has no flag for a record's time; it reads records that librdkafka wrote",
            ),
            (
                Feature::StreamingProducer,
                "kcat does not say where its records went",
            ),
            (Feature::Transactions, "kcat has no flag for transactions"),
        ],
    },
    Client {
        name: "confluent-kafka",
        folder: Some("clients/python"),
        build: Some("clients/python"),
        version: Version::Requirements("confluent-kafka"),
        lacks: &[],
    },
    Client {
        name: "kafka-python",
        folder: Some("clients/python/kafka_python"),
        build: Some("clients/python"),
        version: Version::Requirements("kafka-python"),
        lacks: &[(
            Feature::NullHeaders,
            "kafka-python refuses to send a header whose value is null; it reads one that librdkafka sent",
        )],
    },
    Client {
        name: "aiokafka",
        folder: Some("clients/python/aiokafka"),
        build: Some("clients/python"),
        version: Version::Requirements("aiokafka"),
        lacks: &[(
            Feature::Cooperative,
            "aiokafka has no cooperative-sticky assignor",
        )],
    },
    Client {
        name: "java",
        folder: Some("clients/java"),
        build: Some("clients/java"),
        version: Version::After(
            "clients/java/pom.xml",
            "<artifactId>kafka-clients</artifactId>",
        ),
        lacks: &[],
    },
    Client {
        name: "kafkajs",
        folder: Some("clients/node"),
        build: Some("clients/node"),
        version: Version::After("clients/node/package.json", "\"kafkajs\""),
        lacks: &[
            (
                Feature::Cooperative,
                "kafkajs has no cooperative-sticky assignor",
            ),
            (Feature::StaticMembers, "kafkajs has no static members"),
            (
                Feature::NullHeaders,
                "kafkajs can't send a header whose value is null; it reads one that librdkafka sent",
            ),
        ],
    },
    Client {
        name: "franz-go",
        folder: Some("clients/go"),
        build: Some("clients/go"),
        version: Version::After("clients/go/go.mod", "github.com/twmb/franz-go v"),
        lacks: &[],
    },
];

/// What a consumer is started with beside topic and group.
#[derive(Clone, Copy, Default)]
pub struct ConsumerOptions<'a> {
    /// Starts at this time.
    pub from_timestamp_ms: Option<i64>,
    /// With the cooperative-sticky assignor in place of range.
    pub cooperative: bool,
    /// As this static member.
    pub instance_id: Option<&'a str>,
}

impl Client {
    /// Why it can't do something.
    pub fn lacks(&self, feature: Feature) -> Option<&'static str> {
        let lack = self.lacks.iter().find(|(lacking, _)| *lacking == feature);
        lack.map(|(_, why)| *why)
    }

    /// The folder whose `build` has to be run before its programs.
    pub fn build_folder(&self) -> Option<PathBuf> {
        self.build.map(|folder| repository().join(folder))
    }

    /// As its lock file, or itself, says.
    pub fn version(&self) -> Result<String, String> {
        let (file, after) = match self.version {
            Version::Kcat => return kcat::version(),
            Version::Requirements(name) => {
                ("clients/python/requirements.txt", format!("\n{name}=="))
            }
            Version::After(file, after) => (file, after.to_owned()),
        };
        let text =
            std::fs::read_to_string(repository().join(file)).map_err(|e| format!("{file}: {e}"))?;
        let (_, rest) = text
            .split_once(&after)
            .ok_or(format!("{file} does not name {}", self.name))?;
        let rest = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = rest.find(|c: char| c != '.' && c != '-' && !c.is_ascii_alphanumeric());
        Ok(rest[..end.unwrap_or(rest.len())].to_owned())
    }

    /// Writes records, waits until they are acknowledged, and tells where each went (in any order)
    /// where the client says so.
    pub fn produce(
        &self,
        bootstrap: &str,
        topic: &str,
        codec: &str,
        records: &[Record],
    ) -> Result<Vec<(i32, i64)>, String> {
        if self.folder.is_none() {
            return kcat::produce(bootstrap, topic, codec, records).map(|()| Vec::new());
        }
        let mut producer = self.producer(bootstrap, topic, codec)?;
        producer.send(records)?;
        let written = producer.end()?.written;
        if written.len() != records.len() {
            return Err(format!(
                "{} of {} records were acknowledged",
                written.len(),
                records.len()
            ));
        }
        Ok(written)
    }

    /// A producer program, waiting for its input.
    pub fn producer(&self, bootstrap: &str, topic: &str, codec: &str) -> Result<Program, String> {
        let mut command = self.program("producer")?;
        command.args([bootstrap, topic, "--compression", codec]);
        Program::start(&mut command, contract, false)
    }

    /// A consumer in a group.
    pub fn consumer(
        &self,
        bootstrap: &str,
        topic: &str,
        group: &str,
        options: ConsumerOptions<'_>,
    ) -> Result<Program, String> {
        if self.folder.is_none() {
            return kcat::consumer(bootstrap, topic, group, options);
        }
        let mut command = self.program("consumer")?;
        command.args([bootstrap, topic, group]);
        if let Some(timestamp_ms) = options.from_timestamp_ms {
            command.args(["--from-timestamp", &timestamp_ms.to_string()]);
        }
        if let Some(instance_id) = options.instance_id {
            command.args(["--instance-id", instance_id]);
        }
        if options.cooperative {
            command.args(["--assignor", "cooperative-sticky"]);
        }
        Program::start(&mut command, contract, options.cooperative)
    }

    /// A program that makes a transaction of each line of its input.
    pub fn transactions(&self, bootstrap: &str, topic: &str, id: &str) -> Result<Program, String> {
        let mut command = self.program("transactions")?;
        command.args(["write", bootstrap, topic, id]);
        Program::start(&mut command, contract, false)
    }

    /// A program that copies a topic, in upper case, with the group's positions in its transactions; every so many
    /// of them it aborts.
    pub fn copier(
        &self,
        bootstrap: &str,
        [input, output]: [&str; 2],
        group: &str,
        abort_every: usize,
    ) -> Result<Program, String> {
        let mut command = self.program("transactions")?;
        command.args(["copy", bootstrap, input, output, group, group]);
        command.args(["--abort-every", &abort_every.to_string()]);
        Program::start(&mut command, contract, false)
    }

    fn program(&self, name: &str) -> Result<Command, String> {
        let folder = self.folder.ok_or("it has no such program")?;
        let path = repository().join(folder).join(name);
        if !path.is_file() {
            return Err(format!("there is no {}", path.display()));
        }
        Ok(Command::new(path))
    }
}

fn contract(output: Output, line: &str) -> Option<Event> {
    match output {
        Output::Out => Event::from_line(line),
        Output::Error => None,
    }
}
