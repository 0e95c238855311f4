import { byId, el, inFrame, showStatus, t } from "./ui.js";
import { plugs } from "./plug.js";

const CELLS = 120; // of the strips
const EACH = 500; // milliseconds
const LINES = 6; // of what was seen
const KEPT = "plug"; // where all of this survives a reload

const { socket, room } = byId("panes").dataset;

/** Whole numbers from 1 on, of which almost all come in order. */
class Numbers {
  constructor({ upTo = 0, beyond = [] } = {}) {
    this.upTo = upTo; // all of these are there
    this.beyond = new Set(beyond);
  }
  /** False: it was there. */
  add(n) {
    if (n <= this.upTo || this.beyond.has(n)) return false;
    this.beyond.add(n);
    while (this.beyond.delete(this.upTo + 1)) this.upTo += 1;
    return true;
  }
  get size() {
    return this.upTo + this.beyond.size;
  }
  get highest() {
    return Math.max(this.upTo, ...this.beyond);
  }
  /** Those below the highest that are not there. */
  get missing() {
    return this.highest - this.size;
  }
  toJSON() {
    return { upTo: this.upTo, beyond: [...this.beyond] };
  }
}

// ---- what is counted, also over a reload ---------------------------------------------

const anyName = () => Math.random().toString(36).slice(2); // also without https
const fresh = () => ({ run: anyName(), sent: 0, refused: 0, stored: {}, panes: [{}, {}] });
const kept = read() ?? fresh();
let { run, sent, refused } = kept;
let stored = new Numbers(kept.stored);
let timer; // while it sends

function keep() {
  const sending = timer ? rate() : 0;
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ run, sent, refused, stored, panes, sending }));
  } catch {} // forbidden, or full: then it counts from the next reload on
}

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT));
  } catch {
    return undefined;
  }
}

const isAway = (state) => state === "reconnecting" || state === "closed";

class Pane {
  constructor(node, options, { received, doubled = 0, disordered = 0, place = {} } = {}) {
    Object.assign(this, { node, doubled, disordered, received: new Numbers(received) });
    this.last = this.received.highest;
    this.came = 0; // since the strip moved
    this.chat = new WSChat(socket, options);
    this.room = this.chat.join(room, {
      ...place,
      onMessage: (message) => this.take(message),
      onReset: (messages) => {
        if (this.last) this.see(t("It was away for longer than messages are kept."));
        messages.forEach(this.take, this);
      },
      onError: (error) => this.see(t(error.message)),
    });
    this.strip = node.querySelector(".strip");
    this.strip.append(...Array.from({ length: CELLS }, () => el("i")));
    this.chat.onState(({ state }) => this.showState(state));
    plugs(node, this.chat, (words) => this.see(words), () => (this.pulled = true));
  }

  take({ data }) {
    if (data?.run !== run) return; // of a count before this one
    this.came += 1;
    if (!this.received.add(data.n)) this.doubled += 1;
    else if (data.n < this.last) this.disordered += 1;
    this.last = Math.max(this.last, data.n);
    stored.add(data.n);
    keep();
    draw();
  }

  showState(state) {
    this.away ||= isAway(state);
    const node = this.node.querySelector(".state");
    node.dataset.state = state;
    node.textContent = {
      connecting: t("Connecting"),
      open: t("Connected"),
      reconnecting: t("Reconnecting"),
      closed: t("Closed"),
    }[state];
    draw();
  }

  see(words) {
    const lines = this.node.querySelector(".seen");
    const time = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    lines.append(el("li", {}, el("time", {}, time), ` ${words}`));
    while (lines.childElementCount > LINES) lines.firstElementChild.remove();
  }

  /** One cell further: how many came, and whether there was a connection all the time. */
  move() {
    const cell = this.strip.firstElementChild;
    this.strip.append(cell);
    cell.dataset.state = this.away ? "away" : "open";
    cell.toggleAttribute("data-pulled", Boolean(this.pulled));
    cell.style.setProperty("--came", Math.min(1, Math.log2(1 + this.came) / 6));
    this.came = 0;
    this.pulled = false;
    this.away = isAway(this.chat.state);
  }

