// Every refusal of the contract that a caller can provoke, with what it carries for programs.
"use strict";
const assert = require("node:assert");
const { randomUUID } = require("node:crypto");
const { setTimeout: sleep } = require("node:timers/promises");
const { Refusal, branch, call, definition, details, grpc, patiently, statusOf } = require("./branch");
const { answers, isSealed } = require("./calls");
const { EC, RSA, held, invoice, note, request } = require("./documents");

const { DEADLINE_EXCEEDED, FAILED_PRECONDITION, INTERNAL, INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED } =
  grpc.status;
const { RESOURCE_EXHAUSTED, UNAUTHENTICATED, UNAVAILABLE, UNIMPLEMENTED } = grpc.status;
const PLACE = ["line", "column", "offset"];
const NUMBERS = [...PLACE, "value", "size", "item"];
const REASONS = definition["muhurdar.seal.v1.Reason"].type.value.map(({ name }) => name);

/** The details of a status, which must have this reason, and what every status has, whichever its reason. */
function carries(status, wanted, keys) {
  const found = details(status);
  const names = Object.keys(found);
  assert.strictEqual(names[0], "ErrorInfo", `${wanted}: details ${names}, ${status.message}`);
  const { domain, reason, metadata } = found.ErrorInfo;
  assert.deepStrictEqual([domain, reason], ["muhurdar", wanted], `${reason} for ${wanted}: ${status.message}`);
  assert(REASONS.includes(`REASON_${wanted}`), `${wanted} is not in the proto`);
  assert.strictEqual(names.at(-1), "LocalizedMessage", `${wanted}: details ${names}`);
  const { locale, message } = found.LocalizedMessage;
  assert(locale === "tr" && message && message !== status.message, `${wanted}: ${locale} ${message}`);
  const told = Object.keys(metadata).filter(
    (key) => key !== "size" || keys.includes("size") || !keys.includes("limit"),
  );
  assert.deepStrictEqual(told.sort(), [...keys].sort(), `${wanted} tells ${told} and not ${keys}`);
  for (const key of NUMBERS) assert.match(metadata[key] ?? "0", /^\d+$/, `${wanted}: ${key}`);
  if (keys.includes("field")) {
    const fields = found.BadRequest.field_violations.map(({ field }) => field);
    assert.deepStrictEqual(fields, [metadata.field]);
  }
  return { ...found, metadata };
}

/** The details of a call's refusal, which must be this one. */
async function refused(outcome, code, wanted, ...keys) {
  const error = await outcome.then(
    () => assert.fail(`${wanted}: was not refused`),
    (error) => error,
  );
  assert.strictEqual(error.code, code, `${wanted}: ${error}`);
  assert(Buffer.byteLength(error.details) <= 1000, `${wanted}: a long message`);
  const found = carries(statusOf(error), wanted, keys);
  assert.strictEqual(
    found.RetryInfo !== undefined,
    [UNAVAILABLE, RESOURCE_EXHAUSTED].includes(code),
    `${wanted}: RetryInfo`,
  );
  if (found.RetryInfo) {
    // RetryInfo, and the same time for libraries that try again by themselves.
    const after = new Refusal(statusOf(error)).retryAfter;
    const [pushback] = error.metadata.get("grpc-retry-pushback-ms");
    const same = [0, 1].includes(pushback - Math.floor(after));
    assert(after > 0 && after <= 60_000 && same, `RetryInfo ${after} ms, pushback ${pushback}`);
  }
  return found;
}

async function errors() {
  const client = branch();
  const { limits } = await call(client, "GetServerInfo", {});
  await documents(client, limits);
  await certificates(client);
  await fields(client);
  await sizes(client, limits);
  await callers();
  await later(client);
}

