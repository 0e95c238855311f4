// The table of what the connection of wschat.js is in, and what becomes of it; and walks at
// random through it, with a clock of their own, after each step of which both must agree.
//
//   SEED=1234 node --test tests/js/model.test.mjs      that walk again
//   WALKS=5000 node --test tests/js/model.test.mjs     more of them

import assert from "node:assert/strict";
import { test } from "node:test";

import { WSChat } from "flask-wschat";

import { SEED, chance } from "./chance.mjs";
import { World, settled, soon, walks } from "./virtual.mjs";

const TABLE = `
                  first      open       waiting    knocking   offline    closed

    ticket        =          -          -          =          -          -
    no_ticket     closed     -          -          closed     -          -
    throws        wait       -          -          wait       -          -
    opens         open       -          -          open       -          -
    fails         wait       -          -          wait       -          -
    hangs         wait       -          -          wait       -          -
    refused       closed     -          -          closed     -          -
    hello         -          =          -          -          -          -
    lost          -          wait       -          -          -          -
    1000          -          wait       -          -          -          -
    through       -          closed     -          -          -          -
    banned        -          closed     -          -          -          -
    silence       -          wait       -          -          -          -
    quiet         -          =          -          -          =          =
    moment        =          =          =          =          =          =
    due           -          -          knocking   -          -          -
    overdue       -          probe      -          -          -          -
    offline       offline    offline    offline    offline    =          =
    online        =          probe      sooner     =          sooner     =
    visible       =          probe      sooner     =          sooner     =
    pageshow      =          probe      sooner     =          sooner     =
    hidden        =          =          =          =          =          =
    ghost         =          =          =          =          =          =
    close()       closed     closed     closed     closed     closed     =
    connect()     =          =          =          =          =          first
    reconnect()   =          probe      knocking   =          knocking   first
`;
// first, knocking: an attempt is under way; offline: none is planned, until the network is
// there. -: cannot happen; =: stays; probe: and asks whether anybody is there; wait: waiting,
// each time longer, or offline; sooner: the same, as short as the first time.
// ticket, no_ticket, throws: what the option `ticket` does; hangs: no answer for 10 s;
// refused: by HTTP, as GET tells, with a ticket of its own; silence:
// no message, not even the answer to a ping; overdue: a request has no answer for 10 s, though
// others have; through: 1000 where no server of a chat ever said hello; ghost: what was given
// up does something.

/** Where it depends on more than the state whether something can happen. */
const CAN = {
  ticket: ({ asking }) => asking,
  no_ticket: ({ asking }) => asking,
  throws: ({ asking }) => asking,
  opens: ({ asking }) => !asking,
  fails: ({ asking }) => !asking,
  refused: ({ asking, hears }) => !asking && hears,
  hello: ({ hello }) => !hello,
  silence: ({ hello }) => hello,
  1000: ({ chat }) => chat,
  through: ({ chat }) => !chat,
};

const STATES = {
  first: "connecting",
  open: "open",
  waiting: "reconnecting",
  knocking: "reconnecting",
  offline: "reconnecting",
  closed: "closed",
};
const FORTH = ["due", "ticket", "opens", "hello"];
const SOME = null; // reason, in the client's words
const LOST = [1001, 1005, 1006, 1009, 1011, 1012, 1013, 3000, 4500];
const BANNED = [1008, 4000, 4001, 4499];

const [phases, ...rows] = TABLE.trim().split(/\n\s*/).map((row) => row.split(/\s+/));
const table = new Map(rows.map(([event, ...cells]) => [event, cells]));

// ---- what a browser has --------------------------------------------------------------

let world;
let sockets; // all that there were

class Socket {
  static ending = false;
  alive = true;
  answering = true; // pings
  pings = 0;
  heard = 0;

  constructor() {
    sockets.push(this);
  }

  send(text) {
    const { type, ref } = JSON.parse(text);
    if (type !== "ping") return;
    this.pings++;
    if (this.answering) soon(() => this.says({ type: "reply", ref, ok: true }));
  }

  close() {
    this.alive = false; // its "close" comes when it likes: see ghost
  }

  says(message) {
    this.heard = world.now;
    this.onmessage({ data: JSON.stringify(message) });
  }

  ends(code, reason = "") {
    this.alive = false;
    Socket.ending = true; // it may be asked why, at once
    this.onclose({ code, reason });
    Socket.ending = false;
  }
}

Math.random = () => 0.5;

// ---- the model -----------------------------------------------------------------------

class Model {
  #tries = 0; // that did not last
  #failed = 0; // since it was open
  #known = false; // what GET says
  patience = 4000; // ms for an answer
  hello = false;
  pings = 0; // of this connection

  asking = false; // for a ticket
  chat = false; // it ever was one

  constructor(local, ticketed) {
    Object.assign(this, { local, ticketed });
    this.#become("first");
  }

  get trying() {
    return this.phase === "first" || this.phase === "knocking";
  }

  /** Whether GET is asked why it does not open, and heard. */
  get hears() {
    return !this.#known;
  }

