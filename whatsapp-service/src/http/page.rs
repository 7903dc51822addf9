//! A page of a list: bounded in bytes, and read from the disk as its caller takes it.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use serde::Serialize;

use crate::{
    http::problem::Problem,
    store::{
        error::StoreError,
        parts::{Part, Position, Rest, Room},
    },
};

/// How many bytes a page holds at most, but of a single entry that is longer.
pub const BYTES: usize = 1024 * 1024;

/// A page that is being written.
pub struct Page<R> {
    /// What stands before its entries.
    pub head: &'static str,
    /// The name of the field that says how to go on, and what it says behind the last entry.
    pub next: fn(i64) -> String,
    /// Reads the next part of the list.
    pub read: R,
    /// Where it begins.
    pub position: Position,
    /// How much it may hold.
    pub room: Room,
}

impl<R, F> Page<R>
where
    R: Fn(Position, Room) -> F + Send + 'static,
    F: Future<Output = Result<Part, StoreError>> + Send + 'static,
{
    /// The answer. What can't be read from its first part is a problem; what can't be read later breaks the answer off.
    pub async fn answer(mut self) -> Result<Response, Problem> {
        let mut text = self.head.as_bytes().to_vec();
        let is_whole = self.write(&mut text).await?;
        let body = if is_whole {
            Body::from(text)
        } else {
            let rest = stream::unfold(Some(self), |page| async move {
                let (mut page, mut text) = (page?, Vec::new());
                Some(match page.write(&mut text).await {
                    Ok(is_whole) => (Ok(Bytes::from(text)), (!is_whole).then_some(page)),
                    Err(error) => {
                        tracing::error!(%error, "storage");
                        (Err(error), None)
                    }
                })
            });
            Body::from_stream(stream::once(async { Ok(Bytes::from(text)) }).chain(rest))
        };
        Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
    }

    /// Writes the next part, and says whether that was the last one.
    async fn write(&mut self, text: &mut Vec<u8>) -> Result<bool, StoreError> {
        let part = (self.read)(self.position, self.room).await?;
        text.extend_from_slice(&part.text);
        (self.position, self.room) = (part.position, self.room.after(&part));
        match part.rest {
            Rest::More => return Ok(false),
            Rest::Nothing => text.extend_from_slice(b"]}"),
            Rest::NoRoom => text.extend_from_slice(format!("],{}}}", (self.next)(self.position.row)).as_bytes()),
        }
        Ok(true)
    }
}

/// An entry of a list in JSON, behind a comma unless it is the first.
pub fn entry(entry: &impl Serialize, is_first: bool) -> Vec<u8> {
    let mut text = if is_first { Vec::new() } else { vec![b','] };
    // What is written to memory is written.
    let _: Result<(), Infallible> = serde_json::to_writer(&mut text, entry).or(Ok(()));
    text
}