async function documents(client, limits) {
  const seal = (document, more) => call(client, "Seal", request(Buffer.from(document), more));
  const document = invoice(RSA, "<cbc:Note>şğ</cbc:Note><a></b>");
  const malformed = await refused(seal(document), INVALID_ARGUMENT, "XML_MALFORMED", ...PLACE);
  const before = document.subarray(0, Number(malformed.metadata.offset)).toString().split("\n");
  assert(before.at(-1).startsWith("<cbc:Note>şğ</cbc:Note><a>"), `offset ${malformed.metadata.offset}`);
  assert.strictEqual(malformed.metadata.line, `${before.length}`);
  assert.strictEqual(malformed.metadata.column, `${before.at(-1).length + 1}`);
  assert.strictEqual(malformed.BadRequest.field_violations[0].field, "document");
  held("XML_MALFORMED");
  await refused(seal("<!DOCTYPE a><a/>"), INVALID_ARGUMENT, "XML_DTD_FORBIDDEN", ...PLACE);
  held("XML_DTD_FORBIDDEN");
  const deep = invoice(RSA, "<a>".repeat(300) + "</a>".repeat(300));
  const limit = await refused(seal(deep), INVALID_ARGUMENT, "XML_LIMIT", "limit", "value", ...PLACE);
  assert.deepStrictEqual([limit.metadata.limit, limit.metadata.value], ["depth", `${limits.depth}`]);
  held("XML_LIMIT");
  await refused(seal("<a/>"), INVALID_ARGUMENT, "DOCUMENT_TYPE", ...PLACE);
  const credit = seal(invoice(), { options: { document_type: "DOCUMENT_TYPE_CREDIT_NOTE" } });
  const type = await refused(credit, INVALID_ARGUMENT, "DOCUMENT_TYPE", "requested", "named", ...PLACE);
  assert.notStrictEqual(type.metadata.requested, type.metadata.named);
  held("DOCUMENT_TYPE");
  const uri = "<cac:DigitalSignatureAttachment><cac:ExternalReference><cbc:URI>#1 x</cbc:URI></cac:ExternalReference>";
  const place = invoice()
    .toString()
    .replace("</cac:Signature>", `${uri}</cac:DigitalSignatureAttachment></cac:Signature>`);
  await refused(seal(place), INVALID_ARGUMENT, "SEAL_PLACE");
  const second = invoice().toString().replace("<ext:UBLExtensions>", "<cbc:Note/><ext:UBLExtensions>");
  await refused(seal(second), INVALID_ARGUMENT, "SEAL_PLACE", ...PLACE);
  held("SEAL_PLACE");
  const { sealed_document } = await seal(invoice());
  await refused(seal(sealed_document), FAILED_PRECONDITION, "ALREADY_SEALED", ...PLACE);
  held("ALREADY_SEALED");
  const mismatch = await refused(seal(invoice(EC)), FAILED_PRECONDITION, "TAXPAYER_MISMATCH", "requested", "named");
  assert.deepStrictEqual(mismatch.metadata, { requested: RSA, named: EC });
  held("TAXPAYER_MISMATCH");
}

async function certificates(client) {
  const unknown = call(client, "Seal", request(invoice(), { taxpayer: "1234567890" }));
  const nobody = await refused(unknown, NOT_FOUND, "SEAL_UNKNOWN", "requested");
  assert.deepStrictEqual(nobody.metadata, { requested: "1234567890" });
  const none = await refused(call(client, "GetSeal", { id: Buffer.alloc(32) }), NOT_FOUND, "SEAL_UNKNOWN", "requested");
  assert.deepStrictEqual(none.metadata, { requested: "00".repeat(32) });
  held("SEAL_UNKNOWN");
  const { id } = (await call(client, "GetSeal", { taxpayer: RSA })).seal;
  const by = (certificate_sha256) => call(client, "Seal", request(invoice(), { options: { certificate_sha256 } }));
  const changed = await refused(by(Buffer.alloc(32)), FAILED_PRECONDITION, "CERTIFICATE_CHANGED", "requested", "named");
  assert.deepStrictEqual(changed.metadata, { requested: "00".repeat(32), named: id.toString("hex") });
  isSealed(await by(id));
  held("CERTIFICATE_CHANGED");
  const { MUHURDAR_ENDED: ended } = process.env;
  if (ended) {
    // A taxpayer whose certificate has ended.
    const { seal } = await call(client, "GetSeal", { taxpayer: ended });
    assert(seal.state === "SEAL_STATE_EXPIRED" && seal.state_detail, seal.state);
    const expired = call(client, "Seal", request(invoice(ended), { taxpayer: ended }));
    const { metadata } = await refused(expired, FAILED_PRECONDITION, "CERTIFICATE_UNUSABLE", "named");
    assert.deepStrictEqual(metadata, { named: seal.id.toString("hex") });
    held("CERTIFICATE_UNUSABLE");
  }
}