  /** Go on as the table says; `code` and `reason` of an end. */
  step(event, code = 1006, reason = "") {
    const next = table.get(event)[phases.indexOf(this.phase)];
    assert.notEqual(next, "-", `${event} cannot be when ${this.phase}`);
    if (event === "offline" && this.local) return; // this machine can be reached even then
    const ends = ["wait", "offline", "closed"].includes(next) && event !== "close()";
    const waited = !this.trying && this.phase !== "open";
    if (ends && this.trying && event !== "no_ticket") {
      this.#failed++;
      this.#known ||= !this.ticketed && world.status > 0 && world.status < 500;
    }
    if (ends && this.phase === "open" && world.now - this.since > 5000) this.#tries = 0;
    if (next === "sooner" || (waited && next === "offline")) {
      this.#wait(0, this.told.code, this.told.reason);
    } else if (next === "wait" || next === "offline") {
      this.#wait(this.#tries++, code, reason);
    } else if (next === "probe") {
      this.probe();
    } else if (next === "knocking" || next === "first") {
      if (event !== "due") this.#tries = this.#failed = 0;
      if (next === "first") this.#known = false;
      this.#become(next, next === "first" ? 0 : this.told.code, this.told.reason);
    } else if (next === "open") {
      this.#failed = this.pings = 0;
      this.#known = this.hello = false;
      this.#become("open");
    } else if (next === "closed") {
      this.#become("closed", code, reason);
    }
  }

  /** It asks, if it is a chat, and gets an answer. */
  probe() {
    if (!this.hello) return;
    this.pings++;
    this.patience = 4000;
  }

  #wait(tries, code, reason) {
    if (!navigator.onLine && !this.local) return this.#become("offline", code, reason);
    const ms = 0.5 * Math.min(10_000, 500 * 2 ** tries);
    this.#become("waiting", code, reason, ms);
  }

  #become(phase, code = 0, reason = "", wait) {
    this.phase = phase;
    this.asking = this.trying && this.ticketed;
    this.since = world.now;
    this.due = world.now + (wait ?? 10_000); // where an attempt is planned, or under way
    const retryAt = wait === undefined ? 0 : Math.round(Date.now() + wait);
    if (phase === "first") reason = "";
    this.told = { state: STATES[phase], code, reason, attempt: this.#failed, retryAt };
  }
}

// ---- a walk --------------------------------------------------------------------------

class Walk {
  told = [];
  seen = new Set(); // cells of the table

  constructor(seed) {
    this.random = chance(seed);
    this.pick = (list) => list[Math.floor(this.random() * list.length)];
    world = new World();
    sockets = [];
    const local = this.random() < 0.2;
    const ticketed = this.random() < 0.4;
    this.model = new Model(local, ticketed);
    const url = `ws://${local ? "127.0.0.1" : "chat.example"}/chat`;
    const asks = () => new Promise((give, fail) => (this.ticket = { give, fail }));
    const ticket = () => (Socket.ending ? "for the question why" : asks());
    const options = { WebSocket: Socket, ...(ticketed && { ticket }) };
    this.chat = new WSChat(url, options);
    this.chat.onState((change) => this.told.push(change));
  }

  get socket() {
    return sockets.findLast(({ alive }) => alive);
  }

  async go(count) {
    const steps = [];
    try {
      await settled();
      this.agree();
      while (steps.length < count) {
        const column = phases.indexOf(this.model.phase);
        const { model } = this;
        const possible = [...table.keys()].filter(
          (name) => table.get(name)[column] !== "-" && (CAN[name]?.(model) ?? true),
        );
        // A chat that is open is where most can happen, and many steps lead away from it.
        const forth = possible.filter((name) => FORTH.includes(name) && this.random() < 0.6);
        const event = this.pick(forth.length ? forth : possible);
        this.seen.add(`${event} ${this.model.phase}`);
        steps.push(`${this.model.phase}: ${event}`);
        world.status = this.pick([0, 404, 426, 502]);
        await EVENTS[event](this);
        await settled();
        this.agree();
      }
      this.chat.close();
      assert.deepEqual([world.timers.size, world.listeners.length], [0, 0], "timers, listeners left");
    } catch (error) {
      error.message = `after\n  ${steps.slice(-15).join("\n  ")}\n${error.message}`;
      throw error;
    }
  }

  /** What all of it is, as the model says. */
  agree() {
    const { model, chat } = this;
    const told = this.told.at(-1);
    const reason = model.told.reason === SOME ? told.reason || "some" : model.told.reason;
    assert.deepEqual(told, { ...model.told, reason });
    assert.equal(chat.state, model.told.state);
    const alive = sockets.filter((socket) => socket.alive).length;
    const some = model.phase === "open" || (model.trying && !model.asking);
    assert.equal(alive, some ? 1 : 0, "connections");
    if (model.phase === "open") assert.equal(this.socket.pings, model.pings, "pings");
    assert.equal(world.listeners.length, model.phase === "closed" ? 0 : 4, "listeners");
    if (model.phase === "closed") assert.equal(world.timers.size, 0, "timers");
    assert.deepEqual(world.reported.splice(0), []);
  }

