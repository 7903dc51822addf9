//! The document and the manual say the same.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    http::openapi::{OPEN, REQUESTS, document, fields, operation::STORED},
    model::{
        error_code::{ErrorCode, On, Retry},
        message::Failure,
    },
};

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
    assert!(place("/session", "delete") < place("/status", "get") && place("/status", "get") < place("/send", "post"));
}

#[test]
fn every_field_of_a_form_is_read() {
    for name in fields("SendForm", &[]).iter().filter(|name| *name != "media") {
        let value = ["true", "1"].map(|text| crate::http::send::multipart::value(name, text.into()).is_ok());
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

/// The table of errors as the enum has it.
fn printed() -> String {
    let head = "| HTTP | `error` | `code` | `retryable` | when |\n|---|---|---|---|---|\n".to_owned();
    let answered = ErrorCode::ALL.iter().filter(|error| error.is_answered());
    answered.fold(head, |table, error| {
        let code = error.code().map_or("–".to_owned(), |code| format!("`{code}`"));
        let retryable = match error.retry() {
            Retry::Yes => " true",
            Retry::No => " false",
            Retry::Depends => " true or false",
            Retry::Unsaid => "",
        };
        let (status, title, when) = (error.status(), error.title(), error.description());
        format!("{table}| {status} | `{title}` | {code} |{retryable} | {when} |\n")
    })
}

/// With `UPDATE_DOCS=1` the table is written.
#[test]
fn the_table_of_errors_is_the_enum() {
    let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md"));
    let (text, printed) = (std::fs::read_to_string(path).unwrap(), printed());
    let start = text.find("| HTTP |").unwrap();
    let end = start + text[start..].find("\n\n").unwrap() + 1;
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{}{printed}{}", &text[..start], &text[end..])).unwrap();
    } else {
        assert_eq!(&text[start..end], printed, "UPDATE_DOCS=1 writes it");
    }
}

#[test]
fn every_operation_that_an_error_names_is_there_and_has_it() {
    let document = documented();
    let operations: std::collections::BTreeMap<_, _> = operations(&document).into_iter().collect();
    for error in ErrorCode::ALL.iter().filter(|error| error.on() == On::Named) {
        for name in error.operations() {
            let operation =
                operations.get(name).unwrap_or_else(|| panic!("{error:?} names {name}, which is not there"));
            let schema = &operation["responses"][error.status().to_string()]["content"]["application/json"]["schema"];
            let codes = schema["allOf"][1]["properties"]["code"]["enum"].as_array().unwrap();
            assert!(codes.iter().any(|code| code.as_str() == error.code()), "{name} lacks {error:?}");
        }
    }
    STORED.iter().for_each(|name| assert!(operations.contains_key(*name), "{name}"));
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
        let generated: BTreeSet<_> = in_query.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect();
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
        Failure::CODES.iter().filter_map(|code| code.code()).map(str::to_owned).collect::<BTreeSet<_>>(),
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
