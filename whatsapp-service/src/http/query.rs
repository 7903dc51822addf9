//! The query of a request.

use axum::{extract::FromRequestParts, http::request::Parts};
use serde::de::DeserializeOwned;

use crate::{
    http::{json, problem::Problem},
    model::error_code::ErrorCode,
};

/// What stands in the query. Names that the operation does not have were refused before.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(error) => {
                let text = error.body_text();
                let text = text.rsplit_once("query string: ").map_or(text.as_str(), |(_, why)| why);
                let why = match text.split_once(": ") {
                    Some((name, why)) => format!("{name}: {}", json::in_words(why)),
                    None => json::in_words(text),
                };
                Err(invalid(why))
            }
        }
    }
}

/// A parameter that is not what it must be.
pub fn invalid(why: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidQuery, why)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only whether they can be read counts")]
    struct Page {
        limit: Option<usize>,
        after: Option<i64>,
        wait: Option<u8>,
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_without_the_names_of_types() {
        for (query, why) in [
            ("limit=x", "limit: must be a whole number"),
            ("limit=", "limit: must be a whole number"),
            ("limit=-1", "limit: must be a whole number"),
            ("after=99999999999999999999", "after: must be a smaller number"),
            ("after=-99999999999999999999", "after: must be a larger number"),
            ("wait=300", "wait: must be a smaller number"),
            ("limit=1&limit=2", "`limit` is there more than once"),
        ] {
            let (mut parts, ()) = Request::get(format!("/events?{query}")).body(()).unwrap().into_parts();
            let refused = Query::<Page>::from_request_parts(&mut parts, &()).await.err().expect(query);
            let said = serde_json::to_value(refused).unwrap();
            assert_eq!((&said["code"], &said["message"]), (&"invalid_query".into(), &why.into()), "{query}");
        }
    }
}
