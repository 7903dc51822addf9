// What a newcomer does, in a real browser: links a session on the simulator's page, sends through the service, sees the
// message arrive on the other phone, and answers from there. Needs a running sandbox with the accounts Ana and Bruno:
//   SIMULATOR_URL, SERVICE_URL, SERVICE_SECRET   where it is (required)
//   CHROMIUM     the browser, /usr/bin/chromium unless set
//   SCREENSHOT   where to save a picture of the page at the end, also of a failed run

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

const ANA = "5511999999999";
const BRUNO = "5511888888888";
const TENANT = "browser";
const PATIENCE = 20_000; // milliseconds for each thing waited for

function setting(name) {
  const value = process.env[name];
  assert.ok(value, `set ${name}: this test runs against a sandbox that is already up`);
  return value;
}

/** Calls the service for the tenant; the body of a 2xx answer, or an error that says what was asked and answered. */
async function service(method, path, body) {
  const response = await fetch(new URL(path, setting("SERVICE_URL")), {
    method,
    headers: {
      "x-internal-secret": setting("SERVICE_SECRET"),
      "x-tenant-id": TENANT,
      ...(body && { "content-type": "application/json" }),
    },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(PATIENCE),
  });
  const text = await response.text();
  if (!response.ok) {
    throw Object.assign(new Error(`${method} ${path} was answered with ${response.status}: ${text}`), { status: response.status });
  }
  return text ? JSON.parse(text) : undefined;
}

/** Asks for the tenant's status until `wanted` holds of it. */
async function statusUntil(what, wanted) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const status = await service("GET", "/status");
    if (wanted(status)) return status;
    if (Date.now() > end) assert.fail(`${what}: not within ${PATIENCE} ms; the last status was ${JSON.stringify(status)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Waits until `locator` is visible, or fails saying what was awaited. */
async function seen(what, locator) {
  await locator.waitFor({ timeout: PATIENCE }).catch((error) => {
    throw new Error(`not seen on the page: ${what}`, { cause: error });
  });
}

/** Ends what an earlier run left, so that the test can be repeated on the same sandbox. */
async function endSession() {
  await service("DELETE", "/session").catch((error) => {
    if (![404, 409].includes(error.status)) throw error;
  });
}

/** A page that may speak to one host only, and what went wrong on it so far. */
async function open(t, host) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    chromiumSandbox: process.getuid?.() !== 0, // Chromium's own sandbox cannot be had as root
    args: ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
  t.after(() => browser.close());
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"], { origin: new URL(host).origin });
  page.setDefaultTimeout(PATIENCE);
  const problems = [];
  page.on("pageerror", (error) => problems.push(`the page's script failed: ${error.message}`));
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (protocol !== "data:" && origin !== new URL(host).origin) problems.push(`the page asked a foreign host: ${origin}`);
  });
  return { page, problems };
}

test("a session is linked, a message arrives and is answered, all on the page", { timeout: 180_000 }, async (t) => {
  const simulator = setting("SIMULATOR_URL");
  const { page, problems } = await open(t, simulator);

  const phone = (number) => page.locator(`[data-testid=phone][data-phone="${number}"]`);
  const message = (number, text) => phone(number).getByTestId("message-text").getByText(text, { exact: true });

  try {
    await endSession();
    await page.goto(simulator);
    await seen("Ana's phone", phone(ANA));
    await seen("Bruno's phone", phone(BRUNO));

    await service("POST", "/session");
    const { qrCode } = await statusUntil("a QR code from the service", (status) => status.qrCode);
    const card = page.locator(`[data-testid=qr-code][data-qr=${JSON.stringify(qrCode)}]`);
    await seen("the QR code that the service shows", card);
    await card.locator(`[data-testid=scan][data-phone="${ANA}"]`).click();
    await statusUntil("the session to be ready after the scan", ({ status }) => status === "ready");
    await seen("the linked device on Ana's phone", phone(ANA).locator("[data-testid=device][data-connected=true]").first());

    const run = Date.now().toString(36);
    const hello = `Hello from the browser test, run ${run}`;
    const sent = await service("POST", "/send", { to: BRUNO, message: hello });
    assert.equal(sent.to, BRUNO, "the service names the recipient that it sent to");
    await seen("the message on Bruno's phone", message(BRUNO, hello));

    const reply = `Bruno's answer, run ${run}`;
    await phone(BRUNO).getByTestId("compose-to").fill(ANA);
    await phone(BRUNO).getByTestId("compose-text").fill(reply);
    await phone(BRUNO).getByTestId("compose-send").click();
    await seen("the answer on Bruno's own phone", message(BRUNO, reply));
    await seen("the answer on Ana's phone", message(ANA, reply));
    await statusUntil("the service to have received the answer", ({ messagesReceived }) => messagesReceived >= 1);

    assert.deepEqual(problems, []);
  } catch (error) {
    const shown = await page.getByTestId("error").allTextContents().catch(() => []);
    if (shown.length) t.diagnostic(`the page shows: ${shown.join(" | ")}`);
    for (const problem of problems) t.diagnostic(problem);
    throw error;
  } finally {
    // A failure here must not hide the one that the test is about.
    const note = (error) => t.diagnostic(`afterwards: ${error.message}`);
    if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT, animations: "disabled" }).catch(note);
    await endSession().catch(note);
  }
});

