//! Connections that each have one request in flight, always: as soon as its response is there, the next
//! one is sent. One thread serves all of them, which loads the machine least.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;

use crate::statistics::percentile;

/// A response that takes longer counts as lost.
const TIMEOUT: Duration = Duration::from_secs(10);
/// No response here is longer.
const RESPONSE_BYTES: usize = 64 << 10;
/// What comes on each connection before the exchanges that count: so many, or so much time.
const WARM_UP: (usize, Duration) = (200, Duration::from_millis(20));

/// What came of a closed loop.
#[derive(Clone, Debug, Default)]
pub struct Exchanges {
    /// Of each exchange, in microseconds.
    pub times_us: Vec<f64>,
    /// From the first to the last.
    pub seconds: f64,
    /// The last response, without its length.
    pub last_response: Bytes,
}

impl Exchanges {
    /// Exchanges in a second.
    pub fn per_second(&self) -> f64 {
        self.times_us.len() as f64 / self.seconds
    }

    /// The time that `share` of the exchanges did not exceed, in milliseconds.
    pub fn percentile_ms(&self, share: f64) -> f64 {
        percentile(&self.times_us, share) / 1e3
    }
}

/// Connections to one server.
pub struct ClosedLoop {
    peers: Vec<Peer>,
    frames: Vec<Bytes>,
}

struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    sent: Instant,
}

impl ClosedLoop {
    /// Opens a connection for each frame, which it will send again and again; warms it up.
    pub fn open(address: &str, frames: Vec<Bytes>) -> anyhow::Result<Self> {
        let mut peers = Vec::with_capacity(frames.len());
        for _ in &frames {
            let stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            peers.push(Peer {
                stream,
                buffer: vec![0; RESPONSE_BYTES],
                filled: 0,
                sent: Instant::now(),
            });
        }
        let mut opened = Self { peers, frames };
        for (peer, frame) in opened.peers.iter_mut().zip(&opened.frames) {
            let began = Instant::now();
            let mut exchanges = 0;
            while exchanges < WARM_UP.0 && began.elapsed() < WARM_UP.1 {
                peer.exchange(frame)?;
                exchanges += 1;
            }
        }
        Ok(opened)
    }

    /// Exchanges for so long.
    pub fn run(&mut self, time: Duration) -> anyhow::Result<Exchanges> {
        match &mut self.peers[..] {
            [one] => alone(one, &self.frames[0], time),
            peers => together(peers, &self.frames, time),
        }
    }
}

/// Blocking: the next request is sent by the thread that the response has woken.
fn alone(peer: &mut Peer, frame: &[u8], time: Duration) -> anyhow::Result<Exchanges> {
    let mut exchanges = Exchanges::default();
    let began = Instant::now();
    while began.elapsed() < time {
        let length = peer.exchange(frame)?;
        exchanges
            .times_us
            .push(peer.sent.elapsed().as_secs_f64() * 1e6);
        if exchanges.last_response.is_empty() {
            exchanges.last_response = Bytes::copy_from_slice(&peer.buffer[4..length]);
        }
    }
    exchanges.seconds = began.elapsed().as_secs_f64();
    Ok(exchanges)
}

/// One epoll over all of them.
fn together(peers: &mut [Peer], frames: &[Bytes], time: Duration) -> anyhow::Result<Exchanges> {
    let epoll = Epoll::new()?;
    for (n, peer) in peers.iter_mut().enumerate() {
        peer.stream.set_nonblocking(true)?;
        epoll.add(peer.stream.as_raw_fd(), n as u64)?;
    }
    let mut exchanges = Exchanges::default();
    let began = Instant::now();
    for (peer, frame) in peers.iter_mut().zip(frames) {
        peer.send(frame)?;
    }
    let (mut open, mut last) = (peers.len(), Instant::now());
    let mut ready = Vec::with_capacity(peers.len());
    while open > 0 {
        epoll.wait(&mut ready, 100)?;
        if ready.is_empty() && last.elapsed() > TIMEOUT {
            bail!("no response for {TIMEOUT:?}");
        }
        for &n in &ready {
            let peer = &mut peers[n as usize];
            let Some(length) = peer.receive()? else {
                continue;
            };
            last = Instant::now();
            exchanges
                .times_us
                .push((last - peer.sent).as_secs_f64() * 1e6);
            if last - began < time {
                peer.send(&frames[n as usize])?;
            } else {
                open -= 1;
                exchanges.last_response = Bytes::copy_from_slice(&peer.buffer[4..length]);
            }
        }
    }
    exchanges.seconds = began.elapsed().as_secs_f64();
    for peer in peers {
        peer.stream.set_nonblocking(false)?;
    }
    Ok(exchanges)
}

impl Peer {
    /// Small as they are, frames always fit into the socket's empty buffer.
    fn send(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        self.sent = Instant::now();
        Ok(self.stream.write_all(frame)?)
    }

    /// Reads what is there; the response's length with its prefix where that is all of it.
    fn receive(&mut self) -> anyhow::Result<Option<usize>> {
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => bail!("the connection was closed"),
            Ok(read) => self.filled += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let Some(prefix) = self.buffer[..self.filled].first_chunk::<4>() else {
            return Ok(None);
        };
        let length = 4 + u32::from_be_bytes(*prefix) as usize;
        if length > RESPONSE_BYTES {
            bail!("a response of {length} bytes");
        }
        if self.filled < length {
            return Ok(None);
        }
        self.filled = 0;
        Ok(Some(length))
    }

    fn exchange(&mut self, frame: &[u8]) -> anyhow::Result<usize> {
        self.send(frame)?;
        loop {
            if let Some(length) = self.receive()? {
                return Ok(length);
            }
        }
    }
}

/// The kernel's list of what can be read.
pub struct Epoll(std::os::fd::OwnedFd);

impl Epoll {
    /// An empty one.
    pub fn new() -> std::io::Result<Self> {
        use std::os::fd::FromRawFd;
        // SAFETY: the call has no memory effects; its result is checked.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the descriptor is open, and nobody else has it.
        Ok(Self(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) }))
    }

    /// From now on `wait` tells when `fd` can be read.
    pub fn add(&self, fd: i32, name: u64) -> std::io::Result<()> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: name,
        };
        let epoll = self.0.as_raw_fd();
        // SAFETY: `event` is a whole event, only read during the call.
        match unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    /// `wait` no longer tells of it.
    pub fn remove(&self, fd: i32) -> std::io::Result<()> {
        let none = std::ptr::null_mut();
        // SAFETY: this operation reads no event.
        match unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, none) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    /// The names of those that can be read, waiting for one for at most so long.
    pub fn wait(&self, ready: &mut Vec<u64>, timeout_ms: i32) -> std::io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        let (epoll, room) = (self.0.as_raw_fd(), events.len() as i32);
        // SAFETY: at most `room` events are written, which `events` has.
        let count = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), room, timeout_ms) };
        ready.clear();
        match usize::try_from(count) {
            Ok(count) => ready.extend(events[..count].iter().map(|event| event.u64)),
            Err(_) => {
                let error = std::io::Error::last_os_error();
                if error.kind() != ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
