//! `GET /docs`: a page that shows `/openapi.json`. It loads nothing else, from nowhere else.

use std::sync::LazyLock;

use axum::{
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    response::IntoResponse,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("docs/page.css");
const SCRIPT: &str = include_str!("docs/page.js");

static PAGE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>whatsapp-service</title>\n<style>{STYLE}</style>\n\
         <main id=\"page\">This page needs JavaScript. <a href=\"/openapi.json\">The document itself</a></main>\n\
         <script>{SCRIPT}</script>\n</html>\n"
    )
});

/// Only these two, word for word, and this host.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let digest = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        digest(STYLE),
        digest(SCRIPT)
    )
});

/// `GET /docs`: this interface, to read.
#[utoipa::path(
    get, path = "/docs", tag = "Operation",
    responses((status = 200, description = "A page.", body = String, content_type = "text/html; charset=utf-8"))
)]
pub async fn get() -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, PAGE.as_str())
}
