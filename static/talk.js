/** What both chats share: a list of messages that holds, and the part of the page it is in. */

import { avatar, byId, el, inFrame, nameOf, plural, t } from "./ui.js";
import { Crowd, alike, isLong, pieces, wordsOf } from "./text.js";

export { composer } from "./composer.js";
export { wordsOf };

const FOLLOWS = 300; // seconds in which messages of one author stay together
const SHOWN = 300; // of a conversation that is read at its end
const MOST = 600; // of one that is read further up
const KEPT = 2000; // above and below those that are shown
const PAGE = 50; // shown at once, when somebody reads upwards
const QUIET = 3000; // ms between two times that it is said what came

const { lang } = document.documentElement;
const locale = navigator.languages.find((spoken) => spoken.startsWith(lang)) ?? lang;
const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit" });
const whole = new Intl.DateTimeFormat(locale, { dateStyle: "full", timeStyle: "medium" });
const days = new Intl.DateTimeFormat(locale, { dateStyle: "full" });
const near = new Intl.RelativeTimeFormat(locale, { numeric: "auto" });

const dateOf = ({ at }) => new Date(at * 1000);
const dayOf = (message) => dateOf(message).toDateString();

function nameOfDay(date) {
  const ago = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(date).setHours(0, 0, 0, 0)) / 864e5);
  return ago === 0 || ago === 1 ? near.format(-ago, "day") : days.format(date);
}

function timeOf(message) {
  const date = dateOf(message);
  if (isNaN(date)) return "";
  return el("time", { dateTime: date.toISOString(), title: whole.format(date) }, clock.format(date));
}

/** A sentence, translated, as nodes: names in it have a direction of their own. */
export const phrase = (text, values) =>
  text.split(/\{(\w+)\}/).map((part, n) => (n % 2 ? el("bdi", {}, String(values[part])) : part));

/** Why something was refused, for who asked for it. */
export function explain({ code, message }) {
  const known = {
    full: t("Too much is waiting."),
    disconnected: t("The connection has ended."),
    timeout: t("The server does not answer."),
    rate_limited: t("That was too fast. Please wait a moment."),
    too_big: t("It is too long."),
    too_many: t("That is too much. Please wait for an answer."),
    unavailable: t("The demo's storage cannot be reached. Please try again soon."),
  };
  return known[code] ?? t(message);
}

const idOf = ({ mid, from, seq }) => (mid === null ? seq : `${mid} ${from}`);

/** Words that are not sent yet: of this tab, over a reload. */
function draftOf(key) {
  let kept = "";
  try {
    kept = sessionStorage.getItem(key) ?? "";
  } catch {}
  return kept;
}

function keepDraft(key, words) {
  try {
    if (words) sessionStorage.setItem(key, words);
    else sessionStorage.removeItem(key);
  } catch {}
}

/**
 * The messages of one room or with one person: each once, in the server's order. The page
 * holds some hundred of them, so that a long one costs no more than a short one.
 */
export class Conversation {
  node = el("ol", { className: "log" });
  unread = 0; // for a list of conversations
  held = false; // somebody reads above the end
  top = 0; // where it was scrolled to, when it was left like that
  #draft;
  #known = new Set(); // ids of messages, each with its author
  #mine = new Map(); // mid -> item that has not come back from the server
  #last = []; // items that stand at the end: sending or failed
  #ofNode = new WeakMap(); // node -> item
  #begun = false; // it was read once
  #above = []; // messages before those that are shown
  #below = []; // messages after them, while it is held
  #hole = false; // between these and those
  #whole = false; // nothing older is to be had
  #asking = false;
  #crowd; // the line about who came and went, if it is the last one
  #news; // { after, upTo, count, told }: what came while nobody looked
  #heard = []; // what came, to be said aloud

  /**
   * send(data, { mid }): has words stored; what it returns is that of `chat.say`. key: its
   * draft is kept under it. done: is called when something is sent, or has failed. older:
   * resolves to the messages before a number. fate(message): what has become of one of mine,
   * "sent", "delivered" or "read". names: who may be mentioned, as `alike` has them.
   */
  constructor(me, send, { key, done, older, fate = () => "sent", names } = {}) {
    Object.assign(this, { me, send, done, older, fate, names });
    this.key = key && `draft ${key}`;
    this.#draft = key ? draftOf(this.key) : "";
  }

  get draft() {
    return this.#draft;
  }

