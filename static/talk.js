/** What the group chat and the private chat share: messages, their log, the composer. */

import { avatar, byId, el, inFrame, nameOf } from "./ui.js";

const FOLLOWS = 300; // seconds in which messages of one author stay together
const SHOWN = 300; // of a conversation that is read at its end
const MOST = 600; // of one that is read further up
const KEPT = 5000; // above and below those that are shown
const PAGE = 100; // shown at once, when somebody reads upwards

const LATER = { sending: true, failed: true };

const timeOf = ({ at }) =>
  new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

/** What somebody says need not be text; even String() fails for some objects. */
export const wordsOf = (data) => (typeof data === "string" ? data : JSON.stringify(data));

const idOf = ({ mid, from, seq }) => (mid === null ? seq : `${mid} ${from}`);

/**
 * The messages of one room or with one person: each once, in the server's order. The page
 * holds some hundred of them, so that a long one costs no more than a short one.
 */
export class Conversation {
  node = el("ol", { className: "log" });
  unread = 0;
  draft = ""; // words that are not sent yet
  held = false; // somebody reads above the end
  #known = new Set(); // ids of messages, each with its author
  #mine = []; // items that have not come back from the server
  #last = []; // items that stand at the end: sending or failed
  #ofNode = new WeakMap(); // node -> item
  #begun = false; // it was read once
  #above = []; // messages before those that are shown
  #below = []; // messages after them, while it is held
  #hole = false; // between these and those
  #whole = false; // nothing older is to be had
  #asking = false;

  /**
   * send: has words stored, and resolves to the server's reply. done: is called then.
   * older: resolves to the messages before a number.
   */
  constructor(me, send, { done, older } = {}) {
    Object.assign(this, { me, send, done, older });
  }

  get empty() {
    return !this.node.firstElementChild;
  }

  /** Whether there are messages below those that are shown. */
  get more() {
    return this.#below.length > 0;
  }

  /** Whether messages of mine are still under way. */
  get busy() {
    return this.#mine.some(({ state }) => state === "sending");
  }

