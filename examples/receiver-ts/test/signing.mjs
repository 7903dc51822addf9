// Signs as the service does, written anew so that the tests do not check the example against itself.

import { createHmac } from "node:crypto";

export const SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";

/** Headers for a body. */
export function sign(body, { id = "evt_1", timestamp = Math.floor(Date.now() / 1000), secret = SECRET } = {}) {
  const mac = createHmac("sha256", Buffer.from(secret.replace("whsec_", ""), "base64"));
  const signature = `v1,${mac.update(`${id}.${timestamp}.${body}`).digest("base64")}`;
  return { "webhook-id": id, "webhook-timestamp": String(timestamp), "webhook-signature": signature };
}

/** An event as the service sends it. */
export const event = (sequence, fields = {}) => ({
  id: `evt_${sequence}`,
  type: "message.received",
  timestamp: "2026-01-31T10:30:00.000Z",
  tenantId: "demo",
  sequence,
  data: { kind: "text", text: "Olá" },
  ...fields,
});
