// The bad network that other tests use is as bad as they say, and no worse.

import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { after, before, beforeEach, test } from "node:test";

import { Proxy } from "../support/proxy.mjs";

let echo, proxy;

before(async () => {
  echo = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    socket.pipe(socket);
  });
  await once(echo.listen(0, "127.0.0.1"), "listening");
  proxy = await Proxy.start(echo.address().port);
});

beforeEach(() => {
  proxy.cut();
  proxy.set();
});

after(async () => {
  await proxy.stop();
  echo.close();
});

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** A connection through it, which keeps what happens. */
async function open() {
  const socket = net.connect(proxy.port, "127.0.0.1");
  const seen = { text: "", socket };
  socket.on("data", (data) => (seen.text += data));
  socket.on("error", ({ code }) => (seen.error = code));
  socket.on("end", () => (seen.ended = true));
  seen.closed = new Promise((done) => socket.on("close", done));
  await Promise.race([new Promise((done) => socket.on("connect", done)), seen.closed]);
  return seen;
}

async function until(condition) {
  while (!condition()) await sleep(2); // the test has a time limit
}

test("a good one passes on everything, an end as well", { timeout: 5000 }, async () => {
  const seen = await open();
  const text = "all of it ".repeat(100_000);
  seen.socket.end(text);
  await seen.closed;
  assert.ok(seen.text === text && seen.ended && !seen.error);
  await until(() => proxy.open === 0);
});

test("a delay is each way's, and keeps the order", { timeout: 5000 }, async () => {
  const seen = await open();
  proxy.set({ delay: 60 });
  const begun = performance.now();
  for (const letter of "abc") seen.socket.write(letter);
  await sleep(5);
  proxy.set({ delay: 5 });
  seen.socket.write("d");
  await until(() => seen.text.length === 4);
  assert.equal(seen.text, "abcd");
  const took = performance.now() - begun;
  assert.ok(took > 60, `${took} ms`);
});

test("a slow line takes its time", { timeout: 5000 }, async () => {
  const seen = await open();
  proxy.set({ rate: 100_000 });
  const begun = performance.now();
  seen.socket.write("x".repeat(10_000));
  await until(() => seen.text.length === 10_000);
  const took = performance.now() - begun;
  assert.ok(took > 180, `${took} ms for 10 kB both ways at 100 kB/s`);
});

test("what does not get through waits, in either direction", { timeout: 5000 }, async () => {
  for (const network of [{ up: false }, { down: false }]) {
    const seen = await open();
    proxy.set(network);
    seen.socket.end("later");
    await sleep(30);
    assert.deepEqual([seen.text, seen.ended], ["", undefined]);
    proxy.set();
    await seen.closed;
    assert.deepEqual([seen.text, seen.ended], ["later", true]);
  }
});

test("what has vanished stays open, and new ones get no answer", { timeout: 5000 }, async () => {
  const seen = await open();
  proxy.vanish();
  const other = await open();
  for (const { socket } of [seen, other]) socket.write("hello?");
  await sleep(30);
  assert.deepEqual([seen.text, other.text, proxy.open], ["", "", 2]);
  proxy.set();
  await until(() => seen.text === "hello?");
  assert.equal(other.text, "");
});

test("a lost one stays lost, others are well", { timeout: 5000 }, async () => {
  const seen = await open();
  proxy.lose();
  const other = await open();
  for (const { socket } of [seen, other]) socket.write("hello?");
  await until(() => other.text === "hello?");
  assert.deepEqual([seen.text, seen.error, seen.ended], ["", undefined, undefined]);
});

test("a cut is a reset, a close an end, a refusal a reset at once", { timeout: 5000 }, async () => {
  const seen = await open();
  proxy.cut();
  await seen.closed;
  assert.equal(seen.error, "ECONNRESET");
  const other = await open();
  proxy.close();
  await other.closed;
  assert.deepEqual([other.ended, other.error], [true, undefined]);
  proxy.set({ fresh: "reset" });
  const third = await open();
  await third.closed;
  assert.equal(third.error, "ECONNRESET");
  assert.equal(proxy.open, 0);
});

test("it speaks for the server", { timeout: 5000 }, async () => {
  const seen = await open();
  seen.socket.write("a");
  await until(() => seen.text === "a");
  proxy.inject([98]);
  await until(() => seen.text === "ab");
});
