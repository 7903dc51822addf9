//! `GET /openapi.json`: the interface as an OpenAPI document, made from the routes, their annotations and the types of
//! their bodies. What all paths have in common (who may call, what can go wrong) is added here.

use crate::session::SessionStateChange;
use std::{collections::BTreeSet, sync::LazyLock};

use axum::{
    http::{Method, header::CONTENT_TYPE},
    response::IntoResponse,
};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::{
    http::{problem::Problem, unknown::TOLERANT},
    whatsapp::{
        calls::MissedCall,
        decode::{Envelope, ReceivedMessage},
    },
};

/// Paths that ask for no secret: they tell nobody's secrets, and are asked by those who hold none.
pub const OPEN: [&str; 4] = ["/docs", "/livez", "/openapi.json", "/readyz"];
/// Paths that concern no tenant, beside those.
const NO_TENANT: [&str; 4] = ["/", "/health", "/metrics", "/sessions"];

/// What can go wrong: the table of `docs/errors.md`, with the words that answers really have.
pub const ERRORS: [Error; 74] = {
    use On::{All, Body, Every, Nothing, Query, Tenant, These};
    [
        Error(401, "Unauthorized", None, Every),
        Error(
            404,
            "Not found",
            None,
            These(&[
                "GET /messages/{id}",
                "DELETE /messages/{id}",
                "POST /messages/{id}/read",
                "GET /messages/{id}/media",
            ]),
        ),
        Error(503, "Too many connections", Some("too_many_connections"), Every),
        Error(405, "Method not allowed", Some("method_not_allowed"), Nothing),
        Error(400, "Tenant ID required", None, Tenant),
        Error(400, "Bad request", Some("invalid_tenant_id"), Tenant),
        Error(400, "Bad request", Some("unknown_field"), All),
        Error(413, "Payload too large", Some("payload_too_large"), Body),
        Error(503, "Body memory full", Some("body_memory_full"), Body),
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
            These(&["POST /session", "DELETE /session", "POST /send", "POST /send/bulk", "GET /messages/{id}/media"]),
        ),
        Error(503, "Storage failed", Some("storage_failed"), These(&STORED)),
        Error(404, "Session not found", Some("session_not_found"), These(&["GET /session/qr", "DELETE /session"])),
        Error(404, "No QR code", Some("no_qr_code"), These(&["GET /session/qr"])),
        Error(406, "Not acceptable", Some("not_acceptable"), These(&["GET /session/qr"])),
        Error(
            409,
            "Session not found",
            Some("session_not_found"),
            These(&[
                "POST /send",
                "POST /send/bulk",
                "POST /session/passkey",
                "POST /numbers/check",
                "POST /presence",
                "POST /messages/{id}/read",
                "GET /messages/{id}/media",
            ]),
        ),
        Error(400, "Bad request", Some("invalid_passkey_assertion"), These(&["POST /session/passkey"])),
        Error(409, "No passkey asked for", Some("passkey_not_asked_for"), These(&["POST /session/passkey"])),
        Error(502, "Passkey refused", Some("passkey_refused"), These(&["POST /session/passkey"])),
        Error(400, "Bad request", Some("invalid_recipient"), These(&["POST /send", "POST /presence"])),
        Error(400, "Bad request", Some("invalid_content"), These(&["POST /send"])),
        Error(400, "Bad request", Some("invalid_multipart"), These(&["POST /send"])),
        Error(413, "Payload too large", Some("media_too_large"), These(&["POST /send"])),
        Error(415, "Unsupported media type", Some("media_type"), These(&["POST /send"])),
        Error(422, "Media not fetched", Some("media_not_fetched"), These(&["POST /send"])),
        Error(503, "Media room full", Some("media_room_full"), These(&["POST /send"])),
        Error(400, "Bad request", Some("invalid_message"), These(&["POST /send"])),
        Error(400, "Bad request", Some("invalid_reference"), These(&["POST /send"])),
        Error(400, "Bad request", Some("invalid_expires_in"), These(&["POST /send"])),
        Error(400, "Bad request", Some("invalid_idempotency_key"), These(&["POST /send"])),
        Error(400, "Bad request", Some("invalid_messages"), These(&["POST /send/bulk"])),
        Error(400, "Bad request", Some("invalid_numbers"), These(&["POST /numbers/check"])),
        Error(
            409,
            "Session not ready",
            Some("session_not_ready"),
            These(&[
                "POST /send",
                "POST /send/bulk",
                "POST /numbers/check",
                "POST /presence",
                "POST /messages/{id}/read",
                "GET /messages/{id}/media",
            ]),
        ),
        Error(409, "Idempotency conflict", Some("idempotency_conflict"), These(&["POST /send"])),
        Error(429, "Queue full", Some("queue_full"), These(&["POST /send"])),
        Error(409, "Other recipient", Some("other_recipient"), These(&["POST /send"])),
        Error(409, "Not sent", Some("message_not_sent"), These(&["POST /send"])),
        Error(422, "Wrong kind", Some("wrong_kind"), These(&["POST /send"])),
        Error(422, "Too old", Some("message_too_old"), These(&["POST /send"])),
        Error(429, "Too many look-ups", Some("too_many_lookups"), These(&["POST /numbers/check", "POST /presence"])),
        Error(
            502,
            "No answer",
            Some("no_answer"),
            These(&["POST /numbers/check", "POST /presence", "POST /messages/{id}/read"]),
        ),
        Error(
            422,
            "Recipient not on WhatsApp",
            Some("recipient_not_on_whatsapp"),
            These(&["POST /send", "POST /presence"]),
        ),
        Error(502, "Recipient unreachable", Some("recipient_unreachable"), These(&["POST /send"])),
        Error(502, "Message rejected", Some("recipient_restricted"), These(&["POST /send"])),
        Error(502, "Message rejected", Some("account_restricted"), These(&["POST /send"])),
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
            These(&["GET /messages/{id}", "DELETE /messages/{id}", "POST /messages/{id}/read", "POST /send"]),
        ),
        Error(409, "Not cancellable", Some("not_cancellable"), These(&["DELETE /messages/{id}"])),
        Error(404, "Media not found", Some("media_not_found"), These(&["GET /messages/{id}/media"])),
        Error(410, "Media expired", Some("media_expired"), These(&["GET /messages/{id}/media"])),
        Error(416, "Range not satisfiable", Some("range_not_satisfiable"), These(&["GET /messages/{id}/media"])),
        Error(502, "Media unavailable", Some("media_unavailable"), These(&["GET /messages/{id}/media"])),
        Error(502, "Media damaged", Some("media_damaged"), These(&["GET /messages/{id}/media"])),
        Error(503, "Media busy", Some("media_busy"), These(&["POST /send", "GET /messages/{id}/media"])),
        Error(400, "Bad request", Some("invalid_last_event_id"), These(&["GET /events/stream"])),
        Error(429, "Too many streams", Some("too_many_streams"), These(&["GET /events/stream"])),
        Error(503, "Too many streams", Some("too_many_streams"), These(&["GET /events/stream"])),
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
const STORED: [&str; 16] = [
    "POST /session",
    "DELETE /session",
    "POST /send",
    "POST /send/bulk",
    "GET /messages",
    "GET /messages/{id}",
    "DELETE /messages/{id}",
    "GET /messages/{id}/media",
    "POST /messages/{id}/read",
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
    /// To everything.
    All,
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
    tags(
        (name = "Sessions", description = "Linking a phone, and what becomes of the link."),
        (name = "Messages", description = "Sending, and what becomes of what was sent."),
        (name = "Events", description = "What happened, to be read or to be posted to a webhook."),
        (name = "Operation", description = "How the service itself is."),
    ),
    components(schemas(Problem, Envelope, MissedCall, ReceivedMessage, SessionStateChange))
)]
pub struct Head;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| document(crate::http::routes().into_openapi()));
static TEXT: LazyLock<String> = LazyLock::new(|| DOCUMENT.to_string());

