//! The program: receives webhooks on 127.0.0.1:PORT and prints each new event as a line of JSON.

use std::{
    env,
    io::{self, Write},
};

use anyhow::Context;
use receiver::{Event, Secret};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    tenant_id: String,
    sequence: u64,
    #[serde(rename = "type")]
    kind: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Map<String, Value>>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let secret: Secret = env::var("WEBHOOK_SECRET").unwrap_or_default().parse().context("WEBHOOK_SECRET is wrong")?;
    let port = env::var("PORT").ok().filter(|port| !port.is_empty()).unwrap_or_else(|| "4000".to_owned());
    let port: u16 = port.parse().context("PORT is wrong")?;
    let with_data = env::var("PRINT_DATA").is_ok_and(|value| value == "1");

    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    print(&json!({ "listening": format!("http://{}", listener.local_addr()?) }))?;
    let sink = move |Event { id, kind, tenant_id, sequence, data, .. }| async move {
        print(&Line { tenant_id, sequence, kind, id, data: with_data.then_some(data) })
    };
    Ok(axum::serve(listener, receiver::router(secret, sink)).await?)
}

/// Standard output is this example's store: what is printed has been taken. Yours is a table or a queue.
fn print(line: &impl Serialize) -> io::Result<()> {
    writeln!(io::stdout(), "{}", serde_json::to_string(line)?)
}
