// How wschat.js reads on and repeats, step by step: a server played by the test.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { WSChat, applyPresence, backoff, diffPresence, shouldReconnect } from "flask-wschat";

/** What a browser has and node has not. */
class Socket {
  static last;
  sent = [];

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    Socket.last = this;
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code = 1000, reason = "") {
    queueMicrotask(() => this.onclose({ code, reason }));
  }

  says(message) {
    this.onmessage({ data: JSON.stringify(message) });
    return settled();
  }

  /** Answer the oldest request of a type that has no answer yet. */
  answers(type, result) {
    const index = this.sent.findIndex((request) => request.type === type);
    assert.notEqual(index, -1, `no ${type} among ${JSON.stringify(this.sent)}`);
    const [request] = this.sent.splice(index, 1);
    this.says({ type: "reply", ref: request.ref, ok: !result.error, ...result });
    return settled().then(() => request);
  }

  refuses(type, code, more = {}) {
    return this.answers(type, { error: { code, message: code, ...more } });
  }
}

const reported = [];
const heard = new Set(); // handlers of the window's events
const asked = []; // by fetch
let answer = () => Promise.reject(new TypeError("no network"));
const happens = (type) => [...heard].forEach((handler) => handler({ type }));
Object.defineProperty(globalThis, "navigator", { value: { onLine: true } });
Object.assign(globalThis, {
  WebSocket: Socket,
  location: { href: "http://localhost/page", origin: "http://localhost" },
  document: { hidden: false },
  addEventListener: (type, handler) => heard.add(handler),
  removeEventListener: (type, handler) => heard.delete(handler),
  fetch: (url) => {
    asked.push(String(url));
    return answer();
  },
  reportError: (error) => reported.push(error),
});
Math.random = () => 0; // no waiting

const later = globalThis.setTimeout;
const later_no_more = globalThis.clearTimeout;
const now = performance.now;

/** A few turns of the loop: until everybody waits for the server or the test. */
async function settled() {
  for (let turn = 0; turn < 4; turn++) await new Promise((done) => later(done));
}

/** Time that passes only where a test says so; back to the real one with the test. */
class Clock {
  #now = 1000;
  #timers = new Map();
  #last = 0;

  constructor() {
    performance.now = () => this.#now;
    globalThis.setTimeout = (call, ms = 0, ...given) => {
      this.#timers.set(++this.#last, { at: this.#now + ms, run: () => call(...given) });
      return this.#last;
    };
    globalThis.clearTimeout = (timer) => this.#timers.delete(timer);
  }

  async pass(ms) {
    const end = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= end);
      if (!due.length) break;
      const [timer, { at, run }] = due.reduce((a, b) => (b[1].at < a[1].at ? b : a));
      this.#timers.delete(timer);
      this.#now = Math.max(this.#now, at);
      run();
      await settled();
    }
    this.#now = end;
  }
}

const chats = [];
const connect = (...given) => chats[chats.push(new WSChat(...given)) - 1];
afterEach(() => {
  chats.splice(0).forEach((chat) => chat.close());
  Object.assign(globalThis, { setTimeout: later, clearTimeout: later_no_more });
  Object.assign(performance, { now });
  document.hidden = false;
  asked.length = 0;
});

const message = (seq, data = `m${seq}`, room = "Lobby") => {
  return { type: "message", room, seq, from: "ben", data, at: 1, mid: `b${seq}` };
};

const hello = (limits = {}, ping = 25) => {
  return { type: "hello", protocol: 1, user: "ann", ping, limits };
};

const page = (seq, numbers = [], fields = {}) => {
  const messages = numbers.map((number) => message(number));
  const rest = { epoch: "e1", recovered: false, more: false, present: ["ann"] };
  return { seq, messages, ...rest, ...fields };
};

/** Open a connection, and again after each `lose`. */
async function open() {
  const socket = Socket.last;
  socket.onopen();
  await settled();
  return socket;
}

async function lose(socket, code = 1006) {
  socket.onclose({ code, reason: "" });
  await settled();
  return open();
}

async function joined(options = {}) {
  const chat = connect("/chat");
  const seen = [];
  const people = [];
  const room = chat.join("Lobby", {
    onMessage: ({ seq, data }) => seen.push(seq || data),
    onReset: (messages) => seen.push(messages.map(({ seq }) => seq)),
    onPresence: (present) => people.push(present.join(" ")),
    ...options,
  });
  const socket = await open();
  return { chat, people, room, seen, socket };
}

test("a room is joined once open, and shows the newest page", async () => {
  const { room, seen, socket } = await joined();
  assert.deepEqual(socket.sent, [{ type: "join", ref: 1, room: "Lobby" }]);
  await socket.says(message(6)); // not read on yet
  await socket.answers("join", page(7, [6, 7]));
  await socket.says(message(8));
  assert.deepEqual(seen, [[6, 7], 8]);
  assert.deepEqual([room.name, room.seq, room.epoch], ["Lobby", 8, "e1"]);
});

test("it reads on after a reconnect, page after page", async () => {
  const { seen, socket } = await joined();
  await socket.answers("join", page(2, [1, 2]));
  const second = await lose(socket);
  const asked = await second.answers(
    "join",
    page(6, [3, 4], { recovered: true, more: true }),
  );
  assert.deepEqual([asked.after, asked.epoch], [2, "e1"]);
  const next = await second.answers("join", page(6, [5, 6], { recovered: true }));
  assert.deepEqual([next.after, next.epoch], [4, "e1"]);
  await second.says(message(7));
  assert.deepEqual(seen, [[1, 2], 3, 4, 5, 6, 7]);
  assert.equal(second.sent.length, 0);
});

test("a connection lost while reading goes on where it was", async () => {
  const { seen, socket } = await joined();
  await socket.answers("join", page(1, [1]));
  const second = await lose(socket);
  await second.answers("join", page(4, [2], { recovered: true, more: true }));
  const third = await lose(second);
  assert.equal(third.sent.length, 1);
  const asked = await third.answers("join", page(4, [3, 4], { recovered: true }));
  assert.equal(asked.after, 2);
  assert.deepEqual(seen, [[1], 2, 3, 4]);
});

test("nothing is shown twice, and a hole is filled first", async () => {
  const { seen, socket } = await joined();
  await socket.answers("join", page(2, [2]));
  for (const seq of [2, 1, 3, 3, 6, 7]) await socket.says(message(seq));
  assert.equal(socket.sent.length, 1); // asked once for what is missing
  await socket.answers("join", page(7, [4, 5, 6, 7], { recovered: true }));
  assert.deepEqual(seen, [[2], 3, 4, 5, 6, 7]);
});

test("a gap reads on, and what cannot be had is a reset", async () => {
  const { room, seen, socket } = await joined();
  await socket.answers("join", page(2, [2]));
  await socket.says({ type: "gap", room: "Lobby" });
  await socket.answers("join", page(1, [1], { epoch: "e2" }));
  await socket.says(message(2));
  assert.deepEqual(seen, [[2], [1], 2]);
  assert.equal(room.epoch, "e2");
});

test("after a gap of many, each waits a random part of the spread", async () => {
  const { seen, socket } = await joined();
  await socket.answers("join", page(2, [2]));
  const clock = new Clock();
  const { random } = Math;
  Math.random = () => 0.5;
  await socket.says({ type: "gap", room: "Lobby", spread: 2 });
  Math.random = random;
  await clock.pass(999);
  assert.equal(socket.sent.length, 0);
  await clock.pass(1);
  await socket.answers("join", page(3, [3], { recovered: true }));
  assert.deepEqual(seen, [[2], 3]);
});

test("the last message's tag goes with its number", async () => {
  const { room, socket } = await joined();
  await socket.answers("join", page(2, [2], { tag: "two" }));
  const second = await lose(socket);
  let asked = await second.answers("join", page(2, [], { recovered: true, tag: "two" }));
  assert.deepEqual([asked.after, asked.tag], [2, "two"]);
  await second.says({ ...message(3), tag: "three" });
  assert.deepEqual([room.seq, room.tag], [3, "three"]);
  const third = await lose(second);
  asked = await third.answers("join", page(1, [1], { epoch: "e2", tag: "" }));
  assert.equal(asked.tag, "three");
  assert.equal(room.tag, undefined);
});

test("without onReset the page's messages come one by one", async () => {
  const { seen, socket } = await joined({ onReset: undefined });
  await socket.answers("join", page(7, [6, 7]));
  assert.deepEqual(seen, [6, 7]);
});

test("what is not kept has no number", async () => {
  const { seen, socket } = await joined();
  await socket.answers("join", page(2, [2]));
  for (const seq of [0, 3, 0]) await socket.says(message(seq, "typing"));
  assert.deepEqual(seen, [[2], "typing", 3, "typing"]);
});

test("presence follows", async () => {
  const { people, room, socket } = await joined();
  await socket.answers("join", page(0));
  const change = { type: "presence", room: "Lobby", joined: ["Ben"], left: [] };
  await socket.says(change);
  await socket.says({ ...change, joined: [], left: ["ann"] });
  assert.deepEqual(people, ["ann", "Ben ann", "Ben"]);
  assert.deepEqual(room.present, ["Ben"]);
  await socket.says({ type: "presence", room: "Lobby", count: 101 });
  assert.deepEqual([room.present, room.count], [[], 101]);
  const few = ["Ben", "Cy"];
  await socket.says({ type: "presence", room: "Lobby", count: 2, present: few });
  assert.deepEqual([room.present, room.count], [few, 2]);
});

test("an event of the application's may have any fields", async () => {
  const { chat, people, room, socket } = await joined();
  await socket.answers("join", page(0));
  const seen = [];
  room.on("guests", ({ joined }) => seen.push(joined));
  for (const joined of [true, "ben", ["ben"]]) {
    await socket.says({ type: "guests", room: "Lobby", joined, seq: 9, id: "x" });
  }
  assert.deepEqual(seen, [true, "ben", ["ben"]]);
  assert.deepEqual([people, room.present, chat.state], [["ann"], ["ann"], "open"]);
});

