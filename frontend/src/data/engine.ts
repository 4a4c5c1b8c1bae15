/**
 * Filtering, sorting and counting of one comparison, on typed arrays. Nothing here knows the page or the server.
 *
 * A table never changes, so what is derived from one (ranks, lower-cased texts) is kept with it, and a second click
 * on a heading costs one counting sort.
 */

import {
  type Cells,
  type ClassSort,
  DataError,
  type Filter,
  type InstanceId,
  type InstanceSort,
  type Media,
  type Region,
  type Table,
} from "../model";
import { compareUnits, orderByRank, rankBy, rankNumbers } from "./ranks";
import { type Difference, pairedDifference } from "./scores";

export type TextOf = (row: number) => string;

export interface ClassRow {
  /** Class number. */
  readonly index: number;
  readonly label: string;
  readonly total: number;
  /** NaN for a class without instances. */
  readonly accuracyH1: number;
  readonly accuracyH2: number;
  /** Negative flips: h1 right, h2 wrong. */
  readonly regress: number;
  /** Both wrong. */
  readonly common: number;
  /** Positive flips: h1 wrong, h2 right. */
  readonly progress: number;
  /** This class's share of all negative flips; 0 where there is none. */
  readonly share: number;
  /** How many instances both models get right is not known, so neither are total and accuracies. */
  readonly uncertain: boolean;
}

export interface MatrixLine {
  /** Class number; null for all the classes that have no line of their own. */
  readonly index: number | null;
  readonly label: string;
}

export interface Matrix {
  readonly rows: readonly MatrixLine[];
  readonly columns: readonly MatrixLine[];
  readonly cells: readonly (readonly number[])[];
  readonly total: number;
}

/** Negative flips of two updates of one h1 on one data set; the difference is NFR(a) - NFR(b). */
export interface FlipComparison extends Difference {
  readonly onlyA: number;
  readonly onlyB: number;
  readonly both: number;
  readonly neither: number;
}

const REGIONS: readonly Region[] = ["regress", "common", "progress"];
const COLLATOR = new Intl.Collator("en", { numeric: true });

/** A function that remembers its results for as long as their arguments live. */
function kept<K extends object, V>(make: (key: K) => V): (key: K) => V {
  const values = new WeakMap<K, V>();
  return (key) => {
    let value = values.get(key);
    if (value === undefined) {
      value = make(key);
      values.set(key, value);
    }
    return value;
  };
}

/** Name of each class, or its number; the same array at every call. */
export const labelsOf: (table: Table) => readonly string[] = kept(
  (table) => table.classNames ?? Array.from({ length: table.numClasses }, (_, index) => String(index)),
);

export function regionOf(table: Table, row: number): Region {
  const target = table.target[row];
  return table.h1[row] === target ? "regress" : table.h2[row] === target ? "progress" : "common";
}

export function totals(table: Table): Cells {
  const sums: [number, number, number, number] = [0, 0, 0, 0];
  for (let i = 0; i < table.counts.length; i += 4) {
    sums[0] += table.counts[i]!;
    sums[1] += table.counts[i + 1]!;
    sums[2] += table.counts[i + 2]!;
    sums[3] += table.counts[i + 3]!;
  }
  return sums;
}

export function classCells(table: Table, index: number): Cells {
  if (!(index >= 0 && index < table.numClasses)) {
    return [0, 0, 0, 0];
  }
  const [bothWrong, h2Right, h1Right, bothRight] = table.counts.subarray(4 * index, 4 * index + 4);
  return [bothWrong!, h2Right!, h1Right!, bothRight!];
}

const mediaTexts = kept((table: Table) =>
  kept((media: Media): TextOf => {
    const { ids, texts } = table;
    return (row) => media.texts.get(ids[row]!) ?? texts?.[row] ?? "";
  }),
);
const ownTexts = kept(
  ({ texts }: Table): { readonly of: TextOf | null } => ({ of: texts === null ? null : (row) => texts[row]! }),
);

/** What to show for a row besides its id; null where there are no texts. The same function at every call. */
export function textsOf(table: Table, media: Media | null): TextOf | null {
  return media !== null && media.texts.size > 0 ? mediaTexts(table)(media) : ownTexts(table).of;
}

