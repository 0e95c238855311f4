// Chance that a seed decides, for what is tried in walks and at random moments.

/** SEED=1234 has the same again. */
export const SEED = Number(process.env.SEED ?? (process.hrtime()[1] >> 4) % 1e6);

/** The same numbers for the same seed: mulberry32. */
export function chance(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