/// `GET /openapi.json`: this document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "Operation",
    responses((status = 200, description = "An OpenAPI document.", body = Object, content_type = "application/json"))
)]
pub async fn get() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str())
}

/// The names of the fields that an object has, `parents` deep inside of this schema's.
pub fn fields(schema: &str, parents: &[String]) -> Vec<String> {
    let schemas = &DOCUMENT["components"]["schemas"];
    let mut object = resolved(schemas, &schemas[schema]);
    for parent in parents {
        object =
            resolved(schemas, if object["items"].is_null() { &object["properties"][parent] } else { &object["items"] });
    }
    object["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

/// The names of the parameters that an operation has in its query; nothing if there is no such operation.
pub fn parameters(method: &Method, path: &str) -> Option<Vec<String>> {
    let method = if method == Method::HEAD { "get".into() } else { method.as_str().to_ascii_lowercase() };
    let operation = DOCUMENT["paths"].get(path)?.get(&method)?;
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let in_query = parameters.filter(|parameter| parameter["in"] == "query");
    Some(in_query.filter_map(|parameter| parameter["name"].as_str().map(str::to_owned)).collect())
}

/// A schema in the place of what refers to it, or of the choice between it and null.
fn resolved<'a>(schemas: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        return resolved(schemas, &schemas[name]);
    }
    let mut choices = schema["oneOf"].as_array().into_iter().flatten();
    match choices.find(|choice| !choice["$ref"].is_null()) {
        Some(choice) => resolved(schemas, choice),
        None => schema,
    }
}

