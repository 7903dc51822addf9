import { handle, type Env } from "./gateway.js";

export default { fetch: (request, env) => handle(request, env) } satisfies ExportedHandler<Env>;
