import { fraction, interval, value } from "../../data/scores";
import { percent, shorten } from "../../layout/format";
import type { Cells, Index, TableRef, ViewState } from "../../model";

/** One trained h2 on one data set: what the scatters draw and the selector lists. */
export interface SweepPoint {
  readonly key: string;
  readonly ref: TableRef;
  readonly dissonance: string;
  readonly lambda: number | null;
  readonly cells: Cells;
  readonly accuracyH1: number;
  readonly accuracyH2: number;
  readonly btc: number;
  /** Given h1 wrong; NaN where h1 makes no error. */
  readonly bec: number;
  readonly nfr: number;
}

export const UNKNOWN_DISSONANCE = "not stated";

export const BEC = "bec_given_h1_wrong";

export const seriesKey = (run: string, dataset: string): string => JSON.stringify([run, dataset]);

/** The latest step of every series; of the series that is looked at, the step that is looked at. */
export function sweepPoints(index: Index, current: TableRef | null): SweepPoint[] {
  const points: SweepPoint[] = [];
  for (const series of index.series) {
    const { run, dataset, steps } = series;
    const isCurrent = current !== null && current.run === run && current.dataset === dataset;
    const step = (isCurrent && steps.find((each) => each.step === current.step)) || steps[steps.length - 1];
    if (!step) continue;
    points.push({
      key: seriesKey(run, dataset),
      ref: { run, dataset, step: step.step },
      dissonance: series.dissonance ?? UNKNOWN_DISSONANCE,
      lambda: step.lambda,
      cells: step.cells,
      accuracyH1: value("accuracy_h1", step.cells),
      accuracyH2: value("accuracy_h2", step.cells),
      btc: value("btc", step.cells),
      bec: value(BEC, step.cells),
      nfr: value("nfr", step.cells),
    });
  }
  return points;
}

type Filters = Pick<ViewState, "datasets" | "dissonances" | "lambdaMin" | "lambdaMax">;

/** Whether a point passes the filters. A point with no lambda passes until the range of lambdas is narrowed. */
export function passes(point: SweepPoint, { datasets, dissonances, lambdaMin, lambdaMax }: Filters): boolean {
  if (datasets && !datasets.includes(point.ref.dataset)) return false;
  if (dissonances && !dissonances.includes(point.dissonance)) return false;
  if (lambdaMin !== null && !(point.lambda !== null && point.lambda >= lambdaMin)) return false;
  if (lambdaMax !== null && !(point.lambda !== null && point.lambda <= lambdaMax)) return false;
  return true;
}

/** The lambdas that occur, ascending: a slider moves over their ranks, since grids are often 0, 1, 4, 16. */
export function lambdas(points: readonly SweepPoint[]): number[] {
  const found = new Set<number>();
  for (const { lambda } of points) if (lambda !== null) found.add(lambda);
  return [...found].sort((a, b) => a - b);
}

/** In the order of first appearance. */
export function distinct<T>(values: Iterable<T>): T[] {
  return [...new Set(values)];
}

/** Check or uncheck one option of a list of which null means all. */
export function toggleOption(
  options: readonly string[],
  chosen: readonly string[] | null,
  option: string,
): string[] | null {
  const on = new Set(chosen ?? options);
  if (!on.delete(option)) on.add(option);
  const kept = options.filter((each) => on.has(each));
  return kept.length === options.length ? null : kept;
}

export interface ReferenceLine {
  readonly dataset: string;
  readonly y: number;
  readonly label: string;
}

/**
 * The accuracies of h1 on each data set: one line, unless runs were compared with different h1. What other filters
 * hide takes no line away, since every point left is still compared with it.
 */
export function referenceLines(points: readonly SweepPoint[], chosen: readonly string[] | null): ReferenceLine[] {
  const found = new Map<string, { dataset: string; y: number; runs: string[] }>();
  for (const { ref, accuracyH1 } of points) {
    if (Number.isNaN(accuracyH1) || (chosen && !chosen.includes(ref.dataset))) continue;
    const key = `${accuracyH1.toFixed(6)} ${ref.dataset}`;
    const line = found.get(key);
    if (line) line.runs.push(ref.run);
    else found.set(key, { dataset: ref.dataset, y: accuracyH1, runs: [ref.run] });
  }
  const lines = [...found.values()];
  return lines.map(({ dataset, y, runs }) => {
    const isOnly = lines.filter((line) => line.dataset === dataset).length === 1;
    const more = runs.length > 1 ? ` and ${runs.length - 1} more` : "";
    const whose = isOnly ? "" : ` (${shorten(runs[0]!, 24)}${more})`;
    return { dataset, y, label: `h1 on ${dataset}${whose}: ${percent(y)}` };
  });
}

/** Largest accuracy that is reached at each x or beyond, as the corners of a line of steps. */
export function stepLine(front: readonly { readonly x: number; readonly y: number }[]): { x: number; y: number }[] {
  const corners: { x: number; y: number }[] = [];
  for (const point of front) {
    const last = corners[corners.length - 1];
    if (last) corners.push({ x: last.x, y: point.y });
    corners.push(point);
  }
  return corners;
}

/** The 95 % interval of a score, or null where the score is not defined. */
export function errorBar(name: string, cells: Cells): [number, number] | null {
  return fraction(name, cells).trials > 0 ? interval(name, cells) : null;
}
