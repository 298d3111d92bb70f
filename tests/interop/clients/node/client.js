// A branch office in Node (@grpc/grpc-js): everything that the published proto promises, seen from the other end.
// usage: node client.js MODULES PROTO_DIR GOOGLE_PROTOS APPLIANCE_DIR ADDRESS
// Prints a line for each thing that held, and ends with 1 at the first that did not.
"use strict";
const assert = require("node:assert");
const { createHash } = require("node:crypto");
const { readFileSync } = require("node:fs");
const { createRequire } = require("node:module");
const path = require("node:path");

const [modules, protos, google, home, address] = process.argv.slice(2);
const load = createRequire(path.join(modules, "node_modules", "x.js"));
const grpc = load("@grpc/grpc-js");
const loader = load("@grpc/proto-loader");
const protobuf = load("protobufjs");

const options = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true, includeDirs: [protos] };
const definition = grpc.loadPackageDefinition(loader.loadSync("muhurdar/seal/v1/seal.proto", options));
const { SealService } = definition.muhurdar.seal.v1;

const details = new protobuf.Root();
details.resolvePath = (_, target) => (path.isAbsolute(target) ? target : path.join(google, target));
details.loadSync(["google/rpc/status.proto", "google/rpc/error_details.proto"]);

const RSA = "1000000000";
const EC = "1000000018";
const read = (file) => readFileSync(path.join(home, file));
const sha256 = (bytes) => createHash("sha256").update(bytes).digest();
const held = (what) => console.log(`held: ${what}`);

function branch(name) {
  const own = name ? [read(`clients/${name}.key`), read(`clients/${name}.crt`)] : [];
  return new SealService(address, grpc.credentials.createSsl(read("ca.crt"), ...own));
}

function invoice(sealer = RSA, content = "") {
  const ubl = "urn:oasis:names:specification:ubl:schema:xsd:";
  return Buffer.from(
    `<?xml version="1.0" encoding="UTF-8"?>\n<Invoice xmlns="${ubl}Invoice-2" ` +
      `xmlns:cac="${ubl}CommonAggregateComponents-2" xmlns:cbc="${ubl}CommonBasicComponents-2" ` +
      `xmlns:ext="${ubl}CommonExtensionComponents-2">\n` +
      "<ext:UBLExtensions><ext:UBLExtension><ext:ExtensionContent/></ext:UBLExtension></ext:UBLExtensions>\n" +
      "<cbc:ID>TST2026000000001</cbc:ID>\n" +
      `<cac:Signature><cbc:ID schemeID="VKN_TCKN">${sealer}</cbc:ID></cac:Signature>\n${content}</Invoice>\n`,
  );
}

const request = (document = invoice(), more = {}) => ({ taxpayer: RSA, document, ...more });

function isSealed(response) {
  assert(response.sealed_document.includes("<ds:SignatureValue"));
  assert.deepStrictEqual(sha256(response.sealed_document), response.sealed_document_sha256);
}

const call = (client, method, message) =>
  new Promise((resolve, reject) => client[method](message, (error, answer) => (error ? reject(error) : resolve(answer))));

/** The answers of a stream whose requests are these. */
const stream = (client, method, messages) =>
  new Promise((resolve, reject) => {
    const answers = [];
    const open = client[method]();
    open.on("data", (answer) => answers.push(answer));
    open.on("error", reject);
    open.on("end", () => resolve(answers));
    messages.forEach((message) => open.write(message));
    open.end();
  });

/** The details of a google.rpc.Status, by their names. */
function unpack(any) {
  const found = {};
  for (const { type_url, value } of any) {
    const type = type_url.split("/").pop();
    found[type.split(".").pop()] = details.lookupType(type).decode(value);
  }
  return found;
}

function read_error(error) {
  const [encoded] = error.metadata.get("grpc-status-details-bin");
  const status = details.lookupType("google.rpc.Status").decode(encoded);
  return unpack(status.details.map((any) => ({ type_url: any.typeUrl ?? any.type_url, value: any.value })));
}

