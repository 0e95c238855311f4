/** What is said, taken apart. No page is needed for this: tests/js/text.test.mjs. */

/** What somebody says need not be text; even String() fails for some objects. */
export const wordsOf = (data) => (typeof data === "string" ? data : JSON.stringify(data));

/** As names are compared. */
export const alike = (name) => name.normalize().toLowerCase();

const MOST = 24; // characters of a name: demos/who.py
const LINK = /https?:\/\/[^\s<>"“”]+/y;
const WORD = /[\p{L}\p{N}\p{M}_]/u;
const UNSPACED = /[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Thai}\p{Emoji_Presentation}]/u;
const JOINER = /[\u200c\u200d]/; // what comes belongs to it
const BEFORE = /[\w.+-]/; // ben@example.org is nobody's name

/** Where an address that begins here ends, without the full stop of its sentence. */
function linkAt(text, at) {
  LINK.lastIndex = at;
  let [url] = LINK.exec(text) ?? [""];
  while (/[.,;:!?'*_~)\]}]$/.test(url)) {
    if (url.endsWith(")") && url.split("(").length === url.split(")").length) break;
    url = url.slice(0, -1);
  }
  return URL.canParse(url) ? url : "";
}

/** The longest of `names` (a Set, as `alike` has them) that follows an @ here. */
function nameAt(text, at, names) {
  if (BEFORE.test(text[at - 1] ?? " ")) return "";
  for (let end = Math.min(text.length, at + 1 + 2 * MOST); end > at + 1; end--) {
    const name = text.slice(at + 1, end);
    const next = text[end] ?? " ";
    if (!names.has(alike(name)) || JOINER.test(next)) continue;
    if (!WORD.test(next) || UNSPACED.test([...name].at(-1)) || UNSPACED.test(next)) return name;
  }
  return "";
}

/**
 * The text as pieces, in order: { text }, with `link` for an http address, `name` where one
 * of `names` is mentioned.
 */
export function pieces(text, names = new Set()) {
  const found = [];
  let done = 0;
  for (const { index } of text.matchAll(/@|https?:/g)) {
    if (index < done) continue;
    const name = text[index] === "@" ? nameAt(text, index, names) : "";
    const link = text[index] === "@" ? "" : linkAt(text, index);
    if (!name && !link) continue;
    if (index > done) found.push({ text: text.slice(done, index) });
    done = index + (name ? name.length + 1 : link.length);
    found.push({ text: text.slice(index, done), ...(name ? { name: alike(name) } : { link }) });
  }
  if (done < text.length) found.push({ text: text.slice(done) });
  return found;
}

/** Whether somebody of this name is mentioned. */
export const mentions = (text, name) =>
  text.includes("@") && pieces(text, new Set([alike(name)])).some((piece) => piece.name);

/** Whether it is too long to be shown as a whole at first. */
export const isLong = (text) => text.length > 900 || text.split("\n", 16).length > 15;

/** Who came and who went since the last message. Who did both did neither. */
export class Crowd {
  came = new Set();
  went = new Set();
  more = 0; // came (or went, where it is negative) without a name, as they are too many

  change(joined, left, more = 0) {
    for (const user of joined) if (!this.went.delete(user)) this.came.add(user);
    for (const user of left) if (!this.came.delete(user)) this.went.add(user);
    this.more += more;
  }

  /** [those who came, those who went]: each { first, second, count }. */
  get sides() {
    const side = (users, more) => {
      const [first, second] = users;
      return { first, second, count: users.size + Math.max(0, more) };
    };
    return [side(this.came, this.more), side(this.went, -this.more)];
  }
}

/** Who is typing: it is told again and again, and ends by itself. */
export class Typists {
  #until = new Map(); // user -> ms

  constructor(lasts) {
    this.lasts = lasts;
  }

  heard(user, now) {
    this.#until.set(user, now + this.lasts);
  }

  end(user) {
    return this.#until.delete(user);
  }

  clear() {
    this.#until.clear();
  }

  /** Those who are still at it. */
  at(now) {
    for (const [user, until] of this.#until) if (until <= now) this.#until.delete(user);
    return [...this.#until.keys()];
  }
}

/** How far each room was read, in all tabs of this browser. */
export class Marks {
  #kept = new Map(); // where nothing can be stored
  #storage;
  #key;

  constructor(storage, user) {
    this.#storage = storage;
    this.#key = `read ${user} `;
  }

  get(room) {
    let text = this.#kept.get(room);
    try {
      text = this.#storage.getItem(this.#key + room) ?? text;
    } catch {}
    const [, seq, epoch] = /^(\d+) (.*)/.exec(text ?? "") ?? [];
    return seq && { epoch, seq: Number(seq) };
  }

  /** Note that it was read so far; another tab may have been further. */
  set(room, { epoch, seq }) {
    const before = this.get(room);
    if (before?.epoch === epoch && before.seq >= seq) return;
    const text = `${seq} ${epoch}`;
    this.#kept.set(room, text);
    try {
      this.#storage.setItem(this.#key + room, text);
    } catch {}
  }

  /**
   * How many messages were not read of a room that has come so far, and after which one
   * they begin. Where it was never read, nothing is new.
   */
  unread(room, { epoch, seq }) {
    const mark = this.get(room);
    if (!mark || epoch === undefined) return { count: 0, after: Infinity };
    const after = mark.epoch === epoch ? mark.seq : 0; // the numbers have begun anew
    return { count: Math.max(0, seq - after), after };
  }
}
