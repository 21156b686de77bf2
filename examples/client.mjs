// A client for jobsvc in JavaScript, written from its OpenAPI document alone. Needs node 18 or newer, nothing else.
//
// As a program it submits one job, shows its events as they come, and prints its result:
//
//     node examples/client.mjs TASK [ARGS]        ARGS is JSON: an object of names, or a list
//
// The daemon is found by JOBSVC_URL and JOBSVC_TOKEN, or in the folder JOBSVC_DATA_DIR by its endpoint.json and token.
// As a module it exports the class below; copy the file into your project.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const WAIT_S = 30; // of one long poll: below the time after which proxies cut
const MARGIN_S = 15; // more than that, and the daemon does not answer at all
const TRIES = 6;
const PAUSE_S = 0.2; // before the second try, then twice as long each time
const NDJSON = "application/x-ndjson";
const SSE = "text/event-stream";

/** A refusal: decide by `code`, show `message` to people. */
export class Problem extends Error {
  constructor(problem) {
    super(`${problem.code}: ${problem.detail}`);
    this.name = "Problem";
    this.problem = problem;
    this.code = problem.code;
    this.status = problem.status;
    this.retrySafe = problem.retry_safe;
    this.retryAfter = problem.retry_after_s;
  }
}

/** The job is done and has no result; `error` says why, as the job does. */
export class JobFailed extends Problem {
  constructor(problem) {
    super(problem);
    this.name = "JobFailed";
    this.job = problem.job;
    this.error = problem.error;
  }
}

/** Talks to one daemon. */
export class JobsvcClient {
  /**
   * @param {{url: string, token: string, fetch?: typeof fetch}} options the daemon's URL and a token; `fetch` stands in
   *     for node's own in tests and behind proxies.
   */
  constructor({ url, token, fetch = globalThis.fetch }) {
    this.url = url.replace(/\/+$/, "");
    this.token = token;
    this.fetch = fetch;
  }

  /** The client of this machine's daemon; see the top of the file. */
  static fromEnvironment(environment = process.env) {
    let { JOBSVC_URL: url, JOBSVC_TOKEN: token } = environment;
    const folder = environment.JOBSVC_DATA_DIR;
    if (folder !== undefined) {
      url ??= JSON.parse(readFileSync(join(folder, "endpoint.json"), "utf8")).url;
      token ??= readFileSync(join(folder, "token"), "utf8").trim();
    }
    if (!url || !token) throw new Error("set JOBSVC_URL and JOBSVC_TOKEN, or JOBSVC_DATA_DIR");
    return new JobsvcClient({ url, token });
  }

  // -- one job

