//! A running broker, as scenarios see it: an address, a process, a data folder; and its topics.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use crate::process::{self, Memory};

const ADMIN_TIMEOUT: Duration = Duration::from_secs(60);
const GONE_TIMEOUT: Duration = Duration::from_secs(10);

/// A broker that runs.
#[derive(Clone, Debug)]
pub struct Broker {
    /// `host:port` for clients.
    pub bootstrap: String,
    /// The process.
    pub pid: u32,
    /// Its logs' folder.
    pub data_dir: PathBuf,
}

impl Broker {
    /// User and system time so far, in seconds.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        process::cpu_seconds(self.pid).context("the broker's CPU time")
    }

    /// What it has in memory.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        process::memory(self.pid).context("the broker's memory")
    }

    /// Creates a topic with these configs. Returns when the partitions have a leader.
    pub fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        configs: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let mut topic = NewTopic::new(name, partitions as i32, TopicReplication::Fixed(1));
        for (key, value) in configs {
            topic = topic.set(key, value);
        }
        let admin = self.admin()?;
        let created = block_on(admin.create_topics([&topic], &admin_options()))?;
        for topic in created.context("creating a topic")? {
            topic.map_err(|(topic, code)| anyhow!("creating topic {topic}: {code}"))?;
        }
        let deadline = Instant::now() + ADMIN_TIMEOUT;
        loop {
            let metadata = admin.inner().fetch_metadata(Some(name), ADMIN_TIMEOUT)?;
            let found = metadata
                .topics()
                .first()
                .map_or(&[][..], |t| t.partitions());
            if found.len() == partitions as usize && found.iter().all(|p| p.leader() >= 0) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(anyhow!("topic {name} has no leaders"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Deletes topics, and waits until their files are gone, so that removing them is no part of what
    /// is measured next.
    pub fn delete_topics(&self, names: &[&str]) -> anyhow::Result<()> {
        let admin = self.admin()?;
        let deleted = block_on(admin.delete_topics(names, &admin_options()))?;
        for topic in deleted.context("deleting topics")? {
            topic.map_err(|(topic, code)| anyhow!("deleting topic {topic}: {code}"))?;
        }
        let deadline = Instant::now() + GONE_TIMEOUT;
        while self.has_files_of(names) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn has_files_of(&self, topics: &[&str]) -> bool {
        let entries = fs::read_dir(&self.data_dir).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.any(|name| {
            let mut topics = topics.iter();
            topics.any(|topic| {
                name.strip_prefix(topic)
                    .is_some_and(|rest| rest.starts_with('-'))
            })
        })
    }

    /// The files of a topic's segments.
    pub fn segments(&self, topic: &str) -> anyhow::Result<Vec<PathBuf>> {
        let mut segments = Vec::new();
        for folder in fs::read_dir(&self.data_dir)? {
            let folder = folder?.path();
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            let is_its = name.rsplit_once('-').is_some_and(|(name, _)| name == topic);
            if is_its {
                let files = fs::read_dir(&folder)?.flatten().map(|file| file.path());
                segments.extend(files.filter(|file| file.extension().is_some_and(|e| e == "log")));
            }
        }
        Ok(segments)
    }

    fn admin(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config.create().context("an admin client")
    }
}

fn admin_options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(ADMIN_TIMEOUT))
        .operation_timeout(Some(ADMIN_TIMEOUT))
}

fn block_on<F: Future>(future: F) -> anyhow::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(future))
}

/// Whether a broker answers a request at this address, wholly.
pub fn answers(bootstrap: &str) -> bool {
    // ApiVersions v0, correlation id 1, no client id.
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    let ask = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(bootstrap)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(&REQUEST)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length).min(1 << 20);
        stream.read_exact(&mut vec![0; length as usize])
    };
    ask().is_ok()
}