/// The whole document.
fn document(generated: utoipa::openapi::OpenApi) -> Value {
    // They are in the order of the routes, which JSON does not keep.
    let order: Vec<String> = generated.paths.paths.keys().cloned().collect();
    // What the macros made is JSON: this can't fail.
    let mut document = serde_json::to_value(generated).unwrap_or_default();
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            complete(&format!("{} {path}", method.to_ascii_uppercase()), path, operation);
            let place = order.iter().position(|known| known == path).unwrap_or_default();
            let first = ["post", "put", "get", "delete"].iter().position(|known| known == method).unwrap_or_default();
            operation["x-order"] = json!(place * 10 + first);
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
        {"$ref": "#/components/schemas/ReceivedEnvelope"},
        {"$ref": "#/components/schemas/MissedCall"},
        {"$ref": "#/components/schemas/SessionStateChange"},
        {"type": "object", "description": "The session was deleted.", "required": ["state", "status", "since"],
         "properties": {"state": {"const": "deleted"}, "status": {"const": "not_found"},
                        "since": {"type": "string", "format": "date-time"}}},
    ]});
    // What the types can't say: a message is exactly one of these.
    let kinds = KINDS.map(|kind| match kind {
        // With media it stands below it.
        "message" => json!({"required": [kind], "not": {"required": ["media"]}}),
        kind => json!({ "required": [kind] }),
    });
    schemas["SendRequest"]["oneOf"] = kinds.into_iter().collect();
    let mut entry = schemas["SendRequest"].clone();
    entry["description"] = json!("An entry of `POST /send/bulk`: as `POST /send`'s body.");
    schemas["BulkMessage"] = entry;
    schemas["BulkRequest"]["properties"]["messages"]["items"] = json!({"$ref": "#/components/schemas/BulkMessage"});
    // Nor how people write addresses: these are the usual forms, and whatever else holds a digit may be one.
    for (schema, field, lids) in [
        ("SendRequest", "to", true),
        ("BulkMessage", "to", true),
        ("PresenceRequest", "to", true),
        ("Contact", "phone", false),
        ("OpenRequest", "phone", false),
    ] {
        let forms = ["^\\+?[1-9]([ .-]?[0-9]){7,14}$", "^[0-9]{1,20}@lid$", "[0-9]"];
        let forms = forms.iter().filter(|form| lids || !form.contains("lid"));
        schemas[schema]["properties"][field]["anyOf"] = forms.map(|form| json!({ "pattern": form })).collect();
    }
    let mut address = schemas["SendRequest"]["properties"]["to"].clone();
    address["description"] = json!("A phone number with the country code, or a LID with `@lid` behind it.");
    schemas["NumbersRequest"]["properties"]["numbers"]["items"] = address;
    // What was not accepted is told with the caller's own name for it, whatever that is.
    let mut refused = schemas["Problem"].clone();
    refused["description"] = json!("A message that was not accepted.");
    refused["properties"]["reference"] = json!({"description": "As it was given."});
    schemas["BulkRefused"] = refused;
    schemas["BulkAnswer"]["properties"]["messages"]["items"] = json!({"anyOf": [
        {"$ref": "#/components/schemas/SendAnswer"}, {"$ref": "#/components/schemas/BulkRefused"},
    ]});
    close(&mut document);
    document
}

