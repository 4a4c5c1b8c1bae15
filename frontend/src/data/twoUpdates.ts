/** Two updates of one h1 on one data set, instance by instance. */

import type { Flips, InstanceId, Media, SliceColumn, Sureness, Table } from "../model";
import { type Difference, pairedDifference } from "./scores";
import { totals } from "./engine";

/** What either update gets wrong, as a table of run A with the answers of run B beside it. */
export interface Joined {
  readonly table: Table;
  readonly b: Uint32Array;
}

const pairs = new WeakMap<Table, WeakMap<Table, Joined>>();

/**
 * All instances that h1 or one of the updates gets wrong. What is not in a run's table was answered rightly there, by
 * h1 too. The same object at every call, so that what is derived from its table is kept.
 */
export function joined(a: Table, b: Table): Joined {
  const known = pairs.get(a)?.get(b);
  if (known !== undefined) return known;
  const rowInB = new Map<InstanceId, number>();
  for (let row = 0; row < b.size; row++) rowInB.set(b.ids[row]!, row);
  const alone: number[] = [];
  const inA = new Set<InstanceId>();
  for (let row = 0; row < a.size; row++) inA.add(a.ids[row]!);
  for (let row = 0; row < b.size; row++) if (!inA.has(b.ids[row]!)) alone.push(row);
  const size = a.size + alone.length;
  const extended = (own: ArrayLike<number>, others: ArrayLike<number>): Uint32Array => {
    const column = new Uint32Array(size);
    for (let row = 0; row < a.size; row++) column[row] = own[row]!;
    alone.forEach((row, i) => (column[a.size + i] = others[row]!));
    return column;
  };
  const ids = [...(a.ids as ArrayLike<InstanceId> & Iterable<InstanceId>), ...alone.map((row) => b.ids[row]!)];
  const texts =
    a.texts === null && b.texts === null
      ? null
      : [...(a.texts ?? Array.from({ length: a.size }, () => "")), ...alone.map((row) => b.texts?.[row] ?? "")];
  const target = extended(a.target, b.target);
  const answers = target.slice();
  for (let row = 0; row < a.size; row++) {
    const twin = rowInB.get(a.ids[row]!);
    if (twin !== undefined) answers[row] = b.h2[twin]!;
  }
  alone.forEach((row, i) => (answers[a.size + i] = b.h2[row]!));
  const areNumbers = ids.every((id) => typeof id === "number");
  const table: Table = {
    ...a,
    size,
    ids: areNumbers ? Float64Array.from(ids as number[]) : ids,
    target,
    h1: extended(a.h1, b.target), // right, or it would be in both tables
    h2: extended(a.h2, b.target),
    texts,
    sure: a.sure && b.sure && joinedSureness(a.size, alone, a.sure, b.sure),
    slices: a.slices.flatMap((column): SliceColumn[] => {
      const twin = b.slices.find((each) => each.column === column.column);
      if (twin === undefined || twin.values.join("\0") !== column.values.join("\0")) return [];
      return [{ ...column, codes: extended(column.codes, twin.codes) }];
    }),
  };
  const found = { table, b: answers };
  if (!pairs.has(a)) pairs.set(a, new WeakMap());
  pairs.get(a)!.set(b, found);
  return found;
}

/** How sure h1 and run A are; of what A gets right with h1, its table does not say how sure it was. */
function joinedSureness(size: number, alone: readonly number[], a: Sureness, b: Sureness): Sureness {
  const longer = (own: Float32Array, others: Float32Array | null) => {
    const column = new Float32Array(size + alone.length).fill(Number.NaN);
    column.set(own);
    if (others !== null) alone.forEach((row, i) => (column[size + i] = others[row]!));
    return column;
  };
  const [h1, h1Truth] = [longer(a.h1, b.h1), longer(a.h1Truth, b.h1Truth)];
  return { h1, h1Truth, h2: longer(a.h2, null), h2Truth: longer(a.h2Truth, null) };
}

/** Which of the updates breaks an instance; null if neither does. */
export function flipsOf({ table, b }: Joined, row: number): Flips | null {
  const truth = table.target[row]!;
  if (table.h1[row] !== truth) return null;
  const [brokenByA, brokenByB] = [table.h2[row] !== truth, b[row] !== truth];
  return brokenByA && brokenByB ? "both" : brokenByA ? "a" : brokenByB ? "b" : null;
}

/** How many instances of each class run A, run B or both break. */
export function flipsByClass(both: Joined): Record<Flips, Uint32Array> {
  const classes = () => new Uint32Array(both.table.numClasses);
  const found = { a: classes(), b: classes(), both: classes() };
  for (let row = 0; row < both.table.size; row++) {
    const flips = flipsOf(both, row);
    if (flips !== null) found[flips][both.table.target[row]!]! += 1;
  }
  return found;
}

/** Those of the rows that the given updates break. */
export function withFlips(both: Joined, rows: Uint32Array, wanted: Flips): Uint32Array {
  return rows.filter((row) => flipsOf(both, row) === wanted);
}

/** Accuracy of B less that of A, with the interval of the paired difference. */
export function accuracyDifference(both: Joined, confidence = 0.95): Difference {
  const { table, b } = both;
  let [onlyA, onlyB, neither] = [0, 0, 0];
  for (let row = 0; row < table.size; row++) {
    const truth = table.target[row];
    const [a, other] = [table.h2[row] === truth, b[row] === truth];
    if (a && !other) onlyA += 1;
    else if (other && !a) onlyB += 1;
    else if (!a) neither += 1;
  }
  const all = totals(table).reduce((sum, cell) => sum + cell, 0);
  return pairedDifference(onlyB, onlyA, all - onlyA - onlyB - neither, neither, confidence);
}

/** Texts and images of both runs; those of the first come first. */
export function mergedMedia(a: Media | null, b: Media | null): Media | null {
  if (a === null || b === null) return a ?? b;
  return {
    texts: new Map([...b.texts, ...a.texts]),
    longer: new Set([...b.longer].filter((id) => !a.texts.has(id)).concat([...a.longer])),
    images: new Set([...a.images, ...b.images]),
    reduced: new Set([...b.reduced].filter((id) => !a.images.has(id)).concat([...a.reduced])),
    leftOut: new Set([...a.leftOut, ...b.leftOut].filter((id) => !a.images.has(id) && !b.images.has(id))),
  };
}
