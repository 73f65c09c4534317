//! The log in memory keeps the promises of every log.

use inference::spec::Start;
use inference::stream_log::conformance::{Harness, INPUTS, PARTITIONS};
use inference::stream_log::memory::{CommitFault, MemoryLog, MemoryTopics, NewRecord};
use inference::stream_log::{Commit, CommitError, Event, Output, OutputTopic, StreamLog, Task};

struct InMemory(MemoryTopics);

impl InMemory {
    async fn create(start: Start) -> Self {
        let inputs = ["first", "second"];
        assert_eq!(inputs.len(), INPUTS);
        Self(MemoryTopics::new(&inputs, PARTITIONS, start))
    }
}

impl Harness for InMemory {
    type Log = MemoryLog;

    async fn open(&mut self) -> MemoryLog {
        self.0.open()
    }

    async fn crash(&mut self, log: MemoryLog) {
        drop(log);
    }

    async fn append(&mut self, input: usize, partition: i32, records: Vec<NewRecord>) {
        assert!(self.0.append(input, partition, records));
    }

    async fn delete_records(&mut self, input: usize, partition: i32, before: i64) {
        self.0.delete_records(input, partition, before);
    }

    async fn outputs(&mut self, topic: OutputTopic, partition: i32) -> Vec<Output> {
        self.0.outputs(topic, partition)
    }

    fn fail_next_commit(&mut self, fault: CommitFault) -> bool {
        self.0.fail_commit(fault);
        true
    }
}

inference::stream_log_conformance!(InMemory::create);

#[tokio::test]
async fn a_second_handle_fences_the_first() {
    let topics = MemoryTopics::new(&["a"], 1, Start::Earliest);
    let first = topics.open();
    let _second = topics.open();
    let task = Task { partition: 0 };
    let commit = Commit {
        task,
        outputs: Vec::new(),
        state: Vec::new(),
        positions: Default::default(),
    };
    let error = first.commit(vec![commit].into()).await.unwrap_err();
    assert!(matches!(error, CommitError::Fenced(tasks) if tasks == [task]));
}

#[tokio::test]
async fn steps_over_invisible_offsets() {
    struct Nothing;
    impl inference::stream_log::StateSink for Nothing {
        fn put(&mut self, _key: &[u8], _value: Option<&[u8]>) {}
    }
    let topics = MemoryTopics::new(&["a"], 1, Start::Earliest);
    topics.append_invisible(0, 0, 3);
    let log = topics.open();
    let task = Task { partition: 0 };
    assert_eq!(log.poll(1).await.unwrap(), [Event::Assigned(task)]);
    log.restore(task, &mut Nothing).await.unwrap();
    let expected = Event::Records {
        task,
        input: 0,
        records: Vec::new(),
        next: 3,
    };
    assert_eq!(log.poll(1 << 20).await.unwrap(), [expected]);
}
