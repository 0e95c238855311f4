/**
 * A small WebSocket client: reconnects, buffers, pairs replies; and the ready-made chat
 * on top, with rooms that resume. Types and promises: wschat.d.ts
 *
 * Over 450 lines, as a page fetches one file, without a build step. It runs in pages, in
 * workers and in Node, so of what is global little is taken for granted.
 */

const FIRST = 500; // ms: longest first wait
const CAP = 10_000; // ms: longest wait, also for a handshake
const STABLE = 5_000; // ms: a connection that lasted this long resets the count
const SILENT = 5_000; // ms without a word after which a page in view asks for one
const ANSWER = 4_000; // ms in which something must come then
const PATIENT = 32_000; // ms: as far as that grows on a line that is only slow
const BUFFER = 65_536; // characters or bytes kept while not connected
const WINDOW = 12; // without an answer: if all are refused, the server bears with as many
const UNSTORED = 1 << 20; // bytes that may wait to be acknowledged
const LONGEST = 2 ** 31; // ms: timers take this for none at all
const PASSING = ["timeout", "unavailable", "out_of_order"];
const AT_ONCE = ["disconnected", "rate_limited"]; // asked again as soon as can be
const LOCAL = /^(localhost$|127\.|\[::1\])/;
const EVENTS = ["online", "offline", "pageshow", "visibilitychange"];

/** Full jitter, so that a server's pages don't come back in one wave. */
export function backoff(attempt, random = Math.random) {
  return random() * Math.min(CAP, FIRST * 2 ** attempt);
}

export function shouldReconnect(code) {
  return code !== 1000 && code !== 1008 && !(code >= 4000 && code < 4500);
}

export function applyPresence(present, { joined, left }) {
  const stay = present.filter((user) => !left.includes(user));
  return [...new Set([...stay, ...joined])].sort();
}

export function diffPresence(before, after) {
  const without = (some, others) => some.filter((user) => !others.includes(user));
  return { joined: without(after, before), left: without(before, after) };
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
    (globalThis.reportError ?? console.error)(error);
  }
}

/** What it is, of whichever window: "Array", "Map", "Null" … */
const kind = (data) => Object.prototype.toString.call(data).slice(8, -1);

/** Of a Map JSON would tell nothing, of NaN that it is null. */
function json(data) {
  const can = /^(Object|Array|String|Number|Boolean|Null)$/.test(kind(data));
  const text = can && JSON.stringify(data);
  if (text && (text !== "null" || data === null)) return text;
  throw new TypeError("this cannot be said in JSON");
}

function address(given) {
  let url;
  try {
    url = new URL(given, globalThis.location?.href);
  } catch {
    throw new TypeError(`this needs a page, or to be absolute: ${given}`);
  }
  url.protocol = url.protocol.replace("http", "ws");
  return url;
}

/** Call `stop` with a reason when it is time to give up; return what ends that. */
function limit({ signal, timeout }, stop) {
  const aborted = () => stop(signal.reason);
  signal?.addEventListener("abort", aborted);
  const over = new RequestError("timeout", "no answer");
  const timer = timeout < LONGEST ? setTimeout(stop, timeout, over) : 0;
  return () => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", aborted);
  };
}

/** A room, or the inbox (null): knows how far it has read, and goes on from there. */
class Feed {
  present = [];
  count = 0;
  streams = new Map(); // what grows: id -> { id, from, at, n, text }
  #on; #ask; #turn; // #turn: the reading under way, if any
  #lacking = new Set(); // ids of those of which all is asked for
  #begun = false;

  constructor(name, { seq, epoch, tag, ...on }, ask, left) {
    Object.assign(this, { name, seq, epoch, tag });
    this.#on = on;
    this.#ask = ask;
    this.leave = () => {
      const reading = this.reading;
      this.#on = this.#turn = {};
      this.left = true;
      left(reading);
    };
  }