const lowerIds = kept((table: Table) =>
  Array.from(table.ids as ArrayLike<InstanceId>, (id) => String(id).toLowerCase()),
);
const lowerTexts = kept((table: Table) =>
  kept((textOf: TextOf) => Array.from({ length: table.size }, (_, row) => textOf(row).toLowerCase())),
);

/**
 * Numbers of the rows that meet all conditions, ascending. A text is looked for in the id and in the row's text;
 * `elsewhere` are the ids of rows in the rest of whose text it was found.
 */
export function select(
  table: Table,
  filter: Filter,
  textOf: TextOf | null,
  elsewhere: ReadonlySet<string> | null = null,
): Uint32Array {
  const { target, h1, h2, size } = table;
  const rows = new Uint32Array(size);
  const region = filter.region === null ? -1 : REGIONS.indexOf(filter.region);
  const [wantTarget, wantH1, wantH2] = [filter.target ?? -1, filter.h1 ?? -1, filter.h2 ?? -1];
  let found = 0;
  for (let row = 0; row < size; row++) {
    const truth = target[row]!;
    const first = h1[row]!;
    const second = h2[row]!;
    if (
      (wantTarget < 0 || truth === wantTarget) &&
      (wantH1 < 0 || first === wantH1) &&
      (wantH2 < 0 || second === wantH2) &&
      (region < 0 || region === (first === truth ? 0 : second === truth ? 2 : 1))
    ) {
      rows[found] = row;
      found += 1;
    }
  }
  const matching = rows.subarray(0, found);
  const wanted = filter.text.trim().toLowerCase();
  if (wanted === "") {
    return matching;
  }
  // A number's digits hold no letter, which spares their conversion for most searches.
  const inIds = table.ids instanceof Float64Array && /[^\d-]/.test(wanted) ? null : lowerIds(table);
  const inTexts = textOf === null ? null : lowerTexts(table)(textOf);
  return matching.filter(
    (row) =>
      inTexts?.[row]!.includes(wanted) || inIds?.[row]!.includes(wanted) || elsewhere?.has(String(table.ids[row])),
  );
}

const idRanks = kept(({ ids }: Table) => {
  if (ids instanceof Float64Array) {
    return rankNumbers(ids);
  }
  // Ids of digits are compared as the numbers they are.
  if (ids.every((id) => typeof id === "number" || /^\d{1,15}$/.test(id))) {
    return rankNumbers(Float64Array.from(ids as readonly unknown[], Number));
  }
  if (ids.every((id) => typeof id === "number" || /^-?\d+$/.test(id))) {
    return rankBy(
      ids.map((id) => BigInt(id)),
      (a, b) => (a < b ? -1 : a > b ? 1 : 0),
    );
  }
  return rankBy(ids.map(String), compareUnits);
});

const textRanks = kept((table: Table) => kept((textOf: TextOf) => rankBy(lowerTexts(table)(textOf), compareUnits)));

const labelRanks = kept((labels: readonly string[]) => rankBy(labels, COLLATOR.compare));

const regionRanks = kept(({ target, h1, h2, size }: Table) => {
  const ranks = new Uint32Array(size);
  for (let row = 0; row < size; row++) {
    const truth = target[row];
    ranks[row] = h1[row] === truth ? 0 : h2[row] === truth ? 2 : 1;
  }
  return ranks;
});

/** Regions, and within one the instances that h2 is surest of; in both directions the surest come first. */
const regionAndSureRanks = kept((table: Table) => {
  const regions = regionRanks(table);
  const by = (sign: number) =>
    rankNumbers(Float64Array.from(regions, (region, row) => 2 * region + sign * (0.5 - known(table.sure!.h2[row]!))));
  return { up: by(1), down: by(-1) };
});

const sureRanks = kept(({ sure }: Table) => ({
  sure1: rankNumbers(Float64Array.from(sure!.h1, known)),
  sure2: rankNumbers(Float64Array.from(sure!.h2, known)),
}));

/** A probability that is not known comes last. */
function known(share: number): number {
  return Number.isNaN(share) ? -0.5 : share;
}

/**
 * The rows in another order; equal ones stay in the order they come in, in both directions. Classes are ordered by
 * label, regions as in `Region` (with scores, the surest of h2's answers first), texts without regard to case.
 */
