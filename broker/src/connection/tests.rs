//! A connection over an in-memory stream, with a service that answers as its requests say.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

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
        own_bytes: bytes.len(),
        chunks: vec![bytes.slice(..4), bytes.slice(4..)],
    }
}

impl Service for Script {
    async fn call(&mut self, frame: Bytes, _: &mut RequestMemory<'_>) -> Outcome {
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
    connect_with(&Budgets::new(100_000_000, 100_000_000))
}

fn connect_with(budgets: &Arc<Budgets>) -> Client {
    let (stream, theirs) = tokio::io::duplex(16 * 1024);
    let (reader, writer) = tokio::io::split(theirs);
    let (shutdown, stop) = watch::channel(false);
    let script = Script::default();
    let limits = Limits {
        max_request_bytes: 1_000_000,
        max_idle: Duration::from_secs(600),
        drain: Duration::from_secs(5),
    };
    let connection = tokio::spawn(serve(
        reader,
        writer,
        script.clone(),
        limits,
        budgets.clone(),
        stop,
    ));
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
    // One is with the writer, and the queue is full.
    assert_eq!(client.script.calls.load(Ordering::SeqCst), IN_FLIGHT + 1);
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
    // A reader that takes nothing any more ends in time, the sooner the more it leaves.
    client.send(b"b").await;
    let begin = Instant::now();
    let closed = client.connection.await;
    assert!(matches!(closed, Ok(Closed::NotTaken { .. })), "{closed:?}");
    let after = begin.elapsed().as_secs();
    assert!((30..40).contains(&after), "{after} s");
    let mut client = connect();
    client.send(&[b'n'; 30_000]).await;
    let begin = Instant::now();
    let closed = client.connection.await;
    assert!(matches!(closed, Ok(Closed::Idle(_))), "{closed:?}");
    let after = begin.elapsed().as_secs();
    assert!((599..1300).contains(&after), "{after} s");
}

/// Sends `len` bytes of a request of 900,000, a part in each second. Returns after how many seconds
/// the connection closed, if it did.
async fn send_slowly(client: &mut Client, len: usize, part: usize) -> Option<u64> {
    let begin = Instant::now();
    let sent = framed(&vec![b'0'; 900_000]);
    for part in sent[..len].chunks(part) {
        if client.stream.write_all(part).await.is_err() {
            return Some(begin.elapsed().as_secs());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    None
}

#[tokio::test(start_paused = true)]
async fn a_request_must_arrive_in_a_time_that_grows_with_its_size() {
    let mut client = connect();
    let after = send_slowly(&mut client, 2000, 1).await;
    // 30 seconds, and 13.7 for 900,000 bytes.
    assert!(
        after.is_some_and(|after| (43..50).contains(&after)),
        "{after:?}"
    );
    assert!(matches!(
        client.connection.await,
        Ok(Closed::Slow { bytes: 900_004, .. })
    ));
    let mut client = connect();
    assert_eq!(send_slowly(&mut client, 900_004, 25_000).await, None);
    client.send(b"n").await;
    assert_eq!(client.receive().await, b"n");
    // A length that never comes whole is a request too.
    client.stream.write_all(&[0, 0]).await.expect("taken");
    let begin = Instant::now();
    assert!(matches!(
        client.connection.await,
        Ok(Closed::Slow { bytes: 4, .. })
    ));
    assert!(begin.elapsed() < Duration::from_secs(40));
}

#[tokio::test(start_paused = true)]
async fn requests_that_hold_each_other_up_are_served_one_by_one() {
    // Not enough for two of them.
    let budgets = Budgets::new(1_000_000, 1_000_000);
    let mut body = vec![b'0'; 900_000];
    body[0] = b'n';
    let sent = framed(&body);
    let clients = (0..10).map(|_| async {
        let mut client = connect_with(&budgets);
        // All of them are there by half before the first one goes on.
        client
            .stream
            .write_all(&sent[..450_000])
            .await
            .expect("taken");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (mut read, mut write) = tokio::io::split(client.stream);
        let mut received = vec![0; sent.len()];
        let (sent, received) = tokio::join!(
            write.write_all(&sent[450_000..]),
            read.read_exact(&mut received)
        );
        (sent.is_ok(), received.is_ok())
    });
    let begin = Instant::now();
    // Those that wait do not get their first half in: the socket pushes back.
    let served = tokio::time::timeout(
        Duration::from_secs(60),
        futures_util::future::join_all(clients),
    );
    let served = served.await.expect("none waits for ever");
    assert_eq!(served, [(true, true); 10]);
    // Each of them takes a second from its half to its end.
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(budgets.requests.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_holds_memory_that_others_need_gets_on_or_is_closed() {
    let budgets = Budgets::new(1_000_000, 1_000_000);
    let half = framed(&vec![b'0'; 900_000]).slice(..700_000);
    let mut stuck = Vec::new();
    for _ in 0..5 {
        let mut client = connect_with(&budgets);
        // The later ones do not even get this far.
        let writing = client.stream.write_all(&half);
        let _ = tokio::time::timeout(Duration::from_millis(100), writing).await;
        stuck.push(client);
    }
    assert!(budgets.requests.is_exhausted());
    assert!(
        budgets.requests.used() < 3_000_000,
        "{}",
        budgets.requests.used()
    );
    // Small requests need nothing of it.
    let mut small = connect_with(&budgets);
    small.send(&[b'n'; 5000]).await;
    assert_eq!(small.receive().await, [b'n'; 5000]);
    // A larger one comes through as soon as one of the stuck ones is closed.
    let mut large = connect_with(&budgets);
    let begin = Instant::now();
    large.send(&vec![b'0'; 500_000]).await;
    large.send(b"n").await;
    assert_eq!(large.receive().await, b"n");
    let after = begin.elapsed();
    assert!(after < Duration::from_secs(60), "{after:?}");
    for client in stuck {
        let closed = client.connection.await;
        assert!(
            matches!(closed, Ok(Closed::Memory { .. } | Closed::Slow { .. })),
            "{closed:?}"
        );
    }
    assert!(begin.elapsed() < Duration::from_secs(90));
    drop((small, large));
    while budgets.requests.used() > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn responses_that_nobody_takes_stay_within_their_bounds() {
    let budgets = Budgets::new(1_000_000, 1_000_000);
    let mut greedy = Vec::new();
    for _ in 0..20 {
        let mut client = connect_with(&budgets);
        for _ in 0..20 {
            client.send(b"b").await;
        }
        greedy.push(client);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Each stops when 256 KiB are not taken; all together are over the budget.
    let most = 20 * (MAX_UNTAKEN_BYTES + 2 * 64 * 1024);
    assert!(
        budgets.responses.used() < most,
        "{}",
        budgets.responses.used()
    );
    assert!(budgets.responses.is_exhausted());
    let begin = Instant::now();
    for client in greedy {
        let closed = client.connection.await;
        assert!(
            matches!(closed, Ok(Closed::Memory { .. } | Closed::NotTaken { .. })),
            "{closed:?}"
        );
    }
    let after = begin.elapsed();
    assert!(after < Duration::from_secs(45), "{after:?}");
    assert_eq!(budgets.responses.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_at_rest_holds_nothing() {
    let budgets = Budgets::new(10_000_000, 1_000_000);
    let mut client = connect_with(&budgets);
    for _ in 0..3 {
        client.send(&vec![b'0'; 200_000]).await;
        client.send(b"n").await;
        assert_eq!(client.receive().await, b"n");
        assert!(budgets.requests.used() >= 200_000, "the buffer is kept");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(budgets.requests.used(), 0, "the buffer is gone");
    }
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

#[test]
fn an_idle_connections_task_is_small() {
    use crate::router::Router;
    use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

    fn size_of_future<A, B, C, D, E, F, G>(_: fn(A, B, C, D, E, F) -> G) -> usize {
        size_of::<G>()
    }
    let bytes = size_of_future(serve::<OwnedReadHalf, OwnedWriteHalf, Router>);
    // Every handler's future has its place in it. One that needs more goes on the heap.
    assert!(bytes <= 5 * 1024, "{bytes} bytes");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_before_its_answer_is_ready_closes_as_any_other() {
    let mut client = connect();
    client.send(b"l").await;
    client.handled(1).await;
    client.stream.shutdown().await.expect("it is open");
    assert!(matches!(client.connection.await, Ok(Closed::ByClient)));
}
