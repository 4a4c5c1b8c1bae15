/** Ranks of values, and orders by rank. A rank is found once per column; an order is found at every click. */

const DIGIT = 16;
const BUCKETS = 1 << DIGIT;

/** Positions in the order of their keys; equal keys keep their order, in both directions. A radix sort. */
export function orderByRank(keys: Uint32Array, descending = false): Uint32Array {
  let most = 0;
  let ascending = true;
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i]!;
    ascending &&= key >= most;
    most = key > most ? key : most;
  }
  let from: Uint32Array = positions(keys.length);
  // Ids that grow, in the order of the data, are what is looked at first.
  if (ascending && !descending) {
    return from;
  }
  let into: Uint32Array = new Uint32Array(keys.length);
  for (let shift = 0; shift === 0 || (shift < 32 && most >>> shift > 0); shift += DIGIT) {
    const buckets = Math.min(BUCKETS, (most >>> shift) + 1);
    const starts = new Uint32Array(buckets + 1);
    // Turned round, a digit sorts downwards: buckets - 1 - digit, written so that one line does both.
    const sign = descending ? -1 : 1;
    const offset = descending ? buckets - 1 : 0;
    for (let i = 0; i < from.length; i++) {
      starts[offset + sign * ((keys[from[i]!]! >>> shift) & (BUCKETS - 1)) + 1]! += 1;
    }
    for (let i = 1; i <= buckets; i++) {
      starts[i]! += starts[i - 1]!;
    }
    for (let i = 0; i < from.length; i++) {
      const position = from[i]!;
      into[starts[offset + sign * ((keys[position]! >>> shift) & (BUCKETS - 1))]!++] = position;
    }
    [from, into] = [into, from];
  }
  return from;
}

/** Rank of each number; equal ones share a rank. */
export function rankNumbers(values: Float64Array): Uint32Array {
  const size = values.length;
  let ascending = true;
  for (let i = 1; i < size && ascending; i++) {
    ascending = values[i - 1]! < values[i]!;
  }
  if (ascending) {
    return positions(size);
  }
  // Plain numbers are sorted natively and looked up again; a comparison function takes several times as long.
  const sorted = values.slice().sort();
  return Uint32Array.from(values, (value) => firstAtLeast(sorted, value));
}

/** Rank of each value under the comparison; equal ones share a rank. */
export function rankBy<T>(values: readonly T[], compare: (a: T, b: T) => number): Uint32Array {
  const order = positions(values.length);
  let ascending = true;
  for (let i = 1; i < values.length && ascending; i++) {
    ascending = compare(values[i - 1]!, values[i]!) <= 0;
  }
  if (!ascending) {
    order.sort((a, b) => compare(values[a]!, values[b]!));
  }
  const ranks = new Uint32Array(values.length);
  let rank = 0;
  for (let i = 1; i < order.length; i++) {
    rank += compare(values[order[i - 1]!]!, values[order[i]!]!) === 0 ? 0 : 1;
    ranks[order[i]!] = rank;
  }
  return ranks;
}

/** By UTF-16 code units; comparing 100,000 texts by the rules of a language takes half a second. */
export function compareUnits(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function positions(size: number): Uint32Array {
  const order = new Uint32Array(size);
  for (let i = 0; i < size; i++) {
    order[i] = i;
  }
  return order;
}

function firstAtLeast(sorted: Float64Array, value: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! < value) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}
