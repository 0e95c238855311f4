// static/ledger.js: what the private chat knows of its conversations.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Ledger, tagsOf } from "../../static/ledger.js";

const ADA = "Ada#1a2b3c4d";
const BEN = "Ben#00000001";
const CY = "Cy#00000002";

/** What outlives a page, as a text. */
class Store {
  text = "{}";
  read = () => JSON.parse(this.text);
  write = (notes) => (this.text = JSON.stringify(notes));
}

/** A page of Ada's, and the messages of her inbox. */
class Page {
  mids = "m"; // what they begin with

  constructor(store = new Store(), epoch = "e1") {
    this.ledger = new Ledger(ADA, store);
    this.ledger.begin(epoch, 1);
  }

  take(...seqs) {
    return seqs.map(([seq, from, to = ADA]) => {
      const message = { seq, from, to, mid: `${this.mids}${seq}`, data: "hi" };
      this.ledger.add(message);
      return message;
    });
  }

  unread(user) {
    return this.ledger.unread(user).map(({ seq }) => seq);
  }
}

test("what came is unread until it was in view, with all that is above it", () => {
  const page = new Page();
  const [first, second, mine, third] = page.take([1, BEN], [2, BEN], [3, ADA, BEN], [4, BEN], [5, CY]);
  assert.deepEqual(page.unread(BEN), [1, 2, 4]);
  assert.equal(page.ledger.total, 4);
  assert.equal(page.ledger.see(BEN, first), true);
  assert.deepEqual(page.unread(BEN), [2, 4]);
  assert.equal(page.ledger.see(BEN, first), false);
  assert.equal(page.ledger.see(BEN, mine), true); // it stands below the second one
  assert.deepEqual(page.unread(BEN), [4]);
  assert.equal(page.ledger.see(BEN, second), false);
  assert.equal(page.ledger.see(BEN, third), true);
  assert.deepEqual([page.unread(BEN), page.unread(CY)], [[], [5]]);
});

test("what was read stays so over a reload, and in the other tabs", () => {
  const store = new Store();
  const page = new Page(store);
  const tab = new Page(store);
  const messages = [[1, BEN], [2, BEN], [3, CY], [4, BEN]];
  const [, second] = page.take(...messages);
  const [, , cys] = tab.take(...messages);
  page.ledger.see(BEN, second);
  page.ledger.save();
  tab.ledger.recall();
  assert.deepEqual(tab.unread(BEN), [4]);
  // Neither forgets what the other one has kept.
  tab.ledger.see(CY, cys);
  tab.ledger.save();
  page.ledger.see(CY, { seq: 9 });
  page.ledger.save();
  const reloaded = new Page(store);
  reloaded.take(...messages);
  assert.deepEqual([reloaded.unread(BEN), reloaded.unread(CY)], [[4], []]);
  assert.equal(reloaded.ledger.missed, false);
});

test("a message is taken once", () => {
  const page = new Page();
  page.take([1, BEN], [2, BEN]);
  page.take([1, BEN], [2, BEN], [3, BEN]);
  assert.deepEqual(page.unread(BEN), [1, 2, 3]);
});

test("the newest conversation is the first", () => {
  const page = new Page();
  page.take([1, BEN], [2, CY]);
  assert.deepEqual(page.ledger.newest(), [CY, BEN]);
  page.take([3, ADA, BEN]);
  assert.deepEqual(page.ledger.newest(), [BEN, CY]);
  assert.equal(page.ledger.last(BEN).seq, 3);
  page.ledger.hear({ by: "Dot#3", got: "x", read: "" }); // it makes no conversation
  assert.deepEqual(page.ledger.newest(), [BEN, CY]);
});

test("sent, delivered and read are what receipts tell, in whatever order", () => {
  const page = new Page();
  const fates = (messages) => messages.map((message) => page.ledger.fate(message)).join(" ");
  const told = page.take([1, ADA, BEN], [2, ADA, CY], [3, ADA, BEN], [4, ADA, BEN]);
  assert.equal(fates(told), "sent sent sent sent");
  assert.equal(page.ledger.hear({ by: BEN, got: "m3", read: "" }), true);
  assert.equal(fates(told), "delivered sent delivered sent");
  assert.equal(page.ledger.hear({ by: BEN, got: "m3", read: "m1" }), true);
  assert.equal(fates(told), "read sent delivered sent");
  // An old one, as after an absence, takes nothing back; one of another's says nothing.
  assert.equal(page.ledger.hear({ by: BEN, got: "m1", read: "" }), false);
  assert.equal(page.ledger.hear({ by: CY, got: "m4", read: "m4" }), false);
  assert.equal(fates(told), "read sent delivered sent");
  // It was quicker than the message that it is about.
  assert.equal(page.ledger.hear({ by: BEN, got: "m5", read: "m5" }), false);
  told.push(...page.take([5, ADA, BEN]));
  assert.equal(fates(told), "read sent read read read");
  // Mine, before it has come back from the server.
  assert.equal(page.ledger.fate({ from: ADA, data: "hi" }), "sent");
});

