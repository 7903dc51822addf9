//! One line of the log for each request. Nothing of a body, a query or a secret gets into it, and no field of it has a
//! length that a caller chooses. Those who don't know the secret get one line for many requests.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::StatusCode,
    middleware::Next,
    response::Response,
};
use parking_lot::Mutex;

use crate::{
    http::{App, caller, openapi, unknown::Unknown},
    metrics,
};

/// How long requests are summed up that need no secret, or don't have it.
const SUM: Duration = Duration::from_secs(10);

/// What a handler says of a request for its line.
#[derive(Clone, Debug, Default)]
pub struct Noted {
    /// The code of the error that it was answered with.
    pub code: Option<Cow<'static, str>>,
    /// The message that it was about.
    pub id: Option<String>,
    /// What in it was not understood.
    pub unknown: Option<String>,
    /// How many messages of many were accepted, and how many refused.
    pub bulk: Option<(usize, usize)>,
}

impl Noted {
    /// It was about this message.
    pub fn message(id: &str) -> Self {
        Self { id: Some(id.into()), ..Self::default() }
    }

    /// So many messages were accepted, and so many not.
    pub fn bulk(accepted: usize, refused: usize) -> Self {
        Self { bulk: Some((accepted, refused)), ..Self::default() }
    }

    /// This in it was not understood.
    pub fn unknown(self, unknown: &Unknown) -> Self {
        Self { unknown: unknown.for_log(), ..self }
    }
}

/// Writes a request's line when it is answered.
pub async fn log_request(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let method = metrics::method(request.method());
    // The path as the router knows it. What else stands in a request's path may be anything, and is not repeated.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let tenant = caller::tenant_for_log(request.headers());
    let started = Instant::now();
    let response = next.run(request).await;
    let (status, took) = (response.status(), started.elapsed());
    let route = route.as_ref().map(MatchedPath::as_str);
    metrics::answered(method, route, status.as_u16(), took);
    let is_stranger = status == StatusCode::UNAUTHORIZED;
    let tenant = tenant.filter(|_| !is_stranger);
    let route = if is_stranger { "-" } else { route.unwrap_or("-") };
    let status = status.as_u16();
    if (is_stranger || openapi::OPEN.contains(&route)) && !app.strangers.is_first(route, status) {
        return response;
    }
    let Noted { code, id, unknown, bulk } = response.extensions().get().cloned().unwrap_or_default();
    tracing::info!(
        tenant = tenant.as_ref().map(tracing::field::display),
        method,
        route,
        status,
        ms = took.as_millis() as u64,
        code = code.as_deref(),
        id,
        unknown,
        accepted = bulk.map(|(accepted, _)| accepted),
        refused = bulk.map(|(_, refused)| refused),
        "request"
    );
    response
}

/// Requests that need no secret, or don't have it: the first is told at once, and how many followed a little later.
#[derive(Clone, Default)]
pub struct Strangers(Arc<Mutex<BTreeMap<(String, u16), u64>>>);

impl Strangers {
    /// Whether it is the first for a while that is answered like this. The others are counted.
    fn is_first(&self, route: &str, status: u16) -> bool {
        let mut counted = self.0.lock();
        if let Some(count) = counted.get_mut(&(route.to_owned(), status)) {
            *count += 1;
            return false;
        }
        counted.insert((route.to_owned(), status), 0);
        let (strangers, route) = (self.clone(), route.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(SUM).await;
            strangers.sum_up(route, status);
        });
        true
    }

    fn sum_up(&self, route: String, status: u16) {
        let key = (route, status);
        let counted = self.0.lock().remove(&key);
        if let Some(requests) = counted.filter(|requests| *requests > 0) {
            tracing::info!(route = key.0, status, requests, "more requests without the secret");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_who_knock_often_are_summed_up() {
        let strangers = Strangers::default();
        assert!(strangers.is_first("-", 401));
        assert!((0..100).all(|_| !strangers.is_first("-", 401)));
        assert!(strangers.is_first("/livez", 200), "others are not among them");
        assert_eq!(strangers.0.lock().get(&("-".to_owned(), 401)), Some(&100));
        tokio::time::sleep(SUM * 2).await;
        assert!(strangers.0.lock().is_empty(), "nothing is left");
        assert!(strangers.is_first("-", 401), "it is told again after a while");
    }
}
