// A first seal.
// usage: node first_seal.js INVOICE SEALED
// environment: MUHURDAR_HOME, the folder of `muhurdar dev`; MUHURDAR_ADDRESS, host:port; MUHURDAR_PROTO, the folder `proto`
"use strict";

// snippet: first-seal
// npm install @grpc/grpc-js @grpc/proto-loader google-proto-files
const { createHash, randomUUID } = require("node:crypto");
const { readFileSync, writeFileSync } = require("node:fs");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

function firstSeal(proto, home, address, invoice) {
  const google = path.dirname(require.resolve("google-proto-files/package.json"));
  const options = { includeDirs: [proto, google], keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true };
  const { SealService } = grpc.loadPackageDefinition(loader.loadSync("muhurdar/seal/v1/seal.proto", options)).muhurdar.seal.v1;
  const [ca, key, certificate] = ["ca.crt", "clients/branch-1.key", "clients/branch-1.crt"].map((f) => readFileSync(path.join(home, f)));
  // Without this option what is larger than 4 MiB is lost on its way back, after it was sealed.
  const client = new SealService(address, grpc.credentials.createSsl(ca, key, certificate), { "grpc.max_receive_message_length": 32 << 20 });
  const request = { taxpayer: "1000000000", document: invoice, idempotency_key: randomUUID() };
  return new Promise((resolve, reject) =>
    client.Seal(request, { deadline: Date.now() + 30_000 }, (error, response) => {
      client.close();
      if (error) return reject(error);
      const digest = createHash("sha256").update(response.sealed_document).digest();
      if (digest.equals(response.result.sealed_document_sha256)) resolve(response.sealed_document);
      else reject(new Error("what came is not what was sealed"));
    }),
  );
}
// end snippet

module.exports = { firstSeal };
if (require.main === module) {
  const { MUHURDAR_PROTO, MUHURDAR_HOME, MUHURDAR_ADDRESS } = process.env;
  const [source, target] = process.argv.slice(2);
  firstSeal(MUHURDAR_PROTO, MUHURDAR_HOME, MUHURDAR_ADDRESS, readFileSync(source)).then(
    (sealed) => writeFileSync(target, sealed),
    (error) => {
      console.error(error.message);
      process.exitCode = 1;
    },
  );
}
