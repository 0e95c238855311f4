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
const WINDOW = 16; // without an answer: if all are refused, the server bears with as many
const UNSTORED = 1 << 20; // bytes that may wait to be acknowledged
const REMEMBERED = 300_000; // ms: so long a server knows a `mid` at least
const LONGEST = 2 ** 31; // ms: timers take this for none at all
const LOCAL = /^(localhost$|127\.|\[::1\])/;
const EVENTS = ["online", "offline", "pageshow", "visibilitychange"];

const now = () => performance.now();
const world = globalThis; // which has more in a page than in Node

/** Full jitter, so that a server's pages don't come back in one wave. */
export function backoff(attempt, random = Math.random) {
  return random() * Math.min(CAP, FIRST * 2 ** attempt);
}

export function shouldReconnect(code) {
  return code !== 1000 && code !== 1008 && !(code >= 4000 && code < 4500);
}

const without = (some, others) => some.filter((user) => !others.includes(user));

export function applyPresence(present, { joined, left }) {
  return [...new Set([...without(present, left), ...joined])].sort();
}

export function diffPresence(before, after) {
  return { joined: without(after, before), left: without(before, after) };
}

export class RequestError extends Error {
  constructor(code, message = code, retryAfter = 0) {
    super(message);
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

const gone = () => new RequestError("disconnected");
const full = () => new RequestError("full");

const report = (error) => (world.reportError ?? console.error)(error);

/** What a page does wrong, now or later, must not lose messages, nor stop other handlers or us. */
const guarded = (call) => (async () => call())().catch(report);

function quiet(call) {
  try {
    return call();
  } catch {}
}

/** What it is, of whichever window: "Array", "Map", "Null" … */
const kind = (data) => Object.prototype.toString.call(data).slice(8, -1);

/** Of a Map JSON would tell nothing, of NaN that it is null. */
function json(data) {
  const text = /^(Object|Array|String|Number|Boolean|Null)$/.test(kind(data)) && JSON.stringify(data);
  if (text && (text !== "null" || data === null)) return text;
  throw new TypeError("not JSON");
}

const bytes = (value) => new Blob([JSON.stringify(value)]).size;

function address(given) {
  const url = quiet(() => new URL(given, world.location?.href));
  if (!/^(http|ws)s?:/.test(url)) throw new TypeError(`no absolute URL: ${given}`);
  url.protocol = url.protocol.replace("http", "ws");
  return url;
}

/** Call `stop` with a reason when it is time to give up; return what ends that. */
function limit({ signal, timeout }, stop) {
  const aborted = () => stop(signal.reason);
  signal?.addEventListener("abort", aborted);
  const over = () => stop(new RequestError("timeout"));
  const timer = timeout < LONGEST && setTimeout(over, timeout);
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

  constructor(name, on, ask, left) {
    const { seq, epoch, tag } = on;
    Object.assign(this, { name, seq, epoch, tag });
    this.#on = on;
    this.#ask = ask;
    this.leave = () => {
      const reading = this.#turn;
      this.#on = this.#turn = {};
      left(reading);
    };
  }

  /** Read on, page after page; a later call takes over from an earlier one. */
  async sync(spread = 0) {
    const turn = (this.#turn = {});
    const wanted = () => turn === this.#turn;
    try {
      if (spread > 0) {
        // Others were told the same, and would all ask at once.
        const wait = 1000 * Math.random() * Math.min(spread, 60);
        await new Promise((resolve) => setTimeout(resolve, wait));
        if (!wanted()) return;
      }
      for (let page = { more: true }; page.more; ) {
        const { seq: after, epoch, tag } = this;
        const type = this.name === null ? "inbox" : "join";
        const read = (page) => wanted() && this.#read(page);
        page = await this.#ask(type, { after, epoch, tag }, wanted, read);
        if (!page || !wanted()) return;
      }
      this.#turn = undefined;
    } catch (error) {
      if (!wanted() || error.code === "disconnected") return;
      this.#call("onError", error);
      this.leave();
    }
  }

  /** Another one read here: what was in it does not come as a message any more. */
  notice({ epoch = this.epoch, seq }) {
    if (!this.#turn && (epoch !== this.epoch || seq > this.seq)) this.sync();
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
    const present = () => applyPresence(this.present, message);
    if (type === "presence") this.#meet(joined ? { present: present() } : message, message);
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
  #show(message) {
    const stream = { ...message };
    this.streams.set(stream.id, stream);
    this.#call("onStream", stream, stream.text);
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
    const wanted = () => this.#on === on;
    this.#lacking.add(id);
    const show = (stream) => this.#lacking.delete(id) && wanted() && this.#show(stream);
    try {
      await this.#ask("stream", { id }, wanted, show);
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
function pace() {
  let step = 100; // ms between two, over time; so until hello tells
  let ahead = 900; // ms that may be saved up: for ten at once
  let slow = 1; // times that step, where others use up what is ours, too
  let next = 0;
  return {
    /** ms to wait before the next one. */
    wait: () => Math.max(0, next - ahead - now()),

    allow(rate) {
      const used = step && Math.max(0, next - now()) / step;
      step = rate ? 1000 / rate.per_second : 0;
      // A part of it: other pages of this user have the same bucket.
      ahead = rate ? (step * rate.burst) / 4 : 0;
      next = now() + used * step;
    },

    count() {
      next = Math.max(next, now()) + step * slow;
      slow = Math.max(1, slow * 0.9);
    },

    refused(seconds) {
      slow = Math.min(16, slow * 2);
      next = Math.max(next, now() + ahead + 1000 * Math.min(+seconds || 1, 3600));
    },
  };
}

/** A poll: how it stands, and never something older after something newer. */
class Poll {
  #ask; #standing; #vote; #turn;
  #version = -1; // on this connection
  #handlers = new Set();

  constructor(ask) {
    this.#ask = ask;
  }

  on(handler) {
    const told = (standing) => handler(standing);
    this.#handlers.add(told);
    if (this.#standing) guarded(() => told(this.#standing));
    else this.refresh();
    return () => this.#handlers.delete(told);
  }

  async get(options) {
    const reply = await this.#ask("poll", {}, options);
    if (reply) this.receive(reply);
    return reply;
  }

  /** Until there is an answer, or a newer vote takes its place. */
  async vote(choice, options) {
    const own = (this.#vote = {});
    const wanted = () => own === this.#vote;
    const reply = await this.#ask("vote", { choice }, { ...options, wanted });
    if (!reply) return this.get(options);
    this.receive({ ...reply, mine: choice });
    return reply;
  }

  /** On a new connection tallies may have been missed, and versions begin anew. */
  refresh() {
    const turn = (this.#turn = {});
    this.#version = -1;
    if (!this.#handlers.size) {
      this.#standing = undefined; // nobody asks how it stands now
      return;
    }
    this.get({ wanted: () => turn === this.#turn }).catch((error) => {
      if (error.code !== "disconnected") report(error);
    });
  }

  /** A reply, which says what is voted for here, or a tally. */
  receive(votes) {
    const { mine: before = null } = this.#standing ?? {};
    const { mine = before } = votes;
    const older = votes.version <= this.#version;
    if (older && mine === before) return;
    if (!older) this.#version = votes.version;
    this.#standing = { ...(older ? this.#standing : votes), mine };
    for (const told of [...this.#handlers]) guarded(() => told(this.#standing));
  }
}

export class WSChat {
  /** @type {"connecting" | "open" | "reconnecting" | "closed"} */
  state = "closed";
  #given; #options; #outbox;
  #change; // as it was told last
  #socket; #lost; #local; #key;
  #turn; // the attempt or connection that counts, if any
  #timer; // of the attempt, or until the next one
  #tries = 0; // that did not last
  #failed = 0; // since it was open
  #life; // since it was closed for good
  #known = false; // why it does not open was asked, and need not be again
  #ref = 0;
  #buffer = []; // { data, request? }
  #requests = new Map(); // ref -> { ref, resolve, reject, timeout, end, read, sent }
  #handlers = new Map(); // type -> Set; WSChat -> the state's
  #every = 0; // ms between the server's pings; 0: it has not said hello, and has none
  #heard = 0; #asked = 0; #pinged = 0; #patience = ANSWER; #pulse;
  #pace = pace();
  #line = []; // what is asked, the oldest first: see #ask
  #next;
  #away = 0; // of them, sent and not answered
  #feeds = new Set();
  #polls = new Map();
  #at = 0;
  #loaded = new Set(); // whose outbox
  #user; // who it was last
  #mid = crypto.getRandomValues(new Uint32Array(3)).join("-");

  constructor(url, options = {}) {
    const { WebSocket = world.WebSocket, outbox } = options;
    if (!WebSocket) throw new TypeError("no WebSocket");
    this.#given = typeof url === "function" ? url : address(url);
    // To ask for it may be forbidden.
    this.#outbox = outbox === "localStorage" ? quiet(() => localStorage) : outbox;
    this.#options = { ...options, WebSocket };
    this.connect();
  }

  connect() {
    if (this.state !== "closed") return;
    this.#listen("addEventListener");
    this.#tries = this.#failed = 0;
    this.#known = false;
    this.#life = {};
    this.#become("connecting");
    if (this.state === "connecting" && !this.#turn) this.#attempt(); // else a watcher was faster
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
    const handlers = this.#handlers.get(type) ?? new Set();
    this.#handlers.set(type, handlers.add(handler));
    return () => handlers.delete(handler);
  }

  onState(watcher) {
    // One of several may change it: then the others are told the newest only.
    const told = (change) => change === this.#change && watcher(change);
    guarded(() => told(this.#change));
    return this.on(WSChat, told);
  }

  send(data) {
    const ready = typeof data === "string" || /^(.+Array|DataView|ArrayBuffer|Blob|File)$/.test(kind(data));
    this.#put(ready ? data : json(data));
  }

  request(type, fields = {}, { timeout = 10_000, signal, read } = {}) {
    const ref = ++this.#ref;
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const request = { ref, resolve, reject, timeout, read };
      this.#put(JSON.stringify({ ...fields, type, ref }), request);
      this.#requests.set(ref, request);
      request.end = limit({ signal }, (reason) => this.#take(ref).reject(reason));
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
      emit: (type, fields, options) => this.request(type, { room: name, ...fields }, options),
      on: (type, handler) =>
        this.on(type, (event) => event.room === name && this.#feeds.has(feed) && handler(event)),
    });
  }

  inbox(options = {}) {
    return this.#follow(null, options);
  }

  poll(name) {
    const ask = (type, fields, options) => this.#ask(type, { poll: name, ...fields }, options);
    const poll = this.#polls.get(name) ?? new Poll(ask);
    this.#polls.set(name, poll);
    return poll;
  }

  say(room, data, options) {
    return this.#post("say", { room: room.normalize() }, data, options);
  }

  tell(to, data, options) {
    return this.#post("tell", { to }, data, options);
  }

  get waiting() {
    return this.#line.flatMap(({ fields, at }) => (at ? { ...fields, at } : []));
  }

  /** Who reads a room, or the inbox. */
  #in(name) {
    return [...this.#feeds].filter((feed) => feed.name === name);
  }

  #follow(name, options) {
    const open = () => this.state === "open";
    const room = name ?? undefined;
    const ask = (type, fields, wanted, show) => {
      const read = (page) => {
        show(page);
        for (const other of this.#in(name)) other.notice(page);
      };
      return this.#ask(type, { room, ...fields }, { wanted: () => open() && wanted(), read });
    };
    const left = (reading) => {
      if (!this.#feeds.delete(feed)) return;
      const [other] = this.#in(name);
      // No message comes to the others before the last of the pages that it was reading.
      if (other) return reading && open() && other.sync();
      // Once it is our turn, unless it is joined again, or the connection gone with it.
      const turn = this.#turn;
      const wanted = () => turn === this.#turn && !this.#in(name)[0];
      if (room && open()) this.#ask("leave", { room }, { wanted }).catch(() => {});
    };
    const feed = new Feed(name, options, ask, left);
    feed.stop = (id, options) => this.request("stop", { room, id }, options);
    this.#feeds.add(feed);
    if (open()) feed.sync();
    return feed;
  }

  // ---- what is asked until there is an answer, as fast as the server takes it ----

  /** Have it stored, once, and in order: docs/decisions/56. */
  #post(type, fields, data, { mid = `${this.#mid}-${++this.#ref}`, signal, timeout } = {}) {
    const post = async () => {
      const said = { ...fields, data: JSON.parse(json(data)), mid };
      const all = this.#line.reduce((sum, { size }) => sum + size, bytes(said));
      if (all > UNSTORED) throw full();
      const at = (this.#at = Math.max(this.#at + 1, Date.now())); // in order, whatever the clock does
      return this.#ask(type, said, { signal, timeout, at, user: this.#user });
    };
    return Object.assign(post(), { mid });
  }

  /** Ask until there is an answer, or none is wanted any more: that is undefined. */
  #ask(type, fields, options = {}) {
    return new Promise((resolve, reject) => {
      options.signal?.throwIfAborted();
      if (this.state === "closed") throw gone();
      const settle = (how) => (value) => {
        this.#line = this.#line.filter((other) => other !== item);
        if (value?.code !== "disconnected") this.#keep("removeItem", item);
        end();
        how(value);
      };
      const size = bytes(fields);
      const item = { wanted: () => true, ...options, type, fields, size, tries: 0 };
      item.done = settle(resolve);
      item.failed = settle(reject);
      item.place = item.at ? type + (fields.room ?? fields.to) : {};
      const end = limit(item, item.failed);
      this.#line.push(item);
      this.#keep("setItem", item);
      this.#go();
    });
  }

  /** A store that throws, as it is full or forbidden, is done without. */
  #keep(how, item) {
    // Of somebody without a user id no server knows what was said on another connection.
    if (item.user) return quiet(() => this.#outbox?.[how](this.#key + item.fields.mid, JSON.stringify(item)));
  }

  /** What earlier pages of this user have left goes in front of what this one has. */
  #load(user) {
    this.#loaded.add(user);
    const outbox = this.#outbox;
    const ours = this.#line;
    const read = (key) => key.startsWith(this.#key) && JSON.parse(outbox.getItem(key));
    const kept = quiet(() => Array.from(outbox, (_, n) => quiet(() => read(outbox.key(n))))) ?? [];
    const theirs = kept.filter((item) => item?.user === user && item.fields && item.at > 0);
    this.#line = [];
    for (const item of theirs.sort((one, other) => one.at - other.at)) {
      const { type, fields, at, sent } = item;
      this.#at = Math.max(this.#at, at);
      const wanted = () => this.#keep("getItem", item); // or another page was faster
      this.#ask(type, fields, { at, sent, user, wanted, kept: true }).catch((error) => {
        if (error.code === "disconnected") return; // it is kept on
        guarded(() => this.#options.onRefused?.({ ...fields, at }, error));
      });
    }
    this.#line = this.#line.concat(ours);
  }

  /** Let those who wait in line ask; at one place none before those in front of it. */
  #go = () => {
    clearTimeout(this.#next);
    while (this.state === "open" && this.#away < WINDOW) {
      const held = new Set(); // places where one waits to be asked again
      const last = new Map(); // place -> the mid of the last one under way
      const item = this.#line.find(({ place, fields, at, user, away, rests }) => {
        if (rests) held.add(place);
        if (away) last.set(place, fields.mid);
        const theirs = at && this.#outbox && user !== this.#turn.user;
        return !theirs && !away && !held.has(place);
      });
      if (!item) return;
      const wait = this.#pace.wait();
      // The server would close the connection, each time anew.
      const big = item.size + 200 > this.hello?.limits?.message && "too_big";
      // Another page sent it, and the server may know its mid no more.
      const late = item.kept && Date.now() - item.sent > REMEMBERED && "expired";
      if (!item.wanted()) item.done();
      else if (big || late) item.failed(new RequestError(big || late));
      else if (wait) return (this.#next = setTimeout(this.#go, wait));
      else this.#send(item, last.get(item.place));
    }
  };

  #send(item, prev) {
    const fields = { ...item.fields, prev };
    item.away = true;
    item.sent ??= Date.now();
    this.#keep("setItem", item);
    this.#away++;
    this.#pace.count();
    const failed = (error) => {
      item.away = false;
      if (!item.wanted()) return item.done();
      const wait = this.#again(error, fields, item.tries++);
      if (wait === undefined) return item.failed(error);
      item.rests = wait;
      if (wait) setTimeout(() => this.#go((item.rests = 0)), wait);
    };
    const next = () => this.#go(this.#away--);
    this.request(item.type, fields, { read: item.read }).then(item.done, failed).then(next);
  }

  /** ms after which to ask again; undefined: that would not help. */
  #again({ code, retryAfter }, { room, prev }, tries) {
    if (code === "rate_limited") this.#pace.refused(retryAfter);
    // It has not even said hello, so there is no other way to tell.
    const dead = code === "timeout" && !this.#every;
    if (dead) this.#lost();
    // The poll of a room may be asked for while that is joined.
    const joining = room ? this.#in(room)[0] : this.#feeds.size && tries < 9;
    const wait = backoff(tries);
    return {
      __proto__: null,
      disconnected: 0,
      rate_limited: 0,
      timeout: dead ? 0 : wait,
      unavailable: wait,
      out_of_order: prev ? 0 : wait,
      internal: tries ? undefined : wait,
      not_joined: joining ? wait : undefined,
    }[code];
  }

  // ---- the connection ----

  #listen(how) {
    for (const type of EVENTS) world[how]?.(type, this.#world);
  }

  /** The network, or the page, has come or gone. */
  #world = ({ type }) => {
    if (type === "visibilitychange" && world.document.hidden) return;
    if (type === "offline" && this.#local) return;
    if (!this.#turn) this.#plan(0);
    else if (type === "offline") this.#lost();
    else this.#beat(true);
  };

  /** See that something comes from time to time; `doubt`: ask for it now. */
  #beat = (doubt) => {
    clearTimeout(this.#pulse);
    if (!this.#every || this.state !== "open") return;
    const time = now();
    const silent = world.document?.hidden ? this.#every : Math.min(this.#every, SILENT);
    let wait = this.#heard + silent - time;
    if (this.#asked) {
      wait = this.#asked + this.#patience - time;
      if (wait <= 0) {
        // What comes may be long, and the line slow: have more patience then.
        this.#patience = Math.min(PATIENT, 2 * this.#patience);
        return this.#lost();
      }
    } else if (doubt || wait <= 0) {
      // Browsers show no pings to pages: see docs/decisions/25.
      this.#asked = this.#pinged = time;
      this.send({ type: "ping", ref: 0 });
      wait = this.#patience;
    }
    this.#pulse = setTimeout(this.#beat, wait);
  };

  /** Why it does not open: a page sees HTTP errors of anything but its sockets. */
  async #why() {
    const { ticket } = this.#options;
    const given = this.#given;
    const life = this.#life;
    let url;
    if (this.#known) return;
    this.#known = !ticket && given instanceof URL; // others may be refused another time
    try {
      url = address(given instanceof URL ? given : await given());
      url.protocol = url.protocol.replace("ws", "http");
      // One that nobody has used: that of the attempt may be refused for having been.
      if (ticket) url.searchParams.set("ticket", await ticket());
      const signal = AbortSignal.timeout(CAP);
      const { status } = await fetch(url, { cache: "no-store", redirect: "manual", signal });
      this.#known &&= status < 500; // a proxy's word, while it restarts
      if ((status !== 401 && status !== 403) || this.state === "open" || life !== this.#life) return;
      this.#socket?.close();
      this.#finish(status, "refused");
    } catch {
      // No answer at all; or another origin's, which does not let us see it.
      this.#known = url && world.location && url.origin !== location.origin;
    }
  }

  /** When to try next: the state that is told, too. */
  #plan(tries, { code, reason } = this.#change) {
    clearTimeout(this.#timer);
    const wait = backoff(tries);
    // Else "online" wakes us.
    const soon = world.navigator?.onLine !== false || this.#local;
    if (soon) this.#timer = setTimeout(this.#attempt, wait);
    this.#become("reconnecting", code, reason, soon ? Date.now() + wait : 0);
  }

  #attempt = async () => {
    clearTimeout(this.#timer);
    const turn = (this.#turn = { user: NaN }); // who that is, is not known: nobody's equal
    const { state, code, reason } = this.#change;
    if (state === "reconnecting") this.#become(state, code, reason);
    let url, socket, opened = 0, first = true;
    const lost = (this.#lost = (code = 1006, reason = "") => {
      if (turn !== this.#turn) return;
      this.#turn = this.#socket = undefined;
      this.#every = 0;
      socket?.close();
      // A view that is through closes with 1000, but a chat is never: a proxy did that.
      const again = shouldReconnect(code) || (code === 1000 && (this.hello || this.#feeds.size));
      if (!again) return this.#finish(code, reason);
      if (!opened) this.#failed++;
      else if (now() - opened > STABLE) this.#tries = 0;
      this.#drop();
      this.#plan(this.#tries++, { code, reason });
      if (socket && !opened) this.#why();
    });
    if (turn !== this.#turn) return; // a watcher closed it
    // Where packets vanish, browsers wait for minutes.
    this.#timer = setTimeout(lost, CAP);
    try {
      const given = this.#given;
      url = address(given instanceof URL ? given : await given());
      if (turn !== this.#turn) return;
      this.#local = LOCAL.test(url.hostname); // can be reached even offline
      this.#key = `wschat:${url.host}${url.pathname}:`;
      const { ticket: ask, protocols, WebSocket } = this.#options;
      const ticket = ask && (await ask());
      if (turn !== this.#turn) return;
      if (ask && !ticket) return this.#finish(401, "refused");
      if (ask) url.searchParams.set("ticket", ticket);
      socket = this.#socket = new WebSocket(url.href, protocols);
    } catch (error) {
      return lost(1006, String(error));
    }
    socket.binaryType = "arraybuffer";
    socket.onclose = ({ code, reason }) => lost(code, reason);
    socket.onerror = () => lost(); // in Node nothing else may come
    socket.onmessage = ({ data }) => {
      if (turn !== this.#turn) return;
      this.#heard = now();
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
      clearTimeout(this.#timer);
      opened = now();
      this.#known = false;
      this.#asked = this.#failed = 0;
      this.state = "open";
      const later = this.#line; // after those on which others build
      this.#line = [];
      for (const feed of this.#feeds) feed.sync();
      for (const poll of this.#polls.values()) poll.refresh();
      this.#line = this.#line.concat(later);
      this.#go();
      this.#become("open");
      if (turn !== this.#turn) return; // a watcher closed it
      for (const { data, request } of this.#buffer.splice(0)) this.#put(data, request);
    };
  };

  #put(data, request) {
    if (this.state === "closed") throw gone();
    if (this.state === "open") {
      this.#socket.send(data);
      const overdue = (error) => {
        this.#take(request.ref).reject(error);
        this.#beat(true);
      };
      if (request) request.sent = limit(request, overdue); // its time begins
      return;
    }
    if (typeof data !== "string") data = new Blob([data]); // as it is now
    const buffer = [...this.#buffer, { data, request }];
    const size = buffer.reduce((sum, { data }) => sum + (data.length ?? data.size), 0);
    if (size > BUFFER) throw full();
    this.#buffer = buffer;
  }

  #receive(data, first) {
    const message = quiet(() => JSON.parse(data));
    // Whatever else it is, it is not ours to change: 0.10 stays "0.10".
    if (typeof Object(message).type !== "string") return this.#emit("*", data);
    const { type, ref, ok, error, room = null } = message;
    if (this.#requests.has(ref) && type === "reply") {
      const { resolve, reject, read } = this.#take(ref);
      // What comes in the same turn, as in Node, may build on it.
      if (ok) guarded(() => read?.(message));
      if (ok) resolve(message);
      else reject(new RequestError(error?.code, error?.message, error?.retry_after));
    }
    // Only the answer tells how slow the line is: others were under way before.
    if (ref === 0 && this.#heard - this.#pinged < ANSWER) this.#patience = ANSWER;
    if (type === "hello" && first) this.#greet(message); // later it is somebody's words
    for (const feed of this.#in(room)) feed.receive(message);
    if (type === "tally") this.#polls.get(message.poll)?.receive(message);
    this.#emit(type, message);
    this.#emit("*", message);
  }

  #greet(hello) {
    const { user } = (this.hello = hello);
    this.#turn.user = this.#user = user;
    this.#pace.allow(hello.limits?.rate); // before what is loaded goes out
    if (user && !this.#loaded.has(user)) this.#load(user);
    for (const item of this.#line) {
      if (item.at && item.user === undefined) this.#keep("setItem", Object.assign(item, { user }));
    }
    this.#every = hello.ping > 0 ? 1000 * Math.min(Math.max(hello.ping, 1), 3600) : 0;
    this.#beat(this.#patience > ANSWER); // the line may be a fast one again
    this.#go();
  }

  #emit(key, event) {
    const handlers = this.#handlers.get(key) ?? new Set();
    // A copy, as one of them may end itself and begin anew; or end another.
    for (const handler of [...handlers]) {
      if (handlers.has(handler)) guarded(() => handler(event));
    }
  }

  /** It waits no more. What was given up must not be sent later. */
  #take(ref) {
    const request = this.#requests.get(ref);
    request.end();
    request.sent?.();
    this.#requests.delete(ref);
    this.#buffer = this.#buffer.filter((item) => item.request !== request);
    return request;
  }

  /** Nobody answers any more what was sent; at the end nothing else is, either. */
  #drop() {
    for (const [ref, { sent }] of this.#requests) {
      if (sent || this.state === "closed") this.#take(ref).reject(gone());
    }
  }

  #finish(code, reason) {
    if (this.state === "closed") return;
    for (const timer of [this.#timer, this.#pulse, this.#next]) clearTimeout(timer);
    this.#listen("removeEventListener");
    this.#turn = this.#socket = undefined;
    this.#every = 0;
    this.#loaded.clear();
    this.#user = undefined;
    this.state = "closed";
    this.#drop();
    this.#buffer = [];
    for (const { wanted, done, failed } of this.#line) {
      if (wanted()) failed(gone());
      else done();
    }
    this.#become("closed", code, reason);
  }

  #become(state, code = 0, reason = "", retryAt = 0) {
    this.state = state;
    this.#change = { state, code, reason, attempt: this.#failed, retryAt };
    this.#emit(WSChat, this.#change);
  }
}
