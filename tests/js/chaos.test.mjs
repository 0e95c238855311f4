// Messages of two people in three rooms through a network and a server that do the worst:
// played, with a clock of their own, so that each loss has a number.
//
//   SEED=1234 node --test tests/js/chaos.test.mjs      that one again
//   WALKS=5000 node --test tests/js/chaos.test.mjs     more of them

import assert from "node:assert/strict";
import { test } from "node:test";

import { WSChat } from "flask-wschat";

import { SEED, chance } from "./chance.mjs";
import { World, settled, walks } from "./virtual.mjs";

const PAGE = 7; // messages in one reply
const ROOMS = ["one", "two", "three"];

/** As the server is, docs/protocol.md, with less patience. */
class Server {
  connections = new Set();
  rooms = new Map();
  up = true;

  constructor(walk) {
    this.walk = walk;
  }

  room(name) {
    const made = { epoch: `e-${name}`, messages: [], mids: new Map() };
    return this.rooms.get(name) ?? this.rooms.set(name, made).get(name);
  }

  handle(connection, { type, ref, ...fields }) {
    const reply = (result) => connection.says({ type: "reply", ref, ok: true, ...result });
    const refuse = (code, more) =>
      connection.says({ type: "reply", ref, ok: false, error: { code, message: code, ...more } });
    const { chance } = this.walk;
    if (type === "ping") return reply();
    const trouble = this.walk.calm ? 1 : chance();
    if (trouble < 0.02) return refuse("rate_limited", { retry_after: 0.05 });
    if (trouble < 0.03) return refuse("unavailable");
    if (type === "join") return reply(this.join(connection, fields));
    if (type === "leave") return reply(connection.joined.delete(fields.room) && {});
    assert.equal(type, "say");
    if (!connection.joined.has(fields.room)) return refuse("not_joined");
    const { messages, mids } = this.room(fields.room);
    const { mid, prev, data } = fields;
    const at = this.walk.world.now / 1000;
    if (!mids.has(mid)) {
      if (prev && !mids.has(prev)) return refuse("out_of_order");
      const message = { seq: messages.length + 1, from: connection.user, data, at, mid };
      messages.push(message);
      mids.set(mid, message.seq);
      this.tell(fields.room, message);
      if (trouble < 0.06) return refuse("unavailable"); // though it is stored
    }
    reply({ seq: mids.get(mid), at });
  }

  join(connection, { room, after, epoch }) {
    const { messages, ...there } = this.room(room);
    const recovered = epoch === there.epoch;
    const page = recovered ? messages.slice(after, after + PAGE) : messages.slice(-PAGE);
    const more = recovered && after + PAGE < messages.length;
    connection.joined.add(room);
    // No message comes before the reply that says there is no more.
    if (more) connection.reading.add(room);
    else connection.reading.delete(room);
    const shown = page.map((message) => ({ type: "message", room, ...message }));
    const rest = { epoch: there.epoch, seq: messages.length, streams: [], count: 0, present: [] };
    return { recovered, more, messages: shown, ...rest };
  }

  tell(room, message) {
    for (const connection of this.connections) {
      if (!connection.joined.has(room) || connection.reading.has(room)) continue;
      if (!this.walk.calm && this.walk.chance() < 0.01) {
        connection.reading.add(room);
        connection.says({ type: "gap", room });
      } else {
        connection.says({ type: "message", room, ...message });
      }
    }
  }
}

let walk; // the one of now, which sockets belong to

/** A connection through the network: what is sent arrives in order, some time, or never. */
class Socket {
  joined = new Set();
  reading = new Set();
  #up = []; // under way
  #down = [];
  #alive = true;

