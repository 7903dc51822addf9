// A public gateway in front of whatsapp-service. The service knows tenants and one internal secret; this Worker knows
// end users: it turns an API key into a tenant, limits its rate, answers browsers (CORS), and passes the call on.

export interface Env {
  /** Where the service is, for example https://whatsapp.internal.example.com (a Cloudflare Tunnel reaches a private host). */
  SERVICE_URL: string;
  /** The service's INTERNAL_SECRET. A Worker secret, never a plain variable. */
  INTERNAL_SECRET: string;
  /** SHA-256 of an API key in hex → the tenant id that it stands for. Keys themselves are stored nowhere. */
  API_KEYS: Pick<KVNamespace, "get">;
  /** Origins that browsers may call from, separated by commas. Absent: none. */
  ALLOWED_ORIGINS?: string;
  /** Requests per tenant. Absent: unlimited. */
  RATE_LIMITER?: RateLimit;
}

/** The fields of a body that are passed on, and those within them. */
interface Fields { readonly [name: string]: Fields | true }

/**
 * What the public may call, and with which fields: everything else of the service stays inside. Fields that the service
 * gains later are not passed on before somebody has thought about them: a `proxy`, for one, would let whoever has an API
 * key choose where the service connects to.
 */
export const ROUTES: Readonly<Record<string, { readonly method: string; readonly fields: Fields }>> = {
  "/session": { method: "POST", fields: { phone: true } },
  "/status": { method: "GET", fields: {} },
  "/send": {
    method: "POST",
    fields: {
      to: true, message: true, caption: true, mentions: true, linkPreview: true, replyTo: true, reference: true,
      expiresIn: true, idempotencyKey: true,
      media: { url: true, base64: true, mimetype: true, filename: true },
      voice: true, sticker: true, document: true, gif: true,
      location: { latitude: true, longitude: true, name: true, address: true },
      contact: { name: true, phone: true },
      reaction: { messageId: true, emoji: true },
      edit: { messageId: true, message: true },
      revoke: { messageId: true },
    },
  },
};

/**
 * Longer than the service fetches a URL (60 s), makes a voice note (60 s until its turn, then 180 s) and waits for WhatsApp
 * (20 s), so that its own answer arrives.
 */
const TIMEOUT_MS = 330_000;

export async function handle(request: Request, env: Env, timeoutMs = TIMEOUT_MS): Promise<Response> {
  const cors = corsHeaders(request, env);
  let response: Response;
  if (request.method === "OPTIONS" && request.headers.has("Access-Control-Request-Method")) {
    response = new Response(null, { status: 204 });
  } else {
    try {
      response = await answer(request, env, timeoutMs);
    } catch (error) {
      console.error("unforeseen failure", error);
      response = problem(500, "Internal error", "internal", "The gateway failed.");
    }
  }
  for (const [name, value] of Object.entries(cors)) response.headers.set(name, value);
  return response;
}

async function answer(request: Request, env: Env, timeoutMs: number): Promise<Response> {
  const { pathname: path, searchParams } = new URL(request.url);
  const route = Object.hasOwn(ROUTES, path) ? ROUTES[path] : undefined;
  if (!route) return problem(404, "Not found", "not_found", "There is no such path.");
  if (request.method !== route.method) {
    return problem(405, "Method not allowed", "method_not_allowed", `Use ${route.method}.`, { Allow: route.method });
  }

  const tenant = await tenantOf(request, env);
  if (!tenant) {
    return problem(401, "Unauthorized", "invalid_api_key", "Send a valid API key: Authorization: Bearer KEY.", {
      "WWW-Authenticate": "Bearer",
    });
  }
  if (env.RATE_LIMITER && !(await env.RATE_LIMITER.limit({ key: tenant })).success) {
    return problem(429, "Too many requests", "rate_limited", "Slow down.", { "Retry-After": "60" });
  }

  const [parameter] = searchParams.keys();
  if (parameter !== undefined) return problem(400, "Bad request", "unknown_field", `There is no parameter ${quoted(parameter)} here.`);
  // Read before the call: a client that uploads slowly must not look like a service that answers slowly.
  const text = request.method === "POST" ? await request.text() : "";
  let body: unknown;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    return problem(400, "Bad request", "invalid_json", "The body is not JSON.");
  }
  if (text && !isObject(body)) return problem(400, "Bad request", "invalid_body", "The body must be a JSON object.");
  const fields = isObject(body) ? body : {};
  const unknown = unknownField(fields, route.fields);
  if (unknown !== undefined) return problem(400, "Bad request", "unknown_field", `There is no field ${quoted(unknown)} here.`);
  return callService(request, env, path, tenant, fields, timeoutMs);
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const quoted = (name: string) => JSON.stringify(name.length > 64 ? `${name.slice(0, 64)}…` : name);