  set draft(words) {
    if (words !== this.#draft && this.key) keepDraft(this.key, words);
    this.#draft = words;
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
    return [...this.#mine.values()].some(({ state }) => state === "sending");
  }

  /** Begin a message of mine; `mid`: it waits in the outbox already. */
  write(data, { mid, at = Date.now() } = {}) {
    const item = this.#create({ from: this.me, data, at: at / 1000 }, "sending");
    if (mid) this.#mine.set((item.mid = mid), item);
    this.node.append(item.node);
    this.#group(item.node);
    return item;
  }

  /** Whether this one of mine is shown: as waiting, or stored. */
  has(mid) {
    return this.#mine.has(mid) || this.#known.has(idOf({ mid, from: this.me }));
  }

  /** Send it, and show what becomes of it. */
  async deliver(item) {
    this.#mark(item, "sending");
    const saying = this.send(item.message.data, item.mid && { mid: item.mid });
    item.mid = saying.mid;
    this.#mine.set(item.mid, item);
    try {
      await saying;
      if (item.state === "sending") this.#mark(item, "stored");
    } catch (error) {
      this.fail(item.mid, error);
    }
    this.done?.();
  }

  /** Say that it was not stored, and why. */
  fail(mid, error) {
    const item = this.#mine.get(mid);
    this.#mine.delete(mid);
    if (item) this.#mark(item, "failed", explain(error));
  }

  /** Take a message from the server. True: it was not known. */
  add(message) {
    const id = idOf(message);
    if (this.#known.has(id) || message.deleted) return false;
    this.#known.add(id);
    const own = this.#claim(message);
    if (own) {
      this.#insert(own.node);
    } else if (this.held && (this.#below.length || this.node.childElementCount >= MOST)) {
      this.#below.push(message);
      if (this.#below.length > KEPT) {
        this.#forget(this.#below.shift());
        this.#hole = true;
      }
    } else {
      this.#insert(this.#create(message, "stored").node);
    }
    this.#trim();
    if (message.from !== this.me && this.#heard.length < SHOWN) this.#heard.push(message);
    return !own;
  }

  /** Show the newest messages, as what came before cannot be had (any more). */
  reset(messages) {
    if (this.#begun) this.lost();
    this.#begun = true;
    for (const message of messages) this.add(message);
    this.#heard = [];
  }

  /** Say where messages may be missing; what is above stays. */
  lost() {
    if (this.more) this.catchUp();
    for (const [mid, { state }] of this.#mine) if (state !== "sending") this.#mine.delete(mid);
    this.#whole = true; // the numbers of what is above may mean others now
    const shown = this.#final();
    if (!shown || shown.dataset.lost) return;
    const text = t("The server has lost its history here. Messages may be missing.");
    this.#insert(el("li", { className: "note", dataset: { lost: true } }, text));
  }

  /** Say who came and who went: one line, as long as nobody says anything. */
  meet(joined, left, more = 0) {
    const last = this.#final();
    if (!this.#crowd || this.#crowd.node !== last) {
      if (this.held && this.node.childElementCount >= MOST) return;
      this.#crowd = { crowd: new Crowd(), node: el("li", { className: "note" }) };
    }
    const { crowd, node } = this.#crowd;
    crowd.change(joined, left, more);
    const [came, went] = crowd.sides;
    const between = came.count && went.count ? [" · "] : [];
    node.replaceChildren(...told(came, CAME), ...between, ...told(went, WENT));
    if (!node.firstChild) node.remove();
    else if (node !== last) this.#insert(node);
    this.#trim();
  }

  /** What came since it was asked last, by others: to be said aloud. */
  heard() {
    return this.#heard.splice(0);
  }

  /** `count` messages after `after`, up to `upTo`, came while nobody looked. */
  since(after, upTo, count) {
    if (!count && !this.#news) return;
    this.#news = count ? { after, upTo, count, told: false } : undefined;
    for (let { lastElementChild: node } = this.node; node; node = node.previousElementSibling) {
      this.#group(node);
    }
  }

  /** The line that says so, once all of them are there, and once only. */
  takeNews() {
    const news = this.#news;
    if (!news || news.told) return undefined;
    const { message } = this.#before(null) ?? {};
    if (!this.more && !(message?.seq >= news.upTo)) return undefined;
    news.told = true;
    return this.node.querySelector(".news")?.parentNode;
  }

  /** Show again what has become of those that I sent. */
  refresh() {
    for (const node of this.node.querySelectorAll(".own")) {
      const item = this.#ofNode.get(node);
      if (item.state === "stored") this.#mark(item, "stored");
    }
  }

  /** See whether there is something above what is shown. */
  async ask() {
    if (this.#above.length) return true;
    let first = this.node.firstElementChild;
    while (first && !this.#ofNode.has(first)) first = first.nextElementSibling;
    const { seq } = this.#ofNode.get(first)?.message ?? {};
    if (this.#asking || this.#whole || !this.older || !(seq > 1)) return false;
    this.#asking = true;
    try {
      const older = (await this.older(seq)).filter((message) => !this.#known.has(idOf(message)));
      for (const message of older) this.#known.add(idOf(message));
      this.#whole ||= !older.length;
      this.#above.unshift(...older.filter(({ deleted }) => !deleted));
    } catch {} // there is no connection: the next time, perhaps
    this.#asking = false;
    return this.#above.length > 0;
  }

  /** Show some of what is above; what is far below leaves the page. */
  unfold() {
    const second = this.node.firstElementChild;
    const nodes = this.#above.splice(-PAGE).map((message) => this.#create(message, "stored").node);
    this.node.prepend(...nodes);
    for (const node of nodes) this.#group(node);
    this.#group(second);
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
    for (const message of messages) this.#insert(this.#create(message, "stored").node);
  }

  /** The message of this node, or the next one before it; undefined for notes. */
  messageAt(node) {
    return (this.#ofNode.get(node) ?? this.#before(node))?.message;
  }

  /** Which of mine this message is, if any. */
  #claim(message) {
    const item = message.from === this.me ? this.#mine.get(message.mid) : undefined;
    if (!item) return undefined;
    this.#mine.delete(message.mid);
    item.message = message;
    this.#mark(item, "stored");
    return item;
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

  /** The item of the message before this node (null: of the last one), over notes. */
  #before(node) {
    let other = node ? node.previousElementSibling : this.#final();
    while (other && !this.#ofNode.has(other)) other = other.previousElementSibling;
    return this.#ofNode.get(other);
  }

  /** Put it last, but above mine that are still under way. */
  #insert(node) {
    const next = this.#last.find((item) => item.node !== node)?.node ?? null;
    const after = node.nextElementSibling;
    if (!node.parentNode || after !== next) this.node.insertBefore(node, next);
    for (const changed of [node, next, after]) this.#group(changed);
  }

  /** state: sending, stored or failed (then `why` says why). */
  #mark(item, state, why = "") {
    item.state = state;
    item.node.dataset.state = state === "stored" ? this.fate(item.message) : state;
    if (state === "stored") this.#last = this.#last.filter((other) => other !== item);
    else if (!this.#last.includes(item)) this.#last.push(item);
    const foot = [timeOf(item.message)];
    if (item.message.from === this.me) foot.push(...this.#fate(item, state, why));
    item.node.querySelector(".foot").replaceChildren(...foot);
  }

  #fate(item, state, why) {
    if (state === "sending") return [el("span", {}, t("Sending…"))];
    if (state === "stored") {
      const fate = item.node.dataset.state;
      const name = { sent: t("Sent"), delivered: t("Delivered"), read: t("Read") }[fate];
      const tick = el("span", { className: "tick", title: name }, fate === "sent" ? "✓" : "✓✓");
      tick.dataset.fate = fate;
      tick.ariaHidden = "true";
      return [tick, el("span", { className: "hidden" }, name)];
    }
    const button = (text, act) => el("button", {
      type: "button",
      onclick: () => {
        byId("words").focus(); // this button goes
        act();
      },
    }, text);
    return [
      el("span", { className: "why" }, `${t("Not sent.")} ${why}`),
      button(t("Try again"), () => this.deliver(item)),
      button(t("Discard"), () => {
        this.#last = this.#last.filter((other) => other !== item);
        item.node.remove();
      }),
    ];
  }

  #create(message, state) {
    const own = message.from === this.me;
    const name = message.from === null ? t("The server") : nameOf(message.from);
    const words = wordsOf(message.data);
    const bubble = el("div", { className: "bubble" },
      el("p", { className: own ? "from hidden" : "from" }, own ? t("You") : el("bdi", {}, name)),
      this.#body(words),
      el("p", { className: "foot" }));
    if (isLong(words)) shorten(bubble);
    const node = el("li", { className: own ? "message own" : "message" }, avatar(name), bubble);
    if (!own && bubble.querySelector("mark")) node.classList.add("calls");
    const item = { message, node, state, day: false, news: false };
    this.#ofNode.set(node, item);
    this.#mark(item, state);
    return item;
  }

  #body(words) {
    const mine = alike(nameOf(this.me));
    const nodes = pieces(words, this.names).map(({ text, link, name }) => {
      // An address is shown as it is, so nobody is led elsewhere than it says.
      if (link) return el("a", { href: link, target: "_blank", rel: "noopener noreferrer nofollow ugc" }, text);
      if (name) return el(name === mine ? "mark" : "span", { className: "mention" }, el("bdi", {}, text));
      return text;
    });
    return el("p", { className: "body", dir: "auto" }, ...nodes);
  }

  /** What the neighbours have to do with how it looks. */
  #group(node) {
    const item = this.#ofNode.get(node); // undefined for a note
    const neighbour = node?.previousElementSibling;
    if (!item) return neighbour?.classList.remove("goes-on");
    const { message } = item;
    const before = this.#before(node);
    const after = this.#news?.after ?? Infinity;
    const day = !before || dayOf(before.message) !== dayOf(message);
    const news = message.seq > after && !(before?.message.seq > after);
    const follows = !day && !news && before.node === neighbour
      && before.message.from === message.from && message.at - before.message.at < FOLLOWS;
    node.classList.toggle("follows", follows);
    neighbour?.classList.toggle("goes-on", follows);
    if (day === item.day && news === item.news && !news) return;
    Object.assign(item, { day, news });
    for (const line of node.querySelectorAll(".line")) line.remove();
    if (news) {
      const { count } = this.#news;
      const text = plural(count, "{n} new message since you left", "{n} new messages since you left");
      node.prepend(el("p", { className: "line news" }, el("span", {}, text)));
    }
    if (!day) return;
    node.prepend(el("p", { className: "line day" }, el("time", { dateTime: dateOf(message).toISOString() })));
    for (const time of this.node.querySelectorAll(".day time")) { // of a page left open, today is yesterday
      time.textContent = nameOfDay(new Date(time.dateTime));
    }
  }
}

const CAME = {
  one: t("{name} joined"),
  two: t("{name} and {other} joined"),
  many: t("{name} and {n} others joined"),
  nameless: (n) => plural(n, "{n} person joined", "{n} people joined"),
};
const WENT = {
  one: t("{name} left"),
  two: t("{name} and {other} left"),
  many: t("{name} and {n} others left"),
  nameless: (n) => plural(n, "{n} person left", "{n} people left"),
};

/** So many came, or went, as nodes. */
function told({ first, second, count }, { one, two, many, nameless }) {
  if (!count) return [];
  if (!first) return [nameless(count)];
  const name = nameOf(first);
  if (count === 1) return phrase(one, { name });
  if (count === 2 && second) return phrase(two, { name, other: nameOf(second) });
  return phrase(many, { name, n: count - 1 });
}

/** Show the beginning of it only, with a button for the rest. */
function shorten(bubble) {
  const body = bubble.querySelector(".body");
  const button = el("button", { type: "button", className: "quiet" }, t("Show more"));
  body.classList.add("short");
  button.ariaExpanded = "false";
  button.addEventListener("click", () => {
    const short = body.classList.toggle("short");
    button.textContent = short ? t("Show more") : t("Show less");
    button.ariaExpanded = String(!short);
  });
  body.after(button);
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
  #said = []; // messages to be said aloud
  #silent; // until when nothing is said
  // What is shown may grow, and a phone's keyboard may take half of the window.
  #resized = new ResizeObserver(() => this.#atEnd && this.#toEnd());

  /**
   * onSeen(message): the last one that is in view as a whole, whenever that may have changed.
   * onBack: the page is looked at again; before anything in it counts as seen.
   */
  constructor({ onSeen, onBack } = {}) {
    Object.assign(this, { onSeen, onBack });
    this.#resized.observe(this.#scroll);
    this.#newer.addEventListener("click", () => {
      this.#scroll.focus({ preventScroll: true }); // this button goes
      this.#follow();
    });
    this.#scroll.addEventListener("scroll", () => this.#scrolled());
    this.#words.addEventListener("input", () => {
      if (this.conversation) this.conversation.draft = this.#words.value;
    });
    document.addEventListener("visibilitychange", () => {
      if (!this.conversation) return;
      // What comes while nobody looks stays in the page, until somebody has.
      if (document.hidden) return (this.conversation.held = true);
      this.onBack?.();
      if (this.#atEnd) this.#arrive();
      else this.#seen();
    });
  }

  /** Show `conversation` and its draft, where it was left; `placeholder` while it is empty. */
  show(conversation, placeholder) {
    this.#work();
    const shown = this.#scroll.querySelector(".log");
    if (this.conversation && this.conversation !== conversation) {
      this.conversation.top = this.#scroll.scrollTop;
      this.conversation.held = !this.#atEnd;
      this.conversation.since(0, 0, 0);
    }
    this.conversation = conversation;
    this.#words.value = conversation.draft;
    this.#words.dispatchEvent(new Event("input"));
    this.#placeholder.textContent = placeholder;
    this.#resized.unobserve(shown);
    shown.replaceWith(conversation.node);
    this.#resized.observe(conversation.node);
    this.#placeholder.hidden = !conversation.empty;
    this.#said = [];
    this.#atEnd = !conversation.held;
    this.#newer.hidden = true;
    if (this.#atEnd) this.#arrive();
    else this.#scroll.scrollTop = conversation.top;
  }

  #seen() {
    if (!this.onSeen || document.hidden) return;
    const { children } = this.conversation.node;
    const end = this.#scroll.scrollTop + this.#scroll.clientHeight;
    let [low, high] = [0, children.length]; // of those before `low` the end is in view
    if (this.#atEnd) low = high;
    while (low < high) {
      const middle = (low + high) >> 1;
      const { offsetTop, offsetHeight } = children[middle];
      if (offsetTop + offsetHeight <= end) low = middle + 1;
      else high = middle;
    }
    const message = low && this.conversation.messageAt(children[low - 1]);
    if (message?.seq) this.onSeen(message);
  }

  /** Whether the end is in view. */
  get atEnd() {
    return this.#atEnd;
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
    this.conversation.since(0, 0, 0);
    this.conversation.catchUp(); // or it would stand above what is folded away
    const item = this.conversation.write(data);
    this.#placeholder.hidden = true;
    this.#follow();
    return item;
  }

  #work() {
    if (!this.#changes.length) return;
    const { node } = this.conversation;
    const last = node.lastElementChild;
    for (const change of this.#changes.splice(0)) change();
    this.#placeholder.hidden = !this.conversation.empty;
    if (this.#atEnd) this.#arrive();
    else if (node.lastElementChild !== last || this.conversation.more) this.#newer.hidden = false;
    this.#seen();
    this.#speak();
  }

  /** Be at the end; or where that begins which came while nobody looked. */
  #arrive() {
    if (document.hidden) return this.#toEnd();
    const line = this.conversation.takeNews();
    this.#toEnd();
    if (line) this.#scroll.scrollTop = Math.min(this.#scroll.scrollTop, line.offsetTop - 16);
    if (!line || this.#distance() < 60) return this.#follow();
    this.#hold();
    this.#newer.hidden = false;
  }

  #distance() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroll;
    return scrollHeight - scrollTop - clientHeight;
  }

  #hold() {
    this.#atEnd = false;
    this.conversation.held = true;
  }

  async #scrolled() {
    const { scrollTop, clientHeight } = this.#scroll;
    const { conversation } = this;
    if (this.#distance() < 60) {
      if (this.#atEnd) return;
      if (!this.#keeping(conversation.node.lastElementChild, () => conversation.further())) {
        this.#follow();
      }
      return;
    }
    this.#hold();
    this.#seen();
    if (scrollTop > 2 * clientHeight || !(await conversation.ask())) return;
    if (conversation !== this.conversation || this.#atEnd) return;
    this.#keeping(conversation.node.firstElementChild, () => conversation.unfold());
  }

  /** Run `change`, and have this node stay where it is seen. */
  #keeping(node, change) {
    const before = node.getBoundingClientRect().top;
    const result = change();
    this.#scroll.scrollTop += node.getBoundingClientRect().top - before;
    return result;
  }

  /** Stay at the end from now on. */
  #follow() {
    if (!document.hidden) this.conversation.catchUp();
    this.conversation.takeNews(); // nobody is to be led back to where it began
    this.#toEnd();
    this.#seen();
  }

  #toEnd() {
    this.#atEnd = true;
    this.#scroll.scrollTop = this.#scroll.scrollHeight;
    this.#newer.hidden = true;
  }

  /** Say what came: some words, or how much, but not all the time. */
  #speak() {
    this.#said.push(...this.conversation.heard());
    if (this.#silent || !this.#said.length) return;
    const said = this.#said.splice(0);
    byId("spoken").textContent = said.length > 2
      ? plural(said.length, "{n} new message", "{n} new messages")
      : said.map(({ from, data }) => `${nameOf(from ?? "")} ${wordsOf(data).slice(0, 300)}`).join(" ");
    this.#silent = setTimeout(() => {
      this.#silent = undefined;
      this.#speak();
    }, QUIET);
  }
}
