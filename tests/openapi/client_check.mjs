// What the client in examples/ must do against a real daemon. Run by test_javascript.py; prints the name of each check.

import assert from "node:assert/strict";
import { JobFailed, JobsvcClient, Problem } from "../../examples/client.mjs";

const { JOBSVC_URL: url, JOBSVC_TOKEN: token } = process.env;
const client = JobsvcClient.fromEnvironment();

/** A client of which `tamper(number, send)` answers the requests: number counts them from 1, send does what fetch does. */
function tampered(tamper) {
  let number = 0;
  return new JobsvcClient({
    url: `${url}/`,
    token,
    fetch: (target, init) => tamper(++number, () => fetch(target, init), target, init),
  });
}

async function all(generator) {
  const values = [];
  for await (const value of generator) values.push(value);
  return values;
}

/** A reply whose body breaks off behind `count` lines. */
function cut(reply, count) {
  const body = new ReadableStream({
    async start(controller) {
      let text = "";
      for await (const piece of reply.body) text += new TextDecoder().decode(piece);
      const kept = text.split("\n").slice(0, count).join("\n") + '\n{"seq":';
      controller.enqueue(new TextEncoder().encode(kept));
      setTimeout(() => controller.error(new TypeError("terminated")), 0);
    },
  });
  return new Response(body, { status: reply.status, headers: reply.headers });
}

