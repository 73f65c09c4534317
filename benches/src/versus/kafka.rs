//! An Apache Kafka of its own, from the jars that Maven brings, in KRaft mode.
//!
//! It runs as its own scripts run it: the flags of `kafka-server-start.sh` and `kafka-run-class.sh`, a heap
//! of 1 GB, the threads and buffers of its `server.properties`. What differs is said in
//! [`PROPERTIES`].

use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::broker::{self, Broker};
use crate::process;

/// What `kafka-server-start.sh` and `kafka-run-class.sh` start the broker with.
pub const JVM_FLAGS: [&str; 8] = [
    "-Xms1g",
    "-Xmx1g",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];

/// What is set beside addresses and the data folder: as in Kafka's own `server.properties`, except that
/// groups don't wait for members, and that the files of deleted topics go at once, as with Milena here.
pub const PROPERTIES: &str = "process.roles=broker,controller
node.id=0
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
num.recovery.threads.per.data.dir=2
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
log.segment.delete.delay.ms=200
log.initial.task.delay.ms=500
";

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// The jars of a Kafka's broker and tools.
#[derive(Clone, Debug)]
pub struct ClassPath {
    /// Kafka's version.
    pub version: String,
    jars: String,
}

impl ClassPath {
    /// Asks Maven, once for each version; afterwards `folder` has the answer.
    pub fn of(version: &str, folder: &Path) -> anyhow::Result<Self> {
        let answer = folder.join(format!("kafka-{version}.classpath"));
        if !answer.exists() {
            fs::create_dir_all(folder)?;
            let status = Command::new("mvn")
                .args(["-q", "-B", "-Dstyle.color=never", "-f"])
                .arg(tests::repository().join("benches/versus/pom.xml"))
                .arg("dependency:build-classpath")
                .arg(format!("-Dkafka.version={version}"))
                .arg(format!("-Dmdep.outputFile={}", answer.display()))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()
                .context("mvn does not start; is Maven installed?")?;
            ensure!(
                status.success(),
                "mvn has not found Kafka {version}: {status}"
            );
        }
        Ok(Self {
            version: version.to_owned(),
            jars: fs::read_to_string(answer)?.trim().to_owned(),
        })
    }

    /// What `java -cp` takes.
    pub fn as_str(&self) -> &str {
        &self.jars
    }

    /// Bytes of all jars.
    pub fn bytes(&self) -> u64 {
        let sizes = self.jars.split(':').map(fs::metadata);
        sizes.flatten().map(|jar| jar.len()).sum()
    }

    /// A command that runs one of Kafka's classes with these JVM flags. It logs warnings.
    pub fn java(&self, flags: &[&str], class: &str) -> Command {
        let mut command = Command::new("java");
        command
            .args(flags)
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .args(["-cp", &self.jars, class])
            .stdin(Stdio::null());
        command
    }
}

/// A Kafka in a folder, which goes with it.
#[derive(Debug)]
pub struct Kafka {
    class_path: ClassPath,
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Kafka {
    /// Formats a new folder in `parent` and starts a broker there, with [`PROPERTIES`] and then
    /// `properties`, lines of `key=value`. Returns once it answers.
    pub fn start(class_path: &ClassPath, parent: &Path, properties: &str) -> anyhow::Result<Self> {
        let mut kafka = Self::prepare(class_path, parent, properties)?;
        kafka.restart()?;
        Ok(kafka)
    }

    /// As [`Kafka::start`], without the start.
    pub fn prepare(
        class_path: &ClassPath,
        parent: &Path,
        properties: &str,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("kafka-")
            .tempdir_in(parent)?;
        let (port, controller_port) = (tests::free_port(), tests::free_port());
        let mut text = String::from(PROPERTIES);
        write!(
            text,
            "controller.quorum.voters=0@127.0.0.1:{controller_port}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
             log.dirs={}\n{properties}\n",
            folder.path().join("data").display()
        )?;
        fs::write(folder.path().join("server.properties"), text)?;
        let kafka = Self {
            class_path: class_path.clone(),
            folder,
            port,
            child: None,
        };
        let log = kafka.open_log()?;
        // Without replicas there is nothing that eligible leader replicas could add.
        let status = class_path
            .java(&["-Xmx128m"], "kafka.tools.StorageTool")
            .args([
                "format",
                "--cluster-id",
                "Q0hoYlLNRs6RFkDRgt58Vg",
                "--config",
            ])
            .arg(kafka.folder.path().join("server.properties"))
            .args(["--feature", "eligible.leader.replicas.version=0"])
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()
            .context("java does not start; is a JDK installed?")?;
        ensure!(status.success(), "Kafka's format failed:\n{}", kafka.log());
        Ok(kafka)
    }

    /// Starts it (again), and returns once it answers: how long that took.
    pub fn restart(&mut self) -> anyhow::Result<Duration> {
        ensure!(self.child.is_none(), "Kafka runs already");
        let log = self.open_log()?;
        let mut command = self.class_path.java(&JVM_FLAGS, "kafka.Kafka");
        command
            .arg(self.folder.path().join("server.properties"))
            .stdout(log.try_clone()?)
            .stderr(log);
        process::end_with_this_thread(&mut command);
        let started = Instant::now();
        let child = command
            .spawn()
            .context("java does not start; is a JDK installed?")?;
        self.child = Some(child);
        while !broker::answers(&self.bootstrap()) {
            if let Some(status) = self
                .child
                .as_mut()
                .and_then(|c| c.try_wait().ok().flatten())
            {
                bail!("Kafka ended with {status}:\n{}", self.log());
            }
            if started.elapsed() > START_TIMEOUT {
                bail!("Kafka does not answer:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(started.elapsed())
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let child = self.child.as_mut().context("Kafka does not run")?;
        // SAFETY: kill(2) has no memory effects; the pid is that of a child not yet waited for.
        unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
        let deadline = Instant::now() + STOP_TIMEOUT;
        while child.try_wait()?.is_none() {
            ensure!(
                Instant::now() < deadline,
                "Kafka does not end:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child = None;
        Ok(())
    }

    /// `host:port` for clients.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The process's id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// As scenarios see it, while it runs.
    pub fn broker(&self) -> anyhow::Result<Broker> {
        Ok(Broker {
            bootstrap: self.bootstrap(),
            pid: self.pid().context("Kafka does not run")?,
            data_dir: self.data_dir(),
        })
    }

    /// Its logs' folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The end of what it has said.
    fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("kafka.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn open_log(&self) -> std::io::Result<File> {
        File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("kafka.log"))
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
