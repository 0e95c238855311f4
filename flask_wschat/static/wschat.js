/**
 * A small WebSocket client: reconnects, buffers, pairs replies; and the ready-made chat
 * on top, with rooms that resume. Types and promises: wschat.d.ts
 *
 * Over 450 lines, as a page fetches one file, without a build step.
 */

const FIRST = 500; // ms: longest first wait
const CAP = 10_000; // ms: longest wait, also for a handshake
const STABLE = 5_000; // ms: a connection that lasted this long resets the count
const SILENT = 6_000; // ms without a word after which a page in view asks for one
const ANSWER = 4_000; // ms in which something must come then
const PATIENT = 32_000; // ms: as far as that grows on a line that is only slow
const BUFFER = 65_536; // characters or bytes kept while not connected
const WINDOW = 12; // without an answer: if all are refused, the server bears with as many
const OUTBOX = 1 << 20; // bytes that may wait to be acknowledged
const PASSING = ["disconnected", "timeout", "full", "unavailable", "rate_limited"];
const LOCAL = /^(localhost$|127\.|\[::1\])/;
const EVENTS = ["online", "offline", "pageshow", "visibilitychange"];

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

/** What a page does wrong must not lose messages, nor stop other handlers or us. */
function guarded(call) {
  try {
    call();
  } catch (error) {
    reportError(error);
  }
}

/** A room, or the inbox (null): knows how far it has read, and goes on from there. */
class Feed {
  present = [];
  count = 0;
  streams = new Map(); // what grows: id -> { id, from, at, n, text }
  #on; #ask; #turn; // #turn: the reading under way, if any
  #lacking = new Set(); // ids of those of which all is asked for