export function sortRows(
  table: Table,
  rows: Uint32Array,
  sort: InstanceSort,
  descending: boolean,
  labels: readonly string[],
  textOf: TextOf | null,
): Uint32Array {
  const ranks = new Uint32Array(rows.length);
  switch (sort) {
    case "target":
    case "h1":
    case "h2": {
      const column = table[sort];
      const byClass = labelRanks(labels);
      for (let i = 0; i < rows.length; i++) {
        ranks[i] = byClass[column[rows[i]!]!]!;
      }
      break;
    }
    case "text":
      if (textOf === null) {
        return rows.slice();
      }
      pick(textRanks(table)(textOf), rows, ranks);
      break;
    case "id":
      pick(idRanks(table), rows, ranks);
      break;
    case "region":
      if (table.sure === null) pick(regionRanks(table), rows, ranks);
      else pick(regionAndSureRanks(table)[descending ? "down" : "up"], rows, ranks);
      break;
    case "sure1":
    case "sure2":
      if (table.sure === null) return rows.slice();
      pick(sureRanks(table)[sort], rows, ranks);
      break;
  }
  return orderByRank(ranks, descending).map((i) => rows[i]!);
}

function pick(values: Uint32Array, rows: Uint32Array, into: Uint32Array): void {
  for (let i = 0; i < rows.length; i++) {
    into[i] = values[rows[i]!]!;
  }
}

/** How many of the rows (default: all) lie in each region. */
export function regionCounts(table: Table, rows?: Uint32Array): Record<Region, number> {
  const regions = regionRanks(table);
  const counts = [0, 0, 0] as [number, number, number];
  if (rows === undefined) {
    for (let row = 0; row < table.size; row++) {
      counts[regions[row]!]! += 1;
    }
  } else {
    for (let i = 0; i < rows.length; i++) {
      counts[regions[rows[i]!]!]! += 1;
    }
  }
  return { regress: counts[0], common: counts[1], progress: counts[2] };
}

export function classRows(table: Table): ClassRow[] {
  const labels = labelsOf(table);
  const uncertain = new Set(table.uncertainClasses);
  const broken = totals(table)[2];
  return labels.map((label, index) => {
    const [common, progress, regress, bothRight] = classCells(table, index);
    const total = common + progress + regress + bothRight;
    return {
      index,
      label,
      total,
      accuracyH1: (regress + bothRight) / total,
      accuracyH2: (progress + bothRight) / total,
      regress,
      common,
      progress,
      share: broken === 0 ? 0 : regress / broken,
      uncertain: uncertain.has(index),
    };
  });
}

/** Largest first, names ascending; equal classes by number. "loss" is the fall in accuracy; `search` is in labels. */
export function sortClasses(rows: readonly ClassRow[], sort: ClassSort, search: string): ClassRow[] {
  const wanted = search.trim().toLowerCase();
  const found = rows.filter((row) => wanted === "" || row.label.toLowerCase().includes(wanted));
  const key: Record<Exclude<ClassSort, "name">, (row: ClassRow) => number> = {
    flips: (row) => row.regress,
    loss: (row) => (row.total === 0 ? Number.NEGATIVE_INFINITY : (row.regress - row.progress) / row.total),
    count: (row) => row.total,
  };
  if (sort === "name") {
    return found.sort((a, b) => COLLATOR.compare(a.label, b.label) || a.index - b.index);
  }
  const of = key[sort];
  // Two classes without instances are equal, and their difference would be NaN.
  return found.sort((a, b) => (of(a) === of(b) ? a.index - b.index : of(b) - of(a)));
}

/**
 * True class by wrong class, counted over one region: the wrong class is that of h2, and for "progress", where h2 is
 * right, that of h1. The classes with the most instances come first; beyond `limit` they share a last line "other".
 */
export function flipMatrix(table: Table, limit = 12, region: Region = "regress"): Matrix {
  const wrong = region === "progress" ? table.h1 : table.h2;
  const regions = regionRanks(table);
  const wanted = REGIONS.indexOf(region);
  const rows = new Uint32Array(table.size);
  let found = 0;
  for (let row = 0; row < table.size; row++) {
    rows[found] = row;
    found += Number(regions[row] === wanted);
  }
  return matrixOf(table, wrong, rows.subarray(0, found), limit);
}