  /** Begin a message of mine. */
  write(data) {
    const item = this.#create({ from: this.me, data, at: Date.now() / 1000 }, "sending");
    this.node.append(item.node);
    this.#group(item.node);
    return item;
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
    const id = idOf(message);
    if (this.#known.has(id)) return false;
    this.#known.add(id);
    const own = this.#claim(message);
    if (own) {
      own.message = message;
      this.#mark(own, "delivered");
      this.#insert(own.node);
    } else if (this.held && (this.#below.length || this.node.childElementCount >= MOST)) {
      this.#below.push(message);
      if (this.#below.length > KEPT) {
        this.#forget(this.#below.shift());
        this.#hole = true;
      }
    } else {
      this.#insert(this.#create(message, "delivered").node);
    }
    this.#trim();
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
    if (this.more) this.catchUp();
    this.#mine = this.#mine.filter(({ state }) => state === "sending");
    this.#whole = true; // the numbers of what is above may mean others now
    const shown = this.#final();
    if (!shown || shown.dataset.lost) return;
    const text = "The server has lost its history here. Messages may be missing.";
    this.#insert(el("li", { className: "note", dataset: { lost: true } }, text));
  }

  /** Say that somebody came or went. */
  note(name, joined) {
    const last = this.node.lastElementChild;
    if (joined && last?.dataset.left === name) return last.remove(); // a reload, likely
    if (this.held && this.node.childElementCount >= MOST) return;
    const text = `${name} ${joined ? "joined" : "left"}`;
    this.node.append(el("li", { className: "note", dataset: joined ? {} : { left: name } }, text));
    this.#trim();
  }

  /** See whether there is something above what is shown. */
  async ask() {
    if (this.#above.length) return true;
    const first = [...this.node.children].find((node) => this.#ofNode.has(node));
    const { seq } = this.#ofNode.get(first)?.message ?? {};
    if (this.#asking || this.#whole || !this.older || !(seq > 1)) return false;
    this.#asking = true;
    try {
      const older = (await this.older(seq)).filter((message) => !this.#known.has(idOf(message)));
      for (const message of older) this.#known.add(idOf(message));
      this.#whole ||= !older.length;
      this.#above.unshift(...older);
    } catch {} // there is no connection: the next time, perhaps
    this.#asking = false;
    return this.#above.length > 0;
  }

  /** Show some of what is above; what is far below leaves the page. */
  unfold() {
    for (const message of this.#above.splice(-PAGE).reverse()) {
      const { node } = this.#create(message, "delivered");
      const second = this.node.firstElementChild;
      this.node.prepend(node);
      this.#group(second);
    }
    while (this.node.childElementCount > MOST) {
      const message = this.#remove(this.#final());
      if (message) this.#below.unshift(message);
    }
  }

  /** Show some of what is below, if it follows; what is far above leaves the page. */
  further() {
    if (!this.more || this.#hole) return false;
    this.#take(this.#below.splice(0, PAGE));
    this.#fold(MOST);
    return true;
  }

  /** Show what is last; it is read at its end again. */
  catchUp() {
    this.held = false;
    if (this.#below.length >= SHOWN) {
      this.#fold(this.#last.length);
      if (this.#hole) {
        this.#above.splice(0).forEach(this.#forget, this);
        this.#whole = this.#hole = false;
      }
      this.#above.push(...this.#below.splice(0, this.#below.length - SHOWN));
    }
    this.#take(this.#below.splice(0));
    this.#trim();
  }

  #take(messages) {
    for (const message of messages) this.#insert(this.#create(message, "delivered").node);
  }

  /** Which of mine this message is, if any. */
  #claim({ from, seq, data }) {
    if (from !== this.me) return;
    const found = this.#mine.findIndex((item) =>
      (item.seq ?? seq) === seq && item.message.data === data);
    return found < 0 ? undefined : this.#mine.splice(found, 1)[0];
  }

  #forget(message) {
    this.#known.delete(idOf(message));
  }

  /** Keep the page small. */
  #trim() {
    if (!this.held) this.#fold(SHOWN);
  }

  /** Have what is first leave the page, until it holds so many. */
  #fold(most) {
    let first;
    while (this.node.childElementCount > most) {
      first = this.node.firstElementChild;
      if (first === this.#last[0]?.node) break;
      const message = this.#remove(first);
      if (message) this.#above.push(message);
    }
    if (first) this.#group(this.node.firstElementChild);
    while (this.#above.length > KEPT) {
      this.#forget(this.#above.shift());
      this.#whole = false;
    }
  }

  /** Take it out of the page; return its message, if it is one. */
  #remove(node) {
    node.remove();
    return this.#ofNode.get(node)?.message;
  }

  /** What stands last, but for mine that are under way. */
  #final() {
    const [later] = this.#last;
    return later ? later.node.previousElementSibling : this.node.lastElementChild;
  }

  /** Put it last, but above mine that are still under way. */
  #insert(node) {
    const next = this.#last.find((item) => item.node !== node)?.node ?? null;
    const after = node.nextElementSibling;
    if (node.parentNode && after === next) return;
    this.node.insertBefore(node, next);
    for (const changed of [node, next, after]) this.#group(changed);
  }

  /** state: sending, delivered or failed (then `why` says why). */
  #mark(item, state, why = "") {
    item.state = item.node.dataset.state = state;
    if (!(state in LATER)) this.#last = this.#last.filter((other) => other !== item);
    else if (!this.#last.includes(item)) this.#last.push(item);
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
    const onclick = () => {
      byId("words").focus(); // this button goes
      this.deliver(item);
    };
    const again = el("button", { type: "button", onclick }, "Try again");
    return [el("span", { className: "why" }, `Not sent. ${why}`), again];
  }

  #create(message, state) {
    const own = message.from === this.me;
    const name = message.from === null ? "The server" : nameOf(message.from);
    const node = el("li", { className: own ? "message own" : "message" },
      avatar(name),
      el("div", { className: "bubble" },
        el("p", { className: "from" }, name),
        el("p", { className: "body", dir: "auto" }, wordsOf(message.data)),
        el("p", { className: "foot" })));
    const item = { message, node, state };
    this.#ofNode.set(node, item);
    this.#mark(item, state);
    return item;
  }

  /** Say whether this one follows another one of its author. */
  #group(node) {
    const item = this.#ofNode.get(node); // undefined for a note
    const before = this.#ofNode.get(node?.previousElementSibling);
    const follows = before && item
      && before.message.from === item.message.from
      && item.message.at - before.message.at < FOLLOWS;
    item?.node.classList.toggle("follows", Boolean(follows));
  }
}