  constructor(name, { seq, epoch, tag, ...on }, ask, left) {
    Object.assign(this, { name, seq, epoch, tag });
    this.#on = on;
    this.#ask = ask;
    this.leave = () => left((this.#on = this.#turn = {}));
  }

  /** Read on, page after page; a later call takes over from an earlier one. */
  async sync(spread = 0) {
    const { name } = this;
    const turn = (this.#turn = {});
    const wanted = () => turn === this.#turn;
    try {
      if (spread > 0) {
        // Others were told the same, and would all ask at once.
        const wait = 1000 * Math.random() * Math.min(spread, 60);
        await new Promise((resolve) => setTimeout(resolve, wait));
        if (!wanted()) return;
      }
      for (let page = { more: true }; page.more; this.#read(page)) {
        const { seq: after, epoch, tag } = this;
        const fields = { room: name ?? undefined, after, epoch, tag };
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
    if (type === "gap") this.sync(message.spread);
    if (type === (this.name === null ? "direct" : "message")) this.#take(message);
    if (type === "deleted") this.#call("onDeleted", message.seq);
    if (type === "stream") this.#show(message);
    if (type === "append") this.#append(message);
    if (type === "discard") this.#discard(message.id, message.reason);
    if (type === "presence" && joined) {
      const others = this.present.filter((user) => !left.includes(user));
      this.#meet({ present: [...new Set([...others, ...joined])].sort() }, { joined, left });
    } else if (type === "presence") this.#meet(message);
  }

  #read({ epoch, seq, tag, recovered, messages, streams = [], ...people }) {
    if (recovered) {
      messages.forEach(this.#take, this);
    } else {
      Object.assign(this, { epoch, seq, tag: tag || undefined });
      if (this.#on.onReset) this.#call("onReset", messages);
      else messages.forEach((message) => this.#call("onMessage", message));
    }
    messages.forEach(this.#end, this);
    const growing = new Set(streams.map(({ id }) => id));
    for (const id of this.streams.keys()) if (!growing.has(id)) this.#discard(id, "");
    streams.forEach(this.#show, this);
    if (people.present ?? people.count) this.#meet(people);
  }

  #take(message) {
    const { seq } = message; // 0: not kept, not counted
    if (seq > this.seq + 1) return this.#turn ?? this.sync(); // never a hole
    if (seq && !(seq > this.seq)) return; // never twice
    if (seq) Object.assign(this, { seq, tag: message.tag });
    this.#end(message);
    this.#call("onMessage", message);
  }

  /** Anybody may say something under an id that is seen to grow. */
  #end({ mid, from }) {
    if (this.streams.get(mid)?.from === from) this.streams.delete(mid);
  }

  /** All that there is of what grows. */
  #show({ id, from, at, n, text }) {
    const stream = { id, from, at, n, text };
    this.streams.set(id, stream);
    this.#call("onStream", stream, text);
  }

  #append({ id, n, text }) {
    const stream = this.streams.get(id);
    if (n <= stream?.n || this.#lacking.has(id)) return;
    if (n !== stream?.n + 1) return this.#complete(id);
    Object.assign(stream, { n, text: stream.text + text });
    this.#call("onStream", stream, text);
  }

  async #complete(id) {
    const on = this.#on;
    this.#lacking.add(id);
    try {
      const fields = { room: this.name ?? undefined, id };
      const stream = await this.#ask("stream", fields, () => this.#on === on);
      if (stream) this.#show(stream);
    } catch {} // it is over: its end comes, or has come
    this.#lacking.delete(id);
  }

  #discard(id, reason) {
    if (this.streams.delete(id)) this.#call("onDiscard", id, reason);
  }

  /** Who is there now; where they are too many to be named, how many. */
  #meet({ present = [], count = present.length }, change = { joined: [], left: [] }) {
    Object.assign(this, { present, count });
    this.#call("onPresence", present, change, count);
  }

  #call(name, ...values) {
    guarded(() => this.#on[name]?.(...values));
  }
}

/** How fast the server may be asked: its own bucket, as far as we know it. */
class Pace {
  #step = 100; // ms between two, over time; so until hello tells
  #ahead = 900; // ms that may be saved up, for ten at once
  #slow = 1; // times that step, where others use up what is ours, too
  #next = 0;

  /** ms to wait before the next one. */
  get wait() {
    return Math.max(0, this.#next - this.#ahead - performance.now());
  }

  allow(rate) {
    const now = performance.now();
    const used = this.#step && Math.max(0, this.#next - now) / this.#step;
    this.#step = rate ? 1000 / rate.per_second : 0;
    this.#ahead = rate ? this.#step * Math.min(9, rate.burst - 1) : 0;
    this.#next = now + used * this.#step;
  }

  count() {
    this.#next = Math.max(this.#next, performance.now()) + this.#step * this.#slow;
    this.#slow = Math.max(1, this.#slow * 0.9);
  }

  refused(seconds) {
    this.#slow = Math.min(16, this.#slow * 2);
    const until = performance.now() + this.#ahead + 1000 * (seconds || 1);
    this.#next = Math.max(this.#next, until);
  }
}

export class WSChat {
  /** @type {"connecting" | "open" | "reconnecting" | "closed"} */
  state = "connecting";
  #url; #socket; #timer; #attempt = 0; #ref = 0;
  #buffer = []; // { data, ref }
  #waiting = new Map(); // ref -> { resolve, reject, timeout, timer: once it is sent }
  #handlers = new Map(); // type -> Set; WSChat -> the state's
  #protocols; #lost;
  #known = false; // why it does not open was asked, and need not be again
  #every = 0; // ms between the server's pings; 0: it has not said hello, and has none
  #heard = 0; #asked = 0; #pinged = 0; #patience = ANSWER; #pulse;
  #pace = new Pace();
  #line = []; // who waits for it
  #open = 0; // asked in line, and not answered
  #next;
  #feeds = new Map(); // room, or null for the inbox -> Feed
  #tails = new Map(); // where to -> the last message under way there
  #unstored = 0;
  #mids = 0;
  #mid = crypto.getRandomValues(new Uint32Array(3)).join("-");

  constructor(url, { protocols = [] } = {}) {
    this.#protocols = protocols;
    this.#url = new URL(url, location.href);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    for (const type of EVENTS) addEventListener(type, this.#world);
    this.#connect();
  }

  on(type, handler) {
    if (!this.#handlers.has(type)) this.#handlers.set(type, new Set());
    this.#handlers.get(type).add(handler);
    return () => this.#handlers.get(type).delete(handler);
  }

  onState(watcher) {
    guarded(() => watcher({ state: this.state, code: 0, reason: "" }));
    return this.on(WSChat, watcher);
  }

  send(data) {
    const binary = [ArrayBuffer, Blob].some((type) => data instanceof type);
    const ready = binary || ArrayBuffer.isView(data) || typeof data === "string";
    const text = ready ? data : JSON.stringify(data);
    if (text === undefined) throw new TypeError("this cannot be said in JSON");
    this.#put(text);
  }

  request(type, fields = {}, { timeout = 10_000 } = {}) {
    const ref = ++this.#ref;
    return new Promise((resolve, reject) => {
      this.#waiting.set(ref, { resolve, reject, timeout });
      try {
        this.#put(JSON.stringify({ ...fields, type, ref }), ref);
      } catch (error) {
        this.#settle(ref, error);
      }
    });
  }

  close(code = 1000, reason = "") {
    this.#socket?.close(code, reason);
    this.#finish(code, reason);
  }

  join(room, options = {}) {
    const feed = this.#follow(room.normalize(), options);
    const say = (data) => this.say(room, data);
    const stop = (id) => this.request("stop", { room: feed.name, id });
    return Object.assign(feed, { say, stop });
  }

  inbox(options = {}) {
    const stop = (id) => this.request("stop", { id });
    return Object.assign(this.#follow(null, options), { stop });
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
      // Once it is our turn, unless it is joined again, or the connection gone with it.
      const { hello } = this;
      const away = () => open() && hello === this.hello && !this.#feeds.has(name);
      if (name !== null && open()) this.#ask("leave", { room: name }, away).catch(() => {});
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

  /** Let those who wait in line ask, as fast as the server takes it. */
  #go = () => {
    clearTimeout(this.#next);
    if (this.state !== "open") return;
    while (this.#line.length && this.#open < WINDOW) {
      const { wait } = this.#pace;
      if (wait) return (this.#next = setTimeout(this.#go, wait));
      this.#pace.count();
      this.#line.shift()();
    }
  };

  /** Ask until there is an answer, or none is wanted any more. */
  async #ask(type, fields, wanted, size = 0) {
    for (let tries = 0; wanted(); tries++) {
      const full = this.#line.length || this.#open >= WINDOW || this.#pace.wait;
      let ours = this.state === "open" && !full;
      if (ours) this.#pace.count();
      while (!ours && this.state !== "closed") {
        const turn = new Promise((resolve) => this.#line.push(resolve));
        this.#go();
        await turn;
        if (!wanted()) return;
        ours = this.state === "open"; // else it is lost again
      }
      // The server would close the connection, each time anew.
      if (size > this.hello?.limits?.message) {
        throw new RequestError("too_big", "over the limit of a message");
      }
      try {
        return await this.#counted(this.request(type, fields));
      } catch (error) {
        const { code, retryAfter } = error;
        const passes = code === "not_joined" && this.#feeds.has(fields.room);
        if (!passes && !PASSING.includes(code)) throw error;
        if (!wanted()) return;
        if (this.state === "closed") throw error;
        if (code === "rate_limited") this.#pace.refused(retryAfter);
        // It has not even said hello, so there is no other way to tell.
        else if (code === "timeout" && !this.#every) this.#lost({ code: 1006 });
        else if (code !== "disconnected") {
          await new Promise((resolve) => setTimeout(resolve, backoff(tries)));
        }
      }
    }
  }

  async #counted(answer) {
    this.#open++;
    try {
      return await answer;
    } finally {
      this.#open--;
      this.#go();
    }
  }

  /** The network, or the page, has come or gone. */
  #world = ({ type }) => {
    if (type === "offline") return this.#local || this.#lost({ code: 1006 });
    if (type === "visibilitychange" && document.hidden) return;
    if (this.#socket) this.#beat(true);
    else this.#retry(0);
  };

  get #local() {
    return LOCAL.test(this.#url.hostname); // can be reached even then
  }

  /** See that something comes from time to time; `doubt`: ask for it now. */
  #beat = (doubt) => {
    clearTimeout(this.#pulse);
    if (!this.#every || this.state !== "open") return;
    const now = performance.now();
    const silent = globalThis.document?.hidden ? this.#every : Math.min(this.#every, SILENT);
    let wait = this.#heard + silent - now;
    if (this.#asked) {
      wait = this.#asked + this.#patience - now;
      if (wait <= 0) {
        // What comes may be long, and the line slow: have more patience then.
        this.#patience = Math.min(PATIENT, 2 * this.#patience);
        return this.#lost({ code: 1006 });
      }
    } else if (doubt || wait <= 0) {
      // Browsers show no pings to pages: see docs/decisions/25.
      this.#asked = this.#pinged = now;
      this.send({ type: "ping", ref: 0 });
      wait = this.#patience;
    }
    this.#pulse = setTimeout(this.#beat, wait);
  };

  /** Why it does not open: a page sees HTTP errors of anything but its sockets. */
  async #why() {
    if (this.#known) return;
    this.#known = true;
    const url = new URL(this.#url);
    url.protocol = url.protocol.replace("ws", "http");
    try {
      const signal = AbortSignal.timeout(CAP);
      const { status } = await fetch(url, { cache: "no-store", redirect: "manual", signal });
      if (status >= 500) this.#known = false; // a proxy's word, while it restarts
      if ((status !== 401 && status !== 403) || this.state === "open") return;
      this.#socket?.close();
      this.#finish(status, status === 401 ? "You are not logged in." : "You may not enter here.");
    } catch {
      // No answer at all; or another origin's, which does not let us see it.
      this.#known = url.origin !== location.origin;
    }
  }

  #connect = () => {
    const socket = (this.#socket = new WebSocket(this.#url, this.#protocols));
    let opened = Infinity, first = true;
    const lost = (this.#lost = ({ code, reason = "" }) => {
      clearTimeout(stuck);
      if (socket !== this.#socket) return;
      this.#socket = undefined;
      socket.close();
      // A view that is through closes with 1000, but a chat is never: a proxy did that.
      const again = shouldReconnect(code) || (code === 1000 && (this.hello || this.#feeds.size));
      if (!again) return this.#finish(code, reason);
      if (Date.now() - opened > STABLE) this.#attempt = 0;
      this.#every = 0;
      this.#become("reconnecting", code, reason);
      this.#drop("connection lost", false);
      for (const go of this.#line.splice(0)) go();
      this.#retry(this.#attempt++);
      if (opened === Infinity) this.#why();
    });
    // Where packets vanish, browsers wait for minutes.
    const stuck = setTimeout(lost, CAP, { code: 1006 });
    socket.binaryType = "arraybuffer";
    socket.onclose = lost;
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      this.#heard = performance.now();
      this.#asked = 0;
      this.#receive(data, first);
      first = false;
    };
    socket.onopen = () => {
      clearTimeout(stuck);
      opened = Date.now();
      this.#known = false;
      this.#asked = 0;
      this.state = "open";
      const later = this.#line.splice(0); // first those on which others build
      for (const feed of this.#feeds.values()) feed.sync();
      this.#line.push(...later);
      this.#go();
      this.#become("open");
      for (const { data, ref } of this.#buffer.splice(0)) {
        if (socket === this.#socket) this.#put(data, ref); // a watcher may have closed it
      }
    };
  };

  #retry(attempt) {
    clearTimeout(this.#timer);
    if (this.state === "closed") return;
    if (!navigator.onLine && !this.#local) return; // "online" wakes us
    this.#timer = setTimeout(this.#connect, backoff(attempt));
  }

  #put(data, ref) {
    if (this.state === "open") {
      this.#socket.send(data);
      const request = this.#waiting.get(ref);
      if (request) request.timer = setTimeout(this.#overdue, request.timeout, ref);
      return;
    }
    if (this.state === "closed") throw new RequestError("disconnected", "closed");
    if (typeof data !== "string") data = new Blob([data]); // as it is now
    let size = 0;
    const buffer = [...this.#buffer, { data, ref }];
    for (const { data } of buffer) size += data.length ?? data.size;
    if (size > BUFFER) throw new RequestError("full", "too much is waiting");
    this.#buffer = buffer;
  }

  #overdue = (ref) => {
    this.#settle(ref, new RequestError("timeout", "no answer"));
    this.#beat(true);
  };

  #receive(data, first) {
    let message;
    try {
      message = JSON.parse(data);
    } catch {} // not JSON
    // Whatever else it is, it is not ours to change: 0.10 stays "0.10".
    if (typeof Object(message).type !== "string") return this.#emit("*", data);
    const { type, ref, ok, error, room = null } = message;
    if (this.#waiting.has(ref) && (type === "reply" || type === "error")) {
      const { code, message: text, retry_after } = Object(error);
      this.#settle(ref, ok ? message : new RequestError(code, text, retry_after));
    }
    // Only the answer tells how slow the line is: others were under way before.
    if (ref === 0 && this.#heard - this.#pinged < ANSWER) this.#patience = ANSWER;
    if (type === "hello" && first) this.#greet(message); // later it is somebody's words
    this.#feeds.get(room)?.receive(message);
    this.#emit(type, message);
    this.#emit("*", message);
  }

  #greet(hello) {
    this.hello = hello;
    this.#every = hello.ping > 0 ? Math.max(1000, 1000 * hello.ping) : 0;
    this.#beat(this.#patience > ANSWER); // the line may be a fast one again
    this.#pace.allow(hello.limits?.rate);
    this.#go();
  }

  #emit(key, event) {
    for (const handler of this.#handlers.get(key) ?? []) {
      guarded(() => handler(event));
    }
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
    clearTimeout(this.#pulse);
    for (const type of EVENTS) removeEventListener(type, this.#world);
    this.#socket = undefined;
    this.#become("closed", code, reason);
    this.#drop(reason, true);
    for (const go of this.#line.splice(0)) go();
  }

  #drop(reason, unsent) {
    for (const [ref, { timer }] of this.#waiting) {
      if (timer || unsent) this.#settle(ref, new RequestError("disconnected", reason));
    }
  }

  #become(state, code = 0, reason = "") {
    this.state = state;
    this.#emit(WSChat, { state, code, reason });
  }
}
