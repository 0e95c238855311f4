// What a browser has besides WebSockets, with a clock that stands still until it is told.

/** How many walks: SEED=1234 has that one again. */
export const walks = (count) => Number(process.env.WALKS ?? (process.env.SEED ? 1 : count));

export const soon = globalThis.setImmediate;

/** Until all is done that is to be done at this time. */
export async function settled() {
  for (let turn = 0; turn < 3; turn++) await new Promise((done) => soon(done));
}

export class World {
  now = 1_000_000;
  timers = new Map();
  listeners = []; // of the window's events
  reported = []; // by reportError
  status = 0; // what GET is answered; 0: nothing
  #last = 0;

  /** Be the world from now on. */
  constructor() {
    Object.assign(globalThis, {
      setTimeout: (call, ms = 0, ...given) => this.later(ms, () => call(...given)),
      clearTimeout: (timer) => this.timers.delete(timer),
      document: { hidden: false },
      addEventListener: (...given) => this.listeners.push(given),
      removeEventListener: (...given) => {
        const other = (listener) => listener.some((value, n) => value !== given[n]);
        this.listeners = this.listeners.filter(other);
      },
      fetch: async () => {
        if (!this.status) throw new TypeError("no answer");
        return { status: this.status };
      },
      reportError: (error) => this.reported.push(error),
    });
    Object.defineProperty(globalThis, "navigator", {
      value: { onLine: true },
      configurable: true,
    });
    performance.now = () => this.now;
    Date.now = () => 5_000_000 + Math.round(this.now);
  }

  happens(type) {
    for (const [wanted, handler] of this.listeners) if (wanted === type) handler({ type });
  }

  later(ms, run) {
    this.timers.set(++this.#last, { at: this.now + ms, run });
    return this.#last;
  }

  async pass(ms) {
    const end = this.now + ms;
    for (;;) {
      let next;
      for (const [timer, { at, run }] of this.timers) {
        if (at <= end && !(at >= next?.at)) next = { timer, at, run };
      }
      if (!next) break;
      this.timers.delete(next.timer);
      this.now = Math.max(this.now, next.at);
      next.run();
      await settled();
    }
    this.now = end;
  }
}
