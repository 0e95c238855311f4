/**
 * A bad network: a proxy that does to the connections through it what a test says.
 *
 * In a test of Node's it is an object. Others run `node tests/support/proxy.mjs PORT`,
 * which prints its own port, then reads lines of JSON, each a list of a method's name and
 * what it gets, and answers with a line of JSON: see tests/support/network.py
 */

import net from "node:net";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const PASS = { delay: 0, rate: Infinity, up: true, down: true, fresh: "pass" };
const FULL = 65_536; // bytes under way, over which the sender is not read

/** What goes from one end of a connection to the other, in order, an end or reset too. */
class Way {
  lost = false; // nothing arrives any more, whatever the network does
  #queue = [];
  #timer;
  #size = 0;
  #idle = 0; // when the line has sent all that came before

  constructor(proxy, name, source, target) {
    Object.assign(this, { proxy, name, source, target });
    source.on("data", (data) => this.#put(data.length, () => target.write(data)));
    source.on("end", () => this.#put(0, () => target.end()));
    source.on("error", () => this.#put(0, () => target.resetAndDestroy()));
  }

  #put(size, deliver) {
    const { delay, rate } = this.proxy.network;
    this.#idle = Math.max(this.#idle, performance.now()) + (1000 * size) / rate;
    this.#queue.push({ at: this.#idle + delay, size, deliver });
    this.#size += size;
    if (this.#size > FULL) this.source.pause();
    this.go();
  }

  /** Deliver what has arrived. */
  go = () => {
    clearTimeout(this.#timer);
    while (this.#queue.length && this.proxy.network[this.name] && !this.lost) {
      const wait = this.#queue[0].at - performance.now();
      if (wait > 0) return (this.#timer = setTimeout(this.go, wait));
      const { size, deliver } = this.#queue.shift();
      this.#size -= size;
      if (!this.target.destroyed) deliver();
    }
    if (this.#size <= FULL) this.source.resume();
  };

  stop() {
    clearTimeout(this.#timer);
    this.lost = true;
  }
}

export class Proxy {
  network = { ...PASS };
  accepted = 0; // connections, ever
  #links = new Set(); // { near, far, ways }

  /** Listen on `port`, any if it is 0, for connections to `target` of this machine. */
  static async start(target, port = 0) {
    const proxy = new Proxy();
    proxy.target = target;
    proxy.server = net.createServer({ allowHalfOpen: true }, (near) => proxy.#accept(near));
    await new Promise((done) => proxy.server.listen(port, "127.0.0.1", done));
    proxy.port = proxy.server.address().port;
    return proxy;
  }

  /** How many connections there are. */
  get open() {
    return this.#links.size;
  }

  /**
   * Let the network be so from now on; what is not named is as in a good one.
   *
   * `delay`: ms, each way. `rate`: bytes a second, each way. `up`, `down`: whether what
   * comes from the client, and from the server, gets through; else it waits, as TCP
   * repeats it. `fresh`: what new connections get: "pass", "hang" (they are accepted, and
   * that is all, for ever), "reset".
   */
  set(network = {}) {
    this.network = { ...PASS, ...network };
    for (const { ways } of this.#links) for (const way of ways) way.go();
  }

  /** Packets vanish, without a word to either end, until `set`. */
  vanish() {
    this.set({ up: false, down: false, fresh: "hang" });
  }

  /** Connections of now never get anything through again; new ones do. */
  lose() {
    for (const { ways } of this.#links) for (const way of ways) way.stop();
  }

  /** Reset those that are open. */
  cut() {
    this.#end((socket) => socket.resetAndDestroy());
  }

  /** End those that are open, in good order. */
  close() {
    this.#end((socket) => socket.end(() => socket.destroy()));
  }

  /** Give these bytes to all clients, as a proxy that speaks for the server does. */
  inject(bytes) {
    for (const { near } of this.#links) near.write(Buffer.from(bytes));
  }

  async stop() {
    this.cut();
    await new Promise((done) => this.server.close(done));
  }

  #end(how) {
    for (const link of this.#links) {
      for (const way of link.ways) way.stop();
      this.#links.delete(link);
      [link.near, link.far].forEach((socket) => socket && how(socket));
    }
  }

  #accept(near) {
    this.accepted++;
    near.setNoDelay();
    near.on("error", () => {});
    const { fresh } = this.network;
    if (fresh === "reset") return near.resetAndDestroy();
    const link = { near, ways: [] };
    this.#links.add(link);
    if (fresh === "hang") {
      near.on("close", () => this.#links.delete(link));
      near.resume();
      return;
    }
    const far = (link.far = net.connect(
      { port: this.target, host: "127.0.0.1", allowHalfOpen: true, noDelay: true },
    ));
    link.ways = [new Way(this, "up", near, far), new Way(this, "down", far, near)];
    const ended = () => near.destroyed && far.destroyed && this.#links.delete(link);
    near.on("close", ended);
    far.on("close", ended);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const proxy = await Proxy.start(Number(process.argv[2]));
  console.log(proxy.port);
  for await (const line of createInterface({ input: process.stdin })) {
    const [name, ...given] = JSON.parse(line);
    const found = proxy[name];
    console.log(JSON.stringify((await (found?.call ? found.apply(proxy, given) : found)) ?? null));
  }
  process.exit();
}
