// What the chat pages make of words, people and numbers; no page is needed for it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Crowd, Marks, Typists, isLong, mentions, pieces } from "../../static/text.js";

const names = new Set(["ada", "ada two", "ben", "小明", "می‌خواهم", "👨‍👩‍👧"]);
const found = (text) => pieces(text, names).filter(({ name, link }) => name ?? link).map(({ text }) => text);

test("names are found where they are mentioned, in any script", () => {
  for (const [text, ...expected] of [
    ["hello Ben"],
    ["@Ben hello", "@Ben"],
    ["hello @ben, and @ADA TWO!", "@ben", "@ADA TWO"],
    ["@Ada twofold", "@Ada"],
    ["@Bennet and @bena are others"],
    ["ben@ben is an address, and so is a.b@ada"],
    ["@@Ben", "@Ben"],
    ["你好@小明你好", "@小明"],
    ["سلام @می‌خواهم حال", "@می‌خواهم"],
    ["@👨‍👩‍👧you", "@👨‍👩‍👧"],
    ["@👨‍👩 is somebody else, and @👨‍👩‍👧‍👦 too"],
    ["@"],
  ]) assert.deepEqual(found(text), expected, text);
  assert.equal(mentions("ping @Ada Two", "ada two"), true);
  assert.equal(mentions("ping Ada", "Ada"), false);
});

test("addresses end before the full stop of their sentence", () => {
  for (const [text, ...expected] of [
    ["see https://example.org/a?b=1#c.", "https://example.org/a?b=1#c"],
    ["(http://example.org/a_(b)), and", "http://example.org/a_(b)"],
    ['<a href="https://example.org/">', "https://example.org/"],
    ["javascript:alert(1) data:text/html,x //example.org ftp://example.org"],
    ["https:// and https://"],
    ["https://user@ben.example", "https://user@ben.example"],
  ]) assert.deepEqual(found(text), expected, text);
});

test("pieces are all of the text, whatever it is", () => {
  for (const text of ["", "@", "plain", "@Ben https://x.org @ada two.", "@".repeat(2000), "https://".repeat(250)]) {
    assert.equal(pieces(text, names).map((piece) => piece.text).join(""), text);
  }
});

test("a long message is one with many lines, or many characters", () => {
  assert.deepEqual(["a", "x".repeat(900), "a\n".repeat(14)].map(isLong), [false, false, false]);
  assert.deepEqual(["x".repeat(901), "a\n".repeat(15)].map(isLong), [true, true]);
});

test("who came and went is one line; who did both did neither", () => {
  const crowd = new Crowd();
  crowd.change(["ben", "cy"], ["dan"]);
  crowd.change(["eve"], ["cy"]);
  assert.deepEqual(crowd.sides, [
    { first: "ben", second: "eve", count: 2 },
    { first: "dan", second: undefined, count: 1 },
  ]);
  crowd.change(["dan"], ["ben", "eve"]);
  assert.deepEqual(crowd.sides.map(({ count }) => count), [0, 0]);
  crowd.change(["ben"], [], 150); // too many to be named
  assert.deepEqual(crowd.sides[0], { first: "ben", second: undefined, count: 151 });
  crowd.change([], [], -160);
  assert.deepEqual(crowd.sides.map(({ count }) => count), [1, 10]);
});

test("typing ends by itself, and by what is said", () => {
  const typists = new Typists(6000);
  typists.heard("ben", 0);
  typists.heard("cy", 2000);
  typists.heard("ben", 3000);
  assert.deepEqual(typists.at(7999), ["ben", "cy"]);
  assert.deepEqual(typists.at(8000), ["ben"]);
  assert.equal(typists.end("ben"), true);
  assert.deepEqual(typists.at(8000), []);
});

class Storage {
  kept = new Map();
  getItem = (key) => this.kept.get(key) ?? null;
  setItem = (key, value) => void this.kept.set(key, value);
}

const refusing = {
  getItem() { throw new Error("forbidden"); },
  setItem() { throw new Error("full"); },
};

for (const storage of [new Storage(), refusing, undefined]) {
  test("what was read is remembered, for each user and room", () => {
    const marks = new Marks(storage, "ada#1");
    assert.equal(marks.unread("#a", { epoch: "e", seq: 7 }).count, 0); // never read
    marks.set("#a", { epoch: "e", seq: 5 });
    marks.set("#a", { epoch: "e", seq: 3 }); // an older tab
    assert.deepEqual(marks.unread("#a", { epoch: "e", seq: 7 }), { count: 2, after: 5 });
    assert.equal(marks.unread("#a", {}).count, 0); // nothing is known yet
    assert.equal(marks.unread("#b c", { epoch: "e", seq: 7 }).count, 0);
    // The server has lost what there was: all that there is now is new.
    assert.deepEqual(marks.unread("#a", { epoch: "f", seq: 3 }), { count: 3, after: 0 });
    marks.set("#a", { epoch: "f", seq: 3 });
    assert.equal(marks.unread("#a", { epoch: "f", seq: 3 }).count, 0);
    assert.equal(new Marks(storage, "ben#1").get("#a"), undefined);
  });
}

test("what another tab has read counts", () => {
  const storage = new Storage();
  const [one, other] = [new Marks(storage, "ada#1"), new Marks(storage, "ada#1")];
  one.set("#a", { epoch: "e", seq: 5 });
  other.set("#a", { epoch: "e", seq: 9 });
  assert.equal(one.unread("#a", { epoch: "e", seq: 9 }).count, 0);
});