/// Says of every object in a body that it has no other fields, but of those in which the old service ignored such.
fn close(document: &mut Value) {
    let (mut closed, mut open) = (BTreeSet::new(), BTreeSet::new());
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let is_tolerant = TOLERANT.contains(&format!("{} {path}", method.to_ascii_uppercase()).as_str());
            for (kind, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
                let into = if is_tolerant && kind == "application/json" { &mut open } else { &mut closed };
                references(&content["schema"], into);
            }
        }
    }
    let Some(schemas) = document["components"]["schemas"].as_object_mut() else { return };
    // What is inside of these is closed like all else.
    open.iter().filter_map(|name| schemas.get(name)).for_each(|schema| references(schema, &mut closed));
    let mut left: Vec<String> = closed.difference(&open).cloned().collect();
    while let Some(name) = left.pop() {
        let Some(schema) = schemas.get_mut(&name) else { continue };
        let mut inside = BTreeSet::new();
        references(schema, &mut inside);
        left.extend(inside.into_iter().filter(|name| !open.contains(name) && closed.insert(name.clone())));
        if schema["type"] == "object" {
            schema["additionalProperties"] = json!(false);
        }
    }
}

/// The names of the schemas that a schema refers to.
fn references(schema: &Value, into: &mut BTreeSet<String>) {
    match schema {
        Value::Array(items) => items.iter().for_each(|item| references(item, into)),
        Value::Object(fields) => {
            let named = fields.get("$ref").and_then(Value::as_str).and_then(|reference| reference.rsplit('/').next());
            into.extend(named.map(str::to_owned));
            fields.values().for_each(|field| references(field, into));
        }
        _ => {}
    }
}

/// The schemas of bodies that callers send.
const REQUESTS: [&str; 8] = [
    "OpenRequest",
    "SendRequest",
    "SendMedia",
    "BulkMessage",
    "BulkRequest",
    "WebhookRequest",
    "NumbersRequest",
    "PresenceRequest",
];

/// What a message can be, as fields of a body that is sent.
const KINDS: [&str; 7] = ["message", "media", "location", "contact", "reaction", "edit", "revoke"];

