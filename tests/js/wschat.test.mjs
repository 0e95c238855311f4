// How wschat.js reads on and repeats, step by step: a server played by the test.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { afterEach, test } from "node:test";

const file = new URL("../../flask_wschat/static/wschat.js", import.meta.url);
const { WSChat, backoff, shouldReconnect } = await import(
  "data:text/javascript," + encodeURIComponent(readFileSync(file, "utf8"))
);

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
Object.defineProperty(globalThis, "navigator", { value: { onLine: true } });
Object.assign(globalThis, {
  WebSocket: Socket,
  location: { href: "http://localhost/page" },
  addEventListener() {},
  removeEventListener() {},
  reportError: (error) => reported.push(error),
});
Math.random = () => 0; // no waiting

/** A few turns of the loop: until everybody waits for the server or the test. */
async function settled() {
  for (let turn = 0; turn < 4; turn++) await new Promise((done) => setTimeout(done));
}

const chats = [];
const connect = (...given) => chats[chats.push(new WSChat(...given)) - 1];
afterEach(() => chats.splice(0).forEach((chat) => chat.close()));

const message = (seq, data = `m${seq}`, room = "Lobby") => {
  return { type: "message", room, seq, from: "ben", data, at: 1, mid: `b${seq}` };
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
  const later = globalThis.setTimeout;
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

test("messages to one place keep their order, others don't wait", async () => {
  const { chat, room, socket } = await joined();
  await socket.answers("join", page(0));
  const all = [room.say("a"), room.say("b"), chat.tell("ben", "c")];
  await settled();
  assert.deepEqual(socket.sent.map(({ data }) => data), ["a", "c"]);
  await socket.refuses("say", "forbidden");
  await assert.rejects(all[0], { code: "forbidden" });
  const b = await socket.answers("say", { seq: 1, at: 1 });
  const c = await socket.answers("tell", { seq: 1, at: 1 });
  assert.deepEqual([b.data, c.data, c.to], ["b", "c", "ben"]);
  assert.notEqual(b.mid, c.mid);
  await Promise.all(all.slice(1));
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
  assert.deepEqual(Socket.last.protocols, []);
  connect("/chat", { protocols: ["wschat.v1.json"] });
  assert.deepEqual(Socket.last.protocols, ["wschat.v1.json"]);
  assert.equal(Socket.last.url.href, "ws://localhost/chat");
});

test("the codes after which it comes back", () => {
  for (const code of [1000, 1008, 4000, 4499]) assert.ok(!shouldReconnect(code));
  for (const code of [1001, 1006, 1009, 1011, 1012, 1013, 4500]) {
    assert.ok(shouldReconnect(code));
  }
  assert.equal(backoff(0, () => 1), 500);
  assert.equal(backoff(20, () => 1), 10_000);
});