test("what was taken back is told", async () => {
  const gone = [];
  const { seen, socket } = await joined({ onDeleted: (seq) => gone.push(seq) });
  await socket.answers("join", page(2, [1, 2]));
  await socket.says({ type: "deleted", room: "Lobby", seq: 1 });
  await socket.says(message(3));
  assert.deepEqual([seen, gone], [[[1, 2], 3], [1]]);
});

const stream = (id, n, text) => {
  return { type: "stream", room: "Lobby", id, from: "bot", at: 1, n, text };
};
const append = (id, n, text) => ({ type: "append", room: "Lobby", id, n, text });

/** Read a room in which messages grow; return what its handlers were told. */
async function watch(first = []) {
  const told = [];
  const chat = connect("/chat");
  const room = chat.join("Lobby", {
    onStream: ({ id, n, text }, piece) => told.push([id, n, text, piece]),
    onDiscard: (id, reason) => told.push([id, reason]),
    onMessage: ({ mid, data }) => told.push([mid, data]),
    onReset: (messages) => told.push(messages.map(({ mid }) => mid)),
  });
  const socket = await open();
  await socket.says(hello());
  await socket.answers("join", page(0, [], { streams: first }));
  told.shift(); // the reset
  return { chat, room, socket, told };
}

test("a message grows, and is one in the end", async () => {
  const { socket, told, room } = await watch();
  await socket.says(stream("s", 0, ""));
  await socket.says(append("s", 1, "Hel"));
  await socket.says(append("s", 2, "lo"));
  assert.equal(room.streams.get("s").text, "Hello");
  await socket.says({ ...message(1, "Hello"), mid: "s", from: "bot" });
  assert.equal(room.streams.size, 0);
  const steps = [["s", 0, "", ""], ["s", 1, "Hel", "Hel"], ["s", 2, "Hello", "lo"], ["s", "Hello"]];
  assert.deepEqual(told, steps);
  await socket.says(stream("t", 0, ""));
  await socket.says({ type: "discard", room: "Lobby", id: "t", reason: "the writer failed" });
  await socket.says({ type: "discard", room: "Lobby", id: "t", reason: "again" });
  assert.deepEqual(told.slice(4), [["t", 0, "", ""], ["t", "the writer failed"]]);
});

test("what another says under its id ends nothing", async () => {
  const { socket, room } = await watch([stream("s", 1, "a")]);
  await socket.says({ ...message(1, "no"), mid: "s", from: "mallory" });
  await socket.says(append("s", 2, "b"));
  assert.equal(room.streams.get("s").text, "ab");
  assert.equal(socket.sent.filter(({ type }) => type === "stream").length, 0);
  await socket.says({ ...message(2, "ab"), mid: "s", from: "bot" });
  assert.equal(room.streams.size, 0);
});

test("who comes in the middle has all of it, and nothing twice", async () => {
  const { socket, told } = await watch([stream("s", 2, "Hel")]);
  await socket.says(append("s", 2, "el"));
  await socket.says(append("s", 3, "lo"));
  assert.deepEqual(told, [["s", 2, "Hel", "Hel"], ["s", 3, "Hello", "lo"]]);
});

test("a missing piece is asked for once", async () => {
  const { socket, told } = await watch([stream("s", 1, "a")]);
  await socket.says(append("s", 3, "c"));
  await socket.says(append("s", 4, "d"));
  await socket.says(append("new", 7, "x"));
  const asked = socket.sent.filter(({ type }) => type === "stream");
  assert.deepEqual(asked.map(({ id, room }) => [id, room]), [["s", "Lobby"], ["new", "Lobby"]]);
  await socket.answers("stream", { ...stream("s", 4, "abcd"), type: "reply" });
  await socket.refuses("stream", "unknown_stream");
  await socket.says(append("s", 5, "e"));
  assert.deepEqual(told.slice(1), [["s", 4, "abcd", "abcd"], ["s", 5, "abcde", "e"]]);
  await socket.says(append("new", 8, "y")); // it may be known by now
  assert.equal(socket.sent.filter(({ type }) => type === "stream").length, 1);
});

test("after a reconnect what grows is as the server says", async () => {
  const { socket, told, room } = await watch([stream("s", 1, "a"), stream("t", 1, "b")]);
  const again = await lose(socket);
  await again.says(hello());
  const messages = [{ ...message(1, "ab"), mid: "t", from: "bot" }];
  const fields = { recovered: true, messages, streams: [stream("u", 1, "x")] };
  await again.answers("join", { ...page(1), ...fields });
  assert.deepEqual(told.slice(2), [["t", "ab"], ["s", ""], ["u", 1, "x", "x"]]);
  assert.deepEqual([...room.streams.keys()], ["u"]);
});

test("what grows can be stopped, in a room and in the inbox", async () => {
  const { chat, socket, room } = await watch([stream("s", 1, "a")]);
  const inbox = chat.inbox();
  const stopped = room.stop("s");
  const refused = assert.rejects(inbox.stop("x"), { code: "unknown_stream" });
  const request = await socket.answers("stop", {});
  assert.deepEqual([request.room, request.id], ["Lobby", "s"]);
  assert.ok((await stopped).ok);
  const other = await socket.refuses("stop", "unknown_stream");
  assert.deepEqual([other.room, other.id], [undefined, "x"]);
  await refused;
});

test("a handler that fails loses nothing", async () => {
  const { room, socket } = await joined({
    onMessage() {
      throw new Error("the page's own");
    },
  });
  await socket.answers("join", page(0));
  await socket.says(message(1));
  await socket.says(message(2));
  assert.equal(room.seq, 2);
  assert.equal(reported.splice(0).length, 2);
});

test("a refused join is told once; one that may work later is repeated", async () => {
  const errors = [];
  const { chat, seen, socket } = await joined({
    onError: (error) => errors.push(error.code),
  });
  await socket.says(hello({ rate: { per_second: 1e4, burst: 9 } }));
  await socket.refuses("join", "unavailable");
  await socket.refuses("join", "rate_limited", { retry_after: 0.001 });
  await settled();
  await socket.answers("join", page(0));
  chat.join("Cellar", { onError: (error) => errors.push(error.code) });
  await socket.refuses("join", "forbidden");
  assert.deepEqual(errors, ["forbidden"]);
  const second = await lose(socket);
  assert.deepEqual(second.sent.map(({ room }) => room), ["Lobby"]);
  assert.deepEqual(seen, [[]]);
});

test("a room that is left is left for good", async () => {
  const { room, seen, socket } = await joined();
  await socket.answers("join", page(0));
  room.leave();
  await socket.says(message(1));
  await socket.answers("leave", {});
  const second = await lose(socket);
  assert.deepEqual(second.sent, []);
  assert.deepEqual(seen, [[]]);
});

test("a room can go on where another page was", async () => {
  const { seen, socket } = await joined({ seq: 3, epoch: "e1" });
  const asked = await socket.answers("join", page(4, [4], { recovered: true }));
  assert.deepEqual([asked.after, asked.epoch], [3, "e1"]);
  assert.deepEqual(seen, [4]);
});

test("what is said is repeated with the same mid until it is stored", async () => {
  const { room, socket } = await joined();
  await socket.answers("join", page(0));
  const said = room.say({ text: "hi" });
  await settled();
  const first = socket.sent.at(-1);
  assert.deepEqual([first.room, first.data], ["Lobby", { text: "hi" }]);
  const second = await lose(socket);
  assert.deepEqual(second.sent.map(({ type }) => type), ["join", "say"]);
  await second.refuses("say", "not_joined"); // its join may be repeated, too
  await second.refuses("say", "unavailable");
  const last = await second.answers("say", { seq: 5, at: 1 });
  assert.equal(last.mid, first.mid);
  assert.equal((await said).seq, 5);
});

test("a connection that does not answer is taken for lost", async () => {
  const { room, socket } = await joined();
  await socket.answers("join", page(0));
  globalThis.setTimeout = (call, ms, ...given) => {
    if (ms !== 10_000) return later(call, ms, ...given);
    globalThis.setTimeout = later; // the time for an answer is over at once
    return later(call, 0, ...given);
  };
  const said = room.say("hi");
  await settled();
  assert.notEqual(Socket.last, socket);
  const second = await open();
  await second.answers("join", page(0));
  await second.answers("say", { seq: 1, at: 1 });
  assert.equal((await said).seq, 1);
});

test("messages to one place are sent in order, without waiting for answers", async () => {
  const { chat, room, socket } = await joined();
  await socket.answers("join", page(0));
  const all = [room.say("a"), room.say("b"), chat.tell("ben", "c"), room.say("d")];
  await settled();
  const sent = socket.sent.map(({ data, prev }) => [data, prev]);
  const [a, b] = all.map(({ mid }) => mid);
  assert.deepEqual(sent, [["a", undefined], ["b", a], ["c", undefined], ["d", b]]);
  assert.deepEqual(socket.sent.map(({ mid }) => mid), all.map(({ mid }) => mid));
  const refused = assert.rejects(all[0], { code: "forbidden" });
  await socket.refuses("say", "forbidden");
  await refused;
  await socket.refuses("say", "out_of_order"); // b, as a is not stored
  await socket.refuses("say", "out_of_order"); // d
  const again = socket.sent.splice(1);
  assert.deepEqual(again.map(({ data, prev }) => [data, prev]), [["b", undefined], ["d", b]]);
  await socket.says({ type: "reply", ref: again[0].ref, ok: true, seq: 1, at: 1 });
  await socket.says({ type: "reply", ref: again[1].ref, ok: true, seq: 2, at: 1 });
  const c = await socket.answers("tell", { seq: 1, at: 1 });
  assert.deepEqual([c.data, c.to], ["c", "ben"]);
  const stored = await Promise.all(all.slice(1));
  assert.deepEqual(stored.map(({ seq }) => seq), [1, 1, 2]);
  assert.deepEqual(chat.waiting, []);
});

