//! Media that the caller names by its URL. The address rules are those of the webhooks, on every hop, and why nothing
//! came is told to nobody: it would say what is to be found in the service's own network.

use axum::body::Bytes;
use futures_util::{Stream, stream};
use reqwest::{
    Response, StatusCode, Url,
    header::{CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION},
};
use tokio::time::{Instant, timeout_at};

use self::FetchFailure::{
    Broken, Encoded, NotConnected, NotFound, Redirects, Refused, RefusedAddress, ServerError, Tls, TooSlow,
};
use crate::{
    media::{NotTaken, names},
    model::tenant::TenantId,
    net::egress::{Egress, PostError, RefusedTarget},
    util::fair_semaphore::{FairSemaphore, Permit},
};

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 3;
/// How many URLs may be read from at once.
const AT_ONCE: usize = 32;
/// And how many of them for one tenant.
const AT_ONCE_EACH: usize = 4;

/// Why nothing came from a URL: for the log of whoever runs the service, and for nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchFailure {
    /// The server knows no such thing (404, 410).
    NotFound,
    /// The server does not give it (another 4xx).
    Refused,
    /// The server is in trouble, or wants to be asked later (5xx, 408, 425, 429).
    ServerError,
    /// The URL, or a redirect, leads to an address that must not be reached.
    RefusedAddress,
    /// The name has no address, or nobody answers there.
    NotConnected,
    /// No TLS session, or no valid certificate.
    Tls,
    /// It did not come in time.
    TooSlow,
    /// Too many redirects, or one that leads nowhere.
    Redirects,
    /// The bytes are packed, and nobody asked for that.
    Encoded,
    /// The connection ended too early.
    Broken,
}

impl FetchFailure {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            NotFound => "not_found",
            Refused => "refused",
            ServerError => "server_error",
            RefusedAddress => "refused_address",
            NotConnected => "not_connected",
            Tls => "tls",
            TooSlow => "too_slow",
            Redirects => "redirects",
            Encoded => "encoded",
            Broken => "broken",
        }
    }

    /// Whether the same URL may lead to something a little later.
    pub fn is_retryable(self) -> bool {
        matches!(self, ServerError | NotConnected | TooSlow | Broken)
    }

    fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => NotFound,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => ServerError,
            status if status.is_client_error() => Refused,
            status if status.is_redirection() => Redirects,
            _ => ServerError,
        }
    }
}

impl From<PostError> for FetchFailure {
    fn from(error: PostError) -> Self {
        match error {
            PostError::TimedOut => TooSlow,
            PostError::NotAllowed => RefusedAddress,
            PostError::NotConnected => NotConnected,
            PostError::Tls => Tls,
            PostError::Broken => Broken,
        }
    }
}

impl From<FetchFailure> for NotTaken {
    fn from(failure: FetchFailure) -> Self {
        Self::NotFetched(failure)
    }
}

/// Reads from URLs.
pub struct Fetcher {
    egress: Egress,
    turns: FairSemaphore<TenantId>,
}

/// An answer whose bytes are still to come.
pub struct Fetched {
    /// What the server calls them.
    pub hint: Option<String>,
    /// What the server, or the URL, says that they are called.
    pub name: Option<String>,
    answer: Response,
    deadline: Instant,
    _turn: Permit,
}

impl Fetcher {
    /// Nothing is read yet.
    pub fn new(egress: Egress) -> Self {
        Self { egress, turns: FairSemaphore::new(AT_ONCE, AT_ONCE_EACH) }
    }

    /// The answer at `url`, of at most so many bytes, for a tenant. All of it has to be there at the deadline.
    pub async fn fetch(&self, tenant: &TenantId, url: &str, most: u64, deadline: Instant) -> Result<Fetched, NotTaken> {
        let mut target = self.egress.target(url).map_err(|refused| match refused {
            RefusedTarget::Address => RefusedAddress.into(),
            wrong => NotTaken::Invalid(format!("`media.url`: {}", wrong.to_string().trim_start_matches("url "))),
        })?;
        if deadline <= Instant::now() {
            return Err(TooSlow.into());
        }
        let turn = timeout_at(deadline, self.turns.take(tenant)).await.map_err(|_| TooSlow)?;
        for _ in 0..=MAX_REDIRECTS {
            let answer = timeout_at(deadline, self.egress.get(&target)).await.map_err(|_| TooSlow)?;
            let answer = answer.map_err(FetchFailure::from)?;
            let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
            match answer.status() {
                StatusCode::OK => {
                    // What is packed would be sent packed: nobody asked for that.
                    if header(CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
                        return Err(Encoded.into());
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
                    let next = header(LOCATION).ok_or(Redirects)?;
                    target = self.egress.redirected(&target, next).map_err(|refused| match refused {
                        RefusedTarget::Address => RefusedAddress,
                        _ => Redirects,
                    })?;
                }
                status => return Err(FetchFailure::of_status(status).into()),
            }
        }
        Err(Redirects.into())
    }
}

/// The name in the URL that was given, or in the one that it led to, whichever looks more like one.
fn named(given: &str, last: &str) -> Option<String> {
    let names = [given, last].map(names::from_url);
    let with_extension = names.iter().flatten().find(|name| names::extension(name).is_some());
    with_extension.or(names.iter().flatten().next()).cloned()
}

impl Fetched {
    /// Where they are, after all redirects.
    pub fn url(&self) -> Url {
        self.answer.url().clone()
    }

    /// Its bytes, as they come.
    pub fn bytes(self) -> impl Stream<Item = Result<Bytes, NotTaken>> + Send {
        stream::unfold(Some(self), |fetched| async {
            let mut fetched = fetched?;
            match timeout_at(fetched.deadline, fetched.answer.chunk()).await {
                Ok(Ok(Some(bytes))) => Some((Ok(bytes), Some(fetched))),
                Ok(Ok(None)) => None,
                Ok(Err(_)) => Some((Err(Broken.into()), None)),
                Err(_) => Some((Err(TooSlow.into()), None)),
            }
        })
    }
}
