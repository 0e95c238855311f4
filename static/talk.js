/** What both chats share, and the part of the page that shows a conversation. */

import { byId, inFrame, nameOf, plural } from "./ui.js";
import { wordsOf } from "./text.js";

export { composer } from "./composer.js";
export { Conversation } from "./conversation.js";
export { explain, phrase } from "./message.js";
export { wordsOf };

const QUIET = 3000; // ms between two times that it is said what came

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
