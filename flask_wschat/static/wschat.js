/**
 * A small WebSocket client: reconnects, buffers, pairs replies; and the ready-made chat
 * on top, with rooms that resume. Types and promises: wschat.d.ts
 */

const FIRST = 500; // ms: longest first wait
const CAP = 10_000; // ms: longest wait, also for a handshake
const STABLE = 5_000; // ms: a connection that lasted this long resets the count
const BUFFER = 65_536; // characters or bytes kept while not connected
const OUTBOX = 1 << 20; // bytes that may wait to be acknowledged
const PASSING = ["disconnected", "timeout", "full", "unavailable", "rate_limited"];
const LOCAL = /^(localhost$|127\.|\[::1\])/;

/** Full jitter, so that a server's pages don't come back in one wave. */
export function backoff(attempt, random = Math.random) {
  return random() * Math.min(CAP, FIRST * 2 ** attempt);
}

export function shouldReconnect(code) {
  return code !== 1000 && code !== 1008 && !(code >= 4000 && code < 4500);
}

export class RequestError extends Error {
  constructor(code, message, retryAfter = 0) {
    super(message);
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** A room, or the inbox (null): knows how far it has read, and goes on from there. */
class Feed {
  present = [];
  #on; #ask; #turn; // #turn: the reading under way, if any

  constructor(name, { seq, epoch, ...on }, ask, left) {
    Object.assign(this, { name, seq, epoch });
    this.#on = on;
    this.#ask = ask;
    this.leave = () => left((this.#on = this.#turn = {}));
  }

  /** Read on, page after page; a later call takes over from an earlier one. */
  async sync() {
    const { name } = this;
    const turn = (this.#turn = {});
    const wanted = () => turn === this.#turn;
    try {
      for (let page = { more: true }; page.more; this.#read(page)) {
        const fields = { room: name ?? undefined, after: this.seq, epoch: this.epoch };
        page = await this.#ask(name === null ? "inbox" : "join", fields, wanted);
        if (!page || !wanted()) return;
      }
      this.#turn = undefined;
    } catch (error) {
      if (!wanted()) return;
      this.#call("onError", error);
      this.leave();
    }
  }

  receive(message) {
    const { type, joined, left } = message;
    if (type === "gap") this.sync();
    if (type === (this.name === null ? "direct" : "message")) this.#take(message);
    if (type === "presence") {
      const others = this.present.filter((user) => !left.includes(user));
      this.#meet([...new Set([...others, ...joined])].sort(), { joined, left });
    }
  }

  #read({ epoch, seq, recovered, messages, present }) {
    if (recovered) {
      messages.forEach(this.#take, this);
    } else {
      Object.assign(this, { epoch, seq });
      if (this.#on.onReset) this.#call("onReset", messages);
      else messages.forEach((message) => this.#call("onMessage", message));
    }
    if (present) this.#meet(present, { joined: [], left: [] });
  }

  #take(message) {
    const { seq } = message; // 0: not kept, not counted
    if (seq > this.seq + 1) return this.#turn ?? this.sync(); // never a hole
    if (seq && !(seq > this.seq)) return; // never twice
    this.seq = seq || this.seq;
    this.#call("onMessage", message);
  }

  #meet(present, change) {
    this.present = present;
    this.#call("onPresence", present, change);
  }

  #call(name, ...values) {
    try {
      this.#on[name]?.(...values);
    } catch (error) {
      reportError(error); // what a page does wrong must not lose messages
    }
  }
}

export class WSChat {
  /** @type {"connecting" | "open" | "reconnecting" | "closed"} */
  state = "connecting";
  #url; #socket; #timer; #attempt = 0; #ref = 0;
  #buffer = []; // { data, ref }
  #waiting = new Map(); // ref -> { resolve, reject, timer, sent }
  #handlers = new Map(); // type -> Set; WSChat -> the state's
  #protocols; #lost;
  #feeds = new Map(); // room, or null for the inbox -> Feed
  #tails = new Map(); // where to -> the last message under way there
  #unstored = 0;
  #mids = 0;
  #mid = crypto.getRandomValues(new Uint32Array(3)).join("-");

  constructor(url, { protocols = [] } = {}) {
    this.#protocols = protocols;
    this.#url = new URL(url, location.href);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    addEventListener("online", this.#online);
    this.#connect();
  }

  on(type, handler) {
    if (!this.#handlers.has(type)) this.#handlers.set(type, new Set());
    this.#handlers.get(type).add(handler);
    return () => this.#handlers.get(type).delete(handler);
  }

  onState(watcher) {
    watcher({ state: this.state, code: 0, reason: "" });
    return this.on(WSChat, watcher);
  }

  send(data) {
    const raw = data instanceof ArrayBuffer || typeof data === "string";
    this.#put(raw ? data : JSON.stringify(data));
  }

  request(type, fields = {}, { timeout = 10_000 } = {}) {
    const ref = ++this.#ref;
    return new Promise((resolve, reject) => {
      const fail = (code, text) => this.#settle(ref, new RequestError(code, text));
      const timer = setTimeout(fail, timeout, "timeout", "no answer");
      this.#waiting.set(ref, { resolve, reject, timer });
      try {
        this.#put(JSON.stringify({ ...fields, type, ref }), ref);
      } catch (error) {
        fail(error.code, error.message);
      }
    });
  }

  close(code = 1000, reason = "") {
    this.#socket?.close(code, reason);
    this.#finish(code, reason);
  }

  join(room, options = {}) {
    const feed = this.#follow(room.normalize(), options);
    return Object.assign(feed, { say: (data) => this.say(room, data) });
  }

  inbox(options = {}) {
    return this.#follow(null, options);
  }

  say(room, data) {
    return this.#post("say", { room: room.normalize(), data });
  }

  tell(to, data) {
    return this.#post("tell", { to, data });
  }

  #follow(name, options) {
    const open = () => this.state === "open";
    const ask = (type, fields, wanted) =>
      this.#ask(type, fields, () => open() && wanted());
    const left = () => {
      if (this.#feeds.get(name) !== feed) return;
      this.#feeds.delete(name);
      if (name !== null && open()) this.send({ type: "leave", ref: 0, room: name });
    };
    const feed = new Feed(name, options, ask, left);
    this.#feeds.set(name, feed);
    if (open()) feed.sync();
    return feed;
  }

  /** Have it stored, once; one after the other to each place. */
  #post(type, fields) {
    const text = JSON.stringify({ ...fields, mid: `${this.#mid}-${++this.#mids}` });
    const where = type + (fields.room ?? fields.to);
    const size = new Blob([text]).size;
    if (this.#unstored + size > OUTBOX) {
      return Promise.reject(new RequestError("full", "too much is waiting"));
    }
    this.#unstored += size;
    const send = () => this.#ask(type, JSON.parse(text), () => true, size + 99);
    const stored = Promise.resolve(this.#tails.get(where)).then(send);
    const tail = stored.catch(() => {}).then(() => {
      this.#unstored -= size;
      if (this.#tails.get(where) === tail) this.#tails.delete(where);
    });
    this.#tails.set(where, tail);
    return stored;
  }

  /** Ask until there is an answer, or none is wanted any more. */
  async #ask(type, fields, wanted, size = 0) {
    for (let tries = 0; wanted(); tries++) {
      // The server would close the connection, each time anew.
      if (size > this.hello?.limits?.message) {
        throw new RequestError("too_big", "over the limit of a message");
      }
      try {
        return await this.request(type, fields);
      } catch (error) {
        const { code, retryAfter } = error;
        const passes = code === "not_joined" && this.#feeds.has(fields.room);
        if (!passes && !PASSING.includes(code)) throw error;
        if (!wanted()) return;
        if (this.state === "closed") throw error;
        if (code === "timeout" && this.state === "open") this.#lost({ code: 1006 });
        else if (code !== "disconnected") {
          const wait = Math.max(backoff(tries), 1000 * retryAfter);
          await new Promise((resolve) => setTimeout(resolve, wait));
        }
      }
    }
  }

  #online = () => this.#socket || this.#retry(0);

  #connect = () => {
    const socket = (this.#socket = new WebSocket(this.#url, this.#protocols));
    let opened = Infinity;
    const lost = (this.#lost = ({ code, reason = "" }) => {
      clearTimeout(stuck);
      if (socket !== this.#socket) return;
      this.#socket = undefined;
      socket.close();
      if (!shouldReconnect(code)) return this.#finish(code, reason);
      if (Date.now() - opened > STABLE) this.#attempt = 0;
      this.#become("reconnecting", code, reason);
      this.#drop("connection lost", false);
      this.#retry(this.#attempt++);
    });
    // Where packets vanish, browsers wait for minutes.
    const stuck = setTimeout(lost, CAP, { code: 1006 });
    socket.binaryType = "arraybuffer";
    socket.onclose = lost;
    socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(data);
    socket.onopen = () => {
      clearTimeout(stuck);
      opened = Date.now();
      this.#become("open");
      for (const feed of this.#feeds.values()) feed.sync();
      for (const { data, ref } of this.#buffer.splice(0)) this.#put(data, ref);
    };
  };

  #retry(attempt) {
    clearTimeout(this.#timer);
    if (this.state === "closed") return;
    // Offline, "online" wakes us; but this machine can be reached even then.
    if (!navigator.onLine && !LOCAL.test(this.#url.hostname)) return;
    this.#timer = setTimeout(this.#connect, backoff(attempt));
  }

  #put(data, ref) {
    if (this.state === "open") {
      this.#socket.send(data);
      if (ref) this.#waiting.get(ref).sent = true;
      return;
    }
    if (this.state === "closed") throw new RequestError("disconnected", "closed");
    let size = 0;
    const buffer = [...this.#buffer, { data, ref }];
    for (const { data } of buffer) size += data.length ?? data.byteLength;
    if (size > BUFFER) throw new RequestError("full", "too much is waiting");
    this.#buffer = buffer;
  }

  #receive(data) {
    let message = data;
    try {
      message = JSON.parse(data);
    } catch {} // not JSON: only for "*"
    const { type, ref, ok, error, room = null } = Object(message);
    if (this.#waiting.has(ref) && (type === "reply" || type === "error")) {
      const { code, message: text, retry_after } = Object(error);
      this.#settle(ref, ok ? message : new RequestError(code, text, retry_after));
    }
    if (type === "hello") this.hello = message;
    this.#feeds.get(room)?.receive(message);
    this.#emit(type, message);
    this.#emit("*", message);
  }

  #emit(key, event) {
    this.#handlers.get(key)?.forEach((handler) => handler(event));
  }

  #settle(ref, result) {
    const { resolve, reject, timer } = this.#waiting.get(ref);
    clearTimeout(timer);
    this.#waiting.delete(ref);
    // What was given up must not be sent later.
    this.#buffer = this.#buffer.filter((item) => item.ref !== ref);
    (result instanceof Error ? reject : resolve)(result);
  }

  #finish(code, reason) {
    if (this.state === "closed") return;
    clearTimeout(this.#timer);
    removeEventListener("online", this.#online);
    this.#socket = undefined;
    this.#become("closed", code, reason);
    this.#drop(reason, true);
  }

  #drop(reason, unsent) {
    for (const [ref, { sent }] of this.#waiting) {
      if (sent || unsent) this.#settle(ref, new RequestError("disconnected", reason));
    }
  }

  #become(state, code = 0, reason = "") {
    this.state = state;
    this.#emit(WSChat, { state, code, reason });
  }
}