test("a phone that hides its number is added, and shows by which name others know it", { timeout: 60_000 }, async (t) => {
  const simulator = setting("SIMULATOR_URL");
  const { page, problems } = await open(t, simulator);
  await page.goto(simulator);
  const digits = `5511977${String(Date.now()).slice(-6)}`;
  await page.getByTestId("add-phone").click();
  await page.getByTestId("add-name").fill("Carla");
  await page.getByTestId("add-number").fill("5511977771234 ext. 12");
  await page.getByTestId("add-submit").click();
  await seen("why this is no number", page.locator("#add-error").getByText("7 to 15 digits"));
  await page.getByTestId("add-number").fill(`+${digits.slice(0, 2)} (${digits.slice(2, 4)}) ${digits.slice(4, 9)}-${digits.slice(9)}`);
  await page.getByTestId("add-hidden").check();
  await page.getByTestId("add-submit").click();
  const { lid } = await fetch(new URL(`/admin/accounts/${digits}`, simulator)).then((answer) => answer.json());
  const phone = page.locator(`[data-testid=phone][data-phone="${digits}"]`);
  await seen("the number and the LID", phone.getByText(`+${digits} · hidden: others see ${lid}@lid`, { exact: true }));
  // The refusal above is on the browser's console too.
  assert.deepEqual(problems.filter((problem) => !problem.includes("400")), []);
});

/** Has a phone of the simulator send something to the other one, and returns the message's id. */
async function write(from, body) {
  const response = await fetch(new URL(`/admin/accounts/${from}/messages`, setting("SIMULATOR_URL")), {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ to: from === ANA ? BRUNO : ANA, ...body }),
  });
  const answer = await response.json();
  assert.equal(response.status, 201, JSON.stringify(answer));
  return answer.id;
}

