//! `GET /openapi.json`: the interface as an OpenAPI document, made from the routes, their annotations and the types of
//! their bodies. What all paths have in common (who may call, what can go wrong) is added here.

use std::sync::LazyLock;

use axum::{http::header::CONTENT_TYPE, response::IntoResponse};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::sessions::{ReceivedMessage, SessionStateChange};

/// Paths that ask for no secret: they tell nobody's secrets, and are asked by those who hold none.
pub const OPEN: [&str; 4] = ["/docs", "/livez", "/openapi.json", "/readyz"];
/// Paths that concern no tenant, beside those.
const NO_TENANT: [&str; 3] = ["/health", "/metrics", "/sessions"];

/// What can go wrong: the table of `docs/api.md`, with the words that answers really have.
pub const ERRORS: [Error; 48] = {
    use On::{Body, Every, Nothing, Query, Tenant, These};
    [
        Error(401, "Unauthorized", None, Every),
        Error(404, "Not found", None, These(&["GET /messages/{id}", "DELETE /messages/{id}"])),
        Error(405, "Method not allowed", Some("method_not_allowed"), Nothing),
        Error(400, "Tenant ID required", None, Tenant),
        Error(400, "Bad request", Some("invalid_tenant_id"), Tenant),
        Error(413, "Payload too large", Some("payload_too_large"), Body),
        Error(408, "Request timeout", Some("request_timeout"), Body),
        Error(400, "Bad request", Some("incomplete_body"), Body),
        Error(400, "Bad request", Some("invalid_json"), Body),
        Error(400, "Bad request", Some("invalid_body"), Body),
        Error(400, "Bad request", Some("invalid_query"), Query),
        Error(400, "Bad request", Some("invalid_phone"), These(&["POST /session"])),
        Error(400, "Bad request", Some("invalid_proxy"), These(&["POST /session"])),
        Error(409, "Pairing code outstanding", Some("pairing_code_outstanding"), These(&["POST /session"])),
        Error(502, "Pairing code refused", Some("pairing_code_refused"), These(&["POST /session"])),
        Error(
            503,
            "Service stopping",
            Some("stopping"),
            These(&["POST /session", "DELETE /session", "POST /send", "POST /send/bulk"]),
        ),
        Error(503, "Storage failed", Some("storage_failed"), These(&STORED)),
        Error(404, "Session not found", Some("session_not_found"), These(&["GET /session/qr", "DELETE /session"])),
        Error(404, "No QR code", Some("no_qr_code"), These(&["GET /session/qr"])),
        Error(406, "Not acceptable", Some("not_acceptable"), These(&["GET /session/qr"])),
        Error(
            409,
            "Session not found",
            Some("session_not_found"),
            These(&["POST /send", "POST /send/bulk", "POST /session/passkey"]),
        ),
        Error(400, "Bad request", Some("invalid_passkey_assertion"), These(&["POST /session/passkey"])),
        Error(409, "No passkey asked for", Some("passkey_not_asked_for"), These(&["POST /session/passkey"])),
        Error(502, "Passkey refused", Some("passkey_refused"), These(&["POST /session/passkey"])),
        Error(400, "Bad request", Some("invalid_recipient"), These(&["POST /send"])),
        Error(400, "Bad request", Some("invalid_message"), These(&["POST /send"])),
        Error(400, "Bad request", Some("invalid_reference"), These(&["POST /send"])),
        Error(400, "Bad request", Some("invalid_expires_in"), These(&["POST /send"])),
        Error(400, "Bad request", Some("invalid_idempotency_key"), These(&["POST /send"])),
        Error(400, "Bad request", Some("invalid_messages"), These(&["POST /send/bulk"])),
        Error(409, "Session not ready", Some("session_not_ready"), These(&["POST /send", "POST /send/bulk"])),
        Error(409, "Idempotency conflict", Some("idempotency_conflict"), These(&["POST /send"])),
        Error(429, "Queue full", Some("queue_full"), These(&["POST /send"])),
        Error(422, "Recipient not on WhatsApp", Some("recipient_not_on_whatsapp"), These(&["POST /send"])),
        Error(502, "Recipient unreachable", Some("recipient_unreachable"), These(&["POST /send"])),
        Error(502, "Message rejected", Some("message_rejected"), These(&["POST /send"])),
        Error(504, "Message expired", Some("expired"), These(&["POST /send"])),
        Error(409, "Message not sent", Some("cancelled"), These(&["POST /send"])),
        Error(409, "Message not sent", Some("session_deleted"), These(&["POST /send"])),
        Error(409, "Message not sent", Some("account_changed"), These(&["POST /send"])),
        Error(409, "Message not sent", Some("content_unreadable"), These(&["POST /send"])),
        Error(
            404,
            "Message not found",
            Some("message_not_found"),
            These(&["GET /messages/{id}", "DELETE /messages/{id}"]),
        ),
        Error(409, "Not cancellable", Some("not_cancellable"), These(&["DELETE /messages/{id}"])),
        Error(400, "Bad request", Some("invalid_last_event_id"), These(&["GET /events/stream"])),
        Error(400, "Bad request", Some("invalid_url"), These(&["PUT /webhook"])),
        Error(400, "Bad request", Some("invalid_secret"), These(&["PUT /webhook"])),
        Error(
            404,
            "Webhook not found",
            Some("webhook_not_found"),
            These(&["GET /webhook", "POST /webhook/retry", "DELETE /webhook"]),
        ),
        Error(500, "Internal error", None, Every),
    ]
};