test("what became of mine is known after a reload, also before the inbox is read", () => {
  const store = new Store();
  const page = new Page(store);
  page.take([1, ADA, BEN], [2, ADA, BEN], [3, ADA, CY]);
  page.ledger.hear({ by: BEN, got: "m2", read: "m1" });
  page.ledger.save();
  const reloaded = new Ledger(ADA, store);
  reloaded.hear({ by: CY, got: "m3", read: "" });
  reloaded.begin("e1", 1);
  const fates = [[1, BEN], [2, BEN], [3, CY]].map(([seq, to]) => {
    const message = { seq, from: ADA, to, mid: `m${seq}` };
    reloaded.add(message);
    return reloaded.fate(message);
  });
  assert.deepEqual(fates, ["read", "delivered", "delivered"]);
});

test("one receipt tells of all, and nothing is told twice", () => {
  const store = new Store();
  const page = new Page(store);
  const many = Array.from({ length: 1000 }, (_, index) => [index + 1, BEN]);
  const messages = page.take(...many);
  const got = { to: BEN, got: "m1000", read: "" };
  assert.deepEqual(page.ledger.owed(), [got]);
  page.ledger.paid(got);
  assert.deepEqual(page.ledger.owed(), []);
  page.ledger.see(BEN, messages.at(-1));
  const read = { to: BEN, got: "m1000", read: "m1000" };
  assert.deepEqual(page.ledger.owed(), [read]);
  page.ledger.paid(read);
  page.ledger.save();
  const reloaded = new Page(store);
  reloaded.take(...many.slice(-256));
  assert.deepEqual(reloaded.ledger.owed(), []);
  assert.deepEqual(reloaded.unread(BEN), []);
  assert.ok(store.text.length < 300);
  reloaded.take([1001, BEN]);
  assert.deepEqual(reloaded.ledger.owed(), [{ to: BEN, got: "m1001", read: "m1000" }]);
});

test("numbers that begin anew are not taken for the old ones", () => {
  const store = new Store();
  const page = new Page(store);
  const [mine, , theirs] = page.take([1, ADA, BEN], [2, ADA, BEN], [3, BEN], [4, BEN]);
  page.ledger.hear({ by: BEN, got: "m1", read: "m1" });
  page.ledger.see(BEN, theirs);
  assert.equal(page.ledger.begin("e2", 1), true);
  page.mids = "n"; // they never come again
  const [next, asked] = page.take([1, ADA, BEN], [2, BEN]);
  assert.deepEqual([mine, next].map((one) => page.ledger.fate(one)), ["read", "sent"]);
  assert.deepEqual(page.unread(BEN), [4, 2]); // that one is still shown
  page.ledger.see(BEN, page.ledger.unread(BEN)[0]);
  assert.deepEqual(page.unread(BEN), [2]);
  assert.equal(page.ledger.see(BEN, asked), true);
  page.ledger.save();
  // It is said until it is known, also after a reload.
  assert.equal(page.ledger.missed, true);
  const reloaded = new Page(store, "e2");
  assert.equal(reloaded.ledger.missed, true);
  reloaded.take([1, ADA, BEN], [2, BEN]);
  reloaded.ledger.accept();
  assert.equal(new Page(store, "e2").ledger.missed, false);
  assert.equal(new Page(store, "e3").ledger.missed, true);
  const empty = new Store();
  new Page(empty).ledger.save();
  assert.equal(new Page(empty, "e2").ledger.missed, false);
  // Away for longer than messages are kept.
  assert.equal(new Ledger(ADA, store).begin("e2", 3), false);
  assert.equal(new Ledger(ADA, store).begin("e2", 4), true);
});

test("notes that somebody else wrote do no harm", () => {
  for (const people of [5, [], { [BEN]: null }, { [BEN]: {} }, { [BEN]: { read: 5, told: 7 } }]) {
    const store = new Store();
    store.text = JSON.stringify({ epoch: "e1", seq: "?", people });
    const page = new Page(store);
    const [message] = page.take([1, BEN]);
    page.ledger.see(BEN, message);
    page.ledger.save();
    assert.equal(store.read().people[BEN].read.seq, 1);
  }
});

test("people are told apart where their names look the same, and only there", () => {
  const family = "👨\u200d👩\u200d👧";
  const users = [ADA, "Ada#99990000", BEN, `${family}#12345678`, "👨👩👧#abcdef00", "a#b#c#12121212"];
  assert.deepEqual(
    [...tagsOf(users)],
    [[ADA, "1a2b"], ["Ada#99990000", "9999"],
      [`${family}#12345678`, "1234"], ["👨👩👧#abcdef00", "abcd"]],
  );
});
