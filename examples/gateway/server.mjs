// The gateway on Node, for a container beside the service. What Workers have from Cloudflare comes from the environment:
//   SERVICE_URL, INTERNAL_SECRET, ALLOWED_ORIGINS   as in src/gateway.ts
//   API_KEYS              HASH=TENANT,…: the SHA-256 of each API key in hex, and the tenant that it stands for
//   REQUESTS_PER_MINUTE   of one tenant; 120 without it
//   HOST, PORT            where it listens; 127.0.0.1 and 8080 without them

import { createServer } from "node:http";
import { handle } from "./build/gateway.js";

const { SERVICE_URL, INTERNAL_SECRET, ALLOWED_ORIGINS = "", API_KEYS = "", HOST, PORT, REQUESTS_PER_MINUTE } = process.env;
const keys = new Map(API_KEYS.split(",").filter(Boolean).map((entry) => entry.trim().split("=")));
if (!SERVICE_URL || !INTERNAL_SECRET || keys.size === 0 || [...keys].some(([hash, tenant]) => !/^[0-9a-f]{64}$/.test(hash) || !tenant)) {
  console.error("SERVICE_URL, INTERNAL_SECRET and API_KEYS (HASH=TENANT,…) are needed");
  process.exit(1);
}

/** The largest body: a picture of 16 MiB in base64, and the words below it. */
const BODY_MAX = 24 * 1024 * 1024;
const limit = Number(REQUESTS_PER_MINUTE || 120);
const counts = new Map();
setInterval(() => counts.clear(), 60_000).unref();

const env = {
  SERVICE_URL,
  INTERNAL_SECRET,
  ALLOWED_ORIGINS,
  API_KEYS: { get: async (hash) => keys.get(hash) ?? null },
  RATE_LIMITER: {
    limit: async ({ key }) => {
      const count = (counts.get(key) ?? 0) + 1;
      counts.set(key, count);
      return { success: count <= limit };
    },
  },
};

async function answer(request, response) {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size <= BODY_MAX) parts.push(part);
  }
  if (size > BODY_MAX) {
    const body = { error: "Payload too large", code: "payload_too_large", message: `The body is larger than ${BODY_MAX} bytes.` };
    return response.writeHead(413, { "Content-Type": "application/json" }).end(JSON.stringify(body));
  }
  const { method, headers, url } = request;
  const body = method === "GET" || method === "HEAD" ? undefined : Buffer.concat(parts);
  const answered = await handle(new Request(new URL(url, "http://gateway"), { method, headers, body }), env);
  response.writeHead(answered.status, Object.fromEntries(answered.headers)).end(await answered.text());
}

const server = createServer({ requestTimeout: 60_000 }, (request, response) => {
  answer(request, response).catch((error) => {
    console.error("a request failed", error);
    response.destroy();
  });
});
server.listen(Number(PORT || 8080), HOST || "127.0.0.1", () => console.log(`listening on port ${server.address().port}`));
for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => server.close());
