/** Error instances by their true class and what h2 says: the groups of the gallery. */

import type { Table } from "../model";

export interface ClassPair {
  readonly target: number;
  /** What h2 says. */
  readonly says: number;
  /** Numbers of rows, in the order in which they came. */
  readonly rows: Uint32Array;
  /** How many of them are negative flips. */
  readonly broken: number;
}

/** The pairs of the rows: those with the most negative flips first, then those with the most instances. */
export function classPairs(table: Table, rows: Uint32Array): ClassPair[] {
  const { target, h1, h2, numClasses } = table;
  const found = new Map<number, { rows: number[]; broken: number }>();
  for (const row of rows) {
    const [truth, says] = [target[row]!, h2[row]!];
    const key = truth * numClasses + says;
    let pair = found.get(key);
    if (pair === undefined) {
      pair = { rows: [], broken: 0 };
      found.set(key, pair);
    }
    pair.rows.push(row);
    pair.broken += Number(h1[row] === truth && says !== truth);
  }
  return [...found]
    .map(([key, pair]) => ({
      target: Math.floor(key / numClasses),
      says: key % numClasses,
      rows: Uint32Array.from(pair.rows),
      broken: pair.broken,
    }))
    .sort(
      (a, b) => b.broken - a.broken || b.rows.length - a.rows.length || a.target - b.target || a.says - b.says,
    );
}