test("all of it by keyboard: scan, react, answer, edit, delete", { timeout: 180_000 }, async (t) => {
  const simulator = setting("SIMULATOR_URL");
  const { page, problems } = await open(t, simulator);
  t.after(endSession);
  const phone = (number) => page.locator(`[data-testid=phone][data-phone="${number}"]`);
  const on = (number, id) => phone(number).locator(`[data-testid=message][data-id="${id}"]`);
  const press = (key) => page.keyboard.press(key);
  /** What has the focus: its data, its text, and whose phone it is on. */
  const focus = () => page.evaluate(() => {
    const element = document.activeElement;
    return { ...element.dataset, text: element.value ?? element.textContent, on: element.closest("article")?.dataset.phone ?? "" };
  });
  /** Goes on with Tab until this has the focus. */
  const tabTo = async (what, wanted, key = "Tab") => {
    for (let steps = 0; steps < 80; steps++) {
      await press(key);
      if (wanted(await focus())) return;
    }
    assert.fail(`${key} never comes to ${what}`);
  };

  await endSession();
  await page.goto(simulator);
  await seen("Ana's phone", phone(ANA));
  await service("POST", "/session");
  await seen("a QR code", page.locator("[data-testid=scan]").first());
  // The code changes now and then: whoever was about to scan still is.
  const stays = await page.evaluate((number) => {
    const state = (ref) => ({ accounts: [{ phone: number, name: "Ana", devices: [], messages: [] }], pairCodes: [], stats: {},
      qrCodes: [{ ref, text: `2@${ref},a,b,c,1`, expiresAt: new Date(Date.now() + 20_000).toISOString() }] });
    draw(state("one"));
    const before = document.querySelector("[data-testid=scan]");
    before.focus();
    draw(state("two"));
    return document.activeElement !== before && document.activeElement.dataset.testid === "scan" && document.activeElement.dataset.phone === number;
  }, ANA);
  assert.ok(stays, "the focus goes to the new code's button");
  await page.reload();
  await seen("a QR code", page.locator("[data-testid=scan]").first());
  await tabTo("Scan with Ana", ({ testid, phone: number }) => testid === "scan" && number === ANA);
  await press("Enter");
  await statusUntil("the session to be ready after the scan", ({ status }) => status === "ready");
  await page.locator("[data-testid=qr-code]").waitFor({ state: "detached" });
  await page.waitForFunction((number) => document.activeElement.dataset.phone === number, ANA);

  const run = Date.now().toString(36);
  const first = await write(BRUNO, { text: `first ${run}` });
  const second = await write(BRUNO, { text: `second ${run}` });
  await seen("both messages", on(ANA, second));
  await tabTo("the newest message on Ana's phone", ({ id, on: number }) => number === ANA && id === second);
  await press("ArrowUp");
  assert.equal((await focus()).id, first);
  await press("End");
  assert.equal((await focus()).id, second);
  await press("ArrowUp");
  await tabTo("a reaction", ({ act, emoji }) => act === "react" && emoji === "👍");
  await press("Enter");
  await seen("the reaction on Bruno's phone", on(BRUNO, first).getByTestId("message-reactions").getByText("👍"));
  await seen("the reaction on Ana's phone", on(ANA, first).getByTestId("message-reactions").getByText("👍"));
  assert.deepEqual([(await focus()).act, (await focus()).emoji], ["react", "👍"], "the focus has not moved");
  await press("Escape");
  assert.equal((await focus()).id, first);

  await tabTo("Reply", ({ act }) => act === "reply");
  await press("Enter");
  assert.equal((await focus()).testid, "compose-text");
  await press("Escape");
  assert.equal((await focus()).id, first, "Escape goes back to the message");
  await tabTo("Reply", ({ act }) => act === "reply");
  await press("Enter");
  await page.keyboard.type(`answer ${run}`);
  await press("Enter");
  const answer = phone(BRUNO).locator("[data-testid=message]", { hasText: `answer ${run}` });
  await seen("her answer on Bruno's phone", answer.getByTestId("message-quote").getByText(`first ${run}`));
  const id = await answer.getAttribute("data-id");
  await seen("her answer on her own phone", on(ANA, id));

  assert.equal((await focus()).testid, "compose-text", "the next message can be written");
  await tabTo("a message", (element) => element.testid === "message", "Shift+Tab");
  await press("End");
  assert.equal((await focus()).id, id);
  await tabTo("Edit", ({ act }) => act === "edit");
  await press("Enter");
  assert.equal((await focus()).text, `answer ${run}`);
  await press("Escape");
  assert.deepEqual([(await focus()).id, await phone(ANA).getByTestId("compose-text").inputValue()], [id, ""]);
  await tabTo("Edit", ({ act }) => act === "edit");
  await press("Enter");
  await press("Control+a");
  await page.keyboard.type(`other words ${run}`);
  await press("Enter");
  await seen("the new words on Bruno's phone", on(BRUNO, id).getByText(`other words ${run}`, { exact: true }));

  await tabTo("a message", (element) => element.testid === "message", "Shift+Tab");
  assert.equal((await focus()).id, id, "the one that was left");
  await tabTo("Take back", ({ act }) => act === "revoke");
  await press("Enter");
  await seen("that it is gone", on(BRUNO, id).getByText("taken back"));
  await on(ANA, id).getByText("taken back").waitFor();
  assert.equal((await focus()).id, id, "the message keeps the focus that its button had");
  assert.deepEqual(problems, []);
});

