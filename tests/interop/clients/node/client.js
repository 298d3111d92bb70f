// A branch office in Node (@grpc/grpc-js): everything that the published proto promises, seen from the other end.
// usage: node client.js calls | errors | token | drain | stream N
// environment: MUHURDAR_HOME, the appliance's folder; MUHURDAR_ADDRESS, host:port; MUHURDAR_PROTO, the folder `proto`;
//   NODE_PATH, node_modules with what package.json names; for `drain` MUHURDAR_PID, the appliance's process; for `errors`, where
//   there is one, MUHURDAR_ENDED, a taxpayer whose certificate has ended
// Prints a line for each thing that held, and ends with 1 at the first that did not.
"use strict";
const assert = require("node:assert");
const { randomUUID } = require("node:crypto");
const { Refusal, branch, sha256 } = require("./branch");
const { calls } = require("./calls");
const { RSA, held, invoice } = require("./documents");
const { drain, errors, token } = require("./errors");
const { sealAll } = require("./stream");

/** Prints `id sha256-of-what-was-sealed receipt-id` for each, as it is answered, while the test ends the service. */
async function stream(count = "500") {
  const documents = Array.from({ length: Number(count) }, (_, n) => {
    const id = `TST2026${String(n + 1).padStart(9, "0")}`;
    return { id, taxpayer: RSA, content: invoice(RSA, "", id), key: randomUUID() };
  });
  const sealed = new Set();
  let noticed = false;
  const draining = () => {
    noticed = true;
    held("the drain notice");
  };
  const ended = (why) => {
    console.log(`ended: ${why}; ${sealed.size} of ${count} are sealed`);
    if (noticed) {
      assert(why.reason === "DRAINING" && why.retryAfter > 0, `after its notice a stream ends with ${why}`);
      held("DRAINING");
    }
    noticed = false;
  };
  for await (const [{ id }, answer] of sealAll(branch(), documents, { draining, ended })) {
    assert(!(answer instanceof Refusal), `${id} was refused: ${answer}`);
    assert(!sealed.has(id), `${id} was answered twice`);
    assert.strictEqual(answer.result.receipt.document_id, id);
    sealed.add(id);
    console.log(id, sha256(answer.sealed_document).toString("hex"), answer.result.receipt.id);
  }
  assert.strictEqual(sealed.size, documents.length);
  console.log(`sealed: ${sealed.size}`);
}

const [phase, ...rest] = process.argv.slice(2);
({ calls, errors, token, drain, stream })[phase](...rest).then(
  () => process.exit(0),
  (error) => {
    console.error(`${phase}: ${error.stack}`);
    process.exit(1);
  },
);
