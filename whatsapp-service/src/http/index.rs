//! `GET /`: where this interface is described.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

/// `GET /`'s answer.
#[derive(Serialize, ToSchema)]
pub struct Index {
    /// A page for people.
    docs: &'static str,
    /// A document for tools.
    openapi: &'static str,
}

/// `GET /`: where this interface is described.
#[utoipa::path(
    get, path = "/", tag = "Operation",
    responses((status = 200, description = "The paths of its descriptions.", body = Index))
)]
pub async fn get() -> Json<Index> {
    Json(Index { docs: "/docs", openapi: "/openapi.json" })
}
