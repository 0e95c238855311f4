/** A list of messages that holds: of one room, or with one person. */

import { el, t } from "./ui.js";
import { dayOf, explain, footOf, lineOfDay, lineOfNews, messageNode, tellOf } from "./message.js";
import { Crowd } from "./text.js";

const FOLLOWS = 300; // seconds in which messages of one author stay together
const SHOWN = 300; // of a conversation that is read at its end
const MOST = 600; // of one that is read further up
const KEPT = 2000; // above those that are shown: the server is asked for the rest
const BELOW = 10_000; // below them: whoever reads on there is to skip none
const PAGE = 50; // shown at once, when somebody reads upwards

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
      if (this.#below.length > BELOW) {
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
    node.replaceChildren(...tellOf(crowd));
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
    const again = () => this.deliver(item);
    const discard = () => {
      this.#last = this.#last.filter((other) => other !== item);
      item.node.remove();
    };
    const { own, message, node } = item;
    const fate = own && { state: node.dataset.state, why, again, discard };
    node.querySelector(".foot").replaceChildren(...footOf(message, fate));
  }

  #create(message, state) {
    const own = message.from === this.me;
    const node = messageNode(message, this.me, this.names);
    const item = { message, node, state, own, day: false, news: false };
    this.#ofNode.set(node, item);
    this.#mark(item, state);
    return item;
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
    if (news) node.prepend(lineOfNews(this.#news.count));
    if (!day) return;
    node.prepend(lineOfDay(message));
    if (!before) return;
    // In a page that is left open, what was today is yesterday now.
    for (const line of this.node.querySelectorAll(".day")) {
      line.replaceWith(lineOfDay(this.messageAt(line.parentNode)));
    }
  }
}