  get reading() {
    return this.#turn !== undefined;
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

  /** Another one read here: what was in it does not come as a message any more. */
  notice({ epoch, seq }) {
    if (!this.reading && (epoch !== this.epoch || seq > this.seq)) this.sync();
  }

  receive(message) {
    const { type, joined } = message;
    if (!this.#begun) return; // others read here, and were told
    if (type === "gap") this.sync(message.spread);
    if (type === (this.name === null ? "direct" : "message")) this.#take(message);
    if (type === "deleted") this.#call("onDeleted", message.seq);
    if (type === "stream") this.#show(message);
    if (type === "append") this.#append(message);
    if (type === "discard") this.#discard(message.id, message.reason);
    if (type === "presence" && joined) {
      this.#meet({ present: applyPresence(this.present, message) }, message);
    } else if (type === "presence") this.#meet(message);
  }

  #read({ epoch, seq, tag, recovered, messages, streams = [], ...people }) {
    this.#begun = true;
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
  #meet({ present = [], count = present.length }, { joined = [], left = [] } = {}) {
    Object.assign(this, { present, count });
    this.#call("onPresence", present, { joined, left }, count);
  }

  #call(name, ...values) {
    guarded(() => this.#on[name]?.(...values));
  }
}

/** How fast the server may be asked: its own bucket, as far as we know it. */
class Pace {
  #step = 100; // ms between two, over time; so until hello tells
  #ahead = 900; // ms that may be saved up: for ten at once
  #slow = 1; // times that step, where others use up what is ours, too
  #next = 0;

  get window() {
    return this.#step ? WINDOW : 100;
  }