/**
 * The part of the page that shows one conversation; stays at its end if it is there. What
 * comes is shown once in each frame: so the page keeps up with any number of messages, and
 * where it is scrolled to never lags behind what it holds.
 */
export class View {
  #scroll = byId("scroll");
  #newer = byId("newer");
  #placeholder = byId("placeholder");
  #words = byId("words");
  #atEnd = true;
  #changes = []; // for the next frame
  #soon = inFrame(() => this.#work());
  // What is shown may grow, and a phone's keyboard may take half of the window.
  #resized = new ResizeObserver(() => this.#atEnd && this.#toEnd());

  constructor() {
    this.#resized.observe(this.#scroll);
    this.#newer.addEventListener("click", () => {
      this.#scroll.focus({ preventScroll: true }); // this button goes
      this.#follow();
    });
    this.#scroll.addEventListener("scroll", () => this.#scrolled());
  }

  /** Show `conversation` and its draft; `placeholder` while it is empty. */
  show(conversation, placeholder) {
    this.#work();
    const shown = this.#scroll.querySelector(".log");
    if (this.conversation) {
      this.conversation.draft = this.#words.value;
      this.conversation.catchUp();
    }
    this.conversation = conversation;
    this.#words.value = conversation.draft;
    this.#placeholder.textContent = placeholder;
    this.#scroll.ariaBusy = "true"; // nobody wants to hear all of it again
    this.#resized.unobserve(shown);
    shown.replaceWith(conversation.node);
    this.#resized.observe(conversation.node);
    this.#placeholder.hidden = !conversation.empty;
    this.#follow();
    this.#scroll.ariaBusy = "false";
  }

  /** Run `change` on what is shown, in the next frame; or now, after those before it. */
  update(change, now = false) {
    this.#changes.push(change);
    if (now) this.#work();
    else this.#soon();
  }

  /** Show words of mine, at the end; return them as an item. */
  write(data) {
    this.#work();
    this.conversation.catchUp();
    const item = this.conversation.write(data);
    this.#placeholder.hidden = true;
    this.#toEnd();
    return item;
  }

  #work() {
    if (!this.#changes.length) return;
    const { node } = this.conversation;
    const last = node.lastElementChild;
    for (const change of this.#changes.splice(0)) change();
    this.#placeholder.hidden = !this.conversation.empty;
    if (this.#atEnd) this.#toEnd();
    else if (node.lastElementChild !== last || this.conversation.more) this.#newer.hidden = false;
  }

  async #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroll;
    const { conversation } = this;
    if (scrollHeight - scrollTop - clientHeight < 60) {
      if (this.#atEnd) return;
      if (!this.#keeping(conversation.node.lastElementChild, () => conversation.further())) {
        this.#follow();
      }
      return;
    }
    this.#atEnd = false;
    conversation.held = true;
    if (scrollTop > 2 * clientHeight || !(await conversation.ask())) return;
    if (conversation !== this.conversation || this.#atEnd) return;
    this.#keeping(conversation.node.firstElementChild, () => conversation.unfold());
  }

  /** Run `change`, and have this node stay where it is seen. */
  #keeping(node, change) {
    const before = node.getBoundingClientRect().top;
    this.#scroll.ariaBusy = "true";
    const result = change();
    this.#scroll.scrollTop += node.getBoundingClientRect().top - before;
    this.#scroll.ariaBusy = "false";
    return result;
  }

  /** Stay at the end from now on. */
  #follow() {
    this.conversation.catchUp();
    this.#toEnd();
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
    if (event.key !== "Enter" || event.shiftKey) return;
    // This Enter ends a composition; in Safari, that one has ended before: 229.
    if (event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    form.requestSubmit();
  });
}
