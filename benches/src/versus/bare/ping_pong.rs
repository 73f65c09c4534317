//! Requests and responses without a broker: a server that answers each frame with one of the same bytes
//! every time.
//!
//! Left out: looking at the request. The client is the one that brokers are measured with.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;

use crate::process::thread_cpu_seconds;
use crate::raw::{ClosedLoop, Epoll, Exchanges};

/// How the server waits for requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// A thread for each connection.
    Threads,
    /// One thread for all of them.
    Epoll,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The client's view.
    pub exchanges: Exchanges,
    /// Of the server's threads, all requests together.
    pub cpu_seconds: f64,
    /// Requests with those that warmed up.
    pub requests: u64,
}

/// So many connections exchange frames for so long.
pub fn run(
    server: Server,
    connections: usize,
    (request_bytes, response_bytes): (usize, usize),
    time: Duration,
) -> anyhow::Result<Outcome> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address: SocketAddr = listener.local_addr()?;
    let response = frame(response_bytes);
    let serving = thread::spawn(move || serve(server, &listener, connections, &response));
    let exchanges = {
        let frames = vec![frame(request_bytes); connections];
        ClosedLoop::open(&address.to_string(), frames)?.run(time)?
    };
    // The client's connections are closed: the server ends.
    let served = serving
        .join()
        .map_err(|_| anyhow::anyhow!("the server panicked"))??;
    Ok(Outcome {
        exchanges,
        cpu_seconds: served.0,
        requests: served.1,
    })
}

/// A frame of so many bytes with its length.
fn frame(bytes: usize) -> Bytes {
    let body = bytes.saturating_sub(4);
    let mut frame = (body as u32).to_be_bytes().to_vec();
    frame.resize(4 + body, b'x');
    frame.into()
}

/// CPU seconds and requests.
type Served = anyhow::Result<(f64, u64)>;

fn serve(server: Server, listener: &TcpListener, connections: usize, response: &Bytes) -> Served {
    let mut streams = Vec::new();
    for _ in 0..connections {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    match server {
        Server::Threads => {
            let serve = |stream| {
                let response = response.clone();
                thread::spawn(move || one(stream, &response))
            };
            let threads: Vec<JoinHandle<Served>> = streams.into_iter().map(serve).collect();
            let mut all = (0.0, 0);
            for thread in threads {
                let (cpu, requests) = thread.join().ok().context("a thread panicked")??;
                all = (all.0 + cpu, all.1 + requests);
            }
            Ok(all)
        }
        Server::Epoll => many(streams, response),
    }
}

fn one(mut stream: TcpStream, response: &[u8]) -> Served {
    let cpu = thread_cpu_seconds();
    let (mut buffer, mut requests) = (vec![0; 64 << 10], 0);
    while answer(&mut stream, &mut buffer, response)? {
        requests += 1;
    }
    Ok((thread_cpu_seconds() - cpu, requests))
}

fn many(mut streams: Vec<TcpStream>, response: &[u8]) -> Served {
    let cpu = thread_cpu_seconds();
    let epoll = Epoll::new()?;
    for (n, stream) in streams.iter().enumerate() {
        epoll.add(stream.as_raw_fd(), n as u64)?;
    }
    let (mut buffer, mut requests) = (vec![0; 64 << 10], 0);
    let (mut open, mut ready) = (vec![true; streams.len()], Vec::new());
    while open.contains(&true) {
        epoll.wait(&mut ready, 1000)?;
        for &n in &ready {
            let n = n as usize;
            if !open[n] {
                continue;
            }
            if answer(&mut streams[n], &mut buffer, response)? {
                requests += 1;
            } else {
                open[n] = false;
                streams[n].shutdown(std::net::Shutdown::Both).ok();
                // A stream that is closed can always be read: not to be told so again.
                let fd = streams[n].as_raw_fd();
                epoll.remove(fd)?;
            }
        }
    }
    Ok((thread_cpu_seconds() - cpu, requests))
}

/// Reads a whole frame and answers it; false where the client has closed.
fn answer(stream: &mut TcpStream, buffer: &mut [u8], response: &[u8]) -> anyhow::Result<bool> {
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(false),
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let length = buffer[..filled].first_chunk::<4>();
        if length.is_some_and(|length| filled >= 4 + u32::from_be_bytes(*length) as usize) {
            stream.write_all(response)?;
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_servers_answer_all_connections() {
        for server in [Server::Threads, Server::Epoll] {
            for connections in [1, 4] {
                let time = Duration::from_millis(20);
                let outcome = run(server, connections, (64, 100), time).unwrap();
                assert!(outcome.requests > outcome.exchanges.times_us.len() as u64);
                assert_eq!(outcome.exchanges.last_response.len(), 96);
                assert!(outcome.cpu_seconds > 0.0);
            }
        }
    }
}