/** The first field that is not among `fields`, as `media.mime`. */
function unknownField(body: Record<string, unknown>, fields: Fields): string | undefined {
  for (const [name, value] of Object.entries(body)) {
    const known = Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (known === undefined) return name;
    const within = known !== true && isObject(value) ? unknownField(value, known) : undefined;
    if (within !== undefined) return `${name}.${within}`;
  }
  return undefined;
}

/** The tenant whose API key the request carries, or null. */
async function tenantOf(request: Request, env: Env): Promise<string | null> {
  const key = /^Bearer +(\S{16,256})$/i.exec(request.headers.get("Authorization") ?? "")?.[1];
  if (!key) return null;
  // Looking up the key's hash keeps keys out of the store, and leaves nothing to learn from how long a comparison takes.
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(key));
  const hash = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const tenant = await env.API_KEYS.get(hash);
  if (tenant !== null && !/^[A-Za-z0-9._:@-]{1,128}$/.test(tenant)) throw new Error(`bad tenant id stored for key ${hash.slice(0, 8)}…`);
  return tenant;
}

async function callService(
  request: Request, env: Env, path: string, tenant: string, fields: Record<string, unknown>, timeoutMs: number,
): Promise<Response> {
  // With a key, a repeated call is the same message. Without one, after a failure on the way, a message may or may not
  // have been accepted, and only the caller can decide to risk a second one.
  const key = request.headers.get("Idempotency-Key");
  const retryable = path !== "/send" || key !== null || fields.idempotencyKey !== undefined;
  // Written anew: what is passed on is what was checked, also where a name stood twice.
  const body = Object.keys(fields).length > 0 ? JSON.stringify(fields) : undefined;
  let status: number, text: string, retryAfter: string | null;
  try {
    const response = await fetch(new URL(path, env.SERVICE_URL), {
      method: request.method,
      headers: {
        "X-Internal-Secret": env.INTERNAL_SECRET,
        "X-Tenant-Id": tenant,
        ...(key !== null && { "Idempotency-Key": key }),
        ...(body && { "Content-Type": "application/json" }),
      },
      ...(body && { body }),
      redirect: "manual", // a redirect would carry the secret elsewhere
      signal: AbortSignal.timeout(timeoutMs),
    });
    status = response.status;
    retryAfter = response.headers.get("Retry-After");
    text = await response.text();
  } catch (error) {
    if (error instanceof Error && error.name === "TimeoutError") {
      return problem(504, "Gateway timeout", "service_timeout", "The service did not answer in time.", {}, retryable);
    }
    console.error("the service cannot be reached", error);
    return problem(502, "Bad gateway", "service_unreachable", "The service cannot be reached.", {}, retryable);
  }

  // A 401 from the service is about this gateway's secret, never about the caller's key.
  if (status === 401 || status < 200 || (status >= 300 && status < 400) || !isJson(text)) {
    console.error(`the service answered ${status}, which is no answer for a caller`);
    return problem(502, "Bad gateway", "service_misconfigured", "The service gave no usable answer.", {}, retryable);
  }
  return new Response(text, { status, headers: { ...JSON_HEADERS, ...(retryAfter && { "Retry-After": retryAfter }) } });
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Answers carry QR codes, which link a device to whoever reads them: nobody may keep a copy. */
const JSON_HEADERS = {
  "Content-Type": "application/json",
  "Cache-Control": "no-store",
  "X-Content-Type-Options": "nosniff",
};

/** An error in the service's own form. */
function problem(
  status: number, error: string, code: string, message: string, headers: Record<string, string> = {}, retryable?: boolean,
): Response {
  return new Response(JSON.stringify({ error, code, message, retryable }), { status, headers: { ...JSON_HEADERS, ...headers } });
}

function corsHeaders(request: Request, env: Env): Record<string, string> {
  const origin = request.headers.get("Origin");
  const allowed = (env.ALLOWED_ORIGINS ?? "").split(",").map((entry) => entry.trim());
  if (!origin || !allowed.includes(origin)) return { Vary: "Origin" };
  return {
    Vary: "Origin",
    "Access-Control-Allow-Origin": origin,
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key",
    "Access-Control-Expose-Headers": "Retry-After",
    "Access-Control-Max-Age": "600",
  };
}
