// A first seal.
// usage: node first_seal.js INVOICE SEALED
// environment: MUHURDAR_HOME, the folder of `muhurdar dev`; MUHURDAR_ADDRESS, host:port; MUHURDAR_PROTO, the folder `proto`
"use strict";

// snippet: first-seal
const { createHash, randomUUID } = require("node:crypto");
const { readFileSync, writeFileSync } = require("node:fs");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

function firstSeal(proto, home, address, invoice) {
  const google = path.dirname(require.resolve("google-proto-files/package.json"));
  const as = {
    includeDirs: [proto, google],
    keepCase: true,
    longs: Number,
    enums: String,
    defaults: true,
    oneofs: true,
  };
  const definition = loader.loadSync("muhurdar/seal/v1/seal.proto", as);
  const { SealService } = grpc.loadPackageDefinition(definition).muhurdar.seal.v1;
  const read = (file) => readFileSync(path.join(home, file));
  const own = [read("clients/branch-1.key"), read("clients/branch-1.crt")];
  // Without this option what is larger than 4 MiB is lost on its way back, after it was sealed.
  const large = { "grpc.max_receive_message_length": 32 << 20 };
  const client = new SealService(address, grpc.credentials.createSsl(read("ca.crt"), ...own), large);
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

module.exports = { firstSeal };
if (require.main === module) {
  const home = process.env.MUHURDAR_HOME ?? "/tmp/muhurdar";
  const address = process.env.MUHURDAR_ADDRESS ?? "127.0.0.1:7443";
  const [source, target] = process.argv.slice(2);
  firstSeal(process.env.MUHURDAR_PROTO ?? "proto", home, address, readFileSync(source)).then(
    (sealed) => writeFileSync(target, sealed),
    (error) => {
      console.error(error.message);
      process.exitCode = 1;
    },
  );
}
// end snippet
