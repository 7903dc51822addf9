// Tells whether a webhook really comes from the service, by the rules of Standard Webhooks (www.standardwebhooks.com).

import { createHmac, timingSafeEqual } from "node:crypto";

/** How many seconds `webhook-timestamp` may be from this machine's clock, so that nobody replays old requests. */
const TOLERANCE = 5 * 60;

/** The request is not proven to come from the service. The message says why, and may be shown to the caller. */
export class Refused extends Error {}

/** Header names in lower case, as `IncomingMessage.headers` has them. */
export type Headers = Record<string, string | string[] | undefined>;

/**
 * Returns if the request is signed with the secret, and throws `Refused` if it isn't.
 *
 * `secret` is `whsec_` and base64; anything else throws an `Error`. `body` is what came over the wire, before any
 * parser has touched it. `now` is in milliseconds.
 */
export function verify(secret: string, headers: Headers, body: string | Uint8Array, now = Date.now()): void {
  const key = keyOf(secret);
  const id = header(headers, "webhook-id");
  const timestamp = header(headers, "webhook-timestamp");
  const signatures = header(headers, "webhook-signature").split(" ");

  if (!/^\d{1,15}$/.test(timestamp)) throw new Refused("webhook-timestamp is not a number of seconds");
  if (Math.abs(Math.floor(now / 1000) - Number(timestamp)) > TOLERANCE) {
    throw new Refused("webhook-timestamp is too far from this clock");
  }

  const digest = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest("base64");
  // There are several while the sender changes its secret. One that fits is enough.
  if (!signatures.some((signature) => equal(signature, `v1,${digest}`))) throw new Refused("no signature fits");
}

/** The key in a `whsec_` secret. Throws if there is none. */
export function keyOf(secret: string): Buffer {
  const base64 = /^whsec_(.+)$/.exec(secret)?.[1] ?? "";
  const key = Buffer.from(base64, "base64");
  // Node skips what is not base64. Without this check, a typing error would become another key, or an empty one.
  if (key.length === 0 || key.toString("base64") !== base64) throw new Error("the secret is not whsec_ and base64");
  return key;
}

function header(headers: Headers, name: string): string {
  const value = headers[name];
  if (typeof value !== "string" || value === "") throw new Refused(`${name} is missing`);
  return value;
}

/** Compares in a time that does not tell where the difference is. */
function equal(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.length === right.length && timingSafeEqual(left, right);
}