test("what no server would take is not sent", async () => {
  const { chat, socket } = await joined();
  await socket.says({ type: "hello", protocol: 1, limits: { message: 1000 } });
  await assert.rejects(chat.say("Lobby", "x".repeat(1000)), { code: "too_big" });
  const many = Array.from({ length: 3 }, () => chat.say("Lobby", "x".repeat(4e5)));
  for (const { reason } of await Promise.allSettled(many)) {
    assert.match(reason.code, /too_big|full/);
  }
  assert.equal(chat.hello.protocol, 1);
});

test("a room that no server would take ends no connection, time and again", async () => {
  const chat = connect("/chat");
  const socket = await open();
  await socket.says(hello({ message: 1000 }));
  const errors = [];
  const onError = ({ code }) => errors.push(code);
  chat.join("x".repeat(1000), { onError });
  await settled();
  assert.deepEqual([errors, socket.sent], [["too_big"], []]);
  const asked = chat.poll("p".repeat(1000)).get();
  await assert.rejects(asked, { code: "too_big" });
});

test("the inbox is read like a room", async () => {
  const chat = connect("/chat");
  const seen = [];
  const inbox = chat.inbox({ onMessage: ({ data }) => seen.push(data) });
  const socket = await open();
  assert.deepEqual(socket.sent, [{ type: "inbox", ref: 1 }]);
  await socket.answers("inbox", { ...page(1), messages: [], present: undefined });
  const direct = { ...message(2, "psst"), type: "direct", room: undefined };
  await socket.says(direct);
  await socket.says({ type: "gap", room: null });
  const more = { ...direct, seq: 3, data: "more" };
  const asked = await socket.answers("inbox", {
    ...page(3, [], { recovered: true }),
    messages: [more],
  });
  assert.deepEqual([asked.after, asked.epoch], [2, "e1"]);
  assert.deepEqual(seen, ["psst", "more"]);
  assert.equal(inbox.name, null);
});

test("after a final close nothing is repeated, and who waits is told", async () => {
  const { chat, room, socket } = await joined();
  await socket.answers("join", page(0));
  const said = [room.say("a"), room.say("b")];
  await settled();
  socket.onclose({ code: 4001, reason: "logged out" });
  for (const one of said) await assert.rejects(one, { code: "disconnected" });
  assert.equal(chat.state, "closed");
  await assert.rejects(room.say("c"), { code: "disconnected" });
});

test("a subprotocol is offered only where asked for", () => {
  connect("/chat");
  assert.equal(Socket.last.protocols, undefined);
  connect("/chat", { protocols: ["wschat.v1.json"] });
  assert.deepEqual(Socket.last.protocols, ["wschat.v1.json"]);
  assert.equal(Socket.last.url, "ws://localhost/chat");
});

test("the codes after which it comes back", () => {
  for (const code of [1000, 1008, 4000, 4499]) assert.ok(!shouldReconnect(code));
  for (const code of [1001, 1006, 1009, 1011, 1012, 1013, 4500]) {
    assert.ok(shouldReconnect(code));
  }
  assert.equal(backoff(0, () => 1), 500);
  assert.equal(backoff(20, () => 1), 10_000);
});

// ---- is anybody there? --------------------------------------------------------------

const pings = ({ sent }) => sent.filter(({ type }) => type === "ping").length;

/** A chat that has said hello, in a time of its own. */
async function greeted(url = "/chat") {
  const clock = new Clock();
  const chat = connect(url);
  const socket = await open();
  await socket.says(hello());
  return { chat, clock, socket };
}

test("a network that is dead is known within ten seconds in view", async () => {
  const { chat, clock, socket } = await greeted();
  await clock.pass(4900);
  assert.equal(pings(socket), 0);
  await clock.pass(200);
  assert.equal(pings(socket), 1);
  assert.equal(chat.state, "open");
  await clock.pass(4000);
  assert.equal(chat.state, "reconnecting");
  await clock.pass(500);
  assert.notEqual(Socket.last, socket); // it tries again at once
});

test("a hidden page asks seldom, and knows within forty seconds", async () => {
  const { chat, clock, socket } = await greeted();
  document.hidden = true;
  await clock.pass(24_900);
  assert.equal(pings(socket), 0);
  await clock.pass(200);
  assert.equal(pings(socket), 1);
  await clock.pass(4000);
  assert.equal(chat.state, "reconnecting");
});

test("whatever comes is a sign of life, and nobody asks then", async () => {
  const { chat, clock, socket } = await greeted();
  for (let n = 0; n < 20; n++) {
    await clock.pass(4900);
    await socket.says({ type: "tally" });
  }
  assert.equal(pings(socket), 0);
  await clock.pass(5500);
  await socket.answers("ping", {});
  await clock.pass(5500);
  await socket.refuses("ping", "unknown_type"); // an older server is alive, too
  await clock.pass(5000);
  assert.equal(chat.state, "open");
});

for (const type of ["visibilitychange", "pageshow", "online"]) {
  test(`the connection is tried at ${type}`, async () => {
    const { chat, clock, socket } = await greeted();
    document.hidden = true;
    if (type === "visibilitychange") happens(type);
    assert.equal(pings(socket), 0);
    document.hidden = false;
    happens(type);
    happens(type);
    assert.equal(pings(socket), 1);
    await clock.pass(4100);
    assert.equal(chat.state, "reconnecting");
  });
}

test("an unanswered request is a reason for doubt, an answered doubt is none", async () => {
  const { chat, clock, socket } = await greeted();
  const slow = chat.request("slow", {}, { timeout: 3000 });
  await Promise.all([assert.rejects(slow, { code: "timeout" }), clock.pass(3100)]);
  assert.equal(pings(socket), 1);
  await socket.answers("ping", {});
  const again = chat.request("slow", {}, { timeout: 3000 });
  await Promise.all([assert.rejects(again, { code: "timeout" }), clock.pass(3100)]);
  assert.equal(chat.state, "open");
  await clock.pass(4100);
  assert.equal(chat.state, "reconnecting");
});

test("offline is believed at once, but not of this machine", async () => {
  const near = await greeted();
  happens("offline");
  assert.equal(near.chat.state, "open");
  near.chat.close();
  const far = await greeted("ws://chat.example/chat");
  navigator.onLine = false;
  happens("offline");
  assert.equal(far.chat.state, "reconnecting");
  await far.clock.pass(60_000);
  assert.equal(Socket.last, far.socket); // it waits for the network
  navigator.onLine = true;
  happens("online");
  await far.clock.pass(500);
  assert.notEqual(Socket.last, far.socket);
});

test("a slow line gets more and more time, so that it gets through", async () => {
  const { chat, clock, socket } = await greeted();
  await clock.pass(10_100);
  assert.equal(chat.state, "reconnecting");
  await clock.pass(500);
  const second = await open();
  await second.says(hello());
  await clock.pass(7900);
  assert.equal(chat.state, "open");
  await second.answers("ping", {});
  await clock.pass(5000 + 7900);
  assert.equal(chat.state, "open");
  await second.answers("ping", {});
  assert.equal(pings(socket), 1);
});

test("a network that dies again and again is known as soon each time", async () => {
  const { chat, clock } = await greeted();
  for (let time = 0; time < 5; time++) {
    await clock.pass(10_050);
    assert.equal(chat.state, "reconnecting");
    await clock.pass(10);
    const socket = await open();
    await socket.says(hello());
    await socket.answers("ping", {});
    for (let n = 0; n < 5; n++) {
      await clock.pass(1000); // so much is said that nobody asks
      await socket.says({ type: "tally" });
    }
  }
});

test("what was under way before it was asked does not make a line fast", async () => {
  const { chat, clock } = await greeted();
  await clock.pass(10_500); // no answer within 4 s
  const second = await open();
  await second.says(hello());
  await clock.pass(5900);
  await second.answers("ping", {});
  for (let n = 0; n < 5; n++) {
    await clock.pass(5100);
    assert.equal(pings(second), 1);
    await second.says({ type: "tally" });
    await clock.pass(4900); // 5 s after the question
    await second.answers("ping", {});
    await clock.pass(5100);
    await clock.pass(4900);
    await second.answers("ping", {});
    assert.equal(chat.state, "open");
  }
});

test("a route's words are no hello", async () => {
  const clock = new Clock();
  const chat = connect("/echo");
  const socket = await open();
  await socket.says("welcome");
  await socket.says(hello({}, 1));
  await clock.pass(30_000);
  assert.deepEqual(socket.sent, []);
  assert.equal(chat.hello, undefined);
});

test("a route of one's own is not asked", async () => {
  const clock = new Clock();
  const chat = connect("/echo");
  const socket = await open();
  await clock.pass(100_000);
  happens("online");
  assert.deepEqual(socket.sent, []);
  assert.equal(chat.state, "open");
});

// ---- as fast as the server takes it -------------------------------------------------

/** Answer joins as the server does: with its bucket, and its patience. */
async function serve(socket, { per_second, burst }, clock, rounds, others = 0) {
  let [left, refused, most] = [burst, 0, 0];
  const [rooms, gone] = [new Set(), new Set()];
  for (let round = 0; round < rounds; round++) {
    await clock.pass(100);
    left = Math.min(burst, left + per_second / 10);
    left -= Math.min(left, others / 10); // what other tabs use
    for (const { ref, room, type } of socket.sent.splice(0)) {
      const ok = left >= 1;
      if (ok) {
        left -= 1;
        if (type === "join") rooms.add(room);
        if (type === "leave") gone.add(room);
        refused = Math.max(0, refused - 1);
      } else refused += 1;
      most = Math.max(most, refused);
      const error = { code: "rate_limited", message: "", retry_after: 1 / per_second };
      await socket.says({ type: "reply", ref, ok, ...(ok ? page(0) : { error }) });
    }
  }
  return { rooms: rooms.size, left: gone.size, refused: most };
}

