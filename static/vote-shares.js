/** What the pages of the vote compute: no page is needed for it, and no server. */

/** Whole percentages of these counts. They sum to 100: the largest remainders round up. */
export function percentages(counts) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (!total) return counts.map(() => 0);
  const whole = counts.map((count) => Math.floor((count * 100) / total));
  const rest = counts.map((count) => (count * 100) % total);
  const missing = 100 - whole.reduce((sum, percent) => sum + percent, 0);
  const byRest = [...counts.keys()].sort((a, b) => rest[b] - rest[a]); // of equals, the first
  for (const index of byRest.slice(0, missing)) whole[index] += 1;
  return whole;
}

/** Where a poll with this state is at `now`, in seconds of the server's clock. */
export function phaseOf({ opened, ends }, now) {
  if (!opened) return "pending";
  return ends !== null && ends <= now ? "closed" : "open";
}