const checks = {
  async "submit, wait, result"() {
    const job = await client.submit("echo", { x: { deep: [1, "zwei", null] } }, { labels: { who: "js" } });
    assert.match(job.id, /^[0-9a-f-]{36}$/);
    assert.equal((await client.wait(job.id)).state, "succeeded");
    assert.deepEqual(await client.result(job.id), { deep: [1, "zwei", null] });
  },

  async "submit and wait in one request"() {
    const job = await client.submit("echo", ["positional"], { wait: 30 });
    assert.deepEqual([job.done, job.result], [true, "positional"]);
  },

  async "a lost reply makes no second job"() {
    const ids = [];
    const shaky = tampered(async (number, send) => {
      const reply = await send();
      ids.push((await reply.clone().json()).id);
      if (number === 1) throw new TypeError("fetch failed");
      assert.equal(reply.status, 200);
      assert.equal(reply.headers.get("Idempotency-Replayed"), "true");
      return reply;
    });
    const job = await shaky.submit("echo", { x: 1 });
    assert.deepEqual(ids, [job.id, job.id]);
  },

  async "what the daemon calls safe is tried again, other refusals are not"() {
    const problem = { code: "overloaded", detail: "busy", status: 503, retry_safe: true, retry_after_s: 0.1 };
    const busy = tampered((number, send) =>
      number === 1 ? new Response(JSON.stringify(problem), { status: 503 }) : send(),
    );
    assert.equal((await busy.submit("echo", { x: 2 }, { wait: 30 })).result, 2);
    let asked = 0;
    const wrong = tampered((number, send) => ((asked = number), send()));
    await assert.rejects(wrong.submit("nope"), (error) => {
      assert.ok(error instanceof Problem);
      return error.code === "no_such_task" && error.status === 422;
    });
    assert.equal(asked, 1);
  },

  async "failures are told with their reason"() {
    const job = await client.submit("fail", { x: "luck" });
    await assert.rejects(client.result(job.id), (error) => {
      assert.ok(error instanceof JobFailed);
      assert.equal(error.job, job.id);
      return error.error.kind === "task_error" && error.error.message === "no luck";
    });
  },

  async "call gives the bare result, also when one wait is too short"() {
    assert.equal(await client.call("echo", { x: "called" }), "called");
    assert.equal(await client.call("wait", { seconds: 0.3 }, { wait: 0.05 }), "waited");
    await assert.rejects(client.call("fail", {}), JobFailed);
  },

  async "changes tell every revision to the last"() {
    const job = await client.submit("wait", { seconds: 0.2 });
    const states = (await all(client.changes(job.id))).map((row) => row.state);
    assert.equal(states.at(-1), "succeeded");
    assert.ok(states.length > 1, String(states));
  },

  async "events and items, in both forms"() {
    const job = await client.submit("words", { x: "one two three" });
    for (const form of ["ndjson", "sse"]) {
      const events = await all(client.events(job.id, { form }));
      assert.deepEqual([events[0].kind, events.at(-1).kind], ["job", "end"]);
      assert.equal(events.at(-1).data.state, "succeeded");
      const numbers = events.slice(0, -1).map((event) => event.seq);
      assert.deepEqual(numbers, Array.from(numbers, (_, index) => index + 1));
      const items = await all(client.items(job.id, "out", { form }));
      assert.deepEqual(items.map((item) => item.data), ["one", "two", "three"]);
      const some = await all(client.events(job.id, { form, kinds: ["item"] }));
      assert.deepEqual(some.map((event) => event.kind), ["item", "item", "item", "end"]);
    }
  },

  async "a broken stream is taken up where it broke"() {
    const job = await client.submit("words", { x: "a b c d e f" }, { wait: 30 });
    for (const form of ["ndjson", "sse"]) {
      const whole = await all(client.events(job.id, { form }));
      const places = [];
      const broken = tampered(async (number, send, target, init) => {
        places.push(init.headers["Last-Event-ID"] ?? new URL(target).searchParams.get("from"));
        const reply = await send();
        return number < 3 ? cut(reply, form === "sse" ? 8 : 2) : reply;
      });
      assert.deepEqual(await all(broken.events(job.id, { form })), whole);
      assert.deepEqual(places, form === "sse" ? ["1", "2", "4"] : ["1", "3", "5"]);
    }
  },

  async "many at once, with outcomes"() {
    const jobs = [{ task: "echo", args: { x: 1 } }, { task: "nope" }, { task: "fail", args: ["x"] }];
    const answers = await all(client.bulk(jobs, { follow: true }));
    assert.deepEqual(answers.slice(0, 3).map((answer) => answer.line), [1, 2, 3]);
    assert.equal(answers[1].problem.code, "no_such_task");
    const outcomes = Object.fromEntries(answers.slice(3).map((answer) => [answer.line, answer]));
    assert.deepEqual([outcomes[1].result, outcomes[3].error.kind], [1, "task_error"]);
    await assert.rejects(all(client.bulk(jobs, { atomic: true })), { code: "no_such_task" });
  },

  async "cancel what waits and what runs"() {
    const waiting = await client.submit("echo", {}, { delay_s: 3600 });
    assert.equal((await client.cancel(waiting.id)).state, "cancelled");
    await assert.rejects(client.cancel(waiting.id), { code: "conflict", status: 409 });
    const running = await client.submit("wait", { seconds: 600 });
    for await (const job of client.changes(running.id)) if (job.state === "running") break;
    await client.cancel(running.id, "deadline", 5);
    assert.equal((await client.wait(running.id)).state, "cancelled");
    const again = await client.retry(waiting.id);
    assert.equal(again.rerun_of, waiting.id);
    await client.remove(waiting.id);
    await assert.rejects(client.get(waiting.id), { status: 404 });
  },

  async "list by label over several pages"() {
    const run = String(Date.now());
    await all(client.bulk(Array.from({ length: 5 }, () => ({ task: "echo", labels: { run } }))));
    const rows = await all(client.list({ labels: { run }, limit: 2 }));
    assert.equal(new Set(rows.map((row) => row.id)).size, 5);
    assert.equal((await all(client.list({ labels: { run }, state: ["held"] }))).length, 0);
  },

  async "a wrong token is refused"() {
    await assert.rejects(new JobsvcClient({ url, token: "jobsvc_x.y" }).tasks(), { code: "unauthenticated" });
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log(`ok ${name}`);
}