  /** Let time pass in which pings are answered. */
  async quiet(ms) {
    const { model, socket } = this;
    if (model.phase === "open" && model.hello) {
      const silent = document.hidden ? 25_000 : 5000;
      const begun = Math.max(socket.heard + silent, world.now);
      for (let at = begun; at <= world.now + ms; at += silent) model.probe();
    }
    await world.pass(ms);
  }
}

/** Make each happen, to both. */
const EVENTS = {
  ticket({ model, ticket }) {
    model.step("ticket");
    model.asking = false;
    ticket.give("a-ticket");
  },
  no_ticket({ model, ticket }) {
    model.step("no_ticket", 401, SOME);
    ticket.give(null);
  },
  throws({ model, ticket }) {
    model.step("throws", 1006, SOME);
    ticket.fail(new Error("no network"));
  },
  opens({ model, socket }) {
    model.step("opens");
    socket.onopen();
  },
  fails({ model, socket }) {
    model.step("fails");
    socket.ends(1006);
  },
  async hangs({ model }) {
    await world.pass(model.due - world.now);
    model.step("hangs");
  },
  refused({ model, socket, pick }) {
    world.status = pick([401, 403]);
    model.step("refused", world.status, SOME);
    socket.ends(1006);
  },
  hello({ model, socket }) {
    model.step("hello");
    model.hello = model.chat = true;
    if (model.patience > 4000) model.probe();
    socket.says({ type: "hello", protocol: 1, user: "ann", ping: 25, limits: { rate: null } });
  },
  lost({ model, socket, pick }) {
    const code = pick(LOST);
    model.step("lost", code, "why");
    socket.ends(code, "why");
  },
  1000({ model, socket }) {
    model.step("1000", 1000);
    socket.ends(1000);
  },
  through({ model, socket }) {
    model.step("through", 1000);
    socket.ends(1000);
  },
  banned({ model, socket, pick }) {
    const code = pick(BANNED);
    model.step("banned", code, "go away");
    socket.ends(code, "go away");
  },
  async silence(walk) {
    const { model, socket } = walk;
    socket.answering = false;
    const asks = Math.max(socket.heard + (document.hidden ? 25_000 : 5000), world.now);
    await world.pass(asks + model.patience - world.now - 1);
    model.pings++;
    walk.agree();
    await world.pass(1);
    model.patience = Math.min(32_000, 2 * model.patience);
    model.step("silence");
  },
  async quiet(walk) {
    await walk.quiet(60_000 * walk.random());
  },
  async moment(walk) {
    const { model, random } = walk;
    const ms = model.phase === "waiting" || model.trying ? model.due - world.now : 1000;
    await walk.quiet(ms * random() * 0.99);
  },
  async due({ model }) {
    await world.pass(model.due - world.now);
    model.step("due");
  },
  async overdue(walk) {
    const answer = walk.chat.request("think").catch(({ code }) => code);
    await walk.quiet(9999);
    walk.model.step("overdue");
    await world.pass(1);
    assert.equal(await answer, "timeout");
  },
  offline({ model }) {
    navigator.onLine = false;
    model.step("offline");
    world.happens("offline");
  },
  online({ model }) {
    navigator.onLine = true;
    model.step("online");
    world.happens("online");
  },
  visible({ model }) {
    document.hidden = false;
    model.step("visible");
    world.happens("visibilitychange");
  },
  pageshow({ model }) {
    model.step("pageshow");
    world.happens("pageshow");
  },
  hidden({ model }) {
    document.hidden = true;
    model.step("hidden");
    world.happens("visibilitychange");
  },
  ghost({ model, pick, ticket }) {
    model.step("ghost");
    if (ticket && !model.asking) ticket.give("too late");
    const ghost = sockets.findLast(({ alive }) => !alive);
    if (!ghost) return;
    const message = { data: '{"type":"hello","ping":1,"user":"nobody"}' };
    pick([
      () => ghost.onopen(),
      () => ghost.onmessage(message),
      () => ghost.onclose({ code: 4000, reason: "" }),
      () => ghost.onerror(),
    ])();
  },
  "close()"({ model, chat, pick }) {
    const [code, reason] = pick([[1000, ""], [4321, "bye"]]);
    model.step("close()", code, reason);
    chat.close(code, reason);
  },
  "connect()"({ model, chat }) {
    model.step("connect()");
    chat.connect();
  },
  "reconnect()"({ model, chat }) {
    model.step("reconnect()");
    chat.reconnect();
  },
};

const WALKS = walks(100);

test("walks through the table of states", async () => {
  const seen = new Set();
  for (let seed = SEED; seed < SEED + WALKS; seed++) {
    const walk = new Walk(seed);
    try {
      await walk.go(100);
    } catch (error) {
      error.message = `SEED=${seed} ${error.message}`;
      throw error;
    }
    for (const cell of walk.seen) seen.add(cell);
  }
  if (WALKS < 100) return;
  const cells = rows.flatMap(([event, ...nexts]) =>
    phases.flatMap((phase, n) => (nexts[n] === "-" ? [] : `${event} ${phase}`)));
  assert.deepEqual(cells.filter((cell) => !seen.has(cell)), [], `SEED=${SEED}: never tried`);
});
