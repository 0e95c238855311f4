/**
 * What is known of each conversation, without a page: what is unread, what became of my
 * messages, and what the others are still to be told about theirs.
 *
 * Numbers of an inbox only grow, so one number for each person says how far their
 * messages are read. It is kept over a reload, with the epoch that the number is of.
 */

const COUNTED = 1000; // messages of one person, at most

class Person {
  last; // the newest message
  order = 0; // of that one, among all
  unread = []; // theirs, that were not in view
  mine = []; // mine, that a receipt may name
  got = ""; // the mid of their last message
  read = { seq: 0, mid: "" }; // the last of theirs that was in view
  told = ["", ""]; // the mids of these two, as they know them
  receipt = {}; // what they have told me
  arrived = 0; // the number of my last message that they have
  seen = 0; // that they have read
}

export class Ledger {
  epoch;
  seq = 0; // of the newest message
  missed = false; // some that this page, or one before it, has never had
  #people = new Map(); // user -> Person
  #orders = new WeakMap(); // message -> how many came before it, in all epochs
  #changed = new Set(); // users, of whom something is to be kept
  #count = 0;
  #begun = 0; // the same, of this epoch

  /** kept: `read()` returns what `write(notes)` was given, also by another page. */
  constructor(me, kept) {
    Object.assign(this, { me, kept });
  }

  /** The next message has this number, and is of this epoch. True: messages are missing. */
  begin(epoch, seq) {
    const before = this.epoch ? this : this.kept.read();
    // An inbox in which there was nothing is forgotten, and loses nothing by that.
    const missed = before.seq > 0 && (before.epoch !== epoch || seq > before.seq + 1);
    this.missed = missed || Boolean(before.missed);
    if (epoch === this.epoch) {
      this.seq = Math.max(this.seq, seq - 1);
      return missed;
    }
    for (const [user, person] of this.#people) {
      for (const message of person.mine) message.fate = this.fate(message); // for good
      const { last, order, unread, receipt } = person; // they are still shown
      this.#people.set(user, Object.assign(new Person(), { last, order, unread, receipt }));
    }
    Object.assign(this, { epoch, seq: seq - 1 });
    this.#begun = this.#count;
    this.recall();
    return missed;
  }

  /** Take a message; return with whom it is. */
  add(message) {
    const { from, to, seq, mid } = message;
    const user = from === this.me ? to : from;
    if (seq <= this.seq) return user;
    this.seq = seq;
    const person = this.#personOf(user);
    person.last = message;
    person.order = this.#count += 1;
    this.#orders.set(message, person.order);
    if (from === this.me) {
      push(person.mine, message);
      if (to === this.me) message.fate = "read";
      else this.#follow(user, person);
    } else {
      person.got = mid;
      if (seq > person.read.seq) push(person.unread, message);
      else person.read.mid = mid;
    }
    return user;
  }

  last(user) {
    return this.#people.get(user)?.last;
  }

  unread(user) {
    return this.#people.get(user)?.unread ?? [];
  }

  /** How many are unread, of all. */
  get total() {
    return [...this.#people.values()].reduce((sum, { unread }) => sum + unread.length, 0);
  }

  /** The people with messages, the newest first. */
  newest() {
    return [...this.#people]
      .filter(([, { order }]) => order)
      .sort(([, a], [, b]) => b.order - a.order)
      .map(([user]) => user);
  }

  /** It is known to whom it matters that messages are missing. */
  accept() {
    this.missed = false;
    this.save();
  }

  /** This message with them is in view, so all up to it are read. True: that is news. */
  see(user, message) {
    const person = this.#personOf(user);
    const order = this.#orders.get(message);
    const rest = person.unread.findIndex((other) => this.#orders.get(other) > order);
    const [last] = person.unread.splice(0, rest < 0 ? Infinity : rest).slice(-1);
    if (!last) return false;
    if (this.#orders.get(last) > this.#begun) person.read = { seq: last.seq, mid: last.mid };
    this.#changed.add(user);
    return true;
  }

  /** Read what another page has kept. */
  recall() {
    for (const [user, person] of this.#people) this.#recall(user, person);
  }

  /** Take a receipt. True: more of mine were delivered, or read. */
  hear({ by, got, read }) {
    const person = this.#personOf(by);
    person.receipt = { got, read };
    return this.#follow(by, person);
  }

  /** What became of a message of mine: "sent", "delivered" or "read". */
  fate({ to, seq, fate }) {
    const { arrived, seen } = this.#people.get(to) ?? {};
    return fate ?? (seq <= seen ? "read" : seq <= arrived ? "delivered" : "sent");
  }

  /** The receipts that are to be sent: one for each person who does not know yet. */
  owed() {
    return [...this.#people]
      .filter(([, { got, read, told }]) => got && (got !== told[0] || read.mid !== told[1]))
      .map(([to, { got, read }]) => ({ to, got, read: read.mid }));
  }

  /** This one is stored. */
  paid({ to, got, read }) {
    this.#personOf(to).told = [got, read];
    this.#changed.add(to);
  }

  /** Have what was read, heard and paid outlive the page, and how far the inbox has come. */
  save() {
    const known = Object.entries(this.#notes()).filter(([name]) => this.#people.has(name));
    const people = Object.fromEntries(known); // the others' messages are kept no more
    for (const user of this.#changed) {
      const { read, told, arrived, seen } = this.#people.get(user);
      const further = people[user]?.read?.seq > read.seq; // in another tab
      people[user] = { read: further ? people[user].read : read, told, arrived, seen };
    }
    this.#changed.clear();
    const { epoch, seq, missed } = this;
    this.kept.write({ epoch, seq, missed, people });
  }

  #personOf(user) {
    let person = this.#people.get(user);
    if (!person) {
      this.#people.set(user, (person = new Person()));
      this.#recall(user, person);
    }
    return person;
  }

  #notes() {
    const { epoch, people } = this.kept.read();
    return (epoch === this.epoch && people) || {};
  }

  #recall(user, person) {
    const { read, told, arrived = 0, seen = 0 } = this.#notes()[user] ?? {};
    if (told) person.told = told;
    person.arrived = Math.max(arrived, person.arrived);
    person.seen = Math.max(seen, person.seen);
    if (!(read?.seq > person.read.seq)) return;
    person.read = read;
    person.unread = person.unread.filter(({ seq }) => seq > read.seq);
  }

  /** Find the messages that a receipt names; some may come after it. */
  #follow(user, person) {
    const { arrived, seen, receipt } = person;
    for (const { mid, seq } of person.mine) {
      if (mid === receipt.got) person.arrived = Math.max(seq, person.arrived);
      if (mid === receipt.read) person.seen = Math.max(seq, person.seen);
    }
    const news = arrived !== person.arrived || seen !== person.seen;
    if (news) this.#changed.add(user);
    return news;
  }
}

function push(list, message) {
  list.push(message);
  if (list.length > COUNTED) list.shift();
}

/** What tells people apart whose names look the same: user -> a part of the id. */
export function tagsOf(users) {
  const named = new Map();
  for (const user of users) {
    const cut = user.lastIndexOf("#");
    const look = user.slice(0, cut).replace(/[\u200c\u200d\ufe00-\ufe0f]/g, "");
    named.set(look, [...(named.get(look) ?? []), [user, user.slice(cut + 1, cut + 5)]]);
  }
  return new Map([...named.values()].filter(({ length }) => length > 1).flat());
}