  /** ms to wait before the next one. */
  get wait() {
    return Math.max(0, this.#next - this.#ahead - performance.now());
  }

  allow(rate) {
    const now = performance.now();
    const used = this.#step && Math.max(0, this.#next - now) / this.#step;
    this.#step = rate ? 1000 / rate.per_second : 0;
    // A part of it: other pages of this user have the same bucket.
    this.#ahead = rate ? this.#step * Math.max(Math.min(9, rate.burst - 1), rate.burst / 4) : 0;
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

/** A poll: how it stands, and never something older after something newer. */
class Poll {
  #ask; #standing; #newest;
  #turn; // the asking under way, if any
  #tally; // the newest that came meanwhile
  #handlers = new Set();

  constructor(ask) {
    this.#ask = ask;
  }

  on(handler) {
    const told = (standing) => handler(standing);
    this.#handlers.add(told);
    if (this.#standing) guarded(() => told(this.#standing));
    else if (!this.#turn) this.refresh();
    return () => this.#handlers.delete(told);
  }

  async get(options) {
    const reply = await this.#ask("poll", {}, options);
    this.#show(reply);
    return reply;
  }

  /** Until there is an answer, or a newer vote takes its place. */
  vote(choice, options) {
    const vote = async () => {
      const wanted = () => this.#newest === own;
      const reply = await this.#ask("vote", { choice }, { ...options, wanted });
      if (!reply) return this.#newest;
      this.#show({ ...reply, mine: choice });
      return reply;
    };
    const own = (this.#newest = Promise.resolve().then(vote));
    return own;
  }

  /** On a new connection tallies may have been missed, and versions begin anew. */
  async refresh() {
    const turn = (this.#turn = {});
    const wanted = () => turn === this.#turn;
    this.#tally = undefined;
    if (!this.#handlers.size) return (this.#turn = this.#standing = undefined);
    try {
      const reply = await this.#ask("poll", {}, { wanted });
      if (!wanted()) return;
      this.#turn = this.#standing = undefined;
      this.#show(reply);
      if (this.#tally) this.receive(this.#tally);
    } catch (error) {
      if (!wanted()) return;
      this.#turn = undefined;
      guarded(() => {
        if (error.code !== "disconnected") throw error;
      });
    }
  }

  receive(tally) {
    const { version, mine = null } = (this.#turn ? this.#tally : this.#standing) ?? {};
    if (tally.version <= version) return;
    if (this.#turn) this.#tally = tally;
    else if (this.#standing) this.#show({ ...tally, mine });
  }

  #show({ mine, ...votes }) {
    // What is yours may be new where the votes are not.
    const { counts, total, closed, version } =
      votes.version < this.#standing?.version ? this.#standing : votes;
    this.#standing = { counts, total, closed, version, mine };
    for (const told of this.#handlers) guarded(() => told(this.#standing));
  }
}

export class WSChat {
  /** @type {"connecting" | "open" | "reconnecting" | "closed"} */
  state = "closed";
  #given; #ticket; #protocols; #Socket;
  #change; // as it was told last
  #url; #socket; #lost;
  #turn; // the attempt or connection that counts, if any
  #timer; #stuck;
  #tries = 0; // that did not last
  #failed = 0; // since it was open
  #refused = 0; // tickets
  #known = false; // why it does not open was asked, and need not be again
  #ref = 0;
  #buffer = []; // { data, ref }
  #waiting = new Map(); // ref -> { resolve, reject, timeout, end, sent, timer }
  #handlers = new Map(); // type -> Set; WSChat -> the state's
  #every = 0; // ms between the server's pings; 0: it has not said hello, and has none
  #heard = 0; #asked = 0; #pinged = 0; #patience = ANSWER; #pulse;
  #pace = new Pace();
  #line = []; // what is asked, the oldest first: see #ask
  #next;
  #open = 0; // of them, sent and not answered
  #feeds = new Map(); // room, or null for the inbox -> Set of Feed
  #polls = new Map();
  #mids = 0;
  #mid = crypto.getRandomValues(new Uint32Array(3)).join("-");

  constructor(url, { protocols = [], ticket, WebSocket = globalThis.WebSocket } = {}) {
    if (!WebSocket) throw new TypeError("there is no WebSocket here: give the option");
    this.#given = typeof url === "function" ? url : address(url);
    this.#ticket = ticket;
    this.#protocols = protocols;
    this.#Socket = WebSocket;
    this.connect();
  }

  connect() {
    if (this.state !== "closed") return;
    for (const type of EVENTS) globalThis.addEventListener?.(type, this.#world);
    this.#tries = this.#failed = this.#refused = 0;
    this.#known = false;
    this.#become("connecting");
    if (!this.#turn) this.#attempt(); // else a watcher was faster
  }

  reconnect() {
    if (this.state === "closed") return this.connect();
    if (this.#turn) return this.#beat(true);
    this.#tries = this.#failed = 0;
    this.#attempt();
  }

  close(code = 1000, reason = "") {
    this.#socket?.close(code, reason);
    this.#finish(code, reason);
  }

  on(type, handler) {
    if (!this.#handlers.has(type)) this.#handlers.set(type, new Set());
    this.#handlers.get(type).add(handler);
    return () => this.#handlers.get(type).delete(handler);
  }

  onState(watcher) {
    guarded(() => watcher(this.#change));
    return this.on(WSChat, watcher);
  }

  send(data) {
    const bytes = ArrayBuffer.isView(data) || /^(ArrayBuffer|Blob|File)$/.test(kind(data));
    this.#put(bytes || typeof data === "string" ? data : json(data));
  }

  request(type, fields = {}, { timeout = 10_000, signal } = {}) {
    const ref = ++this.#ref;
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const end = limit({ signal }, (reason) => this.#take(ref).reject(reason));
      this.#waiting.set(ref, { resolve, reject, timeout, end });
      try {
        this.#put(JSON.stringify({ ...fields, type, ref }), ref);
      } catch (error) {
        this.#take(ref).reject(error);
      }
    });
  }

  join(room, options = {}) {
    const feed = this.#follow(room.normalize(), options);
    const { name } = feed;
    const ask = (type) => ({ signal, timeout, ...fields } = {}) =>
      this.#ask(type, { room: name, ...fields }, { signal, timeout });
    return Object.assign(feed, {
      history: ask("history"),
      who: ask("who"),
      say: (data, options) => this.say(name, data, options),
      stop: (id, options) => this.request("stop", { room: name, id }, options),
      emit: (type, fields, options) => this.request(type, { room: name, ...fields }, options),
      on: (type, handler) =>
        this.on(type, (event) => event.room === name && !feed.left && handler(event)),
    });
  }

  inbox(options = {}) {
    const stop = (id, options) => this.request("stop", { id }, options);
    return Object.assign(this.#follow(null, options), { stop });
  }

  poll(name) {
    const ask = (type, fields, options) => this.#ask(type, { poll: name, ...fields }, options);
    if (!this.#polls.has(name)) this.#polls.set(name, new Poll(ask));
    return this.#polls.get(name);
  }

  say(room, data, options) {
    return this.#post("say", { room: room.normalize() }, data, options);
  }

  tell(to, data, options) {
    return this.#post("tell", { to }, data, options);
  }

  get waiting() {
    return this.#line.filter(({ at }) => at).map(({ fields, at }) => ({ ...fields, at }));
  }

  #follow(name, options) {
    const open = () => this.state === "open";
    const feeds = this.#feeds.get(name) ?? new Set();
    const ask = async (type, fields, wanted) => {
      const page = await this.#ask(type, fields, { wanted: () => open() && wanted() });
      if (page?.epoch) for (const other of feeds) other.notice(page);
      return page;
    };
    const left = (reading) => {
      if (!feeds.delete(feed)) return;
      const [other] = feeds;
      // No message comes to the others before the last of the pages that it was reading.
      if (other) return reading && open() && other.sync();
      this.#feeds.delete(name);
      // Once it is our turn, unless it is joined again, or the connection gone with it.
      const { hello } = this;
      const wanted = () => open() && hello === this.hello && !this.#feeds.has(name);
      if (name !== null && open()) this.#ask("leave", { room: name }, { wanted }).catch(() => {});
    };
    const feed = new Feed(name, options, ask, left);
    this.#feeds.set(name, feeds.add(feed));
    if (open()) feed.sync();
    return feed;
  }

  // ---- what is asked until there is an answer, as fast as the server takes it ----

  /** Have it stored, once, and in order: docs/decisions/56. */
  #post(type, fields, data, { mid = `${this.#mid}-${++this.#mids}`, ...limits } = {}) {
    let stored;
    try {
      const text = json(data);
      const place = type + (fields.room ?? fields.to);
      const size = new Blob([place, text]).size + 199; // and what is around it
      const all = this.#line.reduce((sum, { size = 0 }) => sum + size, size);
      if (all > UNSTORED) throw new RequestError("full", "too much is waiting");
      const said = { ...fields, data: JSON.parse(text), mid };
      stored = this.#ask(type, said, limits, { place, size, at: Date.now() });
    } catch (error) {
      stored = Promise.reject(error);
    }
    return Object.assign(stored, { mid });
  }

  /** Ask until there is an answer, or none is wanted any more: that is undefined. */
  #ask(type, fields, { wanted = () => true, ...limits } = {}, { place = {}, ...more } = {}) {
    return new Promise((resolve, reject) => {
      limits.signal?.throwIfAborted();
      if (this.state === "closed") throw new RequestError("disconnected", "closed");
      const settle = (how) => (value) => {
        this.#line = this.#line.filter((other) => other !== item);
        end();
        how(value);
      };
      const [done, failed] = [settle(resolve), settle(reject)];
      const item = { type, fields, wanted, place, ...more, tries: 0, done, failed };
      const end = limit(limits, failed);
      this.#line.push(item);
      this.#go();
    });
  }

  /** Let those who wait in line ask; at one place none before those in front of it. */
  #go = () => {
    clearTimeout(this.#next);
    while (this.state === "open" && this.#open < this.#pace.window) {
      const held = new Set();
      const item = this.#line.find(({ place, away, rests }) => {
        if (rests) held.add(place);
        return !away && !held.has(place);
      });
      if (!item) return;
      const { wait } = this.#pace;
      if (!item.wanted()) item.done();
      // The server would close the connection, each time anew.
      else if (item.size > this.hello?.limits?.message) {
        item.failed(new RequestError("too_big", "over the limit of a message"));
      }
      else if (wait) return (this.#next = setTimeout(this.#go, wait));
      else this.#send(item);
    }
  };

  #send(item) {
    const { type, place, fields } = item;
    const before = this.#line.slice(0, this.#line.indexOf(item));
    const prev = before.findLast((other) => other.place === place)?.fields.mid;
    item.away = true;
    this.#open++;
    this.#pace.count();
    const failed = (error) => {
      item.away = false;
      if (!item.wanted()) return item.done();
      const wait = this.#again(error, { ...fields, prev }, item.tries++);
      if (wait === undefined) return item.failed(error);
      item.rests = wait > 0;
      const go = () => this.#go((item.rests = false));
      if (item.rests) setTimeout(go, wait);
    };
    const next = () => this.#go(this.#open--);
    this.request(type, { ...fields, prev }).then(item.done, failed).then(next);
  }

  /** ms after which to ask again; undefined: that would not help. */
  #again({ code, retryAfter }, { room, prev }, tries) {
    if (code === "rate_limited") this.#pace.refused(retryAfter);
    // It has not even said hello, so there is no other way to tell.
    const dead = code === "timeout" && !this.#every;
    if (dead) this.#lost({});
    if (dead || AT_ONCE.includes(code) || (prev && code === "out_of_order")) return 0;
    // The poll of a room may be asked for while that is joined.
    const joining = room ? this.#feeds.has(room) : this.#feeds.size && tries < 9;
    const passes = { internal: !tries, not_joined: joining }[code] ?? PASSING.includes(code);
    if (passes) return backoff(tries);
  }

  // ---- the connection ----

  /** The network, or the page, has come or gone. */
  #world = ({ type }) => {
    const { document } = globalThis;
    if (type === "visibilitychange" && document?.hidden) return;
    if (type === "offline" && this.#local) return;
    if (!this.#turn) this.#plan(0);
    else if (type === "offline") this.#lost({});
    else this.#beat(true);
  };

  get #local() {
    return LOCAL.test(this.#url?.hostname); // can be reached even then
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
        return this.#lost({});
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
  async #why(address) {
    const { location } = globalThis;
    const fresh = this.#ticket || typeof this.#given === "function"; // each time
    const url = new URL(address);
    if (this.#known) return;
    this.#known = !fresh;
    url.protocol = url.protocol.replace("ws", "http");
    try {
      const signal = AbortSignal.timeout(CAP);
      const { status } = await fetch(url, { cache: "no-store", redirect: "manual", signal });
      if (status >= 500) this.#known = false; // a proxy's word, while it restarts
      if ((status !== 401 && status !== 403) || this.state === "open") return;
      if (status === 401 && fresh && !this.#refused++) return;
      this.#socket?.close();
      this.#finish(status, status === 401 ? "You are not logged in." : "You may not enter here.");
    } catch {
      // No answer at all; or another origin's, which does not let us see it.
      this.#known = !!location && url.origin !== location.origin;
    }
  }

  /** When to try next: the state that is told, too. */
  #plan(tries, { code, reason } = this.#change) {
    clearTimeout(this.#timer);
    const wait = backoff(tries);
    // Else "online" wakes us.
    const soon = globalThis.navigator?.onLine !== false || this.#local;
    if (soon) this.#timer = setTimeout(this.#attempt, wait);
    this.#become("reconnecting", code, reason, soon ? Math.round(Date.now() + wait) : 0);
  }

  #attempt = async () => {
    clearTimeout(this.#timer);
    const turn = (this.#turn = {});
    const { state, code, reason } = this.#change;
    if (state === "reconnecting") this.#become(state, code, reason);
    let url, socket, opened = Infinity, first = true;
    const lost = (this.#lost = ({ code = 1006, reason = "" }) => {
      if (turn !== this.#turn) return;
      clearTimeout(this.#stuck);
      this.#turn = this.#socket = undefined;
      this.#every = 0;
      socket?.close();
      // A view that is through closes with 1000, but a chat is never: a proxy did that.
      const again = shouldReconnect(code) || (code === 1000 && (this.hello || this.#feeds.size));
      if (!again) return this.#finish(code, reason);
      if (opened === Infinity) this.#failed++;
      else if (performance.now() - opened > STABLE) this.#tries = 0;
      this.#drop("connection lost");
      this.#plan(this.#tries++, { code, reason });
      if (socket && opened === Infinity) this.#why(url);
    });
    if (turn !== this.#turn) return; // a watcher closed it
    // Where packets vanish, browsers wait for minutes.
    this.#stuck = setTimeout(lost, CAP, {});
    try {
      const given = this.#given;
      url = new URL(typeof given === "function" ? address(await given()) : given);
      this.#url = url;
      const ticket = this.#ticket && (await this.#ticket());
      if (turn !== this.#turn) return;
      if (this.#ticket) {
        if (!ticket) return this.#finish(401, "There is no ticket.");
        url.searchParams.set("ticket", ticket);
      }
      socket = this.#socket = new this.#Socket(url.href, this.#protocols);
    } catch (error) {
      return lost({ reason: String(error) });
    }
    socket.binaryType = "arraybuffer";
    socket.onclose = lost;
    socket.onerror = () => {}; // in Node it would be an exception; "close" follows
    socket.onmessage = ({ data }) => {
      if (turn !== this.#turn) return;
      this.#heard = performance.now();
      if (this.#asked) {
        // A timer that timers have set is slow in a hidden page: it is set anew from here.
        this.#asked = 0;
        this.#beat();
      }
      this.#receive(data, first);
      first = false;
    };
    socket.onopen = () => {
      if (turn !== this.#turn) return;
      clearTimeout(this.#stuck);
      opened = performance.now();
      this.#known = false;
      this.#asked = this.#failed = this.#refused = 0;
      this.state = "open";
      const later = this.#line; // after those on which others build
      this.#line = [];
      for (const feeds of this.#feeds.values()) for (const feed of feeds) feed.sync();
      for (const poll of this.#polls.values()) poll.refresh();
      this.#line = this.#line.concat(later);
      this.#go();
      this.#become("open");
      if (turn !== this.#turn) return; // a watcher closed it
      for (const { data, ref } of this.#buffer.splice(0)) this.#put(data, ref);
    };
  };

  #put(data, ref) {
    if (this.state === "open") {
      this.#socket.send(data);
      const request = this.#waiting.get(ref);
      if (!request) return;
      request.sent = true;
      const { timeout } = request;
      if (timeout < LONGEST) request.timer = setTimeout(this.#overdue, timeout, ref);
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
    this.#take(ref).reject(new RequestError("timeout", "no answer"));
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
      const { resolve, reject } = this.#take(ref);
      if (ok) resolve(message);
      else reject(new RequestError(code, text, retry_after));
    }
    // Only the answer tells how slow the line is: others were under way before.
    if (ref === 0 && this.#heard - this.#pinged < ANSWER) this.#patience = ANSWER;
    if (type === "hello" && first) this.#greet(message); // later it is somebody's words
    for (const feed of this.#feeds.get(room) ?? []) feed.receive(message);
    if (type === "tally") this.#polls.get(message.poll)?.receive(message);
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

  /** It waits no more. What was given up must not be sent later. */
  #take(ref) {
    const request = this.#waiting.get(ref);
    clearTimeout(request.timer);
    request.end();
    this.#waiting.delete(ref);
    this.#buffer = this.#buffer.filter((item) => item.ref !== ref);
    return request;
  }

  /** Nobody answers any more what was sent; at the end nothing else is, either. */
  #drop(reason) {
    for (const [ref, { sent }] of this.#waiting) {
      if (sent || this.state === "closed") this.#take(ref).reject(new RequestError("disconnected", reason));
    }
  }

  #finish(code, reason) {
    if (this.state === "closed") return;
    for (const timer of [this.#timer, this.#pulse, this.#stuck]) clearTimeout(timer);
    for (const type of EVENTS) globalThis.removeEventListener?.(type, this.#world);
    this.#turn = this.#socket = undefined;
    this.#every = 0;
    this.state = "closed";
    this.#drop(reason);
    this.#buffer = [];
    for (const { wanted, done, failed } of this.#line) {
      if (wanted()) failed(new RequestError("disconnected", reason));
      else done();
    }
    this.#become("closed", code, reason);
  }

  #become(state, code = 0, reason = "", retryAt = 0) {
    this.state = state;
    const attempt = state === "open" ? 0 : this.#failed;
    const change = (this.#change = { state, code, reason, attempt, retryAt });
    for (const watcher of this.#handlers.get(WSChat) ?? []) {
      // One of them may have changed it: then the others know already.
      if (change === this.#change) guarded(() => watcher(change));
    }
  }
}
