/**
 * A small WebSocket client: reconnects, buffers, pairs replies (types: wschat.d.ts).
 *
 * After a close it connects again, or not:
 *   1000       no   the server is done
 *   1008       no   against a rule of the server
 *   4000-4499  no   refused by the application: logged out, name taken ...
 *   any other  yes  network lost (1006), restart (1001, 1012), overload (1013)
 */

const FIRST = 500; // ms: longest first wait
const CAP = 10_000; // ms: longest wait, also for a handshake
const STABLE = 5_000; // ms: a connection that lasted this long resets the count
const BUFFER = 65_536; // characters or bytes kept while not connected
const LOCAL = /^(localhost$|127\.|\[::1\])/;

/** Full jitter, so that a server's pages don't come back in one wave. */
export function backoff(attempt, random = Math.random) {
  return random() * Math.min(CAP, FIRST * 2 ** attempt);
}

export function shouldReconnect(code) {
  return code !== 1000 && code !== 1008 && !(code >= 4000 && code < 4500);
}

export class RequestError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

export class WSChat {
  /** @type {"connecting" | "open" | "reconnecting" | "closed"} */
  state = "connecting";
  #url; #socket; #timer; #attempt = 0; #ref = 0;
  #buffer = []; // { data, ref }
  #waiting = new Map(); // ref -> { resolve, reject, timer, sent }
  #handlers = new Map(); // type -> Set; WSChat -> the state's

  constructor(url) {
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

  #online = () => this.#socket || this.#retry(0);

  #connect = () => {
    const socket = (this.#socket = new WebSocket(this.#url));
    let opened = Infinity;
    const lost = ({ code, reason }) => {
      clearTimeout(stuck);
      if (socket !== this.#socket) return;
      this.#socket = undefined;
      socket.close();
      if (!shouldReconnect(code)) return this.#finish(code, reason);
      if (Date.now() - opened > STABLE) this.#attempt = 0;
      this.#become("reconnecting", code, reason);
      this.#drop("connection lost", false);
      this.#retry(this.#attempt++);
    };
    // Where packets vanish, browsers wait for minutes.
    const stuck = setTimeout(lost, CAP, { code: 1006, reason: "" });
    socket.binaryType = "arraybuffer";
    socket.onclose = lost;
    socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(data);
    socket.onopen = () => {
      clearTimeout(stuck);
      opened = Date.now();
      this.#become("open");
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
    const { type, ref, ok, error } = Object(message);
    if (this.#waiting.has(ref) && (type === "reply" || type === "error")) {
      this.#settle(ref, ok ? message : new RequestError(error?.code, error?.message));
    }
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