  /**
   * Submit a job. It has a key, so that a reply that was lost on the way never makes a second job.
   *
   * @param {object|Array} args by name, or in order
   * @param {object} options fields of the submit beside task and args (queue, priority, delay_s, retries, labels, ...);
   *     `key`: one of your own; `wait`: seconds to wait for its end.
   * @returns the job; `done` tells whether it has ended
   */
  async submit(task, args = {}, { key = randomUUID(), wait, ...fields } = {}) {
    const headers = { "Idempotency-Key": key };
    if (wait !== undefined) headers.Prefer = `wait=${wait}`;
    return (await this.#json("POST", "/v1/jobs", { body: { task, args, ...fields }, headers, wait })).value;
  }

  /** The job as it is now, or with `wait` once it is done or after so many seconds. */
  async get(id, { wait } = {}) {
    return (await this.#json("GET", `/v1/jobs/${id}`, { query: { wait }, wait })).value;
  }

  /** The job once it is done, however long that takes. */
  async wait(id) {
    for (;;) {
      const job = await this.get(id, { wait: WAIT_S });
      if (job.done) return job;
    }
  }

  /** The job at each of its revisions, until it is done. */
  async *changes(id) {
    let known;
    for (;;) {
      const headers = known === undefined ? {} : { "If-None-Match": known };
      const query = known === undefined ? {} : { wait: WAIT_S };
      const reply = await this.#json("GET", `/v1/jobs/${id}`, { query, headers, wait: WAIT_S });
      if (reply.status === 304) continue;
      known = reply.headers.get("ETag");
      yield reply.value;
      if (reply.value.done) return;
    }
  }

  /** The result, once it is there. Throws JobFailed for every other end. */
  async result(id) {
    for (;;) {
      const query = { wait: WAIT_S };
      const reply = await this.#json("GET", `/v1/jobs/${id}/result`, { query, wait: WAIT_S });
      if (reply.status === 200) return reply.value;
    }
  }

  /** Submit and give the result, in one request where that is long enough. */
  async call(task, args = {}, { key = randomUUID(), wait = WAIT_S } = {}) {
    const headers = { "Idempotency-Key": key, Prefer: `wait=${wait}` };
    try {
      return (await this.#json("POST", `/v1/tasks/${task}/call`, { body: args, headers, wait })).value;
    } catch (error) {
      if (error.code !== "wait_over") throw error;
      return this.result(error.problem.job); // the job goes on
    }
  }

  /**
   * Ask the job to stop: `polite` only asks, `deadline` kills after `grace_s`, `now` kills.
   *
   * @returns the job; wait for its end to see what became of it
   */
  async cancel(id, mode = "polite", grace_s = undefined) {
    return (await this.#json("POST", `/v1/jobs/${id}/cancel`, { body: { mode, grace_s } })).value;
  }

  /** A new job like this one, which is done. */
  async retry(id) {
    return (await this.#json("POST", `/v1/jobs/${id}/retry`)).value;
  }

  /** Remove a job that is done. */
  async remove(id) {
    await this.#json("DELETE", `/v1/jobs/${id}`);
  }

  // -- streams

  /**
   * The events of a job from its first on (or from number `from`) to `end`, whose data is the final job. A connection
   * that breaks is taken up again where it broke.
   *
   * @param {{from?: number, form?: "ndjson"|"sse", kinds?: string[]}} options
   */
  async *events(id, { from = 1, form = "ndjson", kinds } = {}) {
    const query = { kinds: kinds === undefined ? undefined : [...new Set([...kinds, "end"])].join(",") };
    for await (const event of this.#resumed(`/v1/jobs/${id}/events`, { from, form, query })) {
      yield event;
      if (event.kind === "end") return;
    }
  }

  /** The items of one stream of a job to its end: {seq, epoch, data}, {restart: true} or {kind: "gap"}. */
  async *items(id, stream = "out", { from = 1, form = "ndjson" } = {}) {
    yield* this.#resumed(`/v1/jobs/${id}/streams/${stream}`, { from, form, query: {}, endless: false });
  }

  /** Lines of a stream, over as many connections as it takes; a clean end ends it where `endless` is false. */
  async *#resumed(path, { from, form, query, endless = true }) {
    let next = from;
    let failures = 0;
    for (;;) {
      const headers = { Accept: form === "sse" ? SSE : NDJSON };
      const place = form === "sse" && next > 1 ? {} : { from: next };
      if (form === "sse" && next > 1) headers["Last-Event-ID"] = String(next - 1);
      try {
        const reply = await this.#send("GET", path, { query: { ...query, ...place }, headers });
        if (reply.status === 204) return; // it is done, and all of it was read
        for await (const line of form === "sse" ? messages(reply.body) : lines(reply.body)) {
          failures = 0;
          // gap, restart and end carry the number of another one
          if (line.restart === undefined && line.kind !== "gap" && line.kind !== "end") next = line.seq + 1;
          yield line;
        }
        if (!endless) return;
      } catch (error) {
        if (error instanceof Problem || ++failures >= TRIES) throw error;
      }
      await pause(PAUSE_S * 1000);
    }
  }

  // -- many

  /**
   * Submit many jobs in one request.
   *
   * @param {Iterable<object>} jobs {task, args, ...}; those without a key get one, so that all may be sent again
   * @param {{follow?: boolean, atomic?: boolean}} options `follow`: outcomes come behind the answers
   * @returns {AsyncGenerator<object>} {line, id} or {line, problem} for each; then {line, id, state, result, error}
   */
  async *bulk(jobs, { follow = false, atomic = false } = {}) {
    const body = Array.from(jobs, (job) => JSON.stringify({ key: randomUUID(), ...job }) + "\n").join("");
    const query = { follow: follow ? "out" : undefined, atomic: atomic ? 1 : undefined };
    const headers = { "Content-Type": NDJSON };
    const reply = await this.#send("POST", "/v1/jobs/bulk", { query, headers, raw: body, again: true });
    yield* lines(reply.body);
  }

  /** All jobs that fit: {state: ["failed"], task, labels: {customer: "acme"}, ...}; rows without args and result. */
  async *list({ state, labels = {}, ...filter } = {}) {
    const query = { ...filter, state: state?.join(",") };
    for (const [key, value] of Object.entries(labels)) query[`label.${key}`] = value;
    for (;;) {
      const page = (await this.#json("GET", "/v1/jobs", { query })).value;
      yield* page.jobs;
      if (page.next === null) return;
      query.cursor = page.next;
    }
  }

  /** The tasks that can be submitted. */
  async tasks() {
    return (await this.#json("GET", "/v1/tasks")).value.tasks;
  }

  // -- requests

  async #json(method, path, options = {}) {
    const again = method === "GET" || options.headers?.["Idempotency-Key"] !== undefined;
    const timeout = AbortSignal.timeout(((options.wait ?? 0) + MARGIN_S) * 1000);
    const reply = await this.#send(method, path, { ...options, again, signal: timeout });
    const text = await reply.text();
    return { status: reply.status, headers: reply.headers, value: text === "" ? undefined : JSON.parse(text) };
  }

  /**
   * One request, and again where that is safe: the daemon says so, or (with `again`) when the connection broke.
   *
   * @returns {Promise<Response>} a reply that is no refusal
   */
  async #send(method, path, { query = {}, headers = {}, body, raw, again = false, signal } = {}) {
    const url = new URL(this.url + path);
    for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, value);
    const init = { method, signal, headers: { Authorization: `Bearer ${this.token}`, ...headers } };
    if (raw !== undefined) init.body = raw;
    if (body !== undefined) {
      init.body = JSON.stringify(body);
      init.headers["Content-Type"] = "application/json";
    }
    for (let tries = 1; ; tries++) {
      let wait = PAUSE_S * 2 ** (tries - 1);
      try {
        const reply = await this.fetch(url, init);
        if (reply.status < 400) return reply;
        throw refusal(await reply.json());
      } catch (error) {
        const broken = error instanceof TypeError; // how fetch says that there was no whole reply
        if (tries >= TRIES || !(broken ? again : error.retrySafe)) throw error;
        wait = Math.max(wait, error.retryAfter ?? 0);
      }
      await pause(wait * 1000);
    }
  }
}

function refusal(problem) {
  return problem.code === "job_failed" ? new JobFailed(problem) : new Problem(problem);
}

/** JSON values of a body of lines; empty lines are heartbeats. A body that breaks off throws. */
async function* lines(body) {
  for await (const line of textLines(body)) if (line !== "") yield JSON.parse(line);
}

/** The data of Server-Sent Events; comments are heartbeats, and `reconnect` only says that the daemon restarts. */
async function* messages(body) {
  let event = "message";
  let data = [];
  for await (const line of textLines(body)) {
    if (line === "") {
      if (data.length > 0 && event !== "reconnect") yield JSON.parse(data.join("\n"));
      event = "message";
      data = [];
    } else if (line.startsWith("event: ")) event = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
}

/** Complete lines only: what follows the last newline was cut off. */
async function* textLines(body) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const piece of body) {
    const parts = (rest + decoder.decode(piece, { stream: true })).split("\n");
    rest = parts.pop();
    yield* parts;
  }
}

async function main([task, args = "{}"]) {
  const client = JobsvcClient.fromEnvironment();
  if (task === undefined) {
    console.log("usage: node client.mjs TASK [ARGS]; the tasks are:");
    for (const { name, doc } of await client.tasks()) console.log(`  ${name}  ${doc.split("\n")[0]}`);
    return;
  }
  const job = await client.submit(task, JSON.parse(args));
  console.log(`job ${job.id}`);
  for await (const event of client.events(job.id)) {
    if (event.kind === "item") console.log(`  ${event.stream} ${event.n}: ${JSON.stringify(event.data)}`);
    else if (event.kind === "log") console.log(`  ${event.data.level}: ${event.data.message}`);
    else if (event.kind === "state") console.log(`  ${event.data.state}`);
  }
  console.log(`result: ${JSON.stringify(await client.result(job.id))}`);
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  main(process.argv.slice(2)).catch((error) => {
    console.error(error.cause === undefined ? String(error) : `${error}: ${error.cause.message}`);
    process.exitCode = 1;
  });
}