test("many rooms are joined as fast as the server takes them, each time", async () => {
  const rate = { per_second: 10, burst: 50 };
  const clock = new Clock();
  const chat = connect("/chat");
  for (let n = 0; n < 100; n++) chat.join(`room ${n}`);
  let socket = await open();
  for (let time = 0; time < 3; time++) {
    await socket.says(hello({ rate }));
    const served = await serve(socket, rate, clock, 110);
    assert.deepEqual(served, { rooms: 100, left: 0, refused: 0 });
    await clock.pass(0);
    socket.onclose({ code: 1006, reason: "" });
    await clock.pass(10);
    socket = await open();
  }
});

test("without a limit nothing waits but for answers", async () => {
  const clock = new Clock();
  const chat = connect("/chat");
  for (let n = 0; n < 100; n++) chat.join(`room ${n}`);
  const socket = await open();
  await socket.says(hello({ rate: null }));
  for (let n = 0; n < 100; n++) {
    assert.equal(socket.sent.length, Math.min(16, 100 - n));
    await socket.answers("join", page(0));
  }
  await clock.pass(0);
});

test("who is refused without a word of how long waits all the same", async () => {
  const clock = new Clock();
  connect("/chat").join("Lobby");
  const socket = await open();
  await socket.says(hello({ rate: null }));
  await socket.refuses("join", "rate_limited");
  await clock.pass(900);
  assert.equal(socket.sent.length, 0);
  await clock.pass(200);
  assert.equal(socket.sent.length, 1);
});

test("who shares the limit with others is not closed for it", async () => {
  const rate = { per_second: 10, burst: 50 };
  const clock = new Clock();
  const chat = connect("/chat");
  for (let n = 0; n < 100; n++) chat.join(`room ${n}`);
  const socket = await open();
  await socket.says(hello({ rate }));
  const { rooms, refused } = await serve(socket, rate, clock, 400, 6);
  assert.equal(rooms, 100);
  assert.ok(refused <= 10, `${refused} refused`);
});

test("of a server that is far away no more is asked than it may refuse at once", async () => {
  const rate = { per_second: 50, burst: 200 };
  const clock = new Clock();
  const chat = connect("/chat");
  for (let n = 0; n < 100; n++) chat.join(`room ${n}`);
  const socket = await open();
  await socket.says(hello({ rate }));
  await clock.pass(3000);
  assert.equal(socket.sent.length, 16);
  const { rooms, refused } = await serve(socket, rate, clock, 100);
  assert.deepEqual([rooms, refused], [100, 0]);
});

test("what was said before it opened is sent as fast as the server takes it", async () => {
  const rate = { per_second: 10, burst: 50 };
  const clock = new Clock();
  const chat = connect("/chat");
  let stored = 0;
  for (let n = 0; n < 300; n++) chat.tell(`user ${n}`, "once").then(() => stored++);
  let socket = await open();
  await clock.pass(0);
  socket.onclose({ code: 1006, reason: "" });
  await clock.pass(10);
  socket = await open();
  await socket.says(hello({ rate }));
  const { refused } = await serve(socket, rate, clock, 350);
  assert.deepEqual([stored, refused], [300, 0]);
});

// ---- refused, lost, closed ----------------------------------------------------------

for (const status of [401, 403]) {
  test(`a handshake that fails for a ${status} ends it`, async () => {
    answer = async () => ({ status });
    const clock = new Clock();
    const chat = connect("/chat?room=1");
    const states = [];
    chat.onState((change) => states.push(change));
    Socket.last.onclose({ code: 1006, reason: "" });
    await settled();
    assert.deepEqual(asked, ["http://localhost/chat?room=1"]);
    const last = states.at(-1);
    assert.deepEqual([last.state, last.code], ["closed", status]);
    const socket = Socket.last;
    await clock.pass(60_000);
    assert.equal(Socket.last, socket);
    assert.equal(heard.size, 0);
  });
}

test("another answer is asked for once, and the connection tried on", async () => {
  answer = async () => ({ status: 426 });
  const clock = new Clock();
  const chat = connect("/chat");
  const fails = async () => {
    const socket = Socket.last;
    socket.onclose({ code: 1006, reason: "" });
    await clock.pass(10);
    assert.notEqual(Socket.last, socket);
  };
  for (let n = 0; n < 5; n++) await fails();
  assert.equal(asked.length, 1);
  await open();
  assert.equal(chat.state, "open");
  await fails(); // it was open: no reason to ask
  assert.equal(asked.length, 1);
  await fails();
  assert.equal(asked.length, 2);
});

test("while nobody answers a login that is over may yet be found", async () => {
  const clock = new Clock();
  const chat = connect("/chat");
  const answers = [
    () => Promise.reject(new TypeError("no network")),
    async () => ({ status: 502 }),
    async () => ({ status: 401 }),
  ];
  for (const given of answers) {
    answer = given;
    assert.notEqual(chat.state, "closed");
    Socket.last.onclose({ code: 1006, reason: "" });
    await clock.pass(10);
  }
  assert.equal(chat.state, "closed");
});

test("a function that fails once, where it is asked why, hides no refusal", async () => {
  answer = async () => ({ status: 401 });
  const clock = new Clock();
  let times = 0;
  const chat = connect(() => {
    if (++times === 2) throw new Error("login is away");
    return "/chat";
  });
  for (let n = 0; n < 2; n++) {
    await settled();
    Socket.last.onclose({ code: 1006, reason: "" });
    await clock.pass(1);
  }
  assert.equal(chat.state, "closed");
});

test("another origin, which says nothing, is asked once", async () => {
  answer = () => Promise.reject(new TypeError("CORS"));
  const clock = new Clock();
  const chat = connect("wss://other.example/chat");
  for (let n = 0; n < 3; n++) {
    Socket.last.onclose({ code: 1006, reason: "" });
    await clock.pass(10);
  }
  assert.deepEqual(asked, ["https://other.example/chat"]);
  assert.equal(chat.state, "reconnecting");
});

test("1000 from a chat is a proxy's, from a view it is the end", async () => {
  const { chat, clock, socket } = await greeted();
  socket.onclose({ code: 1000, reason: "" });
  assert.equal(chat.state, "reconnecting");
  await clock.pass(10);
  assert.notEqual(Socket.last, socket);
  chat.close();
  assert.equal(chat.state, "closed");
  const view = connect("/count");
  (await open()).onclose({ code: 1000, reason: "" });
  assert.equal(view.state, "closed");
});

test("a request's time begins when it is sent", async () => {
  const clock = new Clock();
  const chat = connect("/chat");
  const said = chat.say("Lobby", "hi");
  await settled();
  await clock.pass(9000);
  const socket = await open();
  await socket.says(hello());
  await clock.pass(5000);
  assert.equal(Socket.last, socket);
  assert.equal(chat.state, "open");
  await socket.answers("say", { seq: 1, at: 1 });
  assert.equal((await said).seq, 1);
});

test("a handler that fails stops no other and no join", async () => {
  const chat = connect("/chat");
  const fails = () => {
    throw new Error("the page's own");
  };
  const seen = [];
  chat.on("hello", fails);
  chat.on("hello", async () => fails());
  chat.on("hello", () => seen.push("hello"));
  chat.on("*", ({ type }) => seen.push(`* ${type}`));
  chat.onState(fails);
  chat.onState(({ state }) => seen.push(state));
  chat.join("Lobby");
  const socket = await open();
  assert.equal(socket.sent.length, 1);
  await socket.says(hello());
  assert.deepEqual(seen, ["connecting", "open", "hello", "* hello"]);
  assert.equal(reported.splice(0).length, 4);
});

test("what is not the protocol's arrives as it was sent", async () => {
  const chat = connect("/echo");
  const seen = [];
  chat.on("*", (message) => seen.push(message));
  const socket = await open();
  const texts = ["0.10", "12345678901234567890", "true", "null", '"quoted"', "[1.0]"];
  texts.push('{"price": 0.10}', '{"type": 7}', "", "plain {", " {} ");
  for (const data of texts) socket.onmessage({ data });
  const binary = new Uint8Array([0x30]).buffer; // not text, though it could be read
  socket.onmessage({ data: binary });
  socket.onmessage({ data: '{"type": "tally", "total": 1}' });
  assert.deepEqual(seen, [...texts, binary, { type: "tally", total: 1 }]);
});

test("bytes are sent as bytes, however they are viewed", async () => {
  const chat = connect("/echo");
  const socket = await open();
  const sent = [];
  socket.send = (data) => sent.push(data);
  const bytes = new Uint8Array([1, 2]);
  chat.send(bytes);
  chat.send(bytes.buffer);
  chat.send("text");
  chat.send([1]);
  assert.deepEqual(sent, [bytes, bytes.buffer, "text", "[1]"]);
});

test("joins are sent before who waits for the connection asks about their rooms", async () => {
  const chat = connect("/chat");
  chat.join("Lobby");
  chat.onState(({ state }) => state === "open" && chat.send({ type: "poll" }));
  chat.send({ type: "waited" });
  let socket = await open();
  assert.deepEqual(socket.sent.map(({ type }) => type), ["join", "poll", "waited"]);
  socket = await lose(socket);
  assert.deepEqual(socket.sent.map(({ type }) => type), ["join", "poll"]);
});

test("a watcher may close the connection as soon as it is open", async () => {
  const chat = connect("/chat");
  chat.send("waits");
  chat.onState(({ state }) => state === "open" && chat.close());
  const socket = await open();
  assert.deepEqual(socket.sent, []);
  assert.equal(chat.state, "closed");
});

test("a proxy's 1000 before hello is no end of a chat", async () => {
  const { chat, clock, socket } = await greeted();
  socket.onclose({ code: 1006, reason: "" });
  await clock.pass(10);
  (await open()).onclose({ code: 1000, reason: "" });
  assert.equal(chat.state, "reconnecting");
  const other = connect("/chat");
  other.join("Lobby");
  (await open()).onclose({ code: 1000, reason: "" });
  assert.equal(other.state, "reconnecting");
});

