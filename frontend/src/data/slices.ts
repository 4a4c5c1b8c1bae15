/** Slices of metadata: which break most, and which rows are in one. */

import type { Cells, SliceCondition, Table } from "../model";
import { labelsOf } from "./engine";
import { value, wilson } from "./scores";

export interface SliceRow {
  readonly conditions: readonly SliceCondition[];
  readonly flips: number;
  readonly total: number;
  readonly rate: number;
  readonly low: number;
  readonly high: number;
  /** Counts of all its instances; null for a slice that was found, of which only the other half is counted. */
  readonly cells: Cells | null;
  readonly accuracyChange: number;
}

/** Name of the column that stands for the true class. */
export const CLASS = "class";

function row(conditions: readonly SliceCondition[], flips: number, total: number, cells: Cells | null): SliceRow {
  const [low, high] = wilson(flips, total);
  const accuracyChange = cells === null ? Number.NaN : value("accuracy_h2", cells) - value("accuracy_h1", cells);
  return { conditions, flips, total, rate: flips / total, low, high, cells, accuracyChange };
}

/** By the rate that even their size does not explain away, as the report of the gate orders them. */
function worstFirst(a: SliceRow, b: SliceRow): number {
  return b.low - a.low || b.rate - a.rate || (sliceName(a.conditions) < sliceName(b.conditions) ? -1 : 1);
}

/** The slices of one column, or of all, that hold instances, worst first. */
export function sliceRows({ slices }: Table, column: string | null): SliceRow[] {
  return slices
    .filter((each) => column === null || each.column === column)
    .flatMap(({ column: name, values, cells }) =>
      values.map((text, i) => {
        const own = cells[i]!;
        return row([[name, text]], own[2], own[0] + own[1] + own[2] + own[3], own);
      }),
    )
    .filter(({ total }) => total > 0)
    .sort(worstFirst);
}

/** The slices that were found, by their counts in the half that took no part in finding them. */
export function foundRows({ foundSlices }: Table): SliceRow[] {
  return foundSlices.map(({ conditions, flips, total }) => row(conditions, flips, total, null)).sort(worstFirst);
}

export function sliceName(conditions: readonly SliceCondition[]): string {
  return conditions.map(([column, text]) => `${column}=${text}`).join(", ");
}

/** Those of the rows that are in all slices; a column that the table does not have is no condition. */
export function inSlices(table: Table, rows: Uint32Array, conditions: readonly SliceCondition[]): Uint32Array {
  let left = rows;
  for (const [name, text] of conditions) {
    const column = table.slices.find((each) => each.column === name);
    if (column === undefined) continue;
    const code = column.values.indexOf(text);
    left = left.filter((row) => column.codes[row] === code);
  }
  return left;
}

export interface SliceFilter {
  readonly target: number | null;
  readonly slices: readonly SliceCondition[];
}

/** What lists the errors of a slice: the true class has a condition of its own. */
export function filterOf(table: Table, conditions: readonly SliceCondition[]): SliceFilter {
  const isColumn = ([name]: SliceCondition) => table.slices.some(({ column }) => column === name);
  const ofClass = conditions.find((each) => each[0] === CLASS && !isColumn(each));
  const target = ofClass === undefined ? -1 : labelsOf(table).indexOf(ofClass[1]);
  return { target: target < 0 ? null : target, slices: conditions.filter(isColumn) };
}

/** Whether both list the same instances. */
export function sameFilter(a: SliceFilter, b: SliceFilter): boolean {
  const has = (conditions: readonly SliceCondition[], [name, text]: SliceCondition) =>
    conditions.some((other) => other[0] === name && other[1] === text);
  return a.target === b.target && a.slices.length === b.slices.length && a.slices.every((each) => has(b.slices, each));
}