/** True class by wrong class, counted over the given rows. */
export function matrixOf(table: Table, wrong: ArrayLike<number>, counted: Uint32Array, limit = 12): Matrix {
  const { target, numClasses } = table;
  const labels = labelsOf(table);
  const [byTarget, byWrong] = [new Uint32Array(numClasses), new Uint32Array(numClasses)];
  for (const row of counted) {
    byTarget[target[row]!]! += 1;
    byWrong[wrong[row]!]! += 1;
  }
  const rows = linesOf(byTarget, limit);
  const columns = linesOf(byWrong, limit);
  const cells = rows.shown.map(() => new Array<number>(columns.shown.length).fill(0));
  for (const row of counted) cells[rows.at[target[row]!]!]![columns.at[wrong[row]!]!]! += 1;
  const line = (index: number | null): MatrixLine => ({ index, label: index === null ? "other" : labels[index]! });
  return { rows: rows.shown.map(line), columns: columns.shown.map(line), cells, total: counted.length };
}

/** Which classes get a line of their own, and the line of every class. */
function linesOf(counts: Uint32Array, limit: number): { shown: (number | null)[]; at: Uint32Array } {
  const order: number[] = [];
  counts.forEach((count, index) => {
    if (count > 0) {
      order.push(index);
    }
  });
  order.sort((a, b) => counts[b]! - counts[a]! || a - b);
  // "other" in place of a single class would only hide its name.
  const named = order.length <= limit + 1 ? order : order.slice(0, limit);
  const at = new Uint32Array(counts.length).fill(named.length);
  named.forEach((index, position) => {
    at[index] = position;
  });
  return { shown: named.length < order.length ? [...named, null] : named, at };
}

/**
 * Compare the negative flips of two updates, instance by instance.
 *
 * @throws DataError if the two were not compared with the same h1 on the same instances, as far as the errors of h1
 *   and the counts of each class can tell.
 */
export function compareFlips(a: Table, b: Table, confidence = 0.95): FlipComparison {
  requireSameCounts(a, b);
  const regionsB = regionRanks(b);
  const rowInA = rowsById(a);
  let both = 0;
  let onlyB = 0;
  let shared = 0;
  for (let row = 0; row < b.size; row++) {
    const id = b.ids[row]!;
    const twin = rowInA.get(id);
    const h1Right = regionsB[row] === 0;
    if (twin === undefined) {
      // What both models of `a` get right has no row there, so h1 may be right, but not wrong.
      if (!h1Right) {
        throw notTheSame(`h1 answers differently on the instance ${id}`);
      }
      onlyB += 1;
    } else {
      if (a.target[twin] !== b.target[row] || a.h1[twin] !== b.h1[row]) {
        throw notTheSame(`h1 or the true class differs on the instance ${id}`);
      }
      both += h1Right ? 1 : 0;
      shared += h1Right ? 0 : 1;
    }
  }
  const { regress, common, progress } = regionCounts(a);
  if (shared !== common + progress) {
    throw notTheSame(`h1 has ${common + progress} errors in one and ${shared} in the other`);
  }
  const onlyA = regress - both;
  const size = totals(a).reduce((sum, cell) => sum + cell, 0);
  const neither = size - regress - onlyB;
  return { onlyA, onlyB, both, neither, ...pairedDifference(onlyA, onlyB, both, neither, confidence) };
}

const rowsById = kept((table: Table): ReadonlyMap<InstanceId, number> => {
  const rows = new Map<InstanceId, number>();
  for (let row = 0; row < table.size; row++) {
    rows.set(table.ids[row]!, row);
  }
  return rows;
});

function requireSameCounts(a: Table, b: Table): void {
  const uncertain = new Set([...a.uncertainClasses, ...b.uncertainClasses]);
  for (let index = 0; index < Math.max(a.numClasses, b.numClasses); index++) {
    const [cellsA, cellsB] = [classCells(a, index), classCells(b, index)];
    const [wrongA, wrongB] = [cellsA[0] + cellsA[1], cellsB[0] + cellsB[1]];
    const [rightA, rightB] = [cellsA[2] + cellsA[3], cellsB[2] + cellsB[3]];
    if (wrongA !== wrongB || (rightA !== rightB && !uncertain.has(index))) {
      throw notTheSame(
        `in class ${index} h1 is right ${rightA} and wrong ${wrongA} times in one, ` +
          `right ${rightB} and wrong ${wrongB} times in the other`,
      );
    }
  }
}

function notTheSame(why: string): DataError {
  return new DataError(
    `The two were not compared with the same h1 on the same data set: ${why}.`,
    "Choose another update of the same h1, on the same data set and with the same ids.",
  );
}