/// What reads or writes the database.
const STORED: [&str; 13] = [
    "DELETE /session",
    "POST /send",
    "POST /send/bulk",
    "GET /messages",
    "GET /messages/{id}",
    "DELETE /messages/{id}",
    "GET /events",
    "GET /events/stream",
    "PUT /webhook",
    "GET /webhook",
    "DELETE /webhook",
    "POST /webhook/retry",
    "GET /health",
];

/// An error: its HTTP status, its label, its code if it has one, and what it may be the answer to.
pub struct Error(pub u16, pub &'static str, pub Option<&'static str>, pub On);

/// To what an error may be the answer.
pub enum On {
    /// To all that asks for the secret.
    Every,
    /// To all that is about a tenant.
    Tenant,
    /// To all that takes a body.
    Body,
    /// To all that takes a query.
    Query,
    /// To these.
    These(&'static [&'static str]),
    /// To nothing that is documented.
    Nothing,
}

/// The document's head, and the bodies that no path names by itself.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "whatsapp-service",
        description = "WhatsApp sessions of many tenants behind one internal HTTP interface. `docs/api.md` of the \
                       repository says what the states, codes and events mean.",
    ),
    components(schemas(ReceivedMessage, SessionStateChange))
)]
pub struct Head;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document(super::routes().into_openapi()).to_string());

/// `GET /openapi.json`: this document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "Operation",
    responses((status = 200, description = "An OpenAPI document.", body = Object, content_type = "application/json"))
)]
pub async fn get() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

/// The whole document.
fn document(generated: utoipa::openapi::OpenApi) -> Value {
    // What the macros made is JSON: this can't fail.
    let mut document = serde_json::to_value(generated).unwrap_or_default();
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            complete(&format!("{} {path}", method.to_ascii_uppercase()), path, operation);
        }
    }
    document["security"] = json!([{"secret": []}]);
    let components = &mut document["components"];
    components["securitySchemes"]["secret"] = json!({
        "type": "apiKey", "in": "header", "name": "X-Internal-Secret",
        "description": "One of the secrets in INTERNAL_SECRET.",
    });
    components["parameters"]["Tenant"] = json!({
        "name": "X-Tenant-Id", "in": "header", "required": true, "description": "Whose session it is about.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:@-]{1,128}$", "example": "demo"},
    });
    let schemas = &mut components["schemas"];
    for (name, schema) in schemas.as_object_mut().into_iter().flatten() {
        // A field of ours that has nothing to say is left out. One of a caller's may also be null.
        if !REQUESTS.contains(&name.as_str()) {
            never_null(schema);
        }
    }
    let codes: Vec<_> = ERRORS.iter().filter_map(|Error(_, _, code, _)| *code).collect();
    schemas["Problem"]["properties"]["code"]["enum"] = json!(sorted(codes));
    schemas["Event"]["properties"]["data"] = json!({"anyOf": [
        {"$ref": "#/components/schemas/Message"},
        {"$ref": "#/components/schemas/ReceivedMessage"},
        {"$ref": "#/components/schemas/SessionStateChange"},
        {"type": "object", "description": "The session was deleted.", "required": ["state", "status", "since"],
         "properties": {"state": {"const": "deleted"}, "status": {"const": "not_found"},
                        "since": {"type": "string", "format": "date-time"}}},
    ]});
    // What was not accepted is told with the caller's own name for it, whatever that is.
    let mut refused = schemas["Problem"].clone();
    refused["description"] = json!("A message that was not accepted.");
    refused["properties"]["reference"] = json!({"description": "As it was given."});
    schemas["BulkRefused"] = refused;
    schemas["BulkAnswer"]["properties"]["messages"]["items"] = json!({"anyOf": [
        {"$ref": "#/components/schemas/SendAnswer"}, {"$ref": "#/components/schemas/BulkRefused"},
    ]});
    document
}

