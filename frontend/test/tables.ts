/** Tables made for tests: small ones row by row, large ones from a seeded generator. */

import type { Table } from "../src/model";

export function random(seed: number): () => number {
  // Lehmer's generator with the multiplier 48271.
  let state = seed % 2147483647 || 1;
  return () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
}

export interface Rows {
  readonly rows: readonly (readonly [id: number | string, target: number, h1: number, h2: number])[];
  readonly numClasses: number;
  /** Instances of each class that both models get right. */
  readonly right?: readonly number[];
  readonly classNames?: readonly string[];
  readonly texts?: readonly string[];
  readonly uncertain?: readonly number[];
  readonly newClasses?: readonly number[];
  readonly extras?: Partial<Table>;
}

export function tableOf({ rows, numClasses, right, classNames, texts, uncertain, newClasses, extras }: Rows): Table {
  const counts = new Int32Array(4 * numClasses);
  right?.forEach((count, index) => {
    counts[4 * index + 3] = count;
  });
  for (const [, target, h1, h2] of rows) {
    counts[4 * target + 2 * Number(h1 === target) + Number(h2 === target)]! += 1;
  }
  const ids = rows.map(([id]) => id);
  return {
    name: null,
    step: 1,
    lambda: null,
    numClasses,
    classNames: classNames ?? null,
    counts,
    uncertainClasses: uncertain ?? [],
    newClasses: newClasses ?? [],
    size: rows.length,
    ids: ids.every((id) => typeof id === "number") ? Float64Array.from(ids) : ids,
    target: Uint16Array.from(rows, (row) => row[1]),
    h1: Uint16Array.from(rows, (row) => row[2]),
    h2: Uint16Array.from(rows, (row) => row[3]),
    texts: texts ?? null,
    sure: null,
    calibration: null,
    thresholds: null,
    slices: [],
    foundSlices: [],
    ...extras,
  };
}

/** Error rows of every region, with ids that grow by 1 to 9 unless others are given. */
export function largeTable(size: number, numClasses: number, seed = 1, idOf?: (row: number) => number | string): Table {
  const next = random(seed);
  const whole = (below: number) => Math.floor(next() * below);
  let id = 0;
  const rows = Array.from({ length: size }, (_, row) => {
    const target = whole(numClasses);
    const other = () => (target + 1 + whole(numClasses - 1)) % numClasses;
    const region = whole(3);
    id += 1 + whole(9);
    return [idOf?.(row) ?? id, target, region === 0 ? target : other(), region === 2 ? target : other()] as const;
  });
  return tableOf({ rows, numClasses, right: Array.from({ length: numClasses }, () => whole(1000)) });
}
