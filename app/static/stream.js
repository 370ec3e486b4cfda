// Follows the message log of a run: a resumable chunked GET of `u32 head length | u32 body length | JSON head | body`.

const KEEP_TRYING = 8;

async function* readMessages(stream) {
  const reader = stream.getReader(), text = new TextDecoder();
  let rest = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const data = new Uint8Array(rest.length + value.length);
    data.set(rest);
    data.set(value, rest.length);
    let start = 0;
    while (data.length - start >= 8) {
      const view = new DataView(data.buffer, start);
      const headSize = view.getUint32(0, true), bodySize = view.getUint32(4, true), body = start + 8 + headSize;
      if (data.length < body + bodySize) break;
      yield [JSON.parse(text.decode(data.subarray(start + 8, body))), data.slice(body, body + bodySize)];
      start = body + bodySize;
    }
    rest = data.subarray(start);
  }
}

// Calls onMessage(head, body) for every message of a job, once each and in order, across reconnects, until its `over`
// message; onLost(sentence) if that never comes. Returns a function that stops following.
function followJob(job, onMessage, onLost) {
  const abort = new AbortController();
  let next = 0, failures = 0, over = false;

  async function connect() {
    const url = new URL("gradio_api/units/" + encodeURIComponent(job) + "?start=" + next, document.baseURI);
    const response = await fetch(url, { signal: abort.signal, credentials: "same-origin" });
    if (response.status === 404) return onLost("This film is no longer on the server.");
    if (!response.ok) throw new Error("status " + response.status);
    for await (const [head, body] of readMessages(response.body)) {
      if (abort.signal.aborted) return; // what was already here belongs to a film that nobody watches any more
      failures = 0;
      if (head.seq === undefined || head.seq < next) continue;
      await onMessage(head, body);
      next = head.seq + 1;
      if (head.kind === "over") over = true;
    }
    if (!over) throw new Error("the stream ended early");
  }

  (async () => {
    while (!over && !abort.signal.aborted) {
      try {
        await connect();
        return;
      } catch (error) {
        if (abort.signal.aborted) return;
        if (++failures > KEEP_TRYING) return onLost("The connection to the server was lost.");
        await new Promise((resume) => setTimeout(resume, Math.min(4000, 150 * 2 ** failures)));
      }
    }
  })();
  return () => abort.abort();
}