  constructor(url) {
    this.user = new URL(url).searchParams.get("user");
    this.server = walk.server;
    const { world, chance, calm } = walk;
    world.later(100 * chance(), () => {
      if (!this.#alive || this.page.gone) return;
      if (!this.server.up || (!calm && chance() < 0.2)) return this.cut();
      this.server.connections.add(this);
      this.onopen();
      const limits = { message: 1 << 20, rate: walk.rate };
      this.says({ type: "hello", protocol: 1, user: this.user, ping: 25, limits });
    });
  }

  send(text) {
    if (this.page.gone) return;
    assert.ok(this.#alive, "sent to what is closed");
    this.#up.push(JSON.parse(text));
    this.#later(this.#up, (message) => this.server.handle(this, message));
  }

  says(message) {
    this.#down.push({ data: JSON.stringify(message) });
    this.#later(this.#down, (event) => this.onmessage(event));
  }

  /** All that has come so far arrives at once, in one turn. */
  #later(way, deliver) {
    walk.world.later(walk.delay * walk.chance(), () => {
      for (const item of this.vanished ? [] : way.splice(0)) {
        if (!this.#alive) return;
        deliver(item);
      }
    });
  }

  close() {
    this.#end();
  }

  cut(code = 1006) {
    if (this.#end()) this.onclose({ code, reason: "" });
  }

  #end() {
    const was = this.#alive;
    this.#alive = false;
    this.server.connections.delete(this);
    return was;
  }
}

/** As `localStorage` is; "broken" as where it is full, or forbidden. */
class Outbox {
  #items;

  /** What a page sees of `items`. */
  constructor(items, page, { outbox, chance }) {
    this.#items = items;
    this.fails = () => {
      if (page.gone || (outbox === "broken" && chance() < 0.5)) throw new Error("no storage");
    };
  }

  get length() {
    return this.#items.size;
  }

  key(n) {
    return [...this.#items.keys()].at(-1 - n) ?? null; // in no order: so is Firefox
  }

  getItem(key) {
    this.fails();
    return this.#items.get(key) ?? null;
  }

  setItem(key, text) {
    this.fails();
    this.#items.set(key, text);
  }

  removeItem(key) {
    this.fails();
    this.#items.delete(key);
  }
}

class Walk {
  calm = true; // no trouble now
  said = []; // { user, room, data, stored }
  failed = [];

  constructor(seed) {
    walk = this;
    this.chance = chance(seed);
    Math.random = this.chance;
    this.pick = (list) => list[Math.floor(this.chance() * list.length)];
    this.world = new World();
    this.delay = this.pick([5, 50, 200]);
    this.rate = this.pick([null, { per_second: 50, burst: 200 }, { per_second: 20, burst: 5 }]);
    this.server = new Server(this);
    this.outbox = this.pick(["", "kept", "broken"]);
    this.people = ["ann", "ben"].map((user) => this.visit(user, new Map()));
  }

  /** Open a page that reads all rooms. */
  visit(user, kept, tab = {}) {
    const page = { user, kept, tab, seen: new Map() }; // room -> messages
    const outbox = new Outbox(kept, page, this);
    class Own extends Socket {
      page = page;
    }
    const url = `ws://chat.example/chat?user=${user}`;
    page.chat = new WSChat(url, { WebSocket: Own, ...(this.outbox && { outbox }) });
    for (const room of ROOMS) {
      page.chat.join(room, {
        onMessage: (message) => page.seen.get(room).push(message),
        onReset: (messages) => page.seen.set(room, [...messages]),
        onError: (error) => this.failed.push(error),
      });
    }
    return page;
  }

  /** One more page of somebody, who has the same outbox. */
  another() {
    if (this.people.length > 3) return;
    const { user, kept } = this.pick(this.people);
    this.people.push(Object.assign(this.visit(user, kept), { late: true }));
  }

  /** The page ends without a word, and is there again. */
  reload() {
    const page = this.people.shift();
    // Whose it is was not known yet, so it was not kept.
    if (!page.chat.hello) for (const item of this.said) if (item.page === page) item.lost = true;
    page.gone = true;
    for (const socket of this.server.connections) if (socket.page === page) socket.close();
    this.people.push(Object.assign(this.visit(page.user, page.kept, page.tab), { late: true }));
  }

  say() {
    const page = this.pick(this.people);
    const { user, chat } = page;
    const room = this.pick(ROOMS);
    const item = { user, room, n: this.said.length, page };
    this.said.push(item);
    const giveUp = new AbortController();
    chat.say(room, item.n, { signal: giveUp.signal }).then(
      ({ seq }) => (item.seq = seq),
      (error) => (item.error = error),
    );
    if (this.chance() < 0.05) {
      item.mayFail = true;
      const late = () => page.gone || giveUp.abort(new Error("given up"));
      this.world.later(500 * this.chance(), late);
    }
  }

  trouble() {
    const sockets = [...this.server.connections];
    const { world } = this;
    this.pick([
      () => this.pick(sockets)?.cut(this.pick([1000, 1006, 1012, 1013])),
      () => sockets.forEach((socket) => socket.cut(1012)),
      () => sockets.length && (this.pick(sockets).vanished = true),
      () => {
        this.server.up = false;
        sockets.forEach((socket) => socket.cut());
        world.later(3000 * this.chance(), () => (this.server.up = true));
      },
      () => {
        navigator.onLine = false;
        world.happens("offline");
        world.later(3000 * this.chance(), () => {
          navigator.onLine = true;
          world.happens("online");
        });
      },
      () => this.pick(this.people).chat.reconnect(),
      () => world.happens("pageshow"),
      () => this.outbox === "kept" && this.reload(),
      () => this.outbox === "kept" && this.another(),
    ])();
  }

  async go() {
    while (!this.people.every(({ seen }) => seen.size === ROOMS.length)) {
      await this.world.pass(100); // or a first page has not all that was said
    }
    this.calm = false;
    while (this.said.length < 60) {
      for (let n = 6 * this.chance(); n > 0; n--) this.say();
      await this.world.pass(200 * this.chance());
      if (this.chance() < 0.3) this.trouble();
    }
    this.calm = true;
    for (let n = 0; n < 60 && !this.over; n++) await this.world.pass(5000);
    this.check();
    for (const { chat } of this.people) chat.close();
    await settled();
    assert.deepEqual(this.world.reported, []);
    if (this.outbox === "kept") for (const { kept } of this.people) assert.equal(kept.size, 0);
  }

  get over() {
    const messages = ROOMS.flatMap((room) => this.server.room(room).messages);
    const stored = new Set(messages.map(({ data }) => data));
    return this.said.every(({ seq, error, lost, page, n }) => seq || error || lost || (page.gone && stored.has(n)))
      && this.people.every(({ seen }) => ROOMS.every((room) =>
        seen.get(room)?.at(-1)?.seq === this.server.room(room).messages.at(-1)?.seq));
  }

  check() {
    assert.deepEqual(this.failed, []);
    for (const room of ROOMS) {
      const { messages } = this.server.room(room);
      const stored = new Map(messages.map(({ data, seq }) => [data, seq]));
      assert.equal(stored.size, messages.length, `${room}: one is stored twice`);
      for (const { user, chat, seen, late, tab } of this.people) {
        // One that was given up may have been under way, in another tab, too.
        const counts = ({ page, error }) => page.tab === tab && !error;
        const own = messages.map(({ data }) => data).filter((n) => counts(this.said[n]));
        assert.deepEqual(own, own.toSorted((a, b) => a - b), `${room}: order of ${user}`);
        const shown = seen.get(room).map(({ seq }) => seq);
        const all = messages.map(({ seq }) => seq); // later ones begin by a page
        assert.deepEqual(shown, late ? all.slice(-shown.length) : all, `${room}: shown to ${user}`);
        assert.deepEqual(chat.waiting, []);
      }
      for (const { n, seq, error, mayFail, lost, page } of this.said.filter((item) => item.room === room)) {
        if (page.gone && !error && !seq) assert.ok(lost || stored.has(n), `${n} of a page before`);
        else if (error) assert.ok(mayFail && error.message === "given up", `${n}: ${error}`);
        else assert.equal(seq, stored.get(n), `${room}: the reply to ${n}`);
      }
    }
  }
}

test("whatever happens, each message comes once, and in order", async () => {
  for (let seed = SEED; seed < SEED + walks(25); seed++) {
    try {
      await new Walk(seed).go();
    } catch (error) {
      error.message = `SEED=${seed} ${error.message}`;
      throw error;
    }
  }
});