test("what the page does can be copied as a curl command", { timeout: 120_000 }, async (t) => {
  const simulator = setting("SIMULATOR_URL");
  const { page, problems } = await open(t, simulator);
  t.after(endSession);
  const phone = (number) => page.locator(`[data-testid=phone][data-phone="${number}"]`);
  /** Copies the command of a button, and runs it. */
  const runs = async (button) => {
    await page.evaluate(() => navigator.clipboard.writeText(""));
    await button.click();
    await page.waitForFunction(async () => await navigator.clipboard.readText() !== "");
    const command = await page.evaluate(() => navigator.clipboard.readText());
    assert.match(command, /^curl '/);
    await seen("the command", page.getByTestId("command").getByText(command, { exact: true }));
    return (await promisify(execFile)("bash", ["-c", `${command} -sS --fail-with-body`])).stdout;
  };
  await endSession();
  await page.goto(simulator);
  await service("POST", "/session");
  await seen("a QR code", page.getByTestId("scan-curl"));
  // Read first: the button goes with the code that it scans.
  const scanning = await page.getByTestId("scan").first().getAttribute("data-phone");
  assert.equal(JSON.parse(await runs(page.getByTestId("scan-curl"))).phone, scanning);
  await statusUntil("the session to be ready after the scan", ({ status }) => status === "ready");

  const words = `It's "fine" $HOME \\ \`date\` ${Date.now().toString(36)}`;
  await phone(ANA).getByTestId("compose-to").fill(BRUNO);
  await phone(ANA).getByTestId("compose-text").fill(words);
  const { id } = JSON.parse(await runs(phone(ANA).getByTestId("compose-curl")));
  await seen("it on Bruno's phone", phone(BRUNO).locator(`[data-testid=message][data-id="${id}"]`).getByText(words, { exact: true }));
  const messages = JSON.parse(await runs(phone(BRUNO).getByTestId("messages-curl")));
  assert.equal(messages.find((message) => message.id === id).text, words);

  // Without a clipboard the command is there to be marked.
  await page.evaluate(() => Object.defineProperty(navigator, "clipboard", { value: undefined }));
  await phone(BRUNO).getByTestId("messages-curl").click();
  await seen("the command to mark", page.getByTestId("info").getByText("To copy:"));
  assert.deepEqual(problems, []);
});

test("the samples of the tutorial are seen and heard", { timeout: 120_000 }, async (t) => {
  const simulator = setting("SIMULATOR_URL");
  const { page, problems } = await open(t, simulator);
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(`the browser complains: ${message.text()}`);
  });
  await page.goto(simulator);
  const send = async (name, mimetype, more) => {
    const base64 = (await readFile(new URL(`../samples/${name}`, import.meta.url))).toString("base64");
    const id = await write(ANA, { media: { base64, filename: name, mimetype }, ...more });
    return page.locator(`[data-testid=phone][data-phone="${BRUNO}"] [data-testid=message][data-id="${id}"]`);
  };
  /** A picture's size, how many colours it has, and how much of its corner is seen. */
  const look = (element) => element.evaluate((picture) => {
    const [width, height] = [picture.naturalWidth ?? picture.videoWidth, picture.naturalHeight ?? picture.videoHeight];
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    canvas.getContext("2d").drawImage(picture, 0, 0);
    const points = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, width, height).data.buffer);
    return { width, height, colours: new Set(points).size, corner: points[0] >>> 24 };
  });
  /** How long a sound is, and how loud it gets, from 0 to 1. */
  const listen = (element) => element.evaluate(async (player) => {
    const bytes = await (await fetch(player.src)).arrayBuffer();
    const sound = await new OfflineAudioContext(1, 1, 48_000).decodeAudioData(bytes);
    return { seconds: sound.duration, peak: sound.getChannelData(0).reduce((most, value) => Math.max(most, Math.abs(value)), 0) };
  });
  const loaded = (element) => element.evaluate((player) => player.readyState >= 2 || new Promise((resolve, reject) => {
    player.preload = "auto";
    player.addEventListener("loadeddata", () => resolve());
    player.addEventListener("error", () => reject(new Error(player.error.message)));
    player.load();
  }));

  for (const [name, kind, [width, height], corner] of [["image.png", "image", [320, 240], 255], ["sticker.webp", "sticker", [512, 512], 0]]) {
    const image = (await send(name, kind === "image" ? "image/png" : "image/webp")).getByTestId("message-image");
    await seen(name, image);
    await image.evaluate((element) => element.decode());
    const picture = await look(image);
    assert.deepEqual([picture.width, picture.height, picture.corner], [width, height, corner], name);
    assert.ok(picture.colours > (kind === "image" ? 50 : 2), `${name} has ${picture.colours} colours`);
  }
  const film = (await send("video.mp4", "video/mp4")).getByTestId("message-video");
  await loaded(film);
  const frame = await look(film);
  assert.ok(frame.width === 320 && frame.height === 240 && frame.colours > 50, JSON.stringify(frame));
  assert.ok(Math.abs(await film.evaluate(({ duration }) => duration) - 2) < 0.2);
  const audio = await send("audio.mp3", "audio/mpeg");
  const voice = await send("voice.ogg", "audio/ogg; codecs=opus", { voice: true });
  const sounds = [film, audio.getByTestId("message-audio"), voice.getByTestId("message-audio")];
  for (const sound of sounds) {
    await loaded(sound);
    const { seconds, peak } = await listen(sound);
    assert.ok(Math.abs(seconds - 2) < 0.2 && peak > 0.2 && peak <= 1, JSON.stringify({ seconds, peak }));
  }
  if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT.replace(/(\.\w+)?$/, "-samples$1"), animations: "disabled" });
  assert.deepEqual(problems, []);
});