async function refused(outcome, code, reason) {
  const error = await outcome.then(
    () => assert.fail(`${reason}: was not refused`),
    (error) => error,
  );
  assert.strictEqual(error.code, code, `${reason}: ${error}`);
  const found = read_error(error);
  assert.strictEqual(found.ErrorInfo.reason, reason);
  assert.strictEqual(found.ErrorInfo.domain, "muhurdar");
  held(reason);
  return found;
}

async function calls(client) {
  isSealed(await call(client, "Seal", request()));
  held("Seal");
  const items = [
    { id: "a", request: request() },
    { id: "b", request: request(Buffer.from("<Invoice")) },
    { id: "c", request: request(invoice(EC)) },
  ];
  const answers = new Map((await stream(client, "SealStream", items)).map((answer) => [answer.id, answer]));
  isSealed(answers.get("a").response);
  assert.strictEqual(unpack(answers.get("b").error.details).ErrorInfo.reason, "XML_MALFORMED");
  assert.strictEqual(unpack(answers.get("c").error.details).ErrorInfo.reason, "TAXPAYER_MISMATCH");
  held("SealStream");
  const { results } = await call(client, "SealBatch", { items: [request(), request(Buffer.from("x"))] });
  isSealed(results[0].response);
  assert.strictEqual(unpack(results[1].error.details).ErrorInfo.reason, "XML_MALFORMED");
  held("SealBatch");
  const content = invoice(RSA, `<cbc:Note>${"uzun ".repeat(400_000)}</cbc:Note>`);
  const parts = [{ header: { taxpayer: RSA, size: content.length } }];
  for (let at = 0; at < content.length; at += 200_000) parts.push({ chunk: content.subarray(at, at + 200_000) });
  const large = await stream(client, "SealLarge", parts);
  const sealed = Buffer.concat(large.slice(1, -1).map((answer) => answer.chunk));
  assert.deepStrictEqual(sha256(sealed), large.at(-1).end.sealed_document_sha256);
  held("SealLarge");
  const { seals } = await call(client, "ListSeals", {});
  assert.deepStrictEqual(seals.map((s) => s.taxpayer), [RSA, EC]);
  held("ListSeals");
}

async function errors(client) {
  const { INVALID_ARGUMENT, FAILED_PRECONDITION, NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAUTHENTICATED } =
    grpc.status;
  const seal = (document, more) => call(client, "Seal", request(document, more));
  const malformed = await refused(seal(invoice(RSA, "<a></b>")), INVALID_ARGUMENT, "XML_MALFORMED");
  assert.strictEqual(malformed.ErrorInfo.metadata.line, "6");
  assert(malformed.BadRequest.fieldViolations.length > 0);
  await refused(seal(Buffer.from("<!DOCTYPE a><a/>")), INVALID_ARGUMENT, "XML_DTD_FORBIDDEN");
  await refused(seal(Buffer.from("<a/>")), INVALID_ARGUMENT, "DOCUMENT_TYPE");
  await refused(seal((await seal()).sealed_document), FAILED_PRECONDITION, "ALREADY_SEALED");
  await refused(seal(invoice(EC)), FAILED_PRECONDITION, "TAXPAYER_MISMATCH");
  await refused(seal(invoice(), { taxpayer: "1234567890" }), NOT_FOUND, "SEAL_UNKNOWN");
  await refused(call(branch("auditor"), "Seal", request()), PERMISSION_DENIED, "ACCESS");
  const nobody = await call(branch(null), "Seal", request()).catch((error) => error);
  assert.strictEqual(nobody.code, UNAUTHENTICATED);
  held("UNAUTHENTICATED");
  const many = Promise.all(Array.from({ length: 12 }, () => call(branch("few"), "Seal", request())));
  const quota = await refused(many, RESOURCE_EXHAUSTED, "QUOTA");
  assert.strictEqual(quota.QuotaFailure.violations[0].subject, "documents_per_second");
  assert(quota.RetryInfo.retryDelay);
  const flood = Array.from({ length: 60 }, () => seal(invoice(), { priority: "PRIORITY_BULK" }));
  const overload = await refused(Promise.all(flood), RESOURCE_EXHAUSTED, "OVERLOADED");
  assert(overload.RetryInfo.retryDelay);
  await Promise.allSettled(flood);
}

(async () => {
  const client = branch("branch-1");
  await calls(client);
  await errors(client);
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
