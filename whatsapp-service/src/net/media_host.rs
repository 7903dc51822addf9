//! One request to a media host of WhatsApp's, to bring it a file or to fetch one: what it answers is read as it comes, and
//! no redirect is followed.

use std::{error::Error, sync::Arc, time::Duration};

use axum::body::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, StatusCode,
    body::{Body, Incoming},
    client::conn::http1,
    header::{HOST, HeaderValue, ORIGIN},
    http::{request::Builder, uri::Authority},
};
use hyper_util::rt::TokioIo;
use tokio::{sync::Notify, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::net::{
    dial::{Dialler, WHATSAPP_WEB_ORIGIN, in_full},
    proxy::Proxy,
};

/// How long a host may take to answer when it is asked for a file, and then to go on with its answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How much of what is sent may wait in memory for the host to take it: what counts as taken has left, but for this.
const BUFFER: usize = 64 * 1024;

/// Why there is no answer, or none to its end.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It can't be reached, or broke off.
    #[error("{0}")]
    Failed(String),
    /// It does not go on.
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

/// A host's answer.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    body: Incoming,
    patience: Duration,
    _connection: AbortOnDropHandle<()>,
}

/// Asks a host for what is at `path`, a path and its query.
pub async fn get(dialler: &Dialler, proxy: Option<&Proxy>, host: &Authority, path: &str) -> Result<Answer, HostError> {
    ask(dialler, proxy, host, Request::get(path), Empty::new(), PATIENCE).await
}

/// Sends a host a request, on a connection of its own. The host may take its time, but not more than `patience` without
/// taking a part of the body, or answering, or going on with its answer.
pub async fn ask<B>(
    dialler: &Dialler,
    proxy: Option<&Proxy>,
    host: &Authority,
    request: Builder,
    body: B,
    patience: Duration,
) -> Result<Answer, HostError>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let moves = Arc::new(Notify::new());
    let moved = moves.clone();
    let body = body.map_frame(move |frame| {
        moved.notify_one();
        frame
    });
    let opened = async {
        let stream = dialler.reach(host, proxy).await.map_err(|error| HostError::Failed(error.to_string()))?;
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move { connection.await.unwrap_or_default() }));
        let request = request
            .header(HOST, host.as_str())
            .header(ORIGIN, HeaderValue::from_static(WHATSAPP_WEB_ORIGIN))
            .body(body)
            .map_err(|error| HostError::Failed(error.to_string()))?;
        let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
        Ok(Answer { status: head.status, body, patience, _connection: connection })
    };
    let silence = async { while timeout(patience, moves.notified()).await.is_ok() {} };
    tokio::select! {
        answer = opened => answer,
        () = silence => Err(HostError::Silent(patience)),
    }
}

impl Answer {
    /// The next part of the answer; nothing at its end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, HostError> {
        loop {
            let frame = timeout(self.patience, self.body.frame()).await;
            match frame.map_err(|_| HostError::Silent(self.patience))? {
                None => return Ok(None),
                Some(frame) => match frame.map_err(failed)?.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    // What follows the answer says nothing about it.
                    Err(_) => continue,
                },
            }
        }
    }
}

fn failed(error: hyper::Error) -> HostError {
    HostError::Failed(in_full(&error))
}
