//! What a caller writes that the service does not know: an error that names what was meant. Only where the old service
//! ignored such things they are still taken, and named in the answer and in the log.

use axum::{
    extract::{FromRequestParts, MatchedPath, Query, Request},
    http::{Extensions, HeaderMap, Method, request::Parts},
    middleware::Next,
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{json::Parsed, openapi, problem::Problem},
    model::error_code::ErrorCode,
};

/// What goes on taking what the old service ignored: in its own fields, and in the query.
pub const TOLERANT: [&str; 4] = ["POST /session", "GET /status", "POST /send", "GET /health"];

/// How alike two names have to be for one to be taken for the other, from 0 to 1.
const ALIKE: f64 = 0.65;
/// How long a name has to be for a longer one that begins with it to be taken for it.
const BEGINNING: usize = 4;
/// How many digits a name in the log may have: more may be a phone number.
const DIGITS: usize = 4;

/// Something in a call that was not understood, and was passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Warning {
    /// `unknown_field`.
    code: &'static str,
    /// The name of the field, or of the parameter of the query.
    field: String,
    /// A sentence for a person.
    message: String,
}

/// What was not understood of one call.
#[derive(Clone, Debug, Default)]
pub struct Unknown(Vec<Warning>);

impl Unknown {
    /// What was passed over in the query of a request.
    pub fn in_query(request: &Extensions) -> Self {
        request.get().cloned().unwrap_or_default()
    }

    /// Fields of a body, by the names that lead to them.
    pub fn fields(schema: &str, paths: Vec<Vec<String>>) -> Self {
        let warning = |path: Vec<String>| {
            let (name, parents) = path.split_last()?;
            let known = openapi::fields(schema, parents);
            let inside: String = parents.iter().map(|parent| format!("{parent}.")).collect();
            Some(Warning::new("field", &inside, name, &known))
        };
        Self(paths.into_iter().filter_map(warning).collect())
    }

    /// A field of a form.
    pub fn form_field(name: &str) -> Self {
        let name: String = name.chars().take(64).collect();
        Self::fields("SendForm", vec![vec![name]])
    }

    /// A field that says nothing without another one that is not there.
    pub fn misplaced(field: &str, message: impl Into<String>) -> Self {
        Self(vec![Warning { code: "unknown_field", field: field.into(), message: message.into() }])
    }

    /// Both.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Whether everything was understood.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the answer tells it.
    pub fn warnings(&self) -> Vec<Warning> {
        self.0.clone()
    }

    /// As a sentence for a person.
    pub fn sentence(&self) -> String {
        self.0.iter().map(|warning| warning.message.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// The names, for the log.
    pub fn for_log(&self) -> Option<String> {
        for_log(&self.0)
    }

    /// The error that says so.
    pub fn refused(self) -> Problem {
        Problem::new(ErrorCode::UnknownField, self.sentence())
    }
}

impl Warning {
    fn new(what: &str, inside: &str, name: &str, known: &[String]) -> Self {
        let field = format!("{inside}{name}");
        let message = match nearest(name, known) {
            Some(meant) => format!("`{field}` is not a known {what}: did you mean `{inside}{meant}`?"),
            None if known.is_empty() => format!("`{field}` is not a known {what}: there is none."),
            None => {
                let known: Vec<_> = known.iter().map(|known| format!("`{inside}{known}`")).collect();
                format!("`{field}` is not a known {what}. Known are {}.", known.join(", "))
            }
        };
        Self { code: "unknown_field", field, message }
    }
}

/// The names for the log: those that look like one, and can't be somebody's data.
pub fn for_log(warnings: &[Warning]) -> Option<String> {
    let is_name = |field: &str| {
        let letters = field.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        letters && field.len() <= 40 && field.bytes().filter(u8::is_ascii_digit).count() <= DIGITS
    };
    let shown = |warning: &Warning| if is_name(&warning.field) { warning.field.clone() } else { "-".into() };
    (!warnings.is_empty()).then(|| warnings.iter().map(shown).collect::<Vec<_>>().join(","))
}

/// The name that was probably meant.
fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    // `reply_to`, `Reply-To` and `replyTo` are one name to people.
    let plain = |name: &str| name.to_lowercase().replace(['_', '-', ' '], "");
    let name = plain(name);
    let alike = |known: &str| {
        let known = plain(known);
        let (short, long) = if name.len() < known.len() { (&name, &known) } else { (&known, &name) };
        // `phoneNumber` is `phone`.
        let begins = short.len() >= BEGINNING && long.starts_with(short.as_str());
        strsim::normalized_damerau_levenshtein(&name, &known).max(if begins { ALIKE } else { 0.0 })
    };
    let best = known.iter().map(|known| (alike(known), known.as_str())).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(alike, _)| *alike >= ALIKE).map(|(_, known)| known)
}

