// Every call of the contract, answered.
"use strict";
const assert = require("node:assert");
const { randomUUID } = require("node:crypto");
const { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } = require("node:fs");
const { tmpdir } = require("node:os");
const path = require("node:path");
const health = require("grpc-health-check");
const { OPTIONS, Refusal, branch, call, grpc, patiently, sealFile, sha256, splice, statusOf } = require("./branch");
const { EC, RSA, held, invoice, note, request } = require("./documents");
const { firstSeal } = require("./first_seal");

function isSealed({ sealed_document: document, result }) {
  assert(document.includes("<ds:SignatureValue"), "a document without a seal");
  assert.deepStrictEqual(sha256(document), result.sealed_document_sha256, "a digest that is not the file's");
  assert(result.receipt.id && result.receipt.client === "branch-1", `a receipt of ${result.receipt.client}`);
  assert(result.signing_time && result.level === "LEVEL_BES", `${result.signing_time}, level ${result.level}`);
}

/** Of an item's error. */
const reason = (error) => new Refusal(error).reason;

/** Of a call's. */
const refusal = (outcome) =>
  outcome.then(
    () => assert.fail("it was not refused"),
    (error) => new Refusal(statusOf(error)),
  );

/** The answers of a stream that is sent this. */
async function answers(stream, messages) {
  for (const message of messages) stream.write(message);
  stream.end();
  const all = [];
  for await (const answer of stream) all.push(answer);
  return all;
}

async function items(client, requests) {
  const sent = Object.entries(requests).map(([id, request]) => ({ id, request }));
  const all = await answers(client.SealStream({ deadline: Date.now() + 60_000 }), sent);
  return Object.fromEntries(all.map((answer) => [answer.id, answer]));
}

async function calls() {
  const client = branch();
  const limits = await info(client);
  await one(client);
  await many(client);
  await large(client);
  await sizes(client, limits);
  await keys(client);
  await digests(client);
  await seals(client);
  await healthy();
}

async function info(client) {
  const told = await patiently((left) => call(client, "GetServerInfo", {}, left));
  const { version, limits, idempotency_window, levels, caller } = told;
  assert.match(version, /^\d+\.\d+\.\d+/);
  assert(OPTIONS["grpc.max_receive_message_length"] >= limits.message_bytes + (1 << 20), `${limits.message_bytes}`);
  assert(limits.document_bytes <= limits.message_bytes && limits.message_bytes < limits.large_document_bytes);
  assert(
    limits.chunk_bytes >= 256 << 10 && limits.batch_items > 0 && limits.stream_in_flight >= 64 && limits.depth > 0,
  );
  assert(limits.request_timeout.seconds > 0 && limits.large_timeout.seconds > 0);
  assert(idempotency_window.seconds > 0 && levels.includes("LEVEL_BES"));
  assert.strictEqual(caller.client, "branch-1");
  assert.deepStrictEqual([...caller.rights].sort(), ["RIGHT_DIGEST", "RIGHT_LIST", "RIGHT_SEAL"]);
  assert(caller.priorities.includes("PRIORITY_BULK") && caller.taxpayers.includes("*"));
  assert(caller.certificate_not_after.seconds > Date.now() / 1000, "a certificate that has ended");
  held("GetServerInfo");
  return limits;
}

async function one(client) {
  const { MUHURDAR_PROTO, MUHURDAR_HOME, MUHURDAR_ADDRESS } = process.env;
  assert((await firstSeal(MUHURDAR_PROTO, MUHURDAR_HOME, MUHURDAR_ADDRESS, invoice())).includes("<ds:SignatureValue"));
  held("a first seal");
  const urgent = request(invoice(), { options: { priority: "PRIORITY_INTERACTIVE" } });
  isSealed(await patiently((left) => call(client, "Seal", urgent, left)));
  held("Seal");
  const only = await call(client, "Seal", request(invoice(), { options: { answer: "ANSWER_KIND_PATCH" } }));
  assert.strictEqual(only.answer, "patch");
  assert.deepStrictEqual(sha256(splice(invoice(), only.patch)), only.result.sealed_document_sha256);
  held("a patch");
}

async function many(client) {
  const mixed = { a: request(), b: request(Buffer.from("<Invoice")), c: request(invoice(EC)), d: request(note("d")) };
  const { a, b, c, d } = await items(client, mixed);
  [a, d].forEach(({ response }) => isSealed(response));
  assert.strictEqual(reason(b.error), "XML_MALFORMED");
  assert.strictEqual(reason(c.error), "TAXPAYER_MISMATCH");
  held("SealStream");

  const { hasty, calm } = await items(client, {
    hasty: request(note("hasty"), { timeout: { nanos: 1_000_000 } }),
    calm: request(note("calm")),
  });
  assert.strictEqual(hasty.outcome === "error" && reason(hasty.error), "DEADLINE");
  isSealed(calm.response);
  held("an item's own timeout");

  const { results } = await call(client, "SealBatch", { items: [request(), request(Buffer.from("x")), request()] });
  assert.strictEqual(results.map(({ outcome }) => outcome).join(" "), "response error response");
  isSealed(results[0].response);
  isSealed(results[2].response);
  assert.strictEqual(reason(results[1].error), "XML_MALFORMED");
  held("SealBatch");
}

