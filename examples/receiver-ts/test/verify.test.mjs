import assert from "node:assert/strict";
import { test } from "node:test";
import { Refused, verify } from "../build/verify.js";
import { SECRET, sign } from "./signing.mjs";

const NOW = 1_700_000_000;
const BODY = '{"text":"Olá"}';

const refused = (headers, reason, body = BODY) =>
  assert.throws(() => verify(SECRET, headers, body, NOW * 1000), (error) => error instanceof Refused && reason.test(error.message));

test("a good signature", () => {
  verify(SECRET, sign(BODY, { timestamp: NOW }), BODY, NOW * 1000);
  verify(SECRET, sign(BODY, { timestamp: NOW }), Buffer.from(BODY), NOW * 1000);
  verify(SECRET, sign(BODY), BODY); // by this machine's clock
});

test("the signature that the reference implementation makes", () => {
  const headers = {
    "webhook-id": "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
    "webhook-timestamp": "1649367553",
    "webhook-signature": "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
  };
  const body = '{"email":"test@example.com","username":"test_user"}';
  verify("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", headers, body, 1649367553_000);
});

test("an altered body, id or timestamp", () => {
  const headers = sign(BODY, { timestamp: NOW });
  refused(headers, /no signature/, BODY.replace("Olá", "Ola"));
  refused({ ...headers, "webhook-id": "evt_2" }, /no signature/);
  refused({ ...headers, "webhook-timestamp": String(NOW + 1) }, /no signature/);
});

test("a timestamp that is too old, too new, or none", () => {
  for (const offset of [-300, 300]) verify(SECRET, sign(BODY, { timestamp: NOW + offset }), BODY, NOW * 1000 + 999);
  for (const offset of [-301, 301]) refused(sign(BODY, { timestamp: NOW + offset }), /too far/);
  for (const timestamp of ["soon", "-1", "1e9", "NaN", " "]) refused(sign(BODY, { timestamp }), /not a number/);
});

test("a wrong secret", () => {
  refused(sign(BODY, { timestamp: NOW, secret: "whsec_d3Jvbmdzd3Jvbmdzd3Jvbmdzd3Jvbmdz" }), /no signature/);
});

test("a missing header", () => {
  for (const name of ["webhook-id", "webhook-timestamp", "webhook-signature"]) {
    const { [name]: _, ...others } = sign(BODY, { timestamp: NOW });
    refused(others, new RegExp(`${name} is missing`));
    refused({ ...others, [name]: "" }, new RegExp(`${name} is missing`));
  }
});

test("several signatures: one that fits is enough", () => {
  const headers = sign(BODY, { timestamp: NOW });
  const good = headers["webhook-signature"];
  const bad = sign(BODY, { timestamp: NOW, id: "evt_2" })["webhook-signature"];
  const signed = (signature) => ({ ...headers, "webhook-signature": signature });
  verify(SECRET, signed(`${bad} ${good}`), BODY, NOW * 1000);
  verify(SECRET, signed(`v1a,xyz ${good} ${bad}`), BODY, NOW * 1000);
  for (const signature of [`${bad} ${bad}`, good.slice(0, 12), `${good}=`, good.replace("v1,", "v2,"), good.slice(3), "v1,", "v1"]) {
    refused(signed(signature), /no signature/);
  }
});

test("a secret in another form is an error of the one who set it", () => {
  for (const secret of ["", "whsec_", "secret", "whsec_not base64", "whsec_MDEyMzQ", SECRET.replace("whsec_", "")]) {
    assert.throws(() => verify(secret, sign(BODY), BODY), (error) => !(error instanceof Refused) && /whsec_/.test(error.message));
  }
});