test("what waits is sent as it was, and what cannot be sent is not", async () => {
  const chat = connect("/echo");
  const bytes = new Uint8Array([1, 2]);
  chat.send(bytes);
  bytes.fill(0); // it is used again
  chat.send(new Blob(["blob"]));
  for (const nothing of [undefined, () => 1, Symbol("s")]) {
    assert.throws(() => chat.send(nothing), TypeError);
  }
  const sent = [];
  Socket.last.send = (data) => sent.push(data);
  Socket.last.onopen();
  chat.send(new Blob(["more"]));
  assert.throws(() => chat.send(undefined), TypeError);
  const texts = sent.map((blob) => blob.text());
  assert.deepEqual(await Promise.all(texts), ["\x01\x02", "blob", "more"]);
});

test("many rooms are left as fast as the server takes it", async () => {
  const rate = { per_second: 10, burst: 20 };
  const clock = new Clock();
  const chat = connect("/chat");
  const rooms = Array.from({ length: 60 }, (_, n) => chat.join(`room ${n}`));
  const socket = await open();
  await socket.says(hello({ rate }));
  assert.deepEqual(await serve(socket, rate, clock, 80), { rooms: 60, left: 0, refused: 0 });
  for (const room of rooms) room.leave();
  chat.join("room 59"); // which is not left, therefore
  const left = await serve(socket, rate, clock, 90);
  assert.equal(left.refused, 0);
  assert.equal(left.left, 59);
  assert.deepEqual(socket.sent, []);
});

test("what a connection has not left is not left on the next one", async () => {
  const { room, socket } = await joined();
  await socket.answers("join", page(0));
  room.leave();
  await settled();
  assert.deepEqual((await lose(socket)).sent, []);
});

// ---- the state that is told ---------------------------------------------------------

/** What a watcher is told, without `reason`. */
function told(chat) {
  const states = [];
  chat.onState(({ state, code, attempt, retryAt }) => {
    states.push([state, code, attempt, retryAt && Math.round((retryAt - Date.now()) / 100)]);
  });
  return states;
}

test("a watcher is told which attempt it is, and when the next one comes", async () => {
  const clock = new Clock();
  const { random } = Math;
  Math.random = () => 1;
  const chat = connect("/echo");
  const states = told(chat);
  Socket.last.onclose({ code: 1006, reason: "" });
  await clock.pass(500);
  Socket.last.onclose({ code: 1006, reason: "" });
  await clock.pass(1000);
  await open();
  Socket.last.onclose({ code: 1012, reason: "" });
  Math.random = random;
  assert.deepEqual(states, [
    ["connecting", 0, 0, 0],
    ["reconnecting", 1006, 1, 5],
    ["reconnecting", 1006, 1, 0], // now
    ["reconnecting", 1006, 2, 10],
    ["reconnecting", 1006, 2, 0],
    ["open", 0, 0, 0],
    ["reconnecting", 1012, 0, 20], // it did not last, so the wait grows on
  ]);
});

test("while there is no network no attempt is planned", async () => {
  const clock = new Clock();
  const chat = connect("wss://other.example/chat");
  const states = told(chat);
  await open();
  navigator.onLine = false;
  happens("offline");
  assert.deepEqual(states.at(-1), ["reconnecting", 1006, 0, 0]);
  navigator.onLine = true;
  happens("online");
  await clock.pass(1);
  happens("offline"); // an attempt is under way
  navigator.onLine = false;
  happens("offline"); // one was planned
  const socket = Socket.last;
  assert.deepEqual(states.at(-1), ["reconnecting", 1006, 1, 0]);
  await clock.pass(60_000);
  assert.equal(Socket.last, socket);
  navigator.onLine = true;
});

test("try now: what waits begins at once, and what is open is asked", async () => {
  const { chat, clock, socket } = await greeted();
  const states = told(chat);
  Math.random = () => 1;
  socket.onclose({ code: 1006, reason: "" });
  Math.random = () => 0;
  chat.reconnect();
  assert.notEqual(Socket.last, socket);
  chat.reconnect(); // it does
  const second = await open();
  await clock.pass(1000);
  assert.equal(Socket.last, second);
  await second.says(hello());
  chat.reconnect();
  assert.equal(pings(second), 1);
  await clock.pass(4000);
  assert.equal(chat.state, "reconnecting");
  assert.deepEqual(states.slice(1, 4), [
    ["reconnecting", 1006, 0, 5],
    ["reconnecting", 1006, 0, 0],
    ["open", 0, 0, 0],
  ]);
});

for (const again of ["connect", "reconnect"]) {
  test(`after a final close ${again}() opens it, and rooms read on`, async () => {
    const { chat, room, seen, socket } = await joined();
    await socket.answers("join", page(2, [1, 2]));
    const states = told(chat);
    socket.onclose({ code: 1006, reason: "" });
    chat.send({ type: "late" }); // which is not sent then
    chat.close(4001, "logged out");
    assert.equal(heard.size, 0);
    await assert.rejects(room.say("nothing"), { code: "disconnected" });
    assert.throws(() => chat.send("nothing"), { code: "disconnected" });
    chat[again]();
    chat.connect(); // it does
    const second = await open();
    assert.equal(heard.size, 1);
    const asked = await second.answers("join", page(3, [3], { recovered: true }));
    assert.equal(asked.after, 2);
    assert.deepEqual(seen, [[1, 2], 3]);
    assert.deepEqual(second.sent, []);
    const names = states.map(([state]) => state);
    assert.deepEqual(names, ["open", "reconnecting", "closed", "connecting", "open"]);
  });
}

test("a watcher may change the state: the others are told the last one only", async () => {
  const chat = connect("/chat");
  const end = chat.onState(({ state }) => state === "closed" && chat.connect());
  const states = told(chat);
  chat.close();
  await settled();
  assert.deepEqual(states.map(([state]) => state), ["connecting", "connecting"]);
  end();
  await open();
  assert.equal(chat.state, "open");
});

test("close() while an attempt begins is the end of it", async () => {
  const clock = new Clock();
  const chat = connect("/chat");
  chat.onState(({ state, retryAt }) => state === "reconnecting" && !retryAt && chat.close());
  const socket = Socket.last;
  socket.onclose({ code: 1006, reason: "" });
  await clock.pass(60_000);
  assert.equal(chat.state, "closed");
  assert.equal(Socket.last, socket);
});

// ---- where to, and who asks ---------------------------------------------------------

test("a URL may be one, or a function that is asked each time", async () => {
  const clock = new Clock();
  connect(new URL("https://other.example/chat"));
  assert.equal(Socket.last.url, "wss://other.example/chat");
  let times = 0;
  const chat = connect(async () => `/chat?time=${++times}`);
  const states = told(chat);
  await settled();
  assert.equal(Socket.last.url, "ws://localhost/chat?time=1");
  (await open()).onclose({ code: 1006, reason: "" });
  await clock.pass(1);
  assert.equal(Socket.last.url, "ws://localhost/chat?time=2");
  await open();
  assert.equal(states.at(-1)[0], "open");
});

test("where there is no page only an absolute URL will do, and says so", () => {
  const { location } = globalThis;
  delete globalThis.location;
  try {
    assert.throws(() => connect("/chat"), { name: "TypeError", message: /absolute/ });
    connect("https://other.example/chat");
    assert.equal(Socket.last.url, "wss://other.example/chat");
  } finally {
    globalThis.location = location;
  }
  assert.throws(() => connect("http://"), TypeError);
  const { WebSocket } = globalThis;
  delete globalThis.WebSocket;
  try {
    assert.throws(() => connect("/chat"), { name: "TypeError", message: /WebSocket/ });
    connect("/chat", { WebSocket });
  } finally {
    globalThis.WebSocket = WebSocket;
  }
});

test("a function that fails is a bad network, one that hangs is given up", async () => {
  const clock = new Clock();
  const answers = [
    () => Promise.reject(new Error("login is away")),
    () => "http://[",
    () => new Promise(() => {}),
    () => "/chat",
  ];
  const chat = connect(() => answers.shift()());
  const reasons = [];
  chat.onState(({ reason }) => reasons.push(reason));
  await settled();
  await clock.pass(10_100);
  assert.equal(Socket.last.url, "ws://localhost/chat");
  assert.match(reasons[1], /login is away/);
  await open();
  assert.equal(chat.state, "open");
});

test("each attempt has a ticket of its own, and without one it is over", async () => {
  const clock = new Clock();
  const tickets = ["one", "two", null, "three"];
  const chat = connect("/chat?room=1", { ticket: async () => tickets.shift() });
  const states = told(chat);
  await settled();
  assert.equal(Socket.last.url, "ws://localhost/chat?room=1&ticket=one");
  (await open()).onclose({ code: 1006, reason: "" });
  await clock.pass(1);
  assert.equal(Socket.last.url, "ws://localhost/chat?room=1&ticket=two");
  const socket = await open();
  socket.onclose({ code: 1006, reason: "" });
  await clock.pass(1);
  assert.deepEqual(states.at(-1).slice(0, 2), ["closed", 401]);
  await clock.pass(60_000);
  assert.equal(Socket.last, socket);
  chat.connect();
  await settled();
  assert.equal(Socket.last.url, "ws://localhost/chat?room=1&ticket=three");
});

test("where tickets are refused a fresh one is asked about, and then it is over", async () => {
  const clock = new Clock();
  const statuses = [426, 200, 401];
  answer = async () => ({ status: statuses.shift() });
  let times = 0;
  const chat = connect("/chat", { ticket: () => `t${++times}` });
  const states = told(chat);
  for (let n = 0; n < 3; n++) {
    await settled();
    assert.equal(chat.state === "closed", false);
    Socket.last.onclose({ code: 1006, reason: "" }); // or its ticket was used, and the 101 lost
    await clock.pass(1);
  }
  assert.deepEqual(states.at(-1).slice(0, 2), ["closed", 401]);
  const shown = asked.map((url) => new URL(url).searchParams.get("ticket"));
  assert.equal(new Set([...shown, new URL(Socket.last.url).searchParams.get("ticket")]).size, 4);
  const last = times;
  await clock.pass(60_000);
  assert.equal(times, last);
});

