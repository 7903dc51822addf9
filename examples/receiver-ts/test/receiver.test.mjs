// Runs the program as its README says, and the listener with a sink of the test's own.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { listener } from "../build/listener.js";
import { SECRET, event, sign } from "./signing.mjs";

const PROGRAM = fileURLToPath(new URL("../build/receiver.js", import.meta.url));

/** The program on a free port, `lines` being what it prints after its first line. */
async function start(t, env = {}) {
  const child = spawn(process.execPath, [PROGRAM], {
    env: { ...process.env, PORT: "0", WEBHOOK_SECRET: SECRET, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => child.kill());
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const next = async () => JSON.parse((await lines.next()).value);
  const { listening } = await next();
  assert.match(listening, /^http:\/\/127\.0\.0\.1:\d+$/);
  return { url: listening, next };
}

/** A server with the listener and this sink. Its `url` has a path, which does not matter. */
async function serve(t, sink) {
  const server = createServer(listener(SECRET, sink)).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return Object.assign(server, { url: `http://127.0.0.1:${server.address().port}/hook` });
}

const post = (url, body, headers) => fetch(url, { method: "POST", body, headers: headers ?? sign(body) });

/** Posts an event, signed; the answer's status. */
async function deliver(url, event) {
  const body = JSON.stringify(event);
  return (await post(url, body, sign(body, { id: event.id }))).status;
}

async function assertProblem(response, status, pattern) {
  assert.equal(response.status, status);
  assert.match((await response.json()).error, pattern);
}

test("the program prints each new event once", async (t) => {
  const { url, next } = await start(t);
  const other = event(1, { id: "evt_other", tenantId: "other", type: "session.state" });
  for (const delivered of [event(1), event(1), event(2), event(1), other]) assert.equal(await deliver(url, delivered), 204);
  assert.deepEqual(
    [await next(), await next(), await next()],
    [
      { tenantId: "demo", sequence: 1, type: "message.received", id: "evt_1" },
      { tenantId: "demo", sequence: 2, type: "message.received", id: "evt_2" },
      { tenantId: "other", sequence: 1, type: "session.state", id: "evt_other" },
    ],
  );
});

test("the program prints the data when it is asked to", async (t) => {
  const { url, next } = await start(t, { PRINT_DATA: "1" });
  assert.equal(await deliver(url, event(1)), 204);
  assert.deepEqual((await next()).data, { kind: "text", text: "Olá" });
});

test("the program does not start without a secret", async (t) => {
  const child = spawn(process.execPath, [PROGRAM], {
    env: { ...process.env, PORT: "0", WEBHOOK_SECRET: "" },
    stdio: ["ignore", "pipe", "ignore"],
  });
  t.after(() => child.kill());
  const first = await Promise.race([once(child, "exit"), once(child.stdout, "data")]);
  assert.equal(first[0], 1, "the code that it exits with");
});

test("what is not an authentic event is refused and printed nowhere", async (t) => {
  const { url, next } = await start(t);
  const body = JSON.stringify(event(1));
  await assertProblem(await post(url, `${body} `, sign(body)), 401, /no signature/);
  await assertProblem(await post(url, body, sign(body, { timestamp: 1_000_000_000 })), 401, /too far/);
  await assertProblem(await post(url, body, {}), 401, /webhook-id is missing/);
  const broken = [event("1"), event(1.5), event(1, { tenantId: undefined }), event(1, { data: undefined })];
  for (const bad of ["", "{", "null", "[]", "{}", ...broken.map((event) => JSON.stringify(event))]) {
    await assertProblem(await post(url, bad), 400, /not an event/);
  }
  await assertProblem(await fetch(url), 405, /POST/);
  assert.equal(await deliver(url, event(2)), 204);
  assert.equal((await next()).sequence, 2, "nothing came before it");
});

test("a body of 1 MiB is taken, a larger one is not", async (t) => {
  const taken = [];
  const { url } = await serve(t, ({ id }) => void taken.push(id));
  const sized = (size) => {
    const empty = JSON.stringify(event(1, { data: { text: "" } }));
    return JSON.stringify(event(1, { data: { text: "x".repeat(size - empty.length) } }));
  };
  await assertProblem(await post(url, sized(1024 * 1024 + 1)), 413, /1 MiB/);
  assert.equal((await post(url, sized(1024 * 1024))).status, 204);
  assert.deepEqual(taken, ["evt_1"]);
});

test("an event that comes late is taken, and said to be late", async (t) => {
  const taken = [];
  const { url } = await serve(t, ({ sequence }, late) => void taken.push([sequence, late]));
  for (const sequence of [1, 5, 3, 5, 4, 3, 6]) assert.equal(await deliver(url, event(sequence)), 204);
  assert.deepEqual(taken, [[1, false], [5, false], [3, true], [4, true], [6, false]]);
});

test("an event that could not be stored is taken when it comes again", async (t) => {
  t.mock.method(console, "error", () => {});
  let calls = 0;
  const { url } = await serve(t, async () => {
    if (++calls === 1) throw new Error("the disk is full");
  });
  assert.deepEqual([await deliver(url, event(1)), await deliver(url, event(1)), await deliver(url, event(1))], [500, 204, 204]);
  assert.equal(calls, 2);
});

test("a repeat that comes while the first is being stored waits for that", async (t) => {
  let stored;
  const storing = new Promise((resolve) => (stored = resolve));
  let calls = 0;
  const server = await serve(t, () => (calls++, storing));
  const arrived = [];
  server.on("request", (request) => arrived.push(once(request, "end")));
  let answers = 0;
  const delivered = [1, 2].map(() => deliver(server.url, event(1)).finally(() => answers++));
  while (arrived.length < 2) await once(server, "request");
  await Promise.all(arrived);
  await assertProblem(await post(server.url, "{}"), 400, /not an event/); // a whole exchange later
  assert.deepEqual([calls, answers], [1, 0]);
  stored();
  assert.deepEqual(await Promise.all(delivered), [204, 204]);
  assert.equal(calls, 1);
});

test("only so many ids are remembered, for each tenant", async (t) => {
  let calls = 0;
  const { url } = await serve(t, () => void calls++);
  for (let sequence = 1; sequence <= 1001; sequence++) await deliver(url, event(sequence));
  assert.equal(calls, 1001);
  await deliver(url, event(2));
  assert.equal(calls, 1001, "still known");
  await deliver(url, event(1));
  assert.equal(calls, 1002, "forgotten");
});
