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
    // The loop below has heard it; here it is for who leaves that loop early.
    stream.on("error", () => {});
    const waiting = [...unanswered.values()];
    let open = 0;
    // Writing never waits for reading, but where the window is full: at most so many documents are in memory twice.
    const send = () => {
      while (open < window && waiting.length > 0) {
        const { id, taxpayer, content, key } = waiting.shift();
        stream.write({ id, request: { taxpayer, document: content, idempotency_key: key, timeout: { seconds: 30 } } });
        open++;
      }
      if (waiting.length === 0 && !stream.writableEnded) stream.end();
    };
    const { UNAVAILABLE } = grpc.status;
    let why = new Refusal({ code: UNAVAILABLE, message: "the stream ended before all was answered", details: [] });
    let retryAfter = 0;
    try {
      send();
      for await (const answer of stream) {
        if (answer.outcome === "draining") {
          // No more goes over this stream. What the server has read it still answers.
          waiting.length = 0;
          send();
          draining();
          continue;
        }
        const document = unanswered.get(answer.id);
        // Answered already: the first one counts.
        if (!document) continue;
        open--;
        send();
        const refused = answer.outcome === "error" ? new Refusal(answer.error) : undefined;
        if (refused?.retryable) {
          // Again over the next stream.
          why = refused;
          retryAfter = Math.max(retryAfter, refused.retryAfter);
          continue;
        }
        unanswered.delete(document.id);
        attempt = 0;
        last = Date.now();
        yield [document, refused ?? checked(answer.response)];
      }
    } catch (error) {
      if (!(error.metadata instanceof grpc.Metadata)) throw error;
      // DRAINING: what is unanswered was not sealed. Anything else: it may have been. Its key makes both the same.
      why = new Refusal(statusOf(error));
      retryAfter = Math.max(retryAfter, why.retryAfter);
      if (!why.retryable) throw why;
    } finally {
      stream.cancel();
    }
    if (unanswered.size > 0) {
      ended(why);
      if (Date.now() - last > patience) throw why;
      await sleep(pause(attempt++, retryAfter));
    }
  }
}

function checked(response) {
  if (sha256(response.sealed_document).equals(response.result.sealed_document_sha256)) return response;
  throw new Error("what came is not what was sealed");
}
// end snippet

module.exports = { sealAll };
