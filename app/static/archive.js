// The runs of this page, as they came, in the page's own memory: to be shown again without a server, a device or a model.

const MOST_RUNS = 12, MOST_KEPT_BYTES = 96e6;

class Archive {
  constructor() {
    this.runs = []; // oldest first: {job, at (a Date), messages (null if there was no room), bytes, over (its head)}
  }

  begin(job) {
    const run = { job, at: new Date(), messages: [], bytes: 0, over: null };
    this.runs.push(run);
    this.trim();
    return run;
  }

  // Keeps a message of a run, for as long as all of it is there and has room.
  add(run, head, body) {
    if (head.kind === "over") run.over = head;
    if (!run.messages) return;
    run.messages.push([head, body]);
    run.bytes += body.length + 300;
    if (head.seq !== run.messages.length - 1 || run.bytes > MOST_KEPT_BYTES) this.forget(run);
    this.trim();
  }

  forget(run) {
    run.messages = null;
    run.bytes = 0;
  }

  // Old runs go, but never the last good one: it is what a talk falls back to.
  trim() {
    const good = this.lastGood(), old = () => this.runs.slice(0, -1).filter((run) => run !== good);
    while (this.runs.length > MOST_RUNS && old().length) this.runs.splice(this.runs.indexOf(old()[0]), 1);
    while (this.runs.reduce((sum, run) => sum + run.bytes, 0) > MOST_KEPT_BYTES && old().some((run) => run.messages)) {
      this.forget(old().find((run) => run.messages));
    }
  }

  lastGood() {
    return this.runs.findLast((run) => run.messages && run.over?.status === "done");
  }
}

const timeOf = (run) => run.at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

// Calls onMessage(head, body) for every message of a run, each at its time after the first one, or paced = false, all of
// them at once. Returns what ends it.
function replayRun(messages, onMessage, paced = true) {
  const began = performance.now(), first = messages[0][0].at;
  let over = false;
  (async () => {
    for (const [head, body] of messages) {
      const rest = paced ? 1000 * (head.at - first) - (performance.now() - began) : 0;
      if (rest > 0) await new Promise((resume) => setTimeout(resume, rest));
      if (over) return;
      await onMessage(head, body);
    }
  })();
  return () => (over = true);
}