  forget() {
    Object.assign(this, { doubled: 0, disordered: 0, last: 0, received: new Numbers() });
  }

  get faults() {
    return this.received.missing + this.doubled + this.disordered;
  }

  toJSON() {
    const { received, doubled, disordered } = this;
    const { seq, epoch, tag } = this.room;
    return { received, doubled, disordered, place: { seq, epoch, tag } };
  }
}

const draw = inFrame(drawAll);
const nodes = document.querySelectorAll(".pane");
const panes = [];
const onRefused = ({ data }, error) => data.run === run && refuse(error);
const outbox = { outbox: "localStorage", onRefused };
panes.push(new Pane(nodes[0], outbox, kept.panes[0]));
panes.push(new Pane(nodes[1], {}, kept.panes[1]));
const [sender] = panes;
showStatus(sender.chat);

// ---- sending -------------------------------------------------------------------------

const rate = () => Number(document.querySelector("[name=rate]:checked").value);

function say() {
  const n = (sent += 1);
  const of = run;
  const done = () => of === run && stored.add(n);
  sender.room.say({ run, n }).then(done, (error) => of === run && refuse(error)).then(keep).then(draw);
  keep(); // with it in the outbox: a page that comes now knows of it
  draw();
}

function refuse(error) {
  refused += 1;
  sender.see(t("A number was refused: {why}", { why: error.message }));
}

function start() {
  const began = performance.now();
  const each = 1000 / rate();
  let due = 0;
  const tick = () => {
    // A page that is not seen has its timers held back.
    for (; due <= performance.now() - began; due += each) say();
  };
  timer = setInterval(tick, Math.min(each, 100));
  tick();
  showSending();
}

function stop() {
  clearInterval(timer);
  timer = undefined;
  showSending();
}

function showSending() {
  byId("start").textContent = timer ? t("Stop") : t("Start");
  keep();
  draw();
}

byId("start").addEventListener("click", () => (timer ? stop() : start()));
for (const input of document.querySelectorAll("[name=rate]")) {
  input.addEventListener("change", () => {
    if (!timer) return;
    stop();
    start();
  });
}
byId("anew").addEventListener("click", () => {
  stop();
  ({ run, sent, refused } = fresh());
  stored = new Numbers();
  panes.forEach((pane) => pane.forget());
  keep();
  draw();
});

// ---- what it comes to ----------------------------------------------------------------

function verdict() {
  const faults = panes.reduce((sum, pane) => sum + pane.faults, refused);
  if (faults) return ["bad", t("Something was lost, doubled or out of order")];
  if (!sent) return ["none", t("Nothing sent yet")];
  const all = panes.every(({ received }) => received.size === sent) && stored.size === sent;
  if (timer || !all) return ["soFar", t("Nothing lost, nothing doubled so far")];
  return ["good", t("Nothing lost, nothing doubled")];
}

function count(node, values) {
  for (const [name, value] of Object.entries(values)) {
    const shown = node.querySelector(`[data-count="${name}"]`);
    shown.textContent = value;
    shown.toggleAttribute("data-bad", value > 0 && ["missing", "doubled", "disordered"].includes(name));
  }
}

function drawAll() {
  count(document, { sent, stored: stored.size });
  for (const { node, received, doubled, disordered } of panes) {
    count(node, {
      received: received.size,
      under: Math.max(0, sent - received.highest),
      missing: received.missing,
      doubled,
      disordered,
    });
  }
  const [kind, words] = verdict();
  const shown = byId("verdict");
  shown.dataset.kind = kind;
  // What is said again would be read out again.
  if (shown.textContent !== words) shown.textContent = words;
}

setInterval(() => panes.forEach((pane) => pane.move()), EACH);
if (kept.sending) {
  document.querySelector(`[name=rate][value="${kept.sending}"]`).checked = true;
  start();
} else {
  draw();
}
