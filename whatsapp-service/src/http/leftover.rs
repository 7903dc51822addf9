//! What a caller still writes when the answer is there already. One that writes first and reads then, as many clients do,
//! would find its connection reset and no answer: so what comes is read for a moment, and thrown away.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, BodyDataStream},
    extract::Request,
    http::{StatusCode, header::EXPECT},
    middleware::Next,
    response::Response,
};
use futures_util::{StreamExt, stream};
use hyper::body::Body as _;
use parking_lot::Mutex;

/// How much is thrown away at most, and for how long that is done.
const KNOWN: (usize, Duration) = (64 * 1024 * 1024, Duration::from_secs(5));
/// The same of a caller without the secret.
const STRANGER: (usize, Duration) = (4 * 1024 * 1024, Duration::from_secs(2));

/// The body of a request while its handler reads it, and after that.
#[derive(Clone)]
struct Shared(Arc<Mutex<Incoming>>);

struct Incoming {
    body: Option<BodyDataStream>,
    begun: bool,
}

/// Answers, and then reads what is left of the body.
pub async fn read_on(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    // Who waits to be asked for the body has not begun to write it.
    let waits = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let shared = Shared(Arc::new(Mutex::new(Incoming { body: Some(body.into_data_stream()), begun: false })));
    let handed_on = shared.clone();
    let bytes = stream::poll_fn(move |context| {
        handed_on.with(|incoming| {
            incoming.begun = true;
            let next = match &mut incoming.body {
                Some(body) => body.poll_next_unpin(context),
                None => std::task::Poll::Ready(None),
            };
            if matches!(next, std::task::Poll::Ready(None | Some(Err(_)))) {
                incoming.body = None;
            }
            next
        })
    });
    let response = next.run(Request::from_parts(parts, Body::from_stream(bytes))).await;
    let (begun, left) = shared.with(|incoming| (incoming.begun, incoming.body.take()));
    if let Some(body) = left.filter(|_| begun || !waits) {
        let bounds = if response.status() == StatusCode::UNAUTHORIZED { STRANGER } else { KNOWN };
        tokio::spawn(discard(body, bounds));
    }
    response
}

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut Incoming) -> T) -> T {
        work(&mut self.0.lock())
    }
}

async fn discard(mut body: BodyDataStream, (most, patience): (usize, Duration)) {
    let reading = async {
        let mut length = 0;
        while length < most
            && let Some(Ok(bytes)) = body.next().await
        {
            length += bytes.len();
        }
    };
    let _ = tokio::time::timeout(patience, reading).await;
}
