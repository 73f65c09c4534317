//! What scenarios share: the running brokers, the load generator, and a folder to work in.
//!
//! Both brokers are started when the first scenario asks for them, are warmed up with the same load, and
//! stay up for the whole run. Their data folders are on the file system of the temp folder (`TMPDIR`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clients::report::{Report, Side};
use tempfile::TempDir;
use tests::Milena;

use super::broker::{self, Broker};
use super::kafka::{ClassPath, Kafka};
use super::load::{self, Load};

/// What Milena is configured with beside addresses and the data folder, as Kafka is here: groups don't
/// wait for members, and the files of deleted topics go at once. All else has its default.
pub const MILENA_CONFIG: &str =
    "[log]\nfile_delete_delay_ms = 200\n[group]\ngroup_initial_rebalance_delay_ms = 0\n";

/// After this a run of the load generator counts as hung.
const LOAD_TIMEOUT: Duration = Duration::from_secs(180);

/// Bytes of the load that warms up both brokers.
const WARM_UP_BYTES: u64 = 1_000_000_000;

/// The brokers and what is needed to measure them.
pub struct Bench {
    /// Fewer rows and rounds, and less of everything.
    pub short: bool,
    kafka_version: String,
    folder: TempDir,
    class_path: Option<ClassPath>,
    milena: Option<Milena>,
    kafka: Option<Kafka>,
    topics: u32,
}

impl Bench {
    /// A bench on which nothing runs yet.
    pub fn new(short: bool, kafka_version: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("milena-versus-")
            .tempdir()?;
        Ok(Self {
            short,
            kafka_version: kafka_version.to_owned(),
            folder,
            class_path: None,
            milena: None,
            kafka: None,
            topics: 0,
        })
    }

    /// Builds and fetches all that is to run, so that none of it happens between measurements.
    pub fn prepare(&mut self) -> anyhow::Result<()> {
        load::binary()?;
        self.class_path()?;
        Ok(())
    }

    /// A folder on the file system of the brokers' data, which goes in the end.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kafka's jars.
    pub fn class_path(&mut self) -> anyhow::Result<ClassPath> {
        if self.class_path.is_none() {
            let target = tests::binary().parent().and_then(Path::parent);
            let folder = target.context("the target folder")?.join("versus");
            self.class_path = Some(ClassPath::of(&self.kafka_version, &folder)?);
        }
        self.class_path.clone().context("Kafka's jars")
    }

    /// Milena with its defaults, started where it does not run.
    pub fn milena(&mut self) -> anyhow::Result<Broker> {
        // Where it was killed by what it was measured with, the next measurement has a new one.
        self.milena
            .take_if(|milena| !broker::answers(&milena.bootstrap()));
        if self.milena.is_none() {
            self.milena = Some(Milena::start(MILENA_CONFIG));
            self.warm_up("milena")?;
        }
        let milena = self.milena.as_ref().context("milena runs")?;
        Ok(broker_of(milena))
    }

    /// Kafka, started where it does not run.
    pub fn kafka(&mut self) -> anyhow::Result<Broker> {
        self.kafka
            .take_if(|kafka| !broker::answers(&kafka.bootstrap()));
        if self.kafka.is_none() {
            let class_path = self.class_path()?;
            self.kafka = Some(Kafka::start(&class_path, self.folder.path(), "")?);
            self.warm_up("kafka")?;
        }
        self.kafka.as_ref().context("Kafka runs")?.broker()
    }

    /// The broker that an arm measures: by the arm's first word, `milena` or `kafka`.
    pub fn broker(&mut self, arm: &str) -> anyhow::Result<Broker> {
        match arm.split(' ').next() {
            Some("milena") => self.milena(),
            Some("kafka") => self.kafka(),
            _ => bail!("arm '{arm}' has no broker"),
        }
    }

    /// The running Milena itself, for what only its own methods can do.
    pub fn milena_itself(&mut self) -> anyhow::Result<&mut Milena> {
        self.milena()?;
        self.milena.as_mut().context("milena runs")
    }

    /// The running Kafka itself.
    pub fn kafka_itself(&mut self) -> anyhow::Result<&mut Kafka> {
        self.kafka()?;
        self.kafka.as_mut().context("Kafka runs")
    }

    /// Stops both brokers, for scenarios that start others. They are started anew, with nothing in them,
    /// when they are asked for again.
    pub fn stop(&mut self) {
        (self.milena, self.kafka) = (None, None);
    }

    /// A topic name that was not used before in this run.
    pub fn topic_name(&mut self) -> String {
        self.topics += 1;
        format!("versus{}", self.topics)
    }

    /// Creates a topic under a new name, which it returns.
    pub fn create_topic(
        &mut self,
        broker: &Broker,
        partitions: u32,
        configs: &[(&str, &str)],
    ) -> anyhow::Result<String> {
        let name = self.topic_name();
        broker.create_topic(&name, partitions, configs)?;
        Ok(name)
    }

    /// Runs the load generator with these arguments (`produce`, `--bootstrap` and so on) and returns
    /// what it has measured.
    pub fn load<S: AsRef<str>>(&self, args: &[S]) -> anyhow::Result<Report> {
        self.start_load(args)?.report(LOAD_TIMEOUT)
    }

    /// As [`Bench::load`], without waiting for its end. One at a time.
    pub fn start_load<S: AsRef<str>>(&self, args: &[S]) -> anyhow::Result<Load> {
        Load::spawn(self.folder.path(), args)
    }

    /// The same load for each broker, so that neither is measured cold.
    fn warm_up(&mut self, arm: &str) -> anyhow::Result<()> {
        let broker = self.broker(arm)?;
        let topic = self.create_topic(&broker, 6, &[])?;
        let (bootstrap, bytes) = (broker.bootstrap.as_str(), WARM_UP_BYTES.to_string());
        let records = (WARM_UP_BYTES / 1024).to_string();
        let on = ["--bootstrap", bootstrap, "--topic", &topic];
        let produce = [
            "--partitions",
            "6",
            "--bytes",
            &bytes,
            "--size",
            "1KiB",
            "--acks",
            "1",
        ];
        self.load(&[&["produce"][..], &on, &produce].concat())
            .with_context(|| format!("warming up {arm}"))?;
        self.load(&[&["consume"][..], &on, &["--assign", "--records", &records]].concat())
            .with_context(|| format!("warming up {arm}"))?;
        broker.delete_topics(&[&topic])
    }
}

/// What scenarios see of a Milena that runs.
pub fn broker_of(milena: &Milena) -> Broker {
    Broker {
        bootstrap: milena.bootstrap(),
        pid: milena.pid(),
        data_dir: milena.data_dir(),
    }
}

/// What was produced, or an error where records were lost.
pub fn produced(report: &Report) -> anyhow::Result<&Side> {
    let side = report.produced.as_ref().context("nothing was produced")?;
    if let Some((error, count)) = side.errors.iter().next() {
        bail!("{count} records were not delivered: {error}");
    }
    Ok(side)
}

/// Where the report and its figures go by default.
pub fn default_out() -> PathBuf {
    tests::repository().join("benches/versus/report")
}
