/** Conditions on rows beside classes, region and text: how sure the models are, slices, and what a second update says. */

import type { Filter, Flips, Table } from "../model";
import { inSlices } from "./slices";
import { type Joined, withFlips } from "./twoUpdates";

type Range = readonly [number, number];

/** Probabilities are kept in steps of 1 / 65534. */
const ROUNDED = 1 / 65534;

function within(values: Float32Array, rows: Uint32Array, [low, high]: Range): Uint32Array {
  // The upper end belongs to the next range, but for that of certainty.
  const below = high >= 1 ? 2 : high;
  return rows.filter((row) => values[row]! >= low - ROUNDED / 2 && values[row]! < below - ROUNDED / 2);
}

/** Those of the rows that meet the conditions; `flips` and `b` need both updates. */
export function narrowed(table: Table, rows: Uint32Array, filter: Filter, both: Joined | null): Uint32Array {
  const { sure1, sure2, slices, flips, b } = filter;
  let left = rows;
  if (table.sure !== null && sure1 !== null) left = within(table.sure.h1, left, sure1);
  if (table.sure !== null && sure2 !== null) left = within(table.sure.h2, left, sure2);
  if (slices.length > 0) left = inSlices(table, left, slices);
  if (flips !== null && both !== null) left = withFlips(both, left, flips);
  if (flips !== null && both !== null && b !== null) left = left.filter((row) => both.b[row] === b);
  return left;
}

/** Conditions that mean something for a table; a link may come from data with other columns, or from before scores. */
export function usable(table: Table | null, filter: Filter): Filter {
  if (table === null) return filter;
  const { sure } = table;
  const slices = filter.slices.filter(
    ([name, text]) => table.slices.find(({ column }) => column === name)?.values.includes(text) ?? false,
  );
  return {
    ...filter,
    sure1: sure && filter.sure1,
    sure2: sure && filter.sure2,
    // The same array where nothing was dropped, so that what hangs on it is not made anew.
    slices: slices.length === filter.slices.length ? filter.slices : slices,
  };
}

/** Rows of a table that the matrix counts: of one update, or of two those that one or both break. */
export interface FlipRows {
  readonly table: Table;
  readonly rows: Uint32Array | null;
  /** What is said instead of the truth. */
  readonly wrong: ArrayLike<number>;
}

export function flipRows(table: Table, both: Joined | null, flips: Flips | null): FlipRows {
  if (both === null || flips === null) return { table, rows: null, wrong: table.h2 };
  const all = Uint32Array.from({ length: both.table.size }, (_, row) => row);
  return { table: both.table, rows: withFlips(both, all, flips), wrong: flips === "b" ? both.b : both.table.h2 };
}