// ---- what is sent -------------------------------------------------------------------

test("what neither a socket nor JSON can say is refused", async () => {
  const chat = connect("/echo");
  const socket = await open();
  const sent = [];
  socket.send = (data) => sent.push(data);
  const file = new Blob(["file"]);
  for (const data of ["text", 0.5, false, null, [1], { a: 1 }, Object.create(null), file]) {
    chat.send(data);
  }
  assert.deepEqual(sent, ["text", "0.5", "false", "null", "[1]", '{"a":1}', "{}", file]);
  const others = [undefined, () => 1, Symbol("s"), 1n, [1n], NaN, Infinity];
  others.push(new Map(), new Set(), new Date(), new URL("http://a"), /a/, new Error("e"));
  others.push(new FormData(), new ReadableStream(), new URLSearchParams(), Promise.resolve());
  for (const data of others) {
    assert.throws(() => chat.send(data), TypeError);
    const said = chat.say("Lobby", data);
    assert.equal(typeof said.mid, "string");
    await assert.rejects(said, TypeError);
  }
  assert.equal(sent.length, 8);
});

// ---- giving up ----------------------------------------------------------------------

test("a signal takes back what was not sent, and ends the waiting for an answer", async () => {
  const chat = connect("/chat");
  const gone = new Error("gone");
  const give = (controller) => controller.abort(gone);
  const [early, late, never] = [1, 2, 3].map(() => new AbortController());
  give(never);
  const first = assert.rejects(chat.request("one", {}, { signal: early.signal }), gone);
  const none = assert.rejects(chat.request("none", {}, { signal: never.signal }), gone);
  give(early);
  const socket = await open();
  const second = assert.rejects(chat.request("two", {}, { signal: late.signal }), gone);
  assert.deepEqual(socket.sent.map(({ type }) => type), ["two"]);
  give(late);
  await socket.answers("two", {});
  await Promise.all([first, none, second]);
  assert.equal(chat.state, "open");
});

test("a message that is given up is not sent, and the next one does not name it", async () => {
  const { room, socket } = await joined();
  await socket.answers("join", page(0));
  socket.onclose({ code: 1006, reason: "" });
  const controller = new AbortController();
  const { signal } = controller;
  const given = [room.say("a", { signal, mid: "own" }), room.history({ signal })];
  assert.equal(given[0].mid, "own");
  const said = room.say("b");
  const ends = given.map((one) => assert.rejects(one, { name: "AbortError" }));
  controller.abort();
  await Promise.all(ends);
  await settled();
  const second = await open();
  await second.answers("join", page(0));
  assert.deepEqual(second.sent.map(({ data, prev }) => [data, prev]), [["b", undefined]]);
  await second.answers("say", { seq: 1, at: 1 });
  assert.equal((await said).seq, 1);
});

test("the time for a message is all in all, that of a request begins when it is sent", async () => {
  const clock = new Clock();
  const chat = connect("/chat");
  const said = assert.rejects(chat.say("Lobby", 1, { timeout: 500 }), { code: "timeout" });
  const patient = chat.say("Lobby", 2, { timeout: Infinity });
  const asked = chat.request("ask", {}, { timeout: 500 });
  await clock.pass(600);
  await said;
  const socket = await open();
  await clock.pass(400);
  await socket.answers("ask", {});
  await socket.answers("say", { seq: 1, at: 1 });
  assert.ok((await asked).ok);
  assert.equal((await patient).seq, 1);
  assert.equal(chat.state, "open");
});

test("what waits to be stored can be seen", async () => {
  const chat = connect("/chat");
  const first = chat.say("Lobby", { n: 1 });
  const second = chat.tell("ben", 2);
  const seen = chat.waiting.map(({ at, ...rest }) => rest);
  const both = [{ room: "Lobby", data: { n: 1 }, mid: first.mid }];
  both.push({ to: "ben", data: 2, mid: second.mid });
  assert.deepEqual(seen, both);
  assert.ok(Math.abs(chat.waiting[0].at - Date.now()) < 5000);
  const socket = await open();
  await socket.answers("say", { seq: 1, at: 1 });
  assert.deepEqual(chat.waiting.map(({ mid }) => mid), [second.mid]);
  chat.close();
  await assert.rejects(second, { code: "disconnected" });
  assert.deepEqual(chat.waiting, []);
});

// ---- rooms --------------------------------------------------------------------------

test("a room is asked for what was said before, and who is there, until it answers", async () => {
  const { room, socket } = await joined();
  const history = room.history({ before: 5, limit: 2 });
  const who = room.who({ after: "ann" });
  assert.deepEqual(socket.sent.slice(1), [
    { type: "history", ref: 2, room: "Lobby", before: 5, limit: 2 },
    { type: "who", ref: 3, room: "Lobby", after: "ann" },
  ]);
  const second = await lose(socket);
  await second.answers("join", page(0));
  await second.answers("history", { epoch: "e1", seq: 9, messages: [message(4)] });
  await second.refuses("who", "not_joined"); // its join is repeated, perhaps
  await second.answers("who", { present: ["ben"], count: 2, more: false });
  assert.deepEqual((await history).messages, [message(4)]);
  assert.deepEqual((await who).present, ["ben"]);
  const gone = assert.rejects(room.who(), { code: "forbidden" });
  await second.refuses("who", "forbidden");
  await gone;
});

test("a room's own requests and events carry its name", async () => {
  const { room, socket } = await joined();
  await socket.answers("join", page(0));
  const seen = [];
  const end = room.on("moved", ({ x }) => seen.push(x));
  room.on("*", ({ type }) => seen.push(type));
  const moved = room.emit("move", { x: 1 });
  const asked = await socket.answers("move", { result: 7 });
  assert.deepEqual([asked.room, asked.x], ["Lobby", 1]);
  assert.equal((await moved).result, 7);
  await socket.says({ type: "moved", room: "Lobby", x: 2 });
  await socket.says({ type: "moved", room: "Cellar", x: 3 });
  await socket.says({ type: "moved", room: null, x: 4 });
  socket.onmessage({ data: "text" });
  end();
  await socket.says({ type: "moved", room: "Lobby", x: 5 });
  room.leave();
  await socket.says({ type: "moved", room: "Lobby", x: 6 });
  assert.deepEqual(seen, [2, "moved", "moved"]);
});

test("each who joins a room has a reading of its own; the last one leaves it", async () => {
  const { chat, room, seen, socket } = await joined();
  await socket.answers("join", page(7, [6, 7]));
  const others = [];
  const people = [];
  const other = chat.join("Lobby", {
    seq: 5,
    epoch: "e1",
    onMessage: ({ seq }) => others.push(seq),
    onPresence: (present) => people.push(present.join()),
  });
  await socket.says({ type: "presence", room: "Lobby", joined: ["ben"], left: [] });
  await socket.says(message(8)); // on its way before the other's page
  const asked = await socket.answers("join", page(9, [6, 7, 8, 9], { recovered: true }));
  assert.equal(asked.after, 5);
  // What came in the other's page comes to this one by a page of its own.
  const reads = await socket.answers("join", page(9, [9], { recovered: true }));
  assert.equal(reads.after, 8);
  await socket.says(message(10));
  assert.deepEqual(seen, [[6, 7], 8, 9, 10]);
  assert.deepEqual(others, [6, 7, 8, 9, 10]);
  assert.deepEqual(people, ["ann"]);
  room.leave();
  await socket.says(message(11));
  assert.deepEqual([seen.at(-1), others.at(-1)], [10, 11]);
  assert.deepEqual(socket.sent, []);
  const second = await lose(socket);
  assert.equal(second.sent.length, 1);
  other.leave();
  other.leave();
  await settled();
  assert.deepEqual(second.sent.map(({ type }) => type), ["join", "leave"]);
});

test("who leaves in the middle of reading does not silence the others", async () => {
  const { chat, seen, socket } = await joined();
  await socket.answers("join", page(1, [1]));
  const other = chat.join("Lobby", { seq: 0, epoch: "e1", onMessage: () => other.leave() });
  await socket.answers("join", page(1, [1], { recovered: true, more: true }));
  const reads = await socket.answers("join", page(2, [2], { recovered: true }));
  assert.equal(reads.after, 1);
  assert.deepEqual(socket.sent, []);
  assert.deepEqual(seen, [[1], 2]);
});

test("who is there after a change, and what changed between two lists", () => {
  assert.deepEqual(applyPresence(["b", "a"], { joined: ["c", "a"], left: ["b", "x"] }), ["a", "c"]);
  const change = diffPresence(["a", "b"], ["b", "c"]);
  assert.deepEqual(change, { joined: ["c"], left: ["a"] });
  const before = Object.freeze(["a", "b"]);
  assert.deepEqual(applyPresence(before, change), ["b", "c"]);
});

// ---- polls --------------------------------------------------------------------------

const votes = (version, tea, more = {}) => {
  return { counts: { tea, milk: 0 }, total: tea, closed: false, version, ...more };
};
const tally = (...given) => ({ type: "tally", poll: "Drink", ...votes(...given) });

