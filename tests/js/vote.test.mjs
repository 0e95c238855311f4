/** What the pages of the vote compute: static/vote-shares.js. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { percentages, phaseOf } from "../../static/vote-shares.js";
import { chance, SEED } from "./chance.mjs";

test("percentages are whole and sum to 100", () => {
  assert.deepEqual(percentages([0, 0]), [0, 0]);
  assert.deepEqual(percentages([1, 0]), [100, 0]);
  assert.deepEqual(percentages([1, 1, 1]), [34, 33, 33]);
  assert.deepEqual(percentages([3, 2, 1, 1]), [43, 29, 14, 14]);
  assert.deepEqual(percentages([999, 1]), [100, 0]);
  assert.deepEqual(percentages([1, 1, 1, 1, 1, 1, 1]), [15, 15, 14, 14, 14, 14, 14]);
  assert.deepEqual(percentages([2 ** 40, 2 ** 40, 1]), [50, 50, 0]);
});

test("no percentage is one or more away from the share", () => {
  const random = chance(SEED);
  for (let round = 0; round < 1000; round++) {
    const counts = Array.from({ length: 2 + Math.floor(random() * 7) }, () => Math.floor(random() * 50));
    const total = counts.reduce((a, b) => a + b);
    if (!total) continue;
    const shares = percentages(counts);
    assert.equal(shares.reduce((a, b) => a + b), 100, `SEED=${SEED}: ${counts}`);
    for (const [index, share] of shares.entries()) {
      assert.ok(Math.abs(share - (counts[index] * 100) / total) < 1, `SEED=${SEED}: ${counts}`);
    }
  }
});

test("a poll is closed from the moment at which it ends", () => {
  assert.equal(phaseOf({ opened: false, ends: null }, 5), "pending");
  assert.equal(phaseOf({ opened: true, ends: null }, 5), "open");
  assert.equal(phaseOf({ opened: true, ends: 5.1 }, 5), "open");
  assert.equal(phaseOf({ opened: true, ends: 5 }, 5), "closed");
});