async function fields(client) {
  const seal = (more) => call(client, "Seal", request(invoice(), more));
  const digest = { taxpayer: RSA, digest: Buffer.alloc(32), certificate_sha256: Buffer.alloc(32) };
  for (const [field, ask] of [
    ["idempotency_key", () => seal({ idempotency_key: "k".repeat(129) })],
    ["options.level", () => seal({ options: { level: "LEVEL_A" } })],
    ["options.preflight", () => seal({ options: { preflight: "PREFLIGHT_REFUSE" } })],
    ["digest_algorithm", () => call(client, "SignDigest", digest)],
    ["page_token", () => call(client, "ListSeals", { page_token: "nonsense" })],
  ]) {
    const { metadata } = await refused(ask(), INVALID_ARGUMENT, "REQUEST", "field");
    assert.deepStrictEqual(metadata, { field });
  }
  const twice = ["a", "a", "i".repeat(129)].map((id) => ({ id, request: request() }));
  const all = await answers(client.SealStream({ deadline: Date.now() + 60_000 }), twice);
  const wrong = all.filter(({ outcome }) => outcome === "error");
  assert.deepStrictEqual([all.length, wrong.map(({ id }) => id.slice(0, 100)).sort()], [3, ["a", "i".repeat(100)]]);
  for (const { id } of wrong) assert(Buffer.byteLength(id) <= 128, `a cut id ${id}`);
  for (const { error } of wrong) assert.strictEqual(carries(error, "REQUEST", ["field"]).metadata.field, "id");
  const raw = (method, bytes) =>
    new Promise((resolve, reject) => {
      const same = (bytes) => bytes;
      const path = `/muhurdar.seal.v1.SealService/${method}`;
      client.makeUnaryRequest(path, same, same, bytes, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  await refused(raw("Nothing", Buffer.alloc(0)), UNIMPLEMENTED, "REQUEST");
  await refused(raw("Seal", Buffer.from([0xff, 0xff, 0xff])), INTERNAL, "REQUEST");
  held("REQUEST");
  const idempotency_key = randomUUID();
  await call(client, "Seal", request(note("1"), { idempotency_key }));
  await refused(
    call(client, "Seal", request(note("2"), { idempotency_key })),
    INVALID_ARGUMENT,
    "IDEMPOTENCY_KEY_REUSED",
  );
  held("IDEMPOTENCY_KEY_REUSED");
  await refused(seal({ timeout: { nanos: 1_000_000 } }), DEADLINE_EXCEEDED, "DEADLINE");
  held("DEADLINE");
}

async function sizes(client, limits) {
  const message = { limit: "message_bytes", value: `${limits.message_bytes}` };
  const huge = request(Buffer.alloc(limits.message_bytes, "x"));
  const keys = ["limit", "value"];
  const told = await refused(call(client, "Seal", huge), INVALID_ARGUMENT, "MESSAGE_TOO_LARGE", ...keys);
  const [item] = await answers(client.SealStream({ deadline: Date.now() + 60_000 }), [{ id: "huge", request: huge }]);
  const third = request(Buffer.alloc(Math.floor(limits.message_bytes / 3), "x"));
  const batch = call(client, "SealBatch", { items: Array(4).fill(third) });
  const third_is_too_much = await refused(batch, INVALID_ARGUMENT, "MESSAGE_TOO_LARGE", ...keys, "item");
  assert.strictEqual(third_is_too_much.metadata.item, "2");
  for (const { metadata } of [told, carries(item.error, "MESSAGE_TOO_LARGE", keys), third_is_too_much]) {
    assert.deepStrictEqual({ limit: metadata.limit, value: metadata.value }, message);
  }
  held("MESSAGE_TOO_LARGE");
  const header = { taxpayer: RSA, size: limits.large_document_bytes + 1 };
  const { metadata } = await refused(answers(client.SealLarge(), [{ header }]), INVALID_ARGUMENT, "XML_LIMIT", ...keys);
  assert.deepStrictEqual([metadata.limit, metadata.value], ["large_document_bytes", `${limits.large_document_bytes}`]);
  held("XML_LIMIT, before it is sent");
}

async function callers() {
  await refused(call(branch("auditor"), "Seal", request()), PERMISSION_DENIED, "ACCESS");
  held("ACCESS");
  await refused(call(branch(null), "Seal", request()), UNAUTHENTICATED, "CLIENT_CERTIFICATE");
  held("CLIENT_CERTIFICATE");
}

async function later(client) {
  const few = branch("few");
  const seal = () => call(few, "Seal", request());
  const many = Promise.all([seal(), seal(), seal(), seal()]);
  const quota = await refused(many, RESOURCE_EXHAUSTED, "QUOTA", "limit", "value");
  assert.deepStrictEqual(quota.metadata, { limit: "documents_per_second", value: "1" });
  assert.strictEqual(quota.QuotaFailure.violations[0].subject, "documents_per_second");
  held("QUOTA");
  assert((await patiently((left) => call(few, "Seal", request(), left))).sealed_document.length > 0);
  held("QUOTA, and patience");

  // The queue holds 8, the HSM does 40 a second.
  const bulk = request(invoice(), { options: { priority: "PRIORITY_BULK" } });
  const flood = await Promise.allSettled(Array.from({ length: 60 }, () => call(client, "Seal", bulk)));
  const rejected = flood.filter(({ status }) => status === "rejected").map(({ reason }) => reason);
  assert(rejected.length > 10 && rejected.length < 60, `${rejected.length} of 60 refused`);
  for (const error of rejected) {
    const { metadata } = await refused(Promise.reject(error), RESOURCE_EXHAUSTED, "OVERLOADED", "limit", "value");
    assert.deepStrictEqual(metadata, { limit: "queue", value: "8" });
  }
  held("OVERLOADED");
}

/** The test has broken the HSM. */
async function token() {
  const client = branch();
  for (let n = 0; n < 3; n++) await refused(call(client, "Seal", request()), UNAVAILABLE, "TOKEN_UNAVAILABLE");
  const refusal = await patiently((left) => call(client, "Seal", request(), left), 2000).catch((error) => error);
  assert(refusal instanceof Refusal && refusal.reason === "TOKEN_UNAVAILABLE" && refusal.retryable, `${refusal}`);
  held("TOKEN_UNAVAILABLE");
}

/** A signature takes four seconds now: time enough to be told. */
async function drain() {
  const client = branch();
  await call(client, "GetServerInfo", {});
  const admitted = call(client, "Seal", request());
  await sleep(1000);
  process.kill(Number(process.env.MUHURDAR_PID), "SIGTERM");
  // Refused for what it is, until the signal has come.
  let told = "XML_MALFORMED";
  while (told === "XML_MALFORMED") {
    const error = await call(client, "Seal", request(Buffer.from("<Invoice"))).catch((error) => error);
    told = new Refusal(statusOf(error)).reason;
  }
  await refused(call(client, "Seal", request()), UNAVAILABLE, "DRAINING");
  held("DRAINING");
  isSealed(await admitted);
  held("what was admitted is answered");
}

module.exports = { drain, errors, token };
