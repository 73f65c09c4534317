//! Frames that no client should send: the connection closes, the broker goes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tests::{Milena, PATIENCE};

fn connect(milena: &Milena) -> TcpStream {
    let stream = TcpStream::connect(milena.bootstrap()).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Sends `bytes`, and expects the connection to be closed without an answer.
fn is_closed(milena: &Milena, bytes: &[u8]) {
    let mut stream = connect(milena);
    stream.write_all(bytes).expect("sent");
    let mut answer = Vec::new();
    // A reset counts as closed: the broker did not read all that was sent.
    let _ = stream.read_to_end(&mut answer);
    assert!(
        answer.is_empty(),
        "{bytes:02x?} was answered with {answer:02x?}"
    );
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as i32).to_be_bytes(), body].concat()
}

fn still_serves(milena: &Milena) {
    // ApiVersions v0, correlation id 7, no client id.
    let request = frame(&[0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff]);
    let mut stream = connect(milena);
    stream.write_all(&request).expect("sent");
    let mut header = [0; 8];
    stream.read_exact(&mut header).expect("an answer");
    assert_eq!(header[4..], [0, 0, 0, 7]);
}

fn resident_kb(milena: &Milena) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", milena.pid())).expect("status");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("VmRSS");
    line.split_whitespace()
        .nth(1)
        .and_then(|kb| kb.parse().ok())
        .expect("a number")
}

#[test]
fn bad_frames_close_their_connection_only() {
    let milena = Milena::start("");
    still_serves(&milena);
    for length in [0i32, -1, i32::MIN, i32::MAX, 104_857_601] {
        is_closed(&milena, &length.to_be_bytes());
    }
    is_closed(&milena, &frame(&[0]));
    is_closed(&milena, &frame(&[0, 3, 0, 1, 0, 0, 0, 1]));
    is_closed(&milena, &frame(&[0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff]));
    is_closed(&milena, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    still_serves(&milena);
    assert!(
        milena.log().contains("104857601"),
        "the refused length is named:\n{}",
        milena.log()
    );
}

#[test]
fn a_truncated_frame_is_not_a_request() {
    let milena = Milena::start("");
    let mut stream = connect(&milena);
    stream
        .write_all(&[0, 0, 0, 100, 0, 18, 0, 0])
        .expect("sent");
    stream
        .shutdown(std::net::Shutdown::Write)
        .expect("half closed");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty());
    still_serves(&milena);
}

#[test]
fn lengths_that_lie_allocate_nothing() {
    let milena = Milena::start("");
    still_serves(&milena);
    let before = resident_kb(&milena);
    // Metadata v1 with 2^31-1 topics in 4 bytes; v9 with a compact array of 2^32-2.
    is_closed(
        &milena,
        &frame(&[0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]),
    );
    is_closed(
        &milena,
        &frame(&[
            0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0,
        ]),
    );
    // Announced, never sent: 100 frames of 100 MB.
    let mut silent: Vec<TcpStream> = (0..100).map(|_| connect(&milena)).collect();
    for stream in &mut silent {
        stream
            .write_all(&100_000_000i32.to_be_bytes())
            .expect("sent");
    }
    std::thread::sleep(Duration::from_millis(300));
    still_serves(&milena);
    let grown = resident_kb(&milena).saturating_sub(before);
    assert!(
        grown < 50_000,
        "{grown} kB for frames that were only announced"
    );
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let milena = Milena::start("");
    let mut stream = connect(&milena);
    stream
        .write_all(&frame(&[0, 18, 0, 99, 0, 0, 0, 9, 0xff, 0xff, 0]))
        .expect("sent");
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(
        answer[4..10],
        [0, 0, 0, 9, 0, 35],
        "UNSUPPORTED_VERSION in a v0 body"
    );
}
