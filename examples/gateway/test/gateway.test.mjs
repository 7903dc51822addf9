// Runs the compiled gateway against a small HTTP server that stands in for the service.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { handle, ROUTES } from "../build/gateway.js";

const KEY = "key-of-the-first-customer";
const hash = (key) => createHash("sha256").update(key).digest("hex");

let server, env, seen, reply;

before(async () => {
  server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    seen.push({ method: request.method, url: request.url, headers: request.headers, body });
    reply(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
});
after(() => {
  server.closeAllConnections();
  server.close();
});

beforeEach(() => {
  seen = [];
  reply = json(200, { status: "not_found" });
  env = {
    SERVICE_URL: `http://127.0.0.1:${server.address().port}`,
    INTERNAL_SECRET: "inside-only",
    API_KEYS: { get: async (key) => ({ [hash(KEY)]: "acme:sales", [hash("key-with-a-bad-tenant")]: "a/b" })[key] ?? null },
    ALLOWED_ORIGINS: "https://app.example.com, https://other.example.com",
  };
});

const json = (status, body, headers = {}) => (response) =>
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body));

const call = (method, path, { key = KEY, headers = {}, body, timeout } = {}) =>
  handle(new Request(`https://gateway.example.com${path}`, {
    method, body, headers: { ...(key && { Authorization: `Bearer ${key}` }), ...headers },
  }), env, timeout);

async function assertProblem(response, status, code) {
  const body = await response.json();
  assert.deepEqual([response.status, body.code], [status, code]);
  assert.ok(body.error && body.message);
  assert.ok(!JSON.stringify(body).includes("inside-only"));
  return body;
}

test("a call goes to the service with its secret and the key's tenant", async () => {
  const message = JSON.stringify({ to: "5511888888888", message: "Olá" });
  reply = json(200, { id: "3EB0", timestamp: "2026-01-31T10:30:00.000Z", to: "5511888888888" });
  const response = await call("POST", "/send", { body: message, headers: { "X-Tenant-Id": "somebody-else", "X-Internal-Secret": "x", "Idempotency-Key": "order-1" } });
  assert.equal(response.status, 200);
  assert.equal((await response.json()).id, "3EB0");
  assert.equal(response.headers.get("cache-control"), "no-store");
  const [{ method, url, headers, body }] = seen;
  assert.deepEqual([method, url, body], ["POST", "/send", message]);
  assert.equal(headers["x-internal-secret"], "inside-only");
  assert.equal(headers["x-tenant-id"], "acme:sales");
  assert.equal(headers["idempotency-key"], "order-1");
  assert.equal(headers.authorization, undefined, "the end user's key stays here");
});

test("POST /session needs no body, and GET /status passes through", async () => {
  assert.equal((await call("POST", "/session")).status, 200);
  assert.deepEqual(await (await call("GET", "/status")).json(), { status: "not_found" });
  assert.deepEqual(seen.map(({ method, url }) => `${method} ${url}`), ["POST /session", "GET /status"]);
});

test("only known fields are passed on, on every path and within fields", async () => {
  for (const [path, body, field] of [
    ["/session", { proxy: "socks5://127.0.0.1:22" }, "proxy"],
    ["/session", { phone: "5511999999999", proxy: null }, "proxy"],
    ["/send", { to: "5511888888888", mesage: "Hi" }, "mesage"],
    ["/send", { to: "5511888888888", media: { url: "https://example.com/a.png", proxy: "x" } }, "media.proxy"],
    ["/send", { to: "5511888888888", edit: { messageId: "3EB0", text: "Hi" } }, "edit.text"],
    ["/send", { toString: "x" }, "toString"],
    ["/send", JSON.parse('{"__proto__":{"to":"5511888888888"}}'), "__proto__"],
  ]) {
    const { message } = await assertProblem(await call("POST", path, { body: JSON.stringify(body) }), 400, "unknown_field");
    assert.equal(message, `There is no field "${field}" here.`);
  }
  const { message } = await assertProblem(await call("POST", "/send", { body: JSON.stringify({ ["x".repeat(1_000)]: 1 }) }), 400, "unknown_field");
  assert.ok(message.length < 120, message);
  for (const [method, path] of [["POST", "/send?wait=0"], ["GET", "/status?tenant=other"], ["POST", "/session?proxy=x"]]) {
    await assertProblem(await call(method, path, { ...(method === "POST" && { body: "{}" }) }), 400, "unknown_field");
  }
  for (const body of ["to=551188888888", '{"to":']) await assertProblem(await call("POST", "/send", { body }), 400, "invalid_json");
  for (const body of ["[]", '"to"', "null", "1"]) await assertProblem(await call("POST", "/send", { body }), 400, "invalid_body");
  assert.equal(seen.length, 0);
});

