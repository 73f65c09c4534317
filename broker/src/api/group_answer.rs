//! What the group APIs share: answers that come later, and owned copies of what requests say.

use bytes::Bytes;
use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use crate::group::Answer;
use crate::router::{Reply, RequestContext};

/// A reply of an answer; `stopping` where the broker stops before there is one.
pub(super) fn reply<T, R>(
    answer: Answer<T>,
    stopping: T,
    response: impl FnOnce(T) -> R + Send + 'static,
) -> Reply<R>
where
    T: Send + 'static,
    R: 'static,
{
    match answer {
        Answer::Now(answer) => Reply::Now(response(answer)),
        Answer::Later(answer) => Reply::Later(
            answer
                .map(|answer| response(answer.unwrap_or(stopping)))
                .boxed(),
        ),
    }
}

/// As [`reply`], but `stopping` as soon as the broker stops: members wait for each other, which may
/// take minutes.
pub(super) fn reply_until_stop<T, R>(
    ctx: &RequestContext,
    answer: Answer<T>,
    stopping: T,
    response: impl FnOnce(T) -> R + Send + 'static,
) -> Reply<R>
where
    T: Send + 'static,
    R: 'static,
{
    let answer = match answer {
        Answer::Now(answer) => return Reply::Now(response(answer)),
        Answer::Later(answer) => answer,
    };
    let mut shutdown = ctx.broker.shutdown.clone();
    let answer = async move {
        let answer = tokio::select! {
            biased;
            answer = answer => answer.ok(),
            _ = shutdown.wait_for(|stop| *stop) => None,
        };
        response(answer.unwrap_or(stopping))
    };
    Reply::Later(answer.boxed())
}

/// 0 where there is no error.
pub(super) fn code(error: Option<ResponseError>) -> i16 {
    error.map_or(0, |error| error.code())
}

/// A copy: a slice would keep the whole request's buffer.
pub(super) fn owned(string: &StrBytes) -> String {
    string.as_str().to_owned()
}

/// A string of ours, for a response.
pub(super) fn text(string: String) -> StrBytes {
    StrBytes::from_string(string)
}

/// As [`owned`].
pub(super) fn owned_option(string: Option<&StrBytes>) -> Option<String> {
    string.map(owned)
}

/// As [`owned`].
pub(super) fn owned_bytes(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
