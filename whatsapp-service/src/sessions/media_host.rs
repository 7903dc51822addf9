//! One request to a media host of WhatsApp's: what it stores is read as it comes, and no redirect is followed.

use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, StatusCode,
    body::Incoming,
    header::{HOST, HeaderValue, ORIGIN},
    http::uri::Authority,
};
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;
use whatsapp_rust::wacore::net::WHATSAPP_WEB_ORIGIN;

use super::{
    dial::{Dialler, in_full},
    proxy::Proxy,
};

/// How long a host may take to answer, and then to go on with its answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no answer, or none to its end.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It can't be reached, or broke off.
    #[error("{0}")]
    Failed(String),
    /// It does not go on.
    #[error("no answer within {PATIENCE:?}")]
    Silent,
}

/// A host's answer.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    body: Incoming,
    _connection: AbortOnDropHandle<()>,
}

/// Asks a host for what is at `path`, a path and its query.
pub async fn get(dialler: &Dialler, proxy: Option<&Proxy>, host: &Authority, path: &str) -> Result<Answer, HostError> {
    let opened = async {
        let stream = dialler.reach(host, proxy).await.map_err(|error| HostError::Failed(error.to_string()))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move { connection.await.unwrap_or_default() }));
        let request = Request::get(path)
            .header(HOST, host.as_str())
            .header(ORIGIN, HeaderValue::from_static(WHATSAPP_WEB_ORIGIN))
            .body(Empty::<Bytes>::new())
            .map_err(|error| HostError::Failed(error.to_string()))?;
        let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
        Ok(Answer { status: head.status, body, _connection: connection })
    };
    tokio::time::timeout(PATIENCE, opened).await.unwrap_or(Err(HostError::Silent))
}

impl Answer {
    /// The next part of the answer; nothing at its end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, HostError> {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.map_err(|_| HostError::Silent)?;
            match frame {
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
