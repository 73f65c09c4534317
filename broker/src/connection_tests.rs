//! A connection over an in-memory stream, with a service that answers as its requests say.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use futures_util::FutureExt;
use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::frame::Frame;

/// `n…` answers now with the request, `l…` when released, `0` not at all, `x` closes, `b` answers 64 KiB.
#[derive(Clone, Default)]
struct Script {
    calls: Arc<AtomicUsize>,
    release: Arc<Notify>,
}

fn framed(body: &[u8]) -> Bytes {
    [&(body.len() as u32).to_be_bytes()[..], body]
        .concat()
        .into()
}

fn response(body: &[u8]) -> Frame {
    let bytes = framed(body);
    Frame {
        len: bytes.len(),
        chunks: vec![bytes.slice(..4), bytes.slice(4..)],
    }
}

impl Service for Script {
    async fn call(&mut self, frame: Bytes) -> Outcome {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match frame.first() {
            Some(b'n') => Outcome::Now(response(&frame)),
            Some(b'b') => Outcome::Now(response(&[b'b'; 64 * 1024])),
            Some(b'l') => {
                let release = self.release.clone();
                let answer = async move {
                    release.notified().await;
                    Ok(response(&frame))
                };
                Outcome::Later(answer.boxed())
            }
            Some(b'0') => Outcome::None,
            _ => Outcome::Close("as asked".to_owned()),
        }
    }
}

struct Client {
    stream: DuplexStream,
    script: Script,
    connection: JoinHandle<Closed>,
    shutdown: watch::Sender<bool>,
}

fn connect() -> Client {
    let (stream, theirs) = tokio::io::duplex(16 * 1024);
    let (reader, writer) = tokio::io::split(theirs);
    let (shutdown, stop) = watch::channel(false);
    let script = Script::default();
    let limits = Limits {
        max_request_bytes: 1_000_000,
        max_idle: Duration::from_secs(600),
        drain: Duration::from_secs(5),
    };
    let connection = tokio::spawn(serve(reader, writer, script.clone(), limits, stop));
    Client {
        stream,
        script,
        connection,
        shutdown,
    }
}

impl Client {
    async fn send(&mut self, body: &[u8]) {
        self.stream
            .write_all(&framed(body))
            .await
            .expect("the connection takes it");
    }

    async fn receive(&mut self) -> Vec<u8> {
        let len = self.stream.read_u32().await.expect("a response");
        let mut body = vec![0; len as usize];
        self.stream
            .read_exact(&mut body)
            .await
            .expect("a whole response");
        body
    }

