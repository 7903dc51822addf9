//! What an operation has in common with others: who may call it, what it is about, and what can go wrong.

use serde_json::{Map, Value, json};

use crate::{
    http::openapi::{OPEN, never_null},
    model::error_code::{ErrorCode, On},
};

/// Paths that concern no tenant, beside those.
const NO_TENANT: [&str; 4] = ["/", "/health", "/metrics", "/sessions"];

/// What reads or writes the database.
pub const STORED: [&str; 16] = [
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

/// Adds to an operation what it has in common with others.
pub fn complete(name: &str, path: &str, operation: &mut Value) {
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
    let applies = |error: ErrorCode| match error.on() {
        On::All => true,
        On::Every => secret,
        On::Tenant => tenant,
        On::Body => body,
        On::Query => query,
        On::Id => path.contains('{'),
        On::Stored => STORED.contains(&name),
        On::Named => error.operations().any(|named| named == name),
        On::Nothing | On::Reported => false,
    };
    let mut by_status: Map<String, Value> = Map::new();
    for error in ErrorCode::ALL.iter().filter(|error| applies(**error)) {
        let place = by_status.entry(error.status().to_string()).or_insert_with(|| json!({"labels": [], "codes": []}));
        for (list, word) in [("labels", Some(error.title())), ("codes", error.code())] {
            if let (Some(word), Some(list)) = (word, place[list].as_array_mut())
                && !list.iter().any(|known| known == word)
            {
                list.push(word.into());
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