/// The schemas of bodies that callers send.
const REQUESTS: [&str; 4] = ["OpenRequest", "SendRequest", "BulkRequest", "WebhookRequest"];

/// Adds to an operation what it has in common with others.
fn complete(name: &str, path: &str, operation: &mut Value) {
    let secret = !OPEN.contains(&path);
    let tenant = secret && !NO_TENANT.contains(&path);
    if !secret {
        operation["security"] = json!([]);
    }
    let mut parameters: Vec<Value> = operation["parameters"].as_array_mut().map(std::mem::take).unwrap_or_default();
    parameters.iter_mut().for_each(never_null);
    let query = parameters.iter().any(|parameter| parameter["in"] == "query");
    if tenant {
        parameters.insert(0, json!({"$ref": "#/components/parameters/Tenant"}));
    }
    operation["parameters"] = parameters.into();
    let body = operation.get("requestBody").is_some();
    let applies = |on: &On| match on {
        On::Every => secret,
        On::Tenant => tenant,
        On::Body => body,
        On::Query => query,
        On::These(names) => names.contains(&name),
        On::Nothing => false,
    };
    let mut by_status: Map<String, Value> = Map::new();
    for Error(status, label, code, on) in &ERRORS {
        if applies(on) {
            let place = by_status.entry(status.to_string()).or_insert_with(|| json!({"labels": [], "codes": []}));
            for (list, word) in [("labels", Some(*label)), ("codes", *code)] {
                if let (Some(word), Some(list)) = (word, place[list].as_array_mut())
                    && !list.iter().any(|known| known == word)
                {
                    list.push(word.into());
                }
            }
        }
    }
    for (status, words) in by_status {
        operation["responses"][&status] = problem(&status, &words);
    }
}

/// An error answer with one of these labels and codes.
fn problem(status: &str, words: &Value) -> Value {
    let list = |name: &str| words[name].as_array().cloned().unwrap_or_default();
    let (labels, codes) = (list("labels"), list("codes"));
    let named = if codes.is_empty() { &labels } else { &codes };
    let named: Vec<_> = named.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
    let mut fields = json!({"error": {"enum": labels}});
    if !codes.is_empty() {
        fields["code"] = json!({"enum": codes});
    }
    let mut response = json!({
        "description": named.join(", "),
        "content": {"application/json": {"schema": {"allOf": [
            {"$ref": "#/components/schemas/Problem"}, {"type": "object", "properties": fields},
        ]}}},
    });
    if ["409", "429", "502"].contains(&status) {
        let why = "Seconds to wait before the next attempt, where known.";
        response["headers"]["Retry-After"] = json!({"description": why, "schema": {"type": "integer", "minimum": 0}});
    }
    response
}

/// Takes `null` out of the types in a schema.
fn never_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(never_null),
        Value::Object(fields) => {
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [one] = &types[..] {
                    let one = one.clone();
                    fields.insert("type".into(), one);
                }
            }
            if let Some(Value::Array(choices)) = fields.get_mut("oneOf") {
                choices.retain(|choice| choice["type"] != "null");
                if let [Value::Object(one)] = &choices[..] {
                    let one = one.clone();
                    fields.remove("oneOf");
                    fields.extend(one);
                }
            }
            fields.values_mut().for_each(never_null);
        }
        _ => {}
    }
}

fn sorted(mut words: Vec<&str>) -> Vec<&str> {
    words.sort_unstable();
    words.dedup();
    words
}
