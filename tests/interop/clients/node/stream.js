// Many documents over one stream, through whatever ends it: each is answered once.
"use strict";
const { setTimeout: sleep } = require("node:timers/promises");
const { Refusal, grpc, pause, sha256, statusOf } = require("./branch");

// snippet: stream
/**
 * Yields [document, response or Refusal] for each, in the order of the answers. A document is { id, taxpayer, content, key }:
 * its key is made once and kept over all tries, so that what was sealed and not answered is then answered, and not sealed
 * again. Options: `window`; `patience`, milliseconds without any answer until this gives up; `draining`, which is told that the
 * server is about to end; `ended`, which is told why a stream has, before all was answered.
 */
async function* sealAll(client, documents, options = {}) {
  const { window = 64, patience = 120_000, draining = () => {}, ended = () => {} } = options;
  const unanswered = new Map(documents.map((document) => [document.id, document]));
  let attempt = 0;
  let last = Date.now();
  while (unanswered.size > 0) {
    const stream = client.SealStream();
    // The loop below hears it; here it is for who leaves that loop early.
    stream.on("error", () => {});
    let writing = true;
    // Writing never waits for reading: there are at most so many as the window takes.
    const send = ({ id, taxpayer, content, key }) => {
      const request = { taxpayer, document: content, idempotency_key: key, timeout: { seconds: 30 } };
      if (writing) stream.write({ id, request });
    };
    const stop = () => {
      if (writing) stream.end();
      writing = false;
    };
    const fresh = [...unanswered.values()];
    const tries = new Map();
    const { UNAVAILABLE } = grpc.status;
    let why = new Refusal({ code: UNAVAILABLE, message: "the stream ended before all was answered", details: [] });
    try {
      fresh.splice(0, window).forEach(send);
      for await (const answer of stream) {
        if (answer.outcome === "draining") {
          // No more goes over this stream. What the server has read it still answers.
          stop();
          draining();
          continue;
        }
        const document = unanswered.get(answer.id);
        // Answered already: the first one counts.
        if (!document) continue;
        const refused = answer.outcome === "error" ? new Refusal(answer.error) : undefined;
        if (refused?.retryable) {
          if (Date.now() - last > patience) throw refused;
          // It keeps its place in the window: who is refused much sends little.
          const n = tries.get(answer.id) ?? 0;
          tries.set(answer.id, n + 1);
          setTimeout(send, pause(n, refused.retryAfter), document);
          continue;
        }
        unanswered.delete(answer.id);
        attempt = 0;
        last = Date.now();
        if (fresh.length > 0) send(fresh.shift());
        else if (unanswered.size === 0) stop();
        yield [document, refused ?? checked(answer.response)];
      }
    } catch (error) {
      if (!(error.metadata instanceof grpc.Metadata)) throw error;
      // DRAINING: what is unanswered was not sealed. Anything else: it may have been. Its key makes both the same.
      why = new Refusal(statusOf(error));
      if (!why.retryable) throw why;
    } finally {
      writing = false;
      stream.cancel();
    }
    if (unanswered.size > 0) {
      ended(why);
      if (Date.now() - last > patience) throw why;
      await sleep(pause(attempt++, why.retryAfter));
    }
  }
}

function checked(response) {
  if (sha256(response.sealed_document).equals(response.result.sealed_document_sha256)) return response;
  throw new Error("what came is not what was sealed");
}
// end snippet

module.exports = { sealAll };
