/** What the group chat and the private chat share: messages, their log, the composer. */

import { avatar, byId, el } from "./ui.js";

const FOLLOWS = 300; // seconds in which messages of one author stay together

const timeOf = ({ at }) =>
  new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

/** A name for a message that nobody else uses. Works on plain http, too. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The messages of one room or with one person: each once, in the server's order. */
export class Conversation {
  node = el("ol", { className: "log" });
  unread = 0;
  #items = new Map(); // message id and author -> item
  #ofNode = new WeakMap(); // node -> item

  constructor(me) {
    this.me = me;
  }

  get empty() {
    return !this.node.childElementCount;
  }

  /** My messages that have not arrived and are not under way. */
  get unsent() {
    return [...this.#items.values()].filter(({ state }) => state === "unsent");
  }

  /** Begin a message of mine. */
  write(data) {
    const message = { from: this.me, data, mid: newId(), at: Date.now() / 1000 };
    return this.#create(message, "sending");
  }

  /** Take a message from the server. True: it was not known. */
  add(message) {
    const known = this.#items.get(`${message.mid} ${message.from}`);
    if (known && known.state === "delivered") return false;
    const item = known ?? this.#create(message, "delivered");
    item.message = message;
    this.mark(item, "delivered");
    // Mine that are still under way stay below what has arrived.
    const next = [...this.node.children].find((node) => node.dataset.state in LATER);
    if (item.node.nextElementSibling !== (next ?? null)) {
      this.node.insertBefore(item.node, next ?? null);
    }
    this.#group();
    return !known;
  }

  /** state: sending, unsent, delivered or failed (then `why` says why). */
  mark(item, state, why = "") {
    item.state = item.node.dataset.state = state;
    const foot = [el("time", {}, timeOf(item.message))];
    if (item.message.from === this.me) foot.push(...this.#fate(item, state, why));
    item.node.querySelector(".foot").replaceChildren(...foot);
  }

  /** Say that somebody came or went. */
  note(name, joined) {
    const last = this.node.lastElementChild;
    if (joined && last?.dataset.left === name) return last.remove(); // a reload, likely
    const text = `${name} ${joined ? "joined" : "left"}`;
    this.node.append(el("li", { className: "note", dataset: joined ? {} : { left: name } }, text));
    this.#group();
  }

  #fate(item, state, why) {
    if (state === "delivered") {
      const tick = el("span", { className: "tick", title: "Delivered" }, "✓");
      tick.ariaHidden = "true";
      return [tick, el("span", { className: "hidden" }, "Delivered")];
    }
    if (state !== "failed") return [el("span", {}, "Sending…")];
    const again = el("button", { type: "button", onclick: () => this.retry?.(item) }, "Try again");
    return [el("span", { className: "why" }, `Not sent. ${why}`), again];
  }

  #create(message, state) {
    const own = message.from === this.me;
    const node = el("li", { className: own ? "message own" : "message" },
      avatar(message.from),
      el("div", { className: "bubble" },
        el("p", { className: "from" }, message.from),
        el("p", { className: "body", dir: "auto" }, message.data),
        el("p", { className: "foot" })));
    const item = { message, node, state };
    this.#items.set(`${message.mid} ${message.from}`, item);
    this.#ofNode.set(node, item);
    this.node.append(node);
    this.mark(item, state);
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

const LATER = { sending: true, unsent: true, failed: true };

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

/** Request to deliver `item`, and mark what becomes of it. */
export async function deliver(chat, conversation, item, type, fields) {
  conversation.mark(item, "sending");
  const { data, mid } = item.message;
  try {
    await chat.request(type, { ...fields, data, mid });
    // Its own copy, which the server sends to all of my tabs, has marked it.
  } catch (error) {
    if (item.state === "delivered") return;
    // It may have arrived. After the next opening we see, and send it again if not.
    if (error.code === "disconnected" && chat.state !== "closed") {
      return conversation.mark(item, "unsent");
    }
    const why = { timeout: "The server did not answer." }[error.code] ?? error.message;
    conversation.mark(item, "failed", why);
  }
}
