//! Where the fuzzer enters: each function takes bytes that a client may send, or that may lie in a
//! log, and must neither panic nor allocate out of proportion to them. The targets and the replay
//! of the corpus (`tests/tests/fuzz_corpus.rs`) share them.

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
use bytes::Bytes;
use storage::batch::{self, Batch, layout};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;

/// The longest request that [`framing`] takes.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// What a batch may be opened to.
pub const MAX_DECOMPRESSED_BYTES: usize = 1 << 20;

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

/// A record batch, as a produce request brings it and as readers open it. Where the first byte is
/// odd, length and CRC are made right first, so that what lies behind them is reached.
pub fn batch(data: &[u8]) {
    let Some((how, data)) = data.split_first() else {
        return;
    };
    let mut bytes = data.to_vec();
    if how & 1 == 1 && bytes.len() >= layout::RECORDS {
        let length = (bytes.len() - layout::LOG_OVERHEAD) as i32;
        bytes[layout::BATCH_LENGTH..layout::BATCH_LENGTH + 4]
            .copy_from_slice(&length.to_be_bytes());
        let crc = crc32c(&bytes[layout::CRC_COVERS_FROM..]);
        bytes[layout::CRC..layout::CRC + 4].copy_from_slice(&crc.to_be_bytes());
    }
    let bytes = Bytes::from(bytes);
    for require_keys in [false, true] {
        let limits = batch::Limits {
            // With keys it is opened, to 64 times that at the most.
            max_message_bytes: MAX_DECOMPRESSED_BYTES / 64,
            require_keys,
            timestamps: 0..=i64::MAX,
        };
        if batch::validate_client_batch(&bytes, &limits).is_ok() {
            let parsed = Batch::parse(&bytes);
            assert!(parsed.is_ok_and(|parsed| parsed.size_in_bytes() == bytes.len()));
        }
    }
    for parsed in batch::batches(&bytes) {
        let Ok(parsed) = parsed else { break };
        let _ = (parsed.last_offset(), parsed.compression());
    }
    if let Ok(opened) = batch::Opened::open(&bytes, MAX_DECOMPRESSED_BYTES) {
        let sound = opened.check().is_ok();
        // One by one, and each is dropped before the next.
        let read = opened.records().take_while(Result::is_ok).count();
        assert_eq!(sound, opened.records().all(|record| record.is_ok()));
        assert_eq!(read, opened.times().take_while(Result::is_ok).count());
    }
}

/// What lies in `__consumer_offsets`: the first byte says whether it is read as a key, an offset or
/// a group. What decodes is written again, and reads the same.
pub fn group_records(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    match kind % 3 {
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
        _ => {
            if let Ok(group) = GroupMetadataValue::decode(data)
                && let Ok(bytes) = group.encode()
            {
                assert_eq!(GroupMetadataValue::decode(&bytes), Ok(group));
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

fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    }) ^ !0
}