/// Adds to an operation what it has in common with others.
fn complete(name: &str, path: &str, operation: &mut Value) {
    // The macros name an operation after its function, and functions of different files may have the same name.
    operation["operationId"] =
        name.to_ascii_lowercase().replace(" /", "_").replace(['/', '.'], "_").replace(['{', '}'], "").into();
    let secret = !OPEN.contains(&path);
    let tenant = secret && !NO_TENANT.contains(&path);
    if !secret {
        operation["security"] = json!([]);
    }
    describe(name, operation);
    let mut parameters: Vec<Value> = operation["parameters"].as_array_mut().map(std::mem::take).unwrap_or_default();
    parameters.iter_mut().for_each(never_null);
    let query = parameters.iter().any(|parameter| parameter["in"] == "query");
    if tenant {
        parameters.insert(0, json!({"$ref": "#/components/parameters/Tenant"}));
    }
    operation["parameters"] = parameters.into();
    let body = operation.get_mut("requestBody").map(never_null).is_some();
    let applies = |on: &On| match on {
        On::All => true,
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

/// Takes the name of the operation out of its summary, where the macros have put the comment on its function, and lets the
/// summary be one sentence.
fn describe(name: &str, operation: &mut Value) {
    let text = operation["summary"].as_str().unwrap_or_default().replace('\n', " ");
    let text = text.strip_prefix(&format!("`{name}`: ")).unwrap_or(&text);
    let (summary, rest) = text.split_once(". ").unwrap_or((text.trim_end_matches('.'), ""));
    let mut letters = summary.chars();
    let summary: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    operation["summary"] = json!(format!("{summary}."));
    if !rest.is_empty() {
        operation["description"] = json!(rest);
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
    if ["409", "429", "502", "503"].contains(&status) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn documented() -> Value {
        document(crate::http::routes().into_openapi())
    }

    /// The manual of the interface: `docs/api.md` is its index.
    const MANUAL: [&str; 5] = ["endpoints.md", "messages.md", "sessions.md", "events.md", "errors.md"];

    /// The manual, as its headings with the lines below each.
    fn sections() -> Vec<(String, Vec<String>)> {
        let mut sections = Vec::new();
        for file in MANUAL {
            let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).join(file);
            sections.push((String::new(), Vec::new()));
            for line in std::fs::read_to_string(path).unwrap().lines() {
                match line.strip_prefix("## ").or(line.strip_prefix("### ")) {
                    Some(heading) => sections.push((heading.into(), Vec::new())),
                    None => sections.last_mut().unwrap().1.push(line.into()),
                }
            }
        }
        sections
    }

    fn section(name: &str) -> Vec<String> {
        sections().into_iter().find(|(heading, _)| heading == name).unwrap_or_else(|| panic!("no section {name}")).1
    }

    /// The rows of the table in a section whose head begins so.
    fn table(name: &str, head: &str) -> Vec<Vec<String>> {
        let rows = section(name).into_iter().skip_while(|line| !line.starts_with(head)).skip(2);
        let rows = rows.take_while(|line| line.starts_with('|'));
        let cells = |row: String| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        let rows: Vec<_> = rows.map(cells).collect();
        assert!(!rows.is_empty(), "no table {head} in {name}");
        rows
    }

    /// The words between back quotes.
    fn quoted(text: &str) -> Vec<String> {
        text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    fn operations(document: &Value) -> Vec<(String, &Value)> {
        let paths = document["paths"].as_object().unwrap().iter();
        paths
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().iter();
                methods.map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
            })
            .collect()
    }

    fn names(schema: &Value) -> BTreeSet<String> {
        let own = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone());
        let all = schema["allOf"].as_array().into_iter().flatten().flat_map(names);
        own.chain(all).collect()
    }

    /// A schema with those that it is made of in their places.
    fn resolved(document: &Value, name: &str) -> Value {
        let mut schema = document["components"]["schemas"][name].clone();
        assert!(!schema.is_null(), "no schema {name}");
        for part in schema["allOf"].as_array_mut().into_iter().flatten() {
            if let Some(name) = part["$ref"].as_str() {
                *part = resolved(document, name.rsplit('/').next().unwrap());
            }
        }
        schema
    }

    #[test]
    fn what_takes_no_other_fields_says_so_and_what_does_too() {
        let document = documented();
        let schemas = &document["components"]["schemas"];
        let closed = [
            "BulkMessage",
            "BulkRequest",
            "SendMedia",
            "SendForm",
            "WebhookRequest",
            "NumbersRequest",
            "PresenceRequest",
            "Location",
            "Contact",
            "Reaction",
            "Edit",
            "Revoke",
        ];
        for name in closed {
            assert_eq!(schemas[name]["additionalProperties"], false, "{name}");
        }
        for name in ["SendRequest", "OpenRequest", "SendAnswer", "Problem", "Message"] {
            assert!(schemas[name]["additionalProperties"].is_null(), "{name}");
        }
    }

    #[test]
    fn an_operation_is_summed_up_in_a_sentence_and_has_its_place() {
        let document = documented();
        let mut places = BTreeSet::new();
        for (name, operation) in operations(&document) {
            let summary = operation["summary"].as_str().unwrap();
            assert!(!summary.contains(&name) && !summary.contains('\n') && summary.len() < 140, "{name}: {summary}");
            assert!(places.insert(operation["x-order"].as_u64().unwrap()), "{name} has another's place");
        }
        let place = |path: &str, method: &str| document["paths"][path][method]["x-order"].as_u64().unwrap();
        assert!(place("/session", "post") < place("/session", "delete"));
        assert!(
            place("/session", "delete") < place("/status", "get") && place("/status", "get") < place("/send", "post")
        );
    }

    #[test]
    fn every_field_of_a_form_is_read() {
        for name in fields("SendForm", &[]).iter().filter(|name| *name != "media") {
            let value = ["true", "1"].map(|text| crate::http::multipart::value(name, text.into()).is_ok());
            assert!(value.contains(&true), "{name}");
        }
    }

    #[test]
    fn every_operation_is_in_both() {
        let document = documented();
        let generated: BTreeSet<_> = operations(&document).into_iter().map(|(name, _)| name).collect();
        let is_operation = |heading: &String| {
            heading.split_once(" /").is_some_and(|(method, _)| ["GET", "POST", "PUT", "DELETE"].contains(&method))
        };
        let written: BTreeSet<_> = sections().into_iter().map(|(heading, _)| heading).filter(is_operation).collect();
        assert_eq!(generated, written);
    }

    #[test]
    fn every_error_is_in_both() {
        let mut written = BTreeSet::new();
        for row in table("Errors", "| HTTP |") {
            let (status, label) = (row[0].parse().unwrap(), quoted(&row[1]).remove(0));
            let codes = quoted(&row[2]);
            let codes = if codes.is_empty() { vec![None] } else { codes.into_iter().map(Some).collect() };
            for code in codes {
                written.insert((status, label.clone(), code));
            }
        }
        let known = ERRORS.map(|Error(status, label, code, _)| (status, label.to_owned(), code.map(str::to_owned)));
        assert_eq!(known.into_iter().collect::<BTreeSet<_>>(), written);
    }

    #[test]
    fn what_an_error_answers_is_in_both() {
        // By status and code: one code may stand in two rows, each for others.
        let (mut written, mut known) = (BTreeSet::new(), BTreeSet::new());
        for row in table("Errors", "| HTTP |") {
            let names = quoted(&row[4]).into_iter().filter(|word| word.contains(" /"));
            for name in names.collect::<Vec<_>>() {
                written.extend(quoted(&row[2]).into_iter().map(|code| (row[0].clone(), code, name.clone())));
            }
        }
        for Error(status, _, code, on) in &ERRORS {
            // What reads or writes the disk is not enumerated there.
            if let (Some(code), On::These(names)) = (code.filter(|code| *code != "storage_failed"), on) {
                known.extend(names.iter().map(|&name| (status.to_string(), code.to_owned(), name.to_owned())));
            }
        }
        assert_eq!(known, written);
        let document = documented();
        let operations: BTreeSet<_> = operations(&document).into_iter().map(|(name, _)| name).collect();
        for Error(_, _, code, on) in &ERRORS {
            if let On::These(names) = on {
                for name in *names {
                    assert!(operations.contains(*name), "{code:?} is of {name}, which is not there");
                }
            }
        }
    }

    #[test]
    fn every_field_is_in_both() {
        let document = documented();
        for (heading, head, schema, beside) in [
            ("POST /send", "| field | request", "SendRequest", &["idempotencyKey"][..]),
            ("POST /send", "| field | answer", "SendAnswer", &[]),
            ("GET /messages/{id}", "| field |", "Message", &[]),
            ("PUT /webhook", "| field |", "WebhookRequest", &[]),
            // It stands in the answer of PUT only.
            ("GET /webhook", "| field |", "Webhook", &["secret"]),
            ("The status body", "| field |", "StatusBody", &[]),
            ("Events", "| field |", "Event", &[]),
            ("message.received", "| field |", "ReceivedMessage", &[]),
            ("call.missed", "| field |", "MissedCall", &[]),
            ("Errors", "| field |", "Problem", &[]),
        ] {
            let rows = table(heading, head);
            let written: BTreeSet<_> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
            let mut generated = names(&resolved(&document, schema));
            beside.iter().for_each(|field| assert!(generated.remove(*field), "{schema} has no {field}"));
            assert_eq!(generated, written, "{schema}");
        }
    }

    #[test]
    fn every_parameter_is_in_both() {
        let document = documented();
        for name in ["GET /sessions", "GET /messages", "GET /events"] {
            let written: BTreeSet<_> = table(name, "| parameter |").iter().flat_map(|row| quoted(&row[0])).collect();
            let path = name.split_once(' ').unwrap().1;
            let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap().iter();
            let in_query = parameters.filter(|parameter| parameter["in"] == "query");
            let generated: BTreeSet<_> =
                in_query.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect();
            assert_eq!(generated, written, "{name}");
        }
    }

    #[test]
    fn the_words_of_states_and_statuses_are_in_both() {
        let document = documented();
        for (heading, head, schema) in
            [("States", "| `state` |", "State"), ("The status of a message", "| `status` |", "MessageStatus")]
        {
            let written: BTreeSet<_> = table(heading, head).iter().map(|row| quoted(&row[0]).remove(0)).collect();
            let words = document["components"]["schemas"][schema]["enum"].as_array().unwrap();
            let generated: BTreeSet<_> = words.iter().map(|word| word.as_str().unwrap().to_owned()).collect();
            assert_eq!(generated, written, "{schema}");
        }
        let written: BTreeSet<_> =
            table("Why a message failed", "| `code` |").iter().map(|row| quoted(&row[0]).remove(0)).collect();
        assert_eq!(
            crate::model::message::Failure::CODES.map(str::to_owned).into_iter().collect::<BTreeSet<_>>(),
            written
        );
    }

    #[test]
    fn nothing_of_ours_is_ever_null_and_every_reference_leads_somewhere() {
        let document = documented();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for (name, schema) in schemas.iter().filter(|(name, _)| !REQUESTS.contains(&name.as_str())) {
            assert!(!schema.to_string().contains("\"null\""), "{name}: {schema}");
        }
        REQUESTS.iter().for_each(|name| assert!(schemas.contains_key(*name), "no schema {name}"));
        for reference in document.to_string().split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        let mut ids = BTreeSet::new();
        for (name, operation) in operations(&document) {
            assert!(ids.insert(operation["operationId"].to_string()), "{name} has another's id");
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{name}");
            let open = OPEN.iter().any(|path| name == format!("GET {path}"));
            assert_eq!(operation["security"] == json!([]), open, "{name}");
        }
    }
}