/** The smallest picture there is: one red point. */
const POINT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";

test("phones show and send more than text", { timeout: 120_000 }, async (t) => {
  const simulator = setting("SIMULATOR_URL");
  const { page, problems } = await open(t, simulator);
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(`the browser complains: ${message.text()}`);
  });
  const send = async (body) => {
    const response = await fetch(new URL(`/admin/accounts/${ANA}/messages`, simulator), {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ to: BRUNO, ...body }),
    });
    const answer = await response.json();
    assert.equal(response.status, 201, JSON.stringify(answer));
    return answer.id;
  };
  const phone = (number) => page.locator(`[data-testid=phone][data-phone="${number}"]`);
  const on = (number, id) => phone(number).locator(`[data-testid=message][data-id="${id}"]`);
  await page.goto(simulator);

  const picture = await send({ media: { base64: POINT }, text: "a point" });
  await seen("the caption", on(BRUNO, picture).getByText("a point", { exact: true }));
  const image = on(BRUNO, picture).getByTestId("message-image");
  await seen("the picture", image);
  await image.evaluate((element) => element.decode());
  assert.equal(await image.evaluate((element) => element.naturalWidth), 1, "the picture is the one that was sent");

  const file = await send({ media: { base64: btoa("hello"), filename: "note.txt", mimetype: "text/plain" }, replyTo: picture });
  const link = on(BRUNO, file).getByTestId("message-file");
  await seen("the document's name", link.getByText("note.txt"));
  await seen("what it answers to", on(BRUNO, file).getByTestId("message-quote").getByText("a point"));
  const [download] = await Promise.all([page.waitForEvent("download"), link.click()]);
  assert.equal(download.suggestedFilename(), "note.txt");

  const place = await send({ location: { latitude: 1.5, longitude: 2.5, name: "Somewhere" } });
  await seen("the place", on(BRUNO, place).getByTestId("message-location").getByText("Somewhere"));
  const card = await send({ contact: { name: "Carla", phone: "5511977777777" } });
  await seen("the card", on(BRUNO, card).getByTestId("message-contact").getByText("Carla"));

  // What Bruno thinks of it, by his own buttons.
  await on(BRUNO, picture).hover();
  await on(BRUNO, picture).getByTestId("message-react").first().click();
  await seen("the reaction on Ana's phone", on(ANA, picture).getByTestId("message-reactions").getByText("👍"));
  await on(BRUNO, picture).hover();
  await on(BRUNO, picture).getByTestId("message-reply").click();
  await phone(BRUNO).getByTestId("compose-text").fill("nice");
  await phone(BRUNO).getByTestId("compose-send").click();
  const answer = phone(ANA).locator("[data-testid=message]", { hasText: "nice" });
  await seen("his answer on Ana's phone", answer.getByTestId("message-quote").getByText("a point"));

  // Ana sends a file by the page, and changes her mind about the caption.
  await phone(ANA).getByTestId("compose-to").fill(BRUNO);
  await phone(ANA).getByTestId("compose-text").fill("another");
  await phone(ANA).getByTestId("compose-file").setInputFiles({ name: "point.png", mimeType: "image/png", buffer: Buffer.from(POINT, "base64") });
  const second = phone(ANA).locator("[data-testid=message][data-kind=image]", { hasText: "another" });
  await seen("her picture", second.getByTestId("message-image"));
  const id = await second.getAttribute("data-id");
  await second.hover();
  await second.getByTestId("message-edit").click();
  await phone(ANA).getByTestId("compose-text").fill("one more");
  await phone(ANA).getByTestId("compose-send").click();
  await seen("the new words on Bruno's phone", on(BRUNO, id).getByText("one more", { exact: true }));
  await seen("that they are new", on(BRUNO, id).getByTestId("message-edited").getByText("edited"));
  await on(ANA, id).hover();
  await on(ANA, id).getByTestId("message-revoke").click();
  await seen("that it is gone", on(BRUNO, id).getByText("taken back"));
  assert.equal(await on(BRUNO, id).getByTestId("message-image").count(), 0);
  if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT.replace(/(\.\w+)?$/, "-kinds$1"), animations: "disabled" });
  assert.deepEqual(problems, []);
});

