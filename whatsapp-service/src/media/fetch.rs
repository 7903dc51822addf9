//! Media that the caller names by its URL. The address rules are those of the webhooks, on every hop, and why nothing
//! came is told to nobody: it would say what is to be found in the service's own network.

use axum::body::Bytes;
use futures_util::{Stream, stream};
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION},
};
use tokio::time::{Instant, timeout_at};

use super::{
    NotTaken, names,
    turns::{Turn, Turns},
};
use crate::{
    egress::{Egress, RefusedTarget},
    tenant::TenantId,
};

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 3;
/// How many URLs may be read from at once.
const AT_ONCE: usize = 32;
/// And how many of them for one tenant.
const AT_ONCE_EACH: usize = 4;

/// Reads from URLs.
pub struct Fetcher {
    egress: Egress,
    turns: Turns,
}

/// An answer whose bytes are still to come.
pub struct Fetched {
    /// What the server calls them.
    pub hint: Option<String>,
    /// What the server, or the URL, says that they are called.
    pub name: Option<String>,
    answer: Response,
    deadline: Instant,
    _turn: Turn,
}

impl Fetcher {
    /// Nothing is read yet.
    pub fn new(egress: Egress) -> Self {
        Self { egress, turns: Turns::new(AT_ONCE, AT_ONCE_EACH) }
    }

    /// The answer at `url`, of at most so many bytes, for a tenant. All of it has to be there at the deadline.
    pub async fn fetch(&self, tenant: &TenantId, url: &str, most: u64, deadline: Instant) -> Result<Fetched, NotTaken> {
        let mut target = self.egress.target(url).map_err(|refused| match refused {
            RefusedTarget::Address => NotTaken::NotFetched,
            wrong => NotTaken::Invalid(format!("`media.url`: {}", wrong.to_string().trim_start_matches("url "))),
        })?;
        if deadline <= Instant::now() {
            return Err(NotTaken::NotFetched);
        }
        let turn = timeout_at(deadline, self.turns.take(tenant)).await.map_err(|_| NotTaken::NotFetched)?;
        for _ in 0..=MAX_REDIRECTS {
            let answer = timeout_at(deadline, self.egress.get(&target)).await.map_err(|_| NotTaken::NotFetched)?;
            let answer = answer.map_err(|_| NotTaken::NotFetched)?;
            let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
            match answer.status() {
                StatusCode::OK => {
                    // What is packed would be sent packed: nobody asked for that.
                    if header(CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
                        return Err(NotTaken::NotFetched);
                    }
                    if header(CONTENT_LENGTH)
                        .and_then(|length| length.parse().ok())
                        .is_some_and(|length: u64| length > most)
                    {
                        return Err(NotTaken::Oversized { limit: most });
                    }
                    let hint = header(CONTENT_TYPE).map(str::to_owned);
                    let said = answer.headers().get(CONTENT_DISPOSITION);
                    let said = said.and_then(|value| names::from_disposition(value.as_bytes()));
                    let name = said.or_else(|| named(url, target.as_str()));
                    return Ok(Fetched { hint, name, answer, deadline, _turn: turn });
                }
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    let next = header(LOCATION).and_then(|to| self.egress.redirected(&target, to).ok());
                    target = next.ok_or(NotTaken::NotFetched)?;
                }
                _ => return Err(NotTaken::NotFetched),
            }
        }
        Err(NotTaken::NotFetched)
    }
}

/// The name in the URL that was given, or in the one that it led to, whichever looks more like one.
fn named(given: &str, last: &str) -> Option<String> {
    let names = [given, last].map(names::from_url);
    let with_extension = names.iter().flatten().find(|name| names::extension(name).is_some());
    with_extension.or(names.iter().flatten().next()).cloned()
}

impl Fetched {
    /// Its bytes, as they come.
    pub fn bytes(self) -> impl Stream<Item = Result<Bytes, NotTaken>> + Send {
        stream::unfold(Some(self), |fetched| async {
            let mut fetched = fetched?;
            match timeout_at(fetched.deadline, fetched.answer.chunk()).await {
                Ok(Ok(Some(bytes))) => Some((Ok(bytes), Some(fetched))),
                Ok(Ok(None)) => None,
                Ok(Err(_)) | Err(_) => Some((Err(NotTaken::NotFetched), None)),
            }
        })
    }
}
