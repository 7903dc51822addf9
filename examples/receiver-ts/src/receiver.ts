// The program: receives webhooks on 127.0.0.1:PORT and prints each new event as a line of JSON.

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { listener } from "./listener.js";

const { PORT, WEBHOOK_SECRET, PRINT_DATA } = process.env;

/** Standard output is this example's store: what is printed has been taken. Yours is a table or a queue. */
const print = (line: object) => new Promise<void>((resolve, reject) => {
  process.stdout.write(`${JSON.stringify(line)}\n`, (error) => (error ? reject(error) : resolve()));
});

const receive = listener(WEBHOOK_SECRET ?? "", ({ tenantId, sequence, type, id, data }) =>
  print({ tenantId, sequence, type, id, ...(PRINT_DATA === "1" && { data }) }));

const server = createServer({ requestTimeout: 30_000 }, receive).listen(Number(PORT || 4000), "127.0.0.1", () => {
  void print({ listening: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
});