test("a poll is told now, at each tally and after a reconnect, never backwards", async () => {
  const chat = connect("/chat");
  const poll = chat.poll("Drink");
  const seen = [];
  const end = poll.on(({ version, mine, total }) => seen.push([version, total, mine]));
  const socket = await open();
  await socket.says(tally(3, 3)); // it overtakes the answer
  await socket.answers("poll", votes(2, 2, { mine: null }));
  await socket.says(tally(3, 3));
  await socket.says(tally(5, 5));
  await socket.says(tally(4, 4));
  assert.deepEqual(seen, [[3, 3, null], [5, 5, null]]);
  const voted = poll.vote("tea");
  await settled();
  await socket.says(tally(7, 7));
  const asked = await socket.answers("vote", votes(6, 6));
  assert.deepEqual([asked.poll, asked.choice], ["Drink", "tea"]);
  assert.equal((await voted).version, 6);
  assert.deepEqual(seen.slice(2), [[7, 7, null], [7, 7, "tea"]]);
  const second = await lose(socket);
  await second.says(tally(1, 1)); // the server has lost all
  await second.answers("poll", votes(0, 0, { mine: null }));
  assert.deepEqual(seen.slice(4), [[1, 1, "tea"], [1, 1, null]]);
  const later = [];
  chat.poll("Drink").on(({ version }) => later.push(version));
  assert.deepEqual(later, [1]);
  end();
  await second.says(tally(2, 2));
  assert.deepEqual([seen.length, later], [6, [1, 2]]);
});

test("who looks at a poll again after a reconnect is not told how it stood", async () => {
  const chat = connect("/chat");
  const poll = chat.poll("Drink");
  const seen = [];
  const end = poll.on(({ version }) => seen.push(version));
  const socket = await open();
  await socket.answers("poll", votes(2, 2, { mine: null }));
  end();
  const second = await lose(socket);
  const ends = poll.on(({ version }) => seen.push(version));
  await settled();
  assert.deepEqual(seen, [2]);
  await second.answers("poll", votes(1, 1, { mine: null }));
  const third = await lose(second);
  poll.on(({ version }) => seen.push(version)); // before there is an answer
  await third.answers("poll", votes(0, 0, { mine: null }));
  ends();
  assert.deepEqual(seen, [2, 1, 1, 0, 0]);
});