async function large(client) {
  const content = note("uzun ".repeat(500_000));
  const folder = mkdtempSync(path.join(tmpdir(), "muhurdar-"));
  try {
    const [source, target] = ["yevmiye.xml", "yevmiye.sealed.xml"].map((name) => path.join(folder, name));
    writeFileSync(source, content);
    const result = await sealFile(client, RSA, source, target, randomUUID());
    assert(result.signing_time && readFileSync(target).includes("<ds:SignatureValue"));
    assert.strictEqual(readdirSync(folder).length, 2, "something was left behind");
  } finally {
    rmSync(folder, { recursive: true });
  }
  held("SealLarge");

  const parts = [{ header: { taxpayer: RSA, options: { answer: "ANSWER_KIND_PATCH" } } }];
  for (let at = 0; at < content.length; at += 200_000) parts.push({ chunk: content.subarray(at, at + 200_000) });
  const [{ result }, { end }, ...more] = await answers(client.SealLarge(), parts);
  const sealed = splice(content, result.patch);
  assert.deepStrictEqual([sha256(sealed), sealed.length], [end.sealed_document_sha256, end.size]);
  assert.strictEqual(more.length, 0);
  held("SealLarge, a patch");
}

async function sizes(client, limits) {
  const oversize = request(Buffer.alloc(limits.message_bytes, "x"));
  const told = await items(client, { small: request(note("1")), oversize, after: request(note("2")) });
  assert.strictEqual(told.oversize?.outcome === "error" && reason(told.oversize.error), "MESSAGE_TOO_LARGE");
  isSealed(told.small.response);
  isSealed(told.after.response);
  held("an oversize item");

  const five = request(note("5 MB ".repeat(1_000_000)), { idempotency_key: randomUUID() });
  const lost = await refusal(call(branch("branch-1", {}), "Seal", five));
  assert.deepStrictEqual(
    [lost.code, lost.reason, lost.retryable],
    [grpc.status.RESOURCE_EXHAUSTED, "", false],
    lost.message,
  );
  isSealed(await call(client, "Seal", five));
  held("a 5 MB answer");
}

async function keys(client) {
  const again = request(note("once"), { idempotency_key: randomUUID() });
  const first = await call(client, "Seal", again);
  const second = await call(client, "Seal", again);
  assert.deepStrictEqual(first.sealed_document, second.sealed_document);
  assert.deepStrictEqual(first.result.receipt, second.result.receipt);
  assert.deepStrictEqual([first.result.replayed, second.result.replayed], [false, true]);
  assert(first.result.kept_until.seconds > Date.now() / 1000, "kept until it is past");
  const options = { answer: "ANSWER_KIND_PATCH", document_type: "DOCUMENT_TYPE_INVOICE" };
  const { patch } = await call(client, "Seal", { ...again, options });
  assert.deepStrictEqual(splice(again.document, patch), first.sealed_document, "the same seal, as a patch");
  assert.strictEqual((await call(client, "Seal", request())).result.kept_until, null, "what has no key is not kept");
  held("an idempotency key");
}

async function digests(client) {
  const { seal } = await call(client, "GetSeal", { taxpayer: RSA });
  const wanted = {
    taxpayer: RSA,
    digest: sha256("a SignedInfo"),
    digest_algorithm: "DIGEST_ALGORITHM_SHA256",
    certificate_sha256: seal.id,
    document_id: "TST2026000000001",
  };
  const { result } = await call(client, "SignDigest", wanted);
  assert.strictEqual(result.signature_value.length, 256);
  assert.deepStrictEqual(result.receipt.certificate_sha256, seal.id);
  assert.strictEqual(result.receipt.document_id, "TST2026000000001");
  held("SignDigest");
  const other = await refusal(call(client, "SignDigest", { ...wanted, certificate_sha256: Buffer.alloc(32) }));
  assert.strictEqual(other.reason, "CERTIFICATE_CHANGED");
  held("SignDigest, another certificate");
}

async function seals(client) {
  const all = [];
  let page;
  do {
    page = await call(client, "ListSeals", { page_size: 1, page_token: page?.next_page_token });
    assert(page.seals.length <= 1);
    all.push(...page.seals);
  } while (page.next_page_token);
  const usable = all.filter(({ state, chosen }) => state === "SEAL_STATE_USABLE" && chosen).map((s) => s.taxpayer);
  assert.deepStrictEqual(usable, [RSA, EC]);
  for (const { state, state_detail } of all) assert.strictEqual(state_detail === "", state === "SEAL_STATE_USABLE");
  assert.deepStrictEqual((await call(client, "ListSeals", {})).seals, all, "all at once are the same");
  held("ListSeals");
  const nonsense = await refusal(call(client, "ListSeals", { page_token: "nonsense" }));
  assert.deepStrictEqual([nonsense.reason, nonsense.metadata], ["REQUEST", { field: "page_token" }]);
  held("a nonsense page token");
  const { seal } = await call(client, "GetSeal", { taxpayer: EC });
  assert.strictEqual(seal.key_type, "KEY_TYPE_EC_P384");
  assert.deepStrictEqual(sha256(seal.certificate), seal.id);
  assert.deepStrictEqual((await call(client, "GetSeal", { id: seal.id })).seal, seal);
  held("GetSeal");
}

async function healthy() {
  const client = branch("branch-1", OPTIONS, grpc.makeGenericClientConstructor(health.service, "Health"));
  for (const service of ["", "muhurdar.seal.v1.SealService"]) {
    assert.strictEqual((await call(client, "Check", { service })).status, "SERVING");
  }
  held("health");
}

module.exports = { answers, calls, isSealed };