test("what is passed on is what was checked, also where a name stands twice", async () => {
  await call("POST", "/send", { body: '{"to":"5511888888888","message":"one","message":"two","media":[{"url":"x"}]}' });
  assert.deepEqual(JSON.parse(seen[0].body), { to: "5511888888888", message: "two", media: [{ url: "x" }] });
  assert.equal(seen[0].body.match(/message/g).length, 1);
});

test("the fields are those of the service's manual, all but the proxy", () => {
  const below = (file, heading) => readFileSync(new URL(`../../../docs/${file}`, import.meta.url), "utf8").split(`\n${heading}\n`)[1];
  // The names in the first column of the first table below a heading.
  const named = (text) => text.split("\n\n").find((part) => part.startsWith("| ")).split("\n").slice(2)
    .flatMap((row) => [...row.split("|")[1].matchAll(/`(\w+)`/g)].map(([, name]) => name)).sort();
  const { media, ...fields } = ROUTES["/send"].fields;
  assert.deepEqual(Object.keys({ media, ...fields }).filter((name) => name !== "idempotencyKey").sort(), named(below("endpoints.md", "### POST /send")));
  assert.deepEqual(Object.keys(media).sort(), named(below("messages.md", "### Media")));
});

test("without a valid key nothing reaches the service", async () => {
  for (const key of [undefined, "", "short", "a-key-that-nobody-has"]) {
    const response = await call("GET", "/status", { key: key ?? null });
    assert.equal(response.headers.get("www-authenticate"), "Bearer");
    await assertProblem(response, 401, "invalid_api_key");
  }
  assert.equal(seen.length, 0);
});

test("a malformed tenant id in the store is our fault, not the caller's", async () => {
  await assertProblem(await call("GET", "/status", { key: "key-with-a-bad-tenant" }), 500, "internal");
  assert.equal(seen.length, 0);
});

test("what is not public is not there", async () => {
  for (const path of ["/health", "/sessions", "/", "/status/", "/toString"]) {
    await assertProblem(await call("GET", path), 404, "not_found");
  }
  const response = await call("DELETE", "/session");
  assert.equal(response.headers.get("allow"), "POST");
  await assertProblem(response, 405, "method_not_allowed");
  assert.equal(seen.length, 0);
});

test("the service's errors reach the caller as they are", async () => {
  const body = { error: "Recipient not on WhatsApp", code: "recipient_not_on_whatsapp", message: "…" };
  reply = json(422, body);
  let response = await call("POST", "/send", { body: "{}" });
  assert.equal(response.status, 422);
  assert.deepEqual(await response.json(), body);

  reply = json(503, { error: "Busy", code: "busy" }, { "retry-after": "7" });
  response = await call("GET", "/status");
  assert.deepEqual([response.status, response.headers.get("retry-after")], [503, "7"]);
});

test("a refused secret, a redirect or something that is no JSON is a bad gateway", async () => {
  const replies = [
    json(401, { error: "Unauthorized" }),
    (response) => response.writeHead(302, { location: "/elsewhere" }).end(),
    (response) => response.writeHead(200, { "content-type": "text/html" }).end("<p>proxy"),
  ];
  for (reply of replies) await assertProblem(await call("GET", "/status"), 502, "service_misconfigured");
  assert.equal(seen.length, 3, "the redirect was not followed");
});

test("a service that is slow or away is said so, and a send is never called retryable", async () => {
  reply = () => {};
  let body = await assertProblem(await call("GET", "/status", { timeout: 50 }), 504, "service_timeout");
  assert.equal(body.retryable, true);
  body = await assertProblem(await call("POST", "/send", { body: "{}", timeout: 50 }), 504, "service_timeout");
  assert.equal(body.retryable, false);
  for (const repeatable of [{ headers: { "Idempotency-Key": "k" }, body: "{}" }, { body: '{"idempotencyKey":"k"}' }]) {
    body = await assertProblem(await call("POST", "/send", { ...repeatable, timeout: 50 }), 504, "service_timeout");
    assert.equal(body.retryable, true);
  }

  reply = (response) => response.socket.destroy();
  body = await assertProblem(await call("POST", "/send", { body: "{}" }), 502, "service_unreachable");
  assert.equal(body.retryable, false);
});