    /// Waits until `calls` requests were handled.
    async fn handled(&self, calls: usize) {
        while self.script.calls.load(Ordering::SeqCst) < calls {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn responses_keep_request_order() {
    let mut client = connect();
    for body in [&b"n1"[..], b"l2", b"0", b"n3", b"l4", b"n5"] {
        client.send(body).await;
    }
    assert_eq!(client.receive().await, b"n1");
    // The later ones are handled, but wait for the second.
    client.handled(6).await;
    assert!(client.receive().now_or_never().is_none());
    client.script.release.notify_one();
    assert_eq!(client.receive().await, b"l2");
    assert_eq!(client.receive().await, b"n3");
    client.script.release.notify_one();
    assert_eq!(client.receive().await, b"l4");
    assert_eq!(client.receive().await, b"n5");
    drop(client.stream);
    assert!(matches!(client.connection.await, Ok(Closed::ByClient)));
}

#[tokio::test(start_paused = true)]
async fn reading_stops_when_too_many_requests_are_in_flight() {
    let mut client = connect();
    for _ in 0..IN_FLIGHT + 20 {
        client.send(b"l").await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // One is with the writer, the queue is full, and one waits to enter it.
    assert_eq!(client.script.calls.load(Ordering::SeqCst), IN_FLIGHT + 2);
    for _ in 0..IN_FLIGHT + 20 {
        client.script.release.notify_one();
        assert_eq!(client.receive().await, b"l");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_up_only_itself() {
    let mut client = connect();
    for _ in 0..IN_FLIGHT + 20 {
        client.send(b"b").await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        client.script.calls.load(Ordering::SeqCst) < IN_FLIGHT + 20,
        "nothing holds it up"
    );
    for _ in 0..IN_FLIGHT + 20 {
        assert_eq!(client.receive().await, [b'b'; 64 * 1024]);
    }
    client.send(b"b").await;
    // A reader that takes nothing any more is an idle one, in time.
    let begin = Instant::now();
    assert!(matches!(client.connection.await, Ok(Closed::Idle(_))));
    assert!(begin.elapsed() < Duration::from_secs(1300));
}

#[tokio::test(start_paused = true)]
async fn a_frame_may_come_byte_by_byte() {
    let mut client = connect();
    for byte in framed(b"n hello") {
        client.stream.write_all(&[byte]).await.expect("taken");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    assert_eq!(client.receive().await, b"n hello");
}

#[tokio::test(start_paused = true)]
async fn a_large_frame_arrives_whole() {
    let mut client = connect();
    let mut body = vec![b'0'; 900_000];
    client.send(&body).await;
    body[0] = b'n';
    let sent = framed(&body);
    let (mut read, mut write) = tokio::io::split(client.stream);
    let sender = tokio::spawn(async move {
        write.write_all(&sent).await.expect("taken");
        write
    });
    let mut received = vec![0; body.len() + 4];
    read.read_exact(&mut received).await.expect("a response");
    assert_eq!(received[4..], body);
    drop(sender.await);
}

#[tokio::test(start_paused = true)]
async fn lengths_out_of_bounds_close_after_earlier_responses() {
    for length in [0i32, -1, i32::MIN, 1_000_001, i32::MAX] {
        let mut client = connect();
        client.send(b"n before").await;
        client
            .stream
            .write_all(&length.to_be_bytes())
            .await
            .expect("taken");
        assert_eq!(client.receive().await, b"n before");
        assert_eq!(
            client
                .stream
                .read(&mut [0])
                .await
                .expect("closed, not reset"),
            0
        );
        match client.connection.await {
            Ok(Closed::Length {
                announced,
                limit: 1_000_000,
            }) => assert_eq!(announced, length),
            other => panic!("length {length}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_truncated_frame_and_a_refused_one_close() {
    let mut client = connect();
    client
        .stream
        .write_all(&[0, 0, 0, 9, b'n'])
        .await
        .expect("taken");
    client.stream.shutdown().await.expect("half closed");
    let closed = client.connection.await;
    assert!(
        matches!(
            closed,
            Ok(Closed::Truncated {
                read: 5,
                expected: 13
            })
        ),
        "{closed:?}"
    );

    let mut client = connect();
    client.send(b"n").await;
    client.send(b"x").await;
    client.send(b"n never").await;
    assert_eq!(client.receive().await, b"n");
    assert_eq!(client.stream.read(&mut [0]).await.expect("closed"), 0);
    assert!(matches!(client.connection.await, Ok(Closed::Refused(reason)) if reason == "as asked"));
}

#[tokio::test(start_paused = true)]
async fn idle_connections_close_but_not_while_they_wait_for_a_response() {
    let mut client = connect();
    client.send(b"l").await;
    tokio::time::sleep(Duration::from_secs(3000)).await;
    client.script.release.notify_one();
    assert_eq!(client.receive().await, b"l");
    let begin = Instant::now();
    assert!(matches!(client.connection.await, Ok(Closed::Idle(_))));
    let idle = begin.elapsed();
    assert!(
        idle >= Duration::from_secs(599) && idle < Duration::from_secs(1201),
        "{idle:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_answers_what_was_read_and_closes() {
    let mut client = connect();
    client.send(b"l1").await;
    client.send(b"n2").await;
    client.handled(2).await;
    client.shutdown.send(true).expect("it listens");
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.script.release.notify_one();
    assert_eq!(client.receive().await, b"l1");
    assert_eq!(client.receive().await, b"n2");
    assert_eq!(client.stream.read(&mut [0]).await.expect("closed"), 0);
    assert!(matches!(client.connection.await, Ok(Closed::Shutdown)));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_ever() {
    let mut client = connect();
    client.send(b"l").await;
    client.handled(1).await;
    let begin = Instant::now();
    client.shutdown.send(true).expect("it listens");
    assert!(matches!(client.connection.await, Ok(Closed::Drain(_))));
    assert!(begin.elapsed() <= Duration::from_secs(6));
}