test("the poll of a room is asked for again until that is joined", async () => {
  const chat = connect("/chat");
  const socket = await open();
  const seen = [];
  reported.length = 0;
  chat.poll("Drink").on(({ version }) => seen.push(version));
  chat.poll("Drink").on(() => assert.fail("the page's own"));
  chat.join("Lobby");
  await socket.refuses("poll", "not_joined");
  await socket.answers("join", page(0));
  await socket.answers("poll", votes(1, 1, { mine: "tea" }));
  assert.deepEqual(seen, [1]);
  assert.match(String(reported.splice(0)), /^AssertionError[^,]*the page's own$/);
  chat.poll("none").on(() => assert.fail("there is no such poll"));
  await socket.refuses("poll", "unknown_poll");
  assert.equal(reported.splice(0)[0].code, "unknown_poll");
});

test("a vote is repeated until it counts, or a newer one takes its place", async () => {
  const chat = connect("/chat");
  const poll = chat.poll("Drink");
  const socket = await open();
  const first = poll.vote("milk");
  socket.onclose({ code: 1006, reason: "" });
  await settled();
  const second = poll.vote("tea");
  await settled();
  const again = await open();
  const cast = again.sent.filter(({ type }) => type === "vote");
  assert.deepEqual(cast.map(({ choice }) => choice), ["tea"]);
  await again.answers("vote", votes(1, 1));
  assert.equal((await second).version, 1);
  await again.answers("poll", votes(1, 1, { mine: "tea" }));
  assert.equal((await first).mine, "tea"); // how it stands
  const asked = poll.get();
  await again.answers("poll", votes(2, 2, { mine: "tea" }));
  assert.equal((await asked).mine, "tea");
  const refused = assert.rejects(poll.vote("beer"), { code: "unknown_choice" });
  await settled();
  await again.refuses("vote", "unknown_choice");
  await refused;
});

// ---- what breaks others -------------------------------------------------------------

test("a handler that ends itself and begins anew is called once", async () => {
  const chat = connect("/chat");
  const poll = chat.poll("Drink");
  let calls = 0;
  const again = (begin) => {
    const end = begin(() => {
      if (++calls > 50) return;
      end?.();
      again(begin);
    });
  };
  const socket = await open();
  again((handler) => chat.on("moved", handler));
  poll.on(() => {});
  await socket.answers("poll", votes(1, 1, { mine: null }));
  await socket.says({ type: "moved" });
  assert.equal(calls, 1);
});

test("a handler that another one ends is not called any more", async () => {
  const chat = connect("/chat");
  const seen = [];
  chat.on("moved", () => end());
  const end = chat.on("moved", () => seen.push("moved"));
  const socket = await open();
  await socket.says({ type: "moved" });
  assert.deepEqual(seen, []);
});

test("a room that is left between open and hello is left, when it is its turn", async () => {
  const clock = new Clock();
  const chat = connect("/chat");
  const rooms = Array.from({ length: 15 }, (_, n) => chat.join(`room ${n}`));
  chat.onState(({ state }) => state === "open" && rooms[0].leave());
  const socket = await open();
  await socket.says(hello({ rate: { per_second: 50, burst: 200 } }));
  for (let n = 0; n < 14; n++) await socket.answers("join", page(0));
  await clock.pass(1000);
  assert.ok(socket.sent.some(({ type, room }) => type === "leave" && room === "room 0"));
});

test("a reading may be an object of a class", async () => {
  class View {
    seen = [];
    onMessage({ seq }) {
      this.seen.push(seq);
    }
  }
  const view = new View();
  const chat = connect("/chat");
  chat.join("Lobby", view);
  const socket = await open();
  await socket.answers("join", page(2, [1, 2]));
  assert.deepEqual(view.seen, [1, 2]);
});

test("a room that waited in a spread is there after close() and connect()", async () => {
  const clock = new Clock();
  const { chat, seen, socket } = await joined();
  await socket.answers("join", page(1, [1]));
  Math.random = () => 0.5;
  await socket.says({ type: "gap", room: "Lobby", spread: 10 });
  Math.random = () => 0;
  chat.close();
  await clock.pass(10_000);
  chat.connect();
  const second = await open();
  await second.answers("join", page(2, [2], { recovered: true }));
  assert.deepEqual(seen, [[1], 2]);
});

test("a refusal of before close() does not end what connect() began", async () => {
  let tell;
  answer = () => new Promise((resolve) => (tell = resolve));
  const chat = connect("/chat");
  Socket.last.onclose({ code: 1006, reason: "" });
  await settled();
  chat.close();
  chat.connect();
  tell({ status: 401 });
  await settled();
  assert.equal(chat.state, "connecting");
  chat.close();
  chat.onState(({ state }) => state === "connecting" && chat.close());
  const socket = Socket.last;
  chat.connect();
  assert.equal(chat.state, "closed");
  assert.equal(Socket.last, socket);
});

test("a code that every object has is final, and an address must be one", async () => {
  const chat = connect("/chat");
  const socket = await open();
  const said = assert.rejects(chat.say("Lobby", 1), { code: "constructor" });
  await socket.refuses("say", "constructor");
  await said;
  for (const url of ["localhost:5000/chat", "ftp://a/chat", "file:///chat"]) {
    assert.throws(() => connect(url), TypeError);
  }
});

test("what comes in one turn with the reply to a join is shown", async () => {
  const { seen, socket } = await joined();
  const [{ ref }] = socket.sent;
  const comes = (message) => socket.onmessage({ data: JSON.stringify(message) });
  comes({ type: "reply", ref, ok: true, ...page(2, [1, 2]) });
  comes(message(3));
  await settled();
  assert.deepEqual(seen, [[1, 2], 3]);
});

// ---- the outbox ---------------------------------------------------------------------

/** What localStorage has of it; `dies` as with its page. */
class Store {
  dead = false;

  constructor(items = new Map()) {
    this.items = items;
  }

  #alive() {
    if (this.dead) throw new Error("no such page");
    return this.items;
  }

  get length() {
    return this.#alive().size;
  }

  key(n) {
    return [...this.#alive().keys()].reverse()[n] ?? null; // in no order
  }

  getItem(key) {
    return this.#alive().get(key) ?? null;
  }

  setItem(key, value) {
    this.#alive().set(key, String(value));
  }

  removeItem(key) {
    this.#alive().delete(key);
  }

  /** The same for the next page. */
  dies() {
    this.dead = true;
    return new Store(this.items);
  }
}

const quietly = (promise) => void promise.catch(() => {});

/** A page that said something to a server that has gone, and what it left. */
async function left(...said) {
  const outbox = new Store();
  const chat = connect("/chat?x=1", { outbox });
  const socket = await open();
  await socket.says(hello());
  socket.onclose({ code: 1006, reason: "" });
  for (const data of said) quietly(chat.say("Lobby", data, { signal: new AbortController().signal }));
  await settled();
  const next = outbox.dies();
  chat.close();
  return next;
}

test("what is not acknowledged survives a reload, and goes before what is said then", async () => {
  const outbox = await left("a", "b");
  assert.equal(outbox.length, 2);
  for (const key of outbox.items.keys()) assert.match(key, /^wschat:localhost\/chat:\d+-\d+-\d+-\d+$/);
  const chat = connect("/chat", { outbox });
  const c = chat.say("Lobby", "c");
  const socket = await open();
  assert.deepEqual(socket.sent, []); // whose it is must be known
  await socket.says(hello());
  assert.deepEqual(socket.sent.map(({ data }) => data), ["a", "b", "c"]);
  assert.deepEqual(chat.waiting.map(({ data, room }) => [data, room]), [["a", "Lobby"], ["b", "Lobby"], ["c", "Lobby"]]);
  const mids = socket.sent.map(({ mid }) => mid);
  assert.deepEqual(socket.sent.map(({ prev }) => prev), [undefined, mids[0], mids[1]]);
  for (let seq = 1; seq <= 3; seq++) await socket.answers("say", { seq, at: 1 });
  assert.equal((await c).seq, 3);
  assert.equal(outbox.length, 0);
});

test("another user's messages stay for that one", async () => {
  const outbox = await left("ann's");
  const chat = connect("/chat", { outbox });
  const socket = await open();
  await socket.says({ ...hello(), user: "ben" });
  await settled();
  assert.deepEqual([socket.sent, chat.waiting, outbox.length], [[], [], 1]);
  quietly(chat.say("Lobby", "ben's"));
  socket.onclose({ code: 1006, reason: "" });
  await settled();
  const second = await open();
  await second.says(hello());
  assert.deepEqual(second.sent.map(({ data }) => data), ["ann's"]);
  second.onclose({ code: 1006, reason: "" });
  await settled();
  const third = await open();
  await third.says({ ...hello(), user: "ben" });
  assert.deepEqual(third.sent.map(({ data, prev }) => [data, prev]), [["ben's", undefined]]);
});

test("what an earlier page left and is refused, or too old, is told", async () => {
  const outbox = await left("a", "b", "c");
  const [first, second] = [...outbox.items];
  const old = { ...JSON.parse(first[1]), sent: Date.now() - 400_000 };
  outbox.setItem(first[0], JSON.stringify(old)); // sent, and perhaps forgotten
  const never = { ...JSON.parse(second[1]), at: Date.now() - 4e9, sent: undefined };
  outbox.setItem(second[0], JSON.stringify(never)); // never sent: it may be as old as it is
  outbox.setItem("wschat:localhost/chat:x", "no JSON");
  outbox.setItem("wschat:localhost/chat:y", "null");
  outbox.setItem("wschat:localhost/chat:z", '{"user":"ann"}');
  outbox.setItem("other", "{}");
  const told = [];
  const onRefused = ({ data, room, mid, at }, { code }) => told.push([data, room, code, !!mid, at > 0]);
  const chat = connect("/chat", { outbox, onRefused });
  const socket = await open();
  await socket.says(hello());
  assert.deepEqual(socket.sent.map(({ data }) => data), ["b", "c"]);
  await socket.answers("say", { seq: 1, at: 1 });
  await socket.refuses("say", "forbidden");
  assert.deepEqual(told, [["a", "Lobby", "expired", true, true], ["c", "Lobby", "forbidden", true, true]]);
  assert.deepEqual([...outbox.items.keys()], ["wschat:localhost/chat:x", "wschat:localhost/chat:y", "wschat:localhost/chat:z", "other"]);
  assert.deepEqual(chat.waiting, []);
});

test("what another page had stored, or was told to take back, is not sent once more", async () => {
  const outbox = await left("a", "b", "c");
  const told = [];
  const chat = connect("/chat", { outbox, onRefused: ({ data }) => told.push(data) });
  const socket = await open();
  await socket.says(hello({ rate: { burst: 5, per_second: 0.01 } })); // the third has to wait
  assert.deepEqual(socket.sent.map(({ data }) => data), ["a", "b"]);
  socket.onclose({ code: 1006, reason: "" });
  await settled();
  const [first, second, third] = outbox.items.keys();
  outbox.removeItem(first);
  outbox.removeItem(third);
  const again = await open();
  await again.says(hello());
  assert.deepEqual(again.sent.map(({ data, prev }) => [data, prev]), [["b", undefined]]);
  assert.deepEqual([chat.waiting.length, told, [...outbox.items.keys()]], [1, [], [second]]);
});

test("what is said before it is known who that is now is of that one", async () => {
  const chat = connect("/chat", { outbox: new Store() });
  const socket = await open();
  await socket.says(hello());
  chat.close();
  chat.connect();
  quietly(chat.say("Lobby", "ben's"));
  const second = await open();
  await second.says({ ...hello(), user: "ben" });
  assert.deepEqual(second.sent.map(({ data }) => data), ["ben's"]);
});

test("after a final close what waits stays in the outbox", async () => {
  const outbox = new Store();
  const chat = connect("/chat", { outbox });
  const socket = await open();
  await socket.says(hello());
  const said = chat.tell("ben", "hi");
  socket.onclose({ code: 4001, reason: "" });
  await assert.rejects(said, { code: "disconnected" });
  chat.connect();
  const second = await open();
  await second.says(hello());
  const asked = await second.answers("tell", { seq: 1, at: 1 });
  assert.deepEqual([asked.data, asked.mid, outbox.length], ["hi", said.mid, 0]);
});

test("a store that throws is done without", async () => {
  const broken = new Store();
  broken.dead = true;
  Object.defineProperty(globalThis, "localStorage", {
    configurable: true,
    get() {
      throw new Error("forbidden");
    },
  });
  for (const outbox of [broken, "localStorage"]) {
    const chat = connect("/chat", { outbox });
    const socket = await open();
    await socket.says(hello());
    const said = chat.say("Lobby", "hi");
    await socket.answers("say", { seq: 1, at: 1 });
    assert.equal((await said).seq, 1);
  }
  delete globalThis.localStorage;
});

test("what is given up is not in the outbox", async () => {
  const outbox = new Store();
  const chat = connect("/chat", { outbox });
  const socket = await open();
  await socket.says(hello());
  const controller = new AbortController();
  const said = chat.say("Lobby", "hi", { signal: controller.signal });
  assert.equal(outbox.length, 1);
  controller.abort();
  await assert.rejects(said, { name: "AbortError" });
  assert.equal(outbox.length, 0);
});

// ---- whatever happens ---------------------------------------------------------------

/** A server and its network that refuse, answer late, and cut, by the numbers of `random`. */
class Hostile {
  stored = new Map(); // place -> [{ mid, data }]
  sockets = new Set();

  constructor(random) {
    this.random = random;
    const { sockets } = this;
    this.WebSocket = class extends Socket {
      constructor(...given) {
        super(...given);
        sockets.add(this);
      }

      close() {
        sockets.delete(this);
      }
    };
  }

  answer({ type, ref, mid, prev, data, room, to }) {
    const reply = (fields) => ({ type: "reply", ref, ok: !fields.error, ...fields });
    const refuse = (code) => reply({ error: { code, message: code, retry_after: 0.05 } });
    if (type === "join") return this.random() < 0.2 ? refuse("unavailable") : reply(page(0));
    if (type !== "say" && type !== "tell") return reply({});
    const place = type + (room ?? to);
    if (!this.stored.has(place)) this.stored.set(place, []);
    const list = this.stored.get(place);
    const has = (wanted) => list.findIndex((one) => one.mid === wanted) + 1;
    if (has(mid)) return reply({ seq: has(mid), at: 1 });
    const luck = this.random();
    if (luck < 0.1) return refuse("rate_limited");
    if (luck < 0.2) return refuse("unavailable");
    if (prev && !has(prev)) return refuse("out_of_order");
    if (data.n % 13 === 5) return refuse("forbidden");
    list.push({ mid, data });
    return luck < 0.3 ? refuse("unavailable") : reply({ seq: has(mid), at: 1 });
  }

  async step() {
    for (const socket of this.sockets) {
      if (!socket.opened && this.random() < 0.5) {
        socket.opened = true;
        socket.onopen();
        socket.says(hello());
      } else if (this.random() < 0.03) {
        this.sockets.delete(socket);
        // Some of it arrives all the same, and nobody is told.
        const some = Math.floor(this.random() * socket.sent.length);
        for (const request of socket.sent.slice(0, some)) this.answer(request);
        socket.onclose({ code: 1006, reason: "" });
      } else {
        const some = Math.ceil(this.random() * 4);
        for (const request of socket.sent.splice(0, some)) socket.says(this.answer(request));
      }
    }
    await settled();
  }
}

/** The same numbers each time, from 0 to 1. */
function seeded(seed) {
  return () => {
    seed = (seed * 1664525 + 1013904223) % 2 ** 32;
    return seed / 2 ** 32;
  };
}

for (let seed = 1; seed <= Number(process.env.SEEDS ?? 6); seed++) {
  test(`nothing is lost, doubled or reordered, whatever happens: ${seed}`, { timeout: 60_000 }, async () => {
    const random = seeded(seed);
    const clock = new Clock();
    const server = new Hostile(random);
    const { WebSocket } = server;
    const said = []; // { page, place, n, mid, ends }
    const refused = [];
    let outbox = new Store();
    const opens = (onRefused) => connect("/chat", { WebSocket, outbox, onRefused });
    const say = (chat, page) => {
      const n = said.length;
      const place = ["Lobby", "Cellar", "ben"][Math.floor(random() * 3)];
      const stored = place === "ben" ? chat.tell(place, { n }) : chat.say(place, { n });
      const one = { n, page, place, mid: stored.mid };
      said.push(one);
      stored.then(
        ({ seq }) => (one.seq = seq),
        ({ code }) => (one.code = code),
      );
    };
    const talk = async (chat, page) => {
      for (let step = 0; step < 40; step++) {
        while (random() < 0.4) say(chat, page);
        await server.step();
        await clock.pass(20);
      }
    };
    let chat = opens();
    chat.join("Lobby");
    await server.step(); // it is known who that is
    while (!chat.hello) await server.step();
    await talk(chat, 1);
    outbox = outbox.dies(); // and its page with it
    const before = new Set(server.sockets);
    chat.close();
    for (const socket of before) server.sockets.delete(socket);
    chat = opens(({ data }, { code }) => refused.push([data.n, code]));
    chat.join("Lobby");
    await talk(chat, 2);
    for (let step = 0; step < 3000 && (chat.waiting.length || !chat.hello); step++) {
      await server.step();
      await clock.pass(50);
    }
    assert.deepEqual(chat.waiting, []);
    assert.equal(outbox.length, 0);
    const kept = [...server.stored.values()].flat().map(({ data }) => data.n);
    const wanted = said.map(({ n }) => n).filter((n) => n % 13 !== 5);
    assert.deepEqual(kept.sort((a, b) => a - b), wanted);
    for (const list of server.stored.values()) {
      const numbers = list.map(({ data }) => data.n);
      assert.deepEqual(numbers, [...numbers].sort((a, b) => a - b));
    }
    for (const { n, page, code, seq } of said) {
      if (n % 13 !== 5) assert.ok(seq || page === 1, `${n}: ${code}`);
      else if (page === 2) assert.equal(code, "forbidden");
    }
    assert.ok(refused.every(([n, code]) => n % 13 === 5 && code === "forbidden"));
  });
}
