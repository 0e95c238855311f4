// Servers, clients and waiting, for tests of wschat.js on a bad network.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { WSChat } from "flask-wschat";
import { WebSocket } from "ws";

import { Proxy } from "../../support/proxy.mjs";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

const folder = mkdtempSync(join(tmpdir(), "wschat-network-"));
process.on("exit", () => rmSync(folder, { recursive: true }));

/** Wait until `condition` holds; return after how many ms. `what` and numbers if it does not. */
export async function until(condition, what, ms = 30_000) {
  const begun = performance.now();
  for (;;) {
    const found = await condition();
    const took = performance.now() - begun;
    if (found) return took;
    const words = typeof what === "function" ? what() : what;
    assert.ok(took < ms, `not within ${ms} ms: ${words}`);
    await sleep(Math.min(50, Math.max(2, took / 10)));
  }
}

export const numbers = (count) => Array.from({ length: count }, (_, n) => n);
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// ---- clients ------------------------------------------------------------------------

const members = new Set();

/** Who is in a room, and keeps what happens. */
export class Member {
  shown = []; // messages, as a page shows them
  states = []; // changes, and when
  resets = 0;
  stored = []; // replies to what was said, in the order they came
  failed = [];

  constructor(url, rooms = ["Lobby"], options = {}) {
    members.add(this);
    this.chat = new WSChat(url, { WebSocket, ...options });
    this.chat.onState((change) => this.states.push({ ...change, time: performance.now() }));
    const handlers = {
      onMessage: (message) => this.shown.push(message),
      onReset: (messages) => this.shown.push(...messages, { reset: ++this.resets }),
      onError: (error) => this.failed.push(error.code),
    };
    this.rooms = rooms.map((name) => this.chat.join(name, handlers));
  }

  get state() {
    return this.chat.state;
  }

  /** Until all rooms are read. */
  async ready() {
    await until(() => this.resets === this.rooms.length, () => `it is ready: ${this}`);
    this.shown.length = this.resets = 0;
    return this;
  }

  say(data, room = this.rooms[0].name) {
    const done = (reply) => this.stored.push({ data, seq: reply.seq });
    return this.chat.say(room, data).then(done, ({ code }) => this.failed.push(code));
  }

  /** What a room has shown. */
  words(room = this.rooms[0].name) {
    return this.shown.filter((message) => message.room === room).map(({ data }) => data);
  }

  /** Wait for a state; return after how many ms it came. */
  becomes(state, ms) {
    return until(() => this.state === state, () => `${state}: ${this}`, ms);
  }

  toString() {
    const { shown, stored, failed, resets } = this;
    const counts = { shown: shown.length, stored: stored.length, failed, resets };
    const states = this.states.map(({ state, code, time }) => `${Math.round(time)} ${state} ${code}`);
    return JSON.stringify({ ...counts, states, now: Math.round(performance.now()) });
  }
}

export function closeAll() {
  for (const { chat } of members) chat.close();
}

// ---- servers ------------------------------------------------------------------------

let parent; // a Python that has its imports, and forks: see tests/support/forking.py
let answers;

async function ask(question) {
  if (!parent) {
    const python = process.env.PYTHON ?? join(ROOT, ".venv/bin/python");
    const command = ["-u", "-m", "tests.support.forking", "patched"];
    parent = spawn(python, command, { cwd: ROOT, stdio: ["pipe", "pipe", "inherit"] });
    answers = createInterface({ input: parent.stdout })[Symbol.asyncIterator]();
  }
  parent.stdin.write(JSON.stringify(question) + "\n");
  return JSON.parse((await answers.next()).value);
}

/** End all servers, so that this process can. */
export async function endServers() {
  if (!parent) return;
  parent.stdin.end();
  await once(parent, "exit");
  parent = undefined;
}

/** A port that stays free while its server is down: the system gives it to nobody else. */
async function freePort() {
  for (;;) {
    const port = 10_000 + Math.floor(10_000 * Math.random());
    const server = net.createServer().listen(port, "127.0.0.1");
    const [event] = await Promise.race([
      once(server, "listening").then(() => ["listening"]),
      once(server, "error"),
    ]);
    if (event !== "listening") continue;
    await new Promise((done) => server.close(done));
    return port;
  }
}

const listens = (port) => new Promise((resolve) => {
  const socket = net.connect(port, "127.0.0.1");
  socket.on("connect", () => resolve(socket.destroy()));
  socket.on("error", () => resolve(false));
});

/** tests/support/chat_server.py behind a bad network. */
export class Server {
  static #made = 0;

  /** Start one. `storage`: "memory", "sqlite", or a URL; `env`: what it has of TEST_WSCHAT_*. */
  static async start(storage = "memory", env = {}) {
    const server = new Server();
    server.env = env;
    server.name = `server ${++Server.#made}`;
    server.log = join(folder, server.name);
    const urls = { memory: "memory://", sqlite: `sqlite:///${server.log}.db` };
    server.storage = urls[storage] ?? storage;
    appendFileSync(server.log, "");
    server.port = await freePort();
    await server.#begin();
    server.network = await Proxy.start(server.port);
    return server;
  }

  async #begin() {
    const env = { ...process.env, ...this.env, PORT: String(this.port), WSCHAT_URL: this.storage };
    const command = ["-m", "tests.support.chat_server"];
    this.pid = await ask([command, { ...env, PYTHONUNBUFFERED: "1" }, ROOT, this.log]);
    await until(() => listens(this.port), () => `it listens:\n${this.words}`);
  }

  get words() {
    return readFileSync(this.log, "utf8");
  }

  signal(name) {
    process.kill(this.pid, name);
  }

  async restart() {
    this.signal("SIGKILL");
    await until(() => ask(this.pid).then((code) => code !== null), "it has ended");
    await this.#begin();
  }

  async stop() {
    await this.network.stop();
    this.signal("SIGKILL");
    assert.ok(!this.words.includes("Traceback"), this.words);
  }

  /** Where `user` is served, through the network. */
  url(user = "ann") {
    return `ws://127.0.0.1:${this.network.port}/chat?user=${user}`;
  }
}
