/** What a comparison brings along where there are scores or columns of metadata. */

import type { Cells, FoundSlice, SliceColumn, SliceCondition, SureBin, Sureness, Table, Thresholds } from "../model";

type Classes = Table["target"];
type Numbers = ArrayLike<number>;

/** What the reader of a table has found so far. */
export interface Found {
  readonly size: number;
  readonly target: Classes;
  readonly h1: Classes;
  readonly h2: Classes;
  /** How many instances are counted. */
  readonly total: number;
  /** A column of so many numbers; null where there is none of that name. */
  readonly column: (name: string, length: number) => Numbers | null;
  readonly damaged: (what: string) => Error;
}

type Extras = Pick<Table, "sure" | "calibration" | "thresholds" | "slices" | "foundSlices">;

const BINS = 20;
const UNIT = 1e6;
/** Probabilities are in steps of 1 / 65534; 65535 is not known. */
const STEPS = 65534;
const UNKNOWN = 65535;
const MOST_EDGES = 1000;

export function extrasOf(header: Readonly<Record<string, unknown>>, found: Found): Extras {
  return {
    sure: surenessOf(found),
    calibration: calibrationOf(found),
    thresholds: thresholdsOf(header["thresholds"], found),
    slices: slicesOf(header["slices"], found),
    foundSlices: foundOf(header["found_slices"], found),
  };
}

function surenessOf({ size, target, h1, h2, column, damaged }: Found): Sureness | null {
  const [sure1, sure2] = [column("h1_sure", size), column("h2_sure", size)];
  const [truth1, truth2] = [column("h1_truth", size), column("h2_truth", size)];
  if (sure1 === null || sure2 === null || truth1 === null || truth2 === null) return null;
  const shares = (stored: Numbers): Float32Array => {
    const values = new Float32Array(size);
    for (let row = 0; row < size; row++) {
      const step = stored[row]!;
      if (!(step >= 0 && step <= UNKNOWN)) throw damaged(`row ${row} has a probability of ${step} steps`);
      values[row] = step === UNKNOWN ? Number.NaN : step / STEPS;
    }
    return values;
  };
  const [first, second] = [shares(sure1), shares(sure2)];
  // Where a model is right, what it is sure of is the truth.
  const truth = (answers: Classes, sure: Float32Array, stored: Numbers) =>
    shares(stored).map((value, row) => (answers[row] === target[row] ? sure[row]! : value));
  return { h1: first, h2: second, h1Truth: truth(h1, first, truth1), h2Truth: truth(h2, second, truth2) };
}

function calibrationOf({ column }: Found): Extras["calibration"] {
  const [counts, sums] = [column("calibration", 4 * BINS), column("calibration_sums", 2 * BINS)];
  if (counts === null || sums === null) return null;
  const bins = (model: number): SureBin[] =>
    Array.from({ length: BINS }, (_, bin) => {
      const at = 2 * (model * BINS + bin);
      const [wrong, right] = [counts[at]!, counts[at + 1]!];
      const mean = sums[model * BINS + bin]! / UNIT / (wrong + right);
      return { low: bin / BINS, high: (bin + 1) / BINS, wrong, right, mean };
    });
  return [bins(0), bins(1)];
}

function thresholdsOf(value: unknown, { column, damaged }: Found): Thresholds | null {
  if (value === undefined || value === null) return null;
  const { edges, in_use: inUse } = value as { edges?: unknown; in_use?: unknown };
  const isNumbers = (list: unknown): list is number[] =>
    Array.isArray(list) && list.every((each) => typeof each === "number");
  if (!isNumbers(edges) || !isNumbers(inUse) || edges.length > MOST_EDGES) throw damaged("thresholds that are none");
  const places = inUse.map((threshold) => edges.indexOf(threshold));
  const counts = column("threshold_counts", 2 * edges.length ** 2);
  if (places.length !== 2 || places.includes(-1) || counts === null) throw damaged("thresholds without counts");
  if (edges.some((edge, i) => i > 0 && edge <= edges[i - 1]!)) throw damaged("thresholds that do not ascend");
  return { edges, inUse: [places[0]!, places[1]!], counts: Uint32Array.from(counts) };
}

function slicesOf(value: unknown, { size, total, column, damaged }: Found): SliceColumn[] {
  const entries: unknown = value ?? [];
  if (!Array.isArray(entries)) throw damaged("its slices are no list");
  return entries.map((entry: unknown, number): SliceColumn => {
    const { column: name, values } = (entry ?? {}) as { column?: unknown; values?: unknown };
    if (typeof name !== "string" || !Array.isArray(values) || !values.every((each) => typeof each === "string")) {
      throw damaged("a column of slices has no names");
    }
    const [codes, counts] = [column(`slice${number}`, size), column(`slice${number}_counts`, 4 * values.length)];
    if (codes === null || counts === null) throw damaged(`the slices of "${name}" are missing`);
    for (let row = 0; row < size; row++) {
      if (!(codes[row]! < values.length)) throw damaged(`row ${row} is in no slice of "${name}"`);
    }
    const cells = values.map((_, slice) => [0, 1, 2, 3].map((cell) => counts[4 * slice + cell]!) as unknown as Cells);
    const sum = cells.reduce((all, own) => all + own[0] + own[1] + own[2] + own[3], 0);
    if (sum !== total) throw damaged(`the slices of "${name}" hold ${sum} of ${total} instances`);
    return { column: name, values, codes: codes as SliceColumn["codes"], cells };
  });
}

function foundOf(value: unknown, { damaged }: Found): FoundSlice[] {
  const entries: unknown = value ?? [];
  if (!Array.isArray(entries)) throw damaged("its slices are no list");
  return entries.map((entry: unknown): FoundSlice => {
    const { conditions, flips, total } = (entry ?? {}) as Record<string, unknown>;
    const isPair = (pair: unknown) =>
      Array.isArray(pair) && pair.length === 2 && pair.every((part) => typeof part === "string");
    if (!Array.isArray(conditions) || !conditions.every(isPair)) throw damaged("a slice has no conditions");
    if (typeof flips !== "number" || typeof total !== "number" || !(flips >= 0 && flips <= total)) {
      throw damaged("a slice has no counts");
    }
    return { conditions: conditions as SliceCondition[], flips, total };
  });
}
