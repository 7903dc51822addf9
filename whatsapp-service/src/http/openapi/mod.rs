//! `GET /openapi.json`: the interface as an OpenAPI document, made from the routes, their annotations and the types of
//! their bodies. What all paths have in common (who may call, what can go wrong) is added here.

use std::{collections::BTreeSet, sync::LazyLock};

use axum::{
    http::{Method, header::CONTENT_TYPE},
    response::IntoResponse,
};
use serde_json::{Value, json};
use utoipa::OpenApi;

mod operation;
#[cfg(test)]
mod tests;

use crate::{
    http::{openapi::operation::complete, problem::Problem, unknown::TOLERANT},
    model::error_code::ErrorCode,
    session::SessionStateChange,
    whatsapp::{
        calls::MissedCall,
        decode::received::{Envelope, ReceivedMessage},
    },
};

/// Paths that ask for no secret: they tell nobody's secrets, and are asked by those who hold none.
pub const OPEN: [&str; 4] = ["/docs", "/livez", "/openapi.json", "/readyz"];

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
    let codes: BTreeSet<_> =
        ErrorCode::ALL.iter().filter(|error| error.is_answered()).filter_map(|error| error.code()).collect();
    schemas["Problem"]["properties"]["code"]["enum"] = json!(codes);
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
