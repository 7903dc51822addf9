// Runs the compiled gateway against a small HTTP server that stands in for the service.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { handle } from "../build/gateway.js";

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