/// A body that was read, if all of it was understood. `tolerant` passes over fields that the old service ignored: those
/// that are not inside of others.
pub fn understood<T>(parsed: Parsed<T>, schema: &str, tolerant: bool) -> Result<(T, Unknown), Problem> {
    let (ignored, refused): (Vec<_>, Vec<_>) = parsed.ignored.into_iter().partition(|path| tolerant && path.len() == 1);
    if !refused.is_empty() {
        return Err(Unknown::fields(schema, refused).refused());
    }
    let unknown = Unknown::fields(schema, ignored);
    match parsed.value {
        Ok(value) => Ok((value, unknown)),
        Err(problem) => Err(problem.warned(&unknown)),
    }
}

/// Whether the caller wants to be told rather than understood by half: `Prefer: handling=strict` (RFC 7240).
pub fn is_strict(headers: &HeaderMap) -> bool {
    preferences(headers)
        .any(|(name, value)| name.eq_ignore_ascii_case("handling") && value.eq_ignore_ascii_case("strict"))
}

/// What the caller prefers (RFC 7240): names, with their values.
pub fn preferences(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|one| {
        let one = one.split(';').next().unwrap_or_default();
        let (name, value) = one.split_once('=').unwrap_or((one, ""));
        (name.trim(), value.trim().trim_matches('"'))
    })
}

/// Looks at the names in the query. They are refused if the operation does not have them.
pub async fn check_query(mut request: Request, next: Next) -> Result<Response, Problem> {
    let unknown = match request.uri().query() {
        None | Some("") => Unknown::default(),
        Some(_) => names_in_query(&request),
    };
    if unknown.is_empty() {
        return Ok(next.run(request).await);
    }
    if !is_tolerant(request.method(), route(&request)) || is_strict(request.headers()) {
        return Err(unknown.refused());
    }
    request.extensions_mut().insert(unknown);
    Ok(next.run(request).await)
}

fn route(request: &Request) -> &str {
    request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str)
}

fn is_tolerant(method: &Method, route: &str) -> bool {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    TOLERANT.contains(&format!("{method} {route}").as_str())
}

fn names_in_query(request: &Request) -> Unknown {
    let Some(known) = openapi::parameters(request.method(), route(request)) else { return Unknown::default() };
    // What can't be read at all is told by who reads it.
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
    let names = pairs.map(|Query(pairs)| pairs).unwrap_or_default().into_iter().map(|(name, _)| name);
    let unknown = names.filter(|name| !known.contains(name)).take(10);
    let warning = |name: String| {
        let name: String = name.chars().take(64).collect();
        Warning::new("parameter", "", &name, &known)
    };
    Unknown(unknown.map(warning).collect())
}

/// What was passed over in the query.
impl<S: Sync> FromRequestParts<S> for Unknown {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::in_query(&parts.extensions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(schema: &str, path: &[&str]) -> String {
        Unknown::fields(schema, vec![path.iter().map(|name| (*name).to_owned()).collect()]).sentence()
    }

    #[test]
    fn the_name_that_was_meant_is_found() {
        for (path, meant) in [
            (&["mesage"][..], "message"),
            (&["reply_to"], "replyTo"),
            (&["Reply-To"], "replyTo"),
            (&["expires"], "expiresIn"),
            (&["idempotency_key"], "idempotencyKey"),
            (&["captoin"], "caption"),
            (&["media", "mime_type"], "media.mimetype"),
            (&["media", "fileName"], "media.filename"),
            (&["media", "ulr"], "media.url"),
            (&["contact", "phoneNumber"], "contact.phone"),
            (&["location", "lattitude"], "location.latitude"),
            (&["edit", "message_id"], "edit.messageId"),
        ] {
            let said = said("SendRequest", path);
            let expected = format!("`{}` is not a known field: did you mean `{meant}`?", path.join("."));
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn what_looks_like_nothing_known_is_told_what_is_known() {
        assert_eq!(
            said("SendRequest", &["media", "zzz"]),
            "`media.zzz` is not a known field. Known are `media.base64`, `media.filename`, `media.mimetype`, `media.url`."
        );
    }

    #[test]
    fn only_what_looks_like_a_name_gets_into_the_log() {
        let logged = |names: &[&str]| {
            let paths = names.iter().map(|name| vec![(*name).to_owned()]).collect();
            Unknown::fields("SendRequest", paths).for_log()
        };
        assert_eq!(logged(&[]), None);
        assert_eq!(
            logged(&["mesage", "5511999999999", "a\nb", "Hello Ana", &"x".repeat(64)]).unwrap(),
            "mesage,-,-,-,-"
        );
    }

    #[test]
    fn preferences_are_read_as_they_are_written() {
        let headers = |values: &[&str]| -> HeaderMap {
            let name = axum::http::HeaderName::from_static("prefer");
            values.iter().map(|value| (name.clone(), value.parse().unwrap())).collect()
        };
        for strict in
            [&["handling=strict"][..], &["wait=5, Handling = \"strict\""], &["respond-async", "handling=STRICT; a=b"]]
        {
            assert!(is_strict(&headers(strict)), "{strict:?}");
        }
        for lenient in [&[][..], &["handling=lenient"], &["strict"], &["handling"]] {
            assert!(!is_strict(&headers(lenient)), "{lenient:?}");
        }
    }
}
