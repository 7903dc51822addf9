// Takes events over HTTP: checks them, drops repeats, and hands each new one on.

import type { IncomingMessage, RequestListener } from "node:http";
import { keyOf, Refused, verify } from "./verify.js";

/** The largest body, in bytes. */
const BODY_LIMIT = 1024 * 1024;

/** How many ids are remembered for each tenant. Repeats are of what came last, so few would do. */
const REMEMBERED = 1000;

/** One event of the service. */
export interface Event {
  id: string;
  type: string;
  timestamp: string;
  tenantId: string;
  /** Counts a tenant's events. What arrives may have gaps: not every type has to be subscribed to. */
  sequence: number;
  data: Record<string, unknown>;
}

/**
 * Takes a new event; `late` when one with a higher `sequence` of this tenant was taken before, so that this one must
 * not overwrite what that one said. The service hears 204 once this has returned or resolved: store the event, and do
 * the long work afterwards. If it fails, the service sends the event again. Calls come one after the other.
 */
export type Sink = (event: Event, late: boolean) => void | Promise<void>;

class Problem extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

/** Answers webhooks on any path. Throws if the secret is not `whsec_` and base64. */
export function listener(secret: string, sink: Sink): RequestListener {
  keyOf(secret);
  const tenants = new Map<string, { newest: number; ids: string[] }>();
  let turn = Promise.resolve();

  async function take(event: Event): Promise<void> {
    const { newest, ids } = tenants.get(event.tenantId) ?? { newest: 0, ids: [] };
    if (ids.includes(event.id)) return;
    await sink(event, event.sequence < newest);
    // Only now: an event that could not be stored has to be taken when it comes again.
    const remembered = [event.id, ...ids.slice(0, REMEMBERED - 1)];
    tenants.set(event.tenantId, { newest: Math.max(newest, event.sequence), ids: remembered });
  }

  return async (request, response) => {
    try {
      if (request.method !== "POST") throw new Problem(405, "use POST");
      const body = await read(request);
      verify(secret, request.headers, body);
      const event = parse(body);
      // A repeat may arrive while the first one is still being stored. It waits for that, like all others.
      const taken = turn.then(() => take(event));
      turn = taken.catch(() => {});
      await taken;
      response.writeHead(204).end();
    } catch (error) {
      const problem = error instanceof Refused ? new Problem(401, error.message)
        : error instanceof Problem ? error : new Problem(500, "the event could not be taken");
      if (problem.status === 500) console.error(problem.message, error);
      response.writeHead(problem.status, { "content-type": "application/json" });
      response.end(JSON.stringify({ error: problem.message }));
    }
  };
}

async function read(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  // Reads on when it is too much, and keeps nothing of that: a sender that is cut off would not see the answer.
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size <= BODY_LIMIT) chunks.push(chunk);
  }
  if (size > BODY_LIMIT) throw new Problem(413, "the body is larger than 1 MiB");
  return Buffer.concat(chunks);
}

function parse(body: Buffer): Event {
  try {
    const event = JSON.parse(body.toString()) as Event;
    const texts = [event.id, event.type, event.timestamp, event.tenantId].every((text) => typeof text === "string");
    if (texts && Number.isSafeInteger(event.sequence) && typeof event.data === "object" && event.data) return event;
  } catch {
    // Not JSON, or null. The same answer fits.
  }
  throw new Problem(400, "the body is not an event");
}