test("the service shows its own interface, with the help of nobody else", { timeout: 60_000 }, async (t) => {
  const host = setting("SERVICE_URL");
  const { page, problems } = await open(t, host);
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(`the browser complains: ${message.text()}`);
  });
  await page.goto(new URL("/docs", host).href);
  const operation = page.locator("details", { has: page.locator("summary", { hasText: /^POST\s*\/send\s/ }) });
  await seen("the operation POST /send", operation);
  await operation.locator("summary").click();
  await seen("its header Idempotency-Key", operation.getByText("Idempotency-Key", { exact: true }));
  await operation.getByRole("link", { name: "SendRequest" }).first().click();
  await seen("what its body holds", page.locator("#SendRequest").getByText("expiresIn", { exact: true }));
  await operation.getByRole("link", { name: "SendForm" }).first().click();
  await seen("what its form holds", page.locator("#SendForm").getByText("caption", { exact: true }));
  const text = await page.locator("main").textContent();
  assert.ok(text.includes("required") && !text.includes("always"), "a field that has to be there is called required");

  const headings = await page.locator("h2").allTextContents();
  assert.deepEqual(headings, ["Sessions", "Messages", "Events", "Operation", "Bodies"]);
  const summaries = await page.locator("details:has(.method) > summary").allTextContents();
  assert.match(summaries[0], /^POST\s*\/session\s/, "a newcomer begins by making a session");
  const place = (path) => summaries.findIndex((summary) => new RegExp(`^[A-Z]+\\s*${path}\\s`).test(summary));
  assert.ok(place("/status") < place("/send") && place("/send") < place("/messages") && place("/events") < place("/livez"), summaries.join("\n"));
  for (const summary of summaries) {
    const [, method, path] = summary.match(/^([A-Z]+)\s*(\/\S*)\s/) ?? assert.fail(summary);
    assert.ok(!summary.slice(1).includes(`${method} ${path}`), `method and path stand there twice: ${summary}`);
  }

  // On a phone nothing is wider than the screen, also when all is open.
  await page.setViewportSize({ width: 390, height: 844 });
  await page.evaluate(() => document.querySelectorAll("details").forEach((shown) => (shown.open = true)));
  const widest = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(widest <= 390, `the page is ${widest} px wide on a screen of 390`);
  if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT.replace(/(\.\w+)?$/, "-docs$1"), animations: "disabled" });
  assert.deepEqual(problems, []);
});
