// A branch office's way to Mühürdar: a connection with the defaults that a client should have, and what it makes of a refusal.
"use strict";
const { createHash } = require("node:crypto");
const { createReadStream, createWriteStream, readFileSync, renameSync, rmSync, statSync } = require("node:fs");
const { once } = require("node:events");
const path = require("node:path");
const { setTimeout: sleep } = require("node:timers/promises");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const { MUHURDAR_HOME: home, MUHURDAR_ADDRESS: address, MUHURDAR_PROTO: proto } = process.env;

// snippet: load
const definition = loader.loadSync(
  ["muhurdar/seal/v1/seal.proto", "muhurdar/seal/v1/reason.proto", "google/rpc/error_details.proto"],
  {
    includeDirs: [proto, path.dirname(require.resolve("google-proto-files/package.json"))],
    // sealed_document, as the proto has it; else sealedDocument.
    keepCase: true,
    // Offsets and sizes as numbers, good to 2^53; else as objects { low, high }.
    longs: Number,
    // "PRIORITY_BULK"; else 3. One that this proto has no name for is a number in any case.
    enums: String,
    defaults: true,
    oneofs: true,
  },
);
const { SealService } = grpc.loadPackageDefinition(definition).muhurdar.seal.v1;
// end snippet

// snippet: connect
const OPTIONS = {
  // ServerLimits.message_bytes, and 10 KB for each seal of a batch. The default of 4 MiB throws larger answers away.
  "grpc.max_receive_message_length": 32 << 20,
  // A line that is dead and does not say so is noticed after 40 seconds, and only so.
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  // A server that restarts is found again within seconds; the default grows to two minutes.
  "grpc.max_reconnect_backoff_ms": 3_000,
};

/** One for the whole program: calls share its connection, which is made anew when it breaks. */
function branch(name = "branch-1", options = OPTIONS, Service = SealService) {
  const own = name ? ["key", "crt"].map((end) => readFileSync(path.join(home, `clients/${name}.${end}`))) : [];
  return new Service(address, grpc.credentials.createSsl(readFileSync(path.join(home, "ca.crt")), ...own), options);
}

/** A call with one request and one answer, which has 30 seconds. */
function call(client, method, request, milliseconds = 30_000) {
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + milliseconds;
    client[method](request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}
// end snippet

// snippet: refusal
/** A status's details by their names, in their order: ErrorInfo, BadRequest, RetryInfo, QuotaFailure, LocalizedMessage. */
function details(status) {
  const found = {};
  for (const { type_url, value } of status.details) {
    const type = type_url.split("/").pop();
    if (definition[type]) found[type.replace("google.rpc.", "")] = definition[type].deserialize(value);
  }
  return found;
}

/** The google.rpc.Status behind a call's error; one without details where the network or the library has spoken. */
function statusOf(error) {
  const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!bytes) return { code: error.code, message: error.details ?? error.message, details: [] };
  return definition["google.rpc.Status"].deserialize(bytes);
}

/** Why there is no seal. `reason` is empty where it was not Mühürdar that spoke. */
class Refusal extends Error {
  constructor({ code, message, details: all }) {
    super(message);
    const { ErrorInfo: info, RetryInfo: retry } = details({ details: all });
    this.code = code;
    this.reason = info?.domain === "muhurdar" ? info.reason : "";
    this.name = this.reason || grpc.status[code];
    this.metadata = info?.metadata ?? {};
    this.retryAfter = retry ? retry.retry_delay.seconds * 1000 + retry.retry_delay.nanos / 1e6 : 0;
    // A reason that this program does not know goes by its code. RESOURCE_EXHAUSTED without a reason is the library's own:
    // the answer was too large for it, and will be again. DEADLINE only since each request has an idempotency key.
    this.retryable = code === grpc.status.UNAVAILABLE || ["QUOTA", "OVERLOADED", "DEADLINE"].includes(this.reason);
  }
}
// end snippet

// snippet: retry
/** Milliseconds until the next try: what the server has said at least, growing, and not the same for all who wait. */
function pause(attempt, retryAfter) {
  return Math.max(retryAfter, Math.min(100 * 2 ** attempt, 3000)) * (1 + Math.random() / 2);
}

/** Calls until there is an answer, a refusal for good, or no time left. `tried` is told how many milliseconds it has. */
async function patiently(tried, milliseconds = 30_000) {
  const end = Date.now() + milliseconds;
  for (let attempt = 0; ; attempt++) {
    try {
      return await tried(end - Date.now());
    } catch (error) {
      const refusal = new Refusal(statusOf(error));
      const wait = pause(attempt, refusal.retryAfter);
      if (!refusal.retryable || Date.now() + wait > end) throw refusal;
      await sleep(wait);
    }
  }
}
// end snippet

const sha256 = (bytes) => createHash("sha256").update(bytes).digest();

// snippet: patch
function splice(document, { offset, length, replacement }) {
  return Buffer.concat([document.subarray(0, offset), replacement, document.subarray(offset + length)]);
}
// end snippet

// snippet: large
/** A document of any size, from file to file. `target` is there when it is whole, and not before. */
async function sealFile(client, taxpayer, source, target, key) {
  const stream = client.SealLarge({ deadline: Date.now() + 600_000 });
  const write = async (part) => stream.write(part) || (await once(stream, "drain"));
  const upload = async () => {
    await write({ header: { taxpayer, size: statSync(source).size, idempotency_key: key } });
    for await (const chunk of createReadStream(source, { highWaterMark: 256 << 10 })) await write({ chunk });
    stream.end();
  };
  const part = `${target}.part`;
  const file = createWriteStream(part);
  try {
    // What goes wrong with the call, the loop below says.
    upload().catch(() => stream.cancel());
    const digest = createHash("sha256");
    let result, end;
    for await (const answer of stream) {
      if (answer.part === "result") result = answer.result.result;
      else if (answer.part === "end") end = answer.end;
      else {
        digest.update(answer.chunk);
        if (!file.write(answer.chunk)) await once(file, "drain");
      }
    }
    if (!result || !end?.sealed_document_sha256.equals(digest.digest())) {
      throw new Error("what came is not whole, or not what was sealed");
    }
    file.end();
    await once(file, "close");
    renameSync(part, target);
    return result;
  } finally {
    file.destroy();
    rmSync(part, { force: true });
  }
}
// end snippet

module.exports = {
  OPTIONS,
  Refusal,
  branch,
  call,
  definition,
  details,
  grpc,
  patiently,
  pause,
  sealFile,
  sha256,
  splice,
  statusOf,
};