test("the rate limit counts per tenant", async () => {
  const keys = [];
  env.RATE_LIMITER = { limit: async ({ key }) => ({ success: keys.push(key) <= 1 }) };
  assert.equal((await call("GET", "/status")).status, 200);
  const response = await call("GET", "/status");
  assert.equal(response.headers.get("retry-after"), "60");
  await assertProblem(response, 429, "rate_limited");
  assert.deepEqual(keys, ["acme:sales", "acme:sales"]);
});

test("browsers of the allowed origins get CORS headers, also on errors; others do not", async () => {
  const preflight = (origin) => call("OPTIONS", "/send", { key: null, headers: { Origin: origin, "Access-Control-Request-Method": "POST" } });
  const good = await preflight("https://other.example.com");
  assert.equal(good.status, 204);
  assert.equal(good.headers.get("access-control-allow-origin"), "https://other.example.com");
  assert.match(good.headers.get("access-control-allow-headers"), /authorization/i);

  const refused = await call("GET", "/status", { key: null, headers: { Origin: "https://app.example.com" } });
  assert.deepEqual([refused.status, refused.headers.get("access-control-allow-origin")], [401, "https://app.example.com"]);

  for (const origin of ["https://evil.example.com", "https://app.example.com.evil.example"]) {
    const response = await preflight(origin);
    assert.equal(response.headers.get("access-control-allow-origin"), null);
    assert.equal(response.headers.get("vary"), "Origin");
  }
  assert.equal(seen.length, 0);
});

/** The gateway on Node, as a process, with this environment. Ends with the test. */
function startServer(t, env) {
  const child = spawn(process.execPath, [new URL("../server.mjs", import.meta.url).pathname], { env: { PATH: process.env.PATH, PORT: "0", ...env } });
  t.after(() => child.kill("SIGKILL"));
  const output = new Promise((resolve) => {
    let text = "";
    const take = (chunk) => { text += chunk; if (text.includes("\n")) resolve(text); };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
  });
  const exit = new Promise((resolve) => child.on("exit", resolve));
  return { child, output, exit };
}

test("on Node it does the same, with keys and a rate limit from the environment", async (t) => {
  const { child, output, exit } = startServer(t, {
    SERVICE_URL: env.SERVICE_URL, INTERNAL_SECRET: "inside-only", REQUESTS_PER_MINUTE: "3",
    API_KEYS: `${hash("another-customers-key")}=other, ${hash(KEY)}=acme:sales`,
  });
  const url = `http://127.0.0.1:${/listening on port (\d+)/.exec(await output)[1]}`;
  const ask = (path, options = {}) => fetch(url + path, { ...options, headers: { Authorization: `Bearer ${KEY}` } });

  assert.equal((await fetch(`${url}/status`)).status, 401);
  assert.deepEqual(await (await ask("/status")).json(), { status: "not_found" });
  await assertProblem(await ask("/session", { method: "POST", body: '{"proxy":"socks5://127.0.0.1:22"}' }), 400, "unknown_field");
  reply = json(200, { id: "3EB0" });
  const response = await ask("/send", { method: "POST", body: '{"to":"5511888888888","message":"Olá"}' });
  assert.deepEqual([response.status, await response.json(), response.headers.get("cache-control")], [200, { id: "3EB0" }, "no-store"]);
  assert.deepEqual(seen.map(({ method, url, headers }) => [method, url, headers["x-tenant-id"], headers["x-internal-secret"]]),
    [["GET", "/status", "acme:sales", "inside-only"], ["POST", "/send", "acme:sales", "inside-only"]]);
  assert.equal(seen[1].body, '{"to":"5511888888888","message":"Olá"}');
  await assertProblem(await ask("/status"), 429, "rate_limited");
  const other = { headers: { Authorization: "Bearer another-customers-key" } };
  assert.equal((await fetch(`${url}/status`, other)).status, 200, "another tenant has a limit of its own");
  await assertProblem(await fetch(`${url}/send`, { ...other, method: "POST", body: "x".repeat(25 * 1024 * 1024) }), 413, "payload_too_large");
  child.kill("SIGTERM");
  assert.equal(await exit, 0, "it stops when it is asked to, also as a container's first process");
});

test("on Node it says what it lacks", async (t) => {
  const complete = { SERVICE_URL: "http://127.0.0.1:1", INTERNAL_SECRET: "s", API_KEYS: `${hash(KEY)}=acme` };
  for (const lacking of [{ SERVICE_URL: "" }, { INTERNAL_SECRET: "" }, { API_KEYS: "" }, { API_KEYS: "key=acme" }, { API_KEYS: hash(KEY) }]) {
    const { output, exit } = startServer(t, { ...complete, ...lacking });
    assert.match(await output, /are needed/);
    assert.equal(await exit, 1);
  }
});
