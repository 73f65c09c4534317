//! Where the fuzzer enters the broker: what a connection receives, and what lies in
//! `__consumer_offsets`.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use broker::connection::{self, Limits, RequestMemory, Service};
use broker::frame::Frame;
use broker::group::records::{GroupMetadataValue, Key, OffsetCommitValue};
use broker::memory_budget::Budgets;
use broker::router::{self, Outcome};
use broker::transaction::records::TransactionalIdState;
use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;

/// The longest request that [`framing`] takes.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// A connection that receives `data` in pieces: the first byte says how large the pieces are. Every
/// frame is answered in one of the ways that a handler has.
pub fn framing(data: &[u8]) {
    thread_local! {
        static RUNTIME: RefCell<Option<tokio::runtime::Runtime>> = const { RefCell::new(None) };
    }
    let Some((size, data)) = data.split_first() else {
        return;
    };
    let reader = Pieces {
        rest: data,
        size: usize::from(*size).max(1),
        pending: false,
    };
    let limits = Limits {
        max_request_bytes: MAX_REQUEST_BYTES,
        max_idle: Duration::from_secs(60),
        drain: Duration::from_secs(1),
    };
    RUNTIME.with_borrow_mut(|runtime| {
        let runtime = runtime.get_or_insert_with(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime")
        });
        let (_stop, shutdown) = watch::channel(false);
        let budgets = Budgets::new(MAX_REQUEST_BYTES, MAX_REQUEST_BYTES);
        let sink = tokio::io::sink();
        let served = connection::serve(reader, sink, Answers, limits, budgets, shutdown);
        // Why it closed is the connection's own affair, as long as it did.
        let _closed = runtime.block_on(served);
    });
}

/// A request without its length, read and decoded as the router does.
pub fn request(data: &[u8]) {
    let _refused = router::read_only(Bytes::copy_from_slice(data));
}

/// What lies in `__consumer_offsets` and `__transaction_state`: the first byte says whether it is read as
/// a key, an offset, a group or a transaction. What decodes is written again, and reads the same.
pub fn group_records(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    match kind % 4 {
        0 => {
            if let Ok(Some(key)) = Key::decode(data)
                && let Ok(bytes) = key.encode()
            {
                assert_eq!(Key::decode(&bytes), Ok(Some(key)));
            }
        }
        1 => {
            if let Ok(offset) = OffsetCommitValue::decode(data)
                && let Ok(bytes) = offset.encode()
            {
                assert_eq!(OffsetCommitValue::decode(&bytes), Ok(offset));
            }
        }
        2 => {
            if let Ok(group) = GroupMetadataValue::decode(data)
                && let Ok(bytes) = group.encode()
            {
                assert_eq!(GroupMetadataValue::decode(&bytes), Ok(group));
            }
        }
        _ => {
            if let Ok(state) = TransactionalIdState::decode(data)
                && let Ok(bytes) = state.encode()
            {
                assert_eq!(TransactionalIdState::decode(&bytes), Ok(state));
            }
        }
    }
}

/// A handler of any kind: the frame's first byte says which.
struct Answers;

impl Service for Answers {
    async fn call(&mut self, frame: Bytes, _memory: &mut RequestMemory<'_>) -> Outcome {
        let kind = frame.first().copied().unwrap_or(0);
        let answer = Frame {
            len: frame.len(),
            own_bytes: frame.len(),
            chunks: vec![frame],
        };
        match kind % 5 {
            0 | 1 => Outcome::Now(answer),
            2 => Outcome::None,
            3 => Outcome::Later(Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(kind.into())).await;
                Ok(answer)
            })),
            _ if kind > 250 => Outcome::Close("asked to".to_owned()),
            _ => Outcome::Later(Box::pin(std::future::ready(Ok(answer)))),
        }
    }
}

/// Gives its bytes piece by piece, with a wait before every other one.
struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
    pending: bool,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.pending = !self.pending;
        if self.pending && self.size.is_multiple_of(2) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let len = self.rest.len().min(self.size).min(buffer.remaining());
        let (piece, rest) = self.rest.split_at(len);
        buffer.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}
