//! The three files of a gateway that `README.md` shows, run by Node as they stand there.

use std::{fs, process::Stdio, time::Duration};

use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::{ANA, BRUNO, SECRET, World};

const README: &str = include_str!("../../../README.md");

/// What a reader adds, and what a customer does: a session is linked, a message sent twice, its events arrive.
const YOURS: &str = r#"
export const customerOf = async ({ cookie }) => cookie ?? "nobody";
export const stored = [];
export async function store(id, event) {
  if (stored.length === 0 && !globalThis.failed) throw (globalThis.failed = new Error("the first time the disk is full"));
  stored.push(event);
}
"#;
const CUSTOMER: &str = r#"
import assert from "node:assert/strict";
import { events } from "./events.mjs";
import { link } from "./link.mjs";
import { call, send } from "./send.mjs";
import { stored } from "./yours.mjs";

const listen = (server) => new Promise((done) => server.listen(0, "127.0.0.1", () => done(`http://127.0.0.1:${server.address().port}`)));
const until = async (ready) => { while (!(await ready())) await new Promise((wake) => setTimeout(wake, 100)); };
const [page, hook] = [await listen(link), await listen(events)];
const ask = (path, tenant) => fetch(page + path, { headers: { cookie: tenant } });

const put = await call("demo", "/webhook", { method: "PUT", body: JSON.stringify({ url: hook, secret: process.env.WEBHOOK_SECRET }) });
assert.equal(put.status, 200, await put.text());
assert.equal((await fetch(hook, { method: "POST", body: "{}" })).status, 401);

assert.match(await (await ask("/link", "other")).text(), /<img id="qr"/);
const image = await ask("/link/qr?1", "other");
assert.equal(image.headers.get("content-type"), "image/png");
assert.equal(Buffer.from(await image.arrayBuffer()).subarray(1, 4).toString(), "PNG");
assert.equal((await (await ask("/link/status", "other")).json()).status, "initializing");
assert.equal((await (await ask("/link/status", "demo")).json()).status, "ready");

const message = { to: process.env.RECIPIENT, message: "Hello from a gateway" };
const [first, second] = [await send("demo", "order-1", message), await send("demo", "order-1", message)];
assert.equal(first.status, "sent");
assert.equal(second.id, first.id);
await assert.rejects(send("demo", "order-2", { ...message, to: "123" }), (error) => error.code === "invalid_recipient");
await until(() => stored.some(({ type, data }) => type === "message.status" && data.id === first.id));
process.exit(0);
"#;

#[tokio::test]
async fn the_gateway_of_the_readme_sends_links_and_receives() {
    if !std::process::Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success()) {
        assert!(std::env::var("CI").is_err(), "CI needs Node");
        eprintln!("skipped: needs Node 20 or newer");
        return;
    }
    let world = World::with(Default::default(), &[("ALLOW_PRIVATE_TARGETS", "true")]).await;
    world.pair("demo", ANA).await;
    let folder = TempDir::new().unwrap();
    let blocks: Vec<_> = README.split("```js\n// ").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 3);
    for block in blocks {
        let (name, text) = block.split_once('\n').unwrap();
        assert!(text.lines().count() < 20, "{name} is short");
        fs::write(folder.path().join(name), text).unwrap();
    }
    fs::write(folder.path().join("yours.mjs"), YOURS).unwrap();
    fs::write(folder.path().join("customer.mjs"), CUSTOMER).unwrap();
    let mut node = Command::new("node");
    node.arg("customer.mjs").current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
    node.env("SERVICE_URL", &world.service.url).env("INTERNAL_SECRET", SECRET).env("RECIPIENT", BRUNO);
    node.env("WEBHOOK_SECRET", "whsec_8JCmcuUDQzd1jxLKxxkUCruXqgr4T2q24vpMjOL1LQA=");
    let output = tokio::time::timeout(Duration::from_secs(60), node.output()).await.expect("it ends").unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    assert_eq!(world.until_shown(BRUNO, "Hello from a gateway").await.len(), 1);
}
