/** What the group chat and the private chat share: messages, their log, the composer. */

import { avatar, byId, el, nameOf } from "./ui.js";

const FOLLOWS = 300; // seconds in which messages of one author stay together

const timeOf = ({ at }) =>
  new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

/** The messages of one room or with one person: each once, in the server's order. */
export class Conversation {
  node = el("ol", { className: "log" });
  unread = 0;
  #known = new Set(); // ids of messages, each with its author
  #mine = []; // items that have not come back from the server
  #ofNode = new WeakMap(); // node -> item
  #begun = false; // it was read once

  /** send: has words stored, and resolves to the server's reply. done: is called then. */
  constructor(me, send, done) {
    Object.assign(this, { me, send, done });
  }

  get empty() {
    return !this.node.childElementCount;
  }

  /** Whether messages of mine are still under way. */
  get busy() {
    return this.#mine.some(({ state }) => state === "sending");
  }

  /** Begin a message of mine. */
  write(data) {
    return this.#create({ from: this.me, data, at: Date.now() / 1000 }, "sending");
  }

  /** Send it, and show what becomes of it. */
  async deliver(item) {
    this.#mark(item, "sending");
    this.#mine.push(item);
    try {
      item.seq = (await this.send(item.message.data)).seq;
      if (item.state === "sending") this.#mark(item, "delivered");
    } catch (error) {
      this.#mine = this.#mine.filter((other) => other !== item);
      const why = { full: "Too much is waiting.", disconnected: "The connection has ended." };
      this.#mark(item, "failed", why[error.code] ?? error.message);
    }
    this.done?.();
  }

  /** Take a message from the server. True: it was not known. */
  add(message) {
    const id = `${message.mid} ${message.from}`;
    if (this.#known.has(id)) return false;
    this.#known.add(id);
    const own = this.#claim(message);
    const item = own ?? this.#create(message, "delivered");
    item.message = message;
    this.#mark(item, "delivered");
    this.#insert(item.node);
    return !own;
  }

  /** Show the newest messages, as what came before cannot be had (any more). */
  reset(messages) {
    if (this.#begun) this.lost();
    this.#begun = true;
    for (const message of messages) this.add(message);
  }

  /** Say where messages may be missing; what is above stays. */
  lost() {
    this.#mine = this.#mine.filter(({ state }) => state === "sending");
    const shown = [...this.node.children].filter((node) => !(node.dataset.state in LATER));
    if (!shown.length || shown.at(-1).dataset.lost) return;
    const text = "The server has lost its history here. Messages may be missing.";
    this.#insert(el("li", { className: "note", dataset: { lost: true } }, text));
  }

  /** Say that somebody came or went. */
  note(name, joined) {
    const last = this.node.lastElementChild;
    if (joined && last?.dataset.left === name) return last.remove(); // a reload, likely
    const text = `${name} ${joined ? "joined" : "left"}`;
    this.node.append(el("li", { className: "note", dataset: joined ? {} : { left: name } }, text));
    this.#group();
  }

  /** Which of mine this message is, if any. */
  #claim({ from, seq, data }) {
    if (from !== this.me) return;
    const found = this.#mine.findIndex((item) =>
      (item.seq ?? seq) === seq && item.message.data === data);
    return found < 0 ? undefined : this.#mine.splice(found, 1)[0];
  }

  /** Put it last, but above mine that are still under way. */
  #insert(node) {
    const next = [...this.node.children].find((other) =>
      other !== node && other.dataset.state in LATER) ?? null;
    if (!node.parentNode || node.nextElementSibling !== next) {
      this.node.insertBefore(node, next);
    }
    this.#group();
  }

  /** state: sending, delivered or failed (then `why` says why). */
  #mark(item, state, why = "") {
    item.state = item.node.dataset.state = state;
    const foot = [el("time", {}, timeOf(item.message))];
    if (item.message.from === this.me) foot.push(...this.#fate(item, state, why));
    item.node.querySelector(".foot").replaceChildren(...foot);
  }

  #fate(item, state, why) {
    if (state === "delivered") {
      const tick = el("span", { className: "tick", title: "Delivered" }, "✓");
      tick.ariaHidden = "true";
      return [tick, el("span", { className: "hidden" }, "Delivered")];
    }
    if (state !== "failed") return [el("span", {}, "Sending…")];
    const again = el("button", { type: "button", onclick: () => this.deliver(item) }, "Try again");
    return [el("span", { className: "why" }, `Not sent. ${why}`), again];
  }

  #create(message, state) {
    const own = message.from === this.me;
    const name = nameOf(message.from);
    const node = el("li", { className: own ? "message own" : "message" },
      avatar(name),
      el("div", { className: "bubble" },
        el("p", { className: "from" }, name),
        el("p", { className: "body", dir: "auto" }, String(message.data)),
        el("p", { className: "foot" })));
    const item = { message, node, state };
    this.#ofNode.set(node, item);
    this.node.append(node);
    this.#mark(item, state);
    this.#group();
    return item;
  }

  #group() {
    let before;
    for (const node of this.node.children) {
      const item = this.#ofNode.get(node); // undefined for a note
      const follows = before && item
        && before.message.from === item.message.from
        && item.message.at - before.message.at < FOLLOWS;
      item?.node.classList.toggle("follows", Boolean(follows));
      before = item;
    }
  }
}

const LATER = { sending: true, failed: true };

/** The part of the page that shows one conversation; stays at its end if it is there. */
export class View {
  #scroll = byId("scroll");
  #newer = byId("newer");
  #placeholder = byId("placeholder");
  #atEnd = true;
  // What is shown may grow, and a phone's keyboard may take half of the window.
  #resized = new ResizeObserver(() => this.#atEnd && this.#toEnd());

  constructor() {
    this.#resized.observe(this.#scroll);
    this.#newer.addEventListener("click", () => this.#toEnd());
    this.#scroll.addEventListener("scroll", () => {
      const { scrollHeight, scrollTop, clientHeight } = this.#scroll;
      this.#atEnd = scrollHeight - scrollTop - clientHeight < 60;
      if (this.#atEnd) this.#newer.hidden = true;
    });
  }

  /** Show `conversation`; `placeholder` while it is empty. */
  show(conversation, placeholder) {
    const shown = this.#scroll.querySelector(".log");
    this.conversation = conversation;
    this.#placeholder.textContent = placeholder;
    this.#scroll.ariaBusy = "true"; // nobody wants to hear all of it again
    this.#resized.unobserve(shown);
    shown.replaceWith(conversation.node);
    this.#resized.observe(conversation.node);
    this.update(() => {}, true);
    this.#scroll.ariaBusy = "false";
  }

  /** Run `change` on what is shown. */
  update(change, toEnd = this.#atEnd) {
    const count = this.conversation.node.childElementCount;
    change();
    const { empty, node } = this.conversation;
    this.#placeholder.hidden = !empty;
    if (toEnd) this.#toEnd();
    else if (node.childElementCount > count) this.#newer.hidden = false;
  }

  #toEnd() {
    this.#atEnd = true;
    this.#scroll.scrollTop = this.#scroll.scrollHeight;
    this.#newer.hidden = true;
  }
}

/** Call `send` with the words of the composer; Enter sends, Shift+Enter breaks lines. */
export function composer(send) {
  const form = byId("composer");
  const words = byId("words");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const data = words.value.trim();
    words.value = "";
    words.focus();
    if (data) send(data);
  });
  words.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
}
