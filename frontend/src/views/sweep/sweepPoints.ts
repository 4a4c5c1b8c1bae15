import { fraction, interval, SCORES, scoreInfo, value } from "../../data/scores";
import { lambdaText, percent, shorten } from "../../layout/format";
import type { Cells, Index, Settings, TableRef, ViewState } from "../../model";

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
  readonly settings: Settings;
  /** Those of them in words that tell runs apart, such as "start warm"; empty where none does. */
  readonly besides: string;
  /** By the user's own metric, of h1 and of h2; NaN where there is none. */
  readonly performance: readonly [number, number];
}

export const UNKNOWN_DISSONANCE = "not stated";

/** The axis that is no score: the weight of the dissonance. */
export const LAMBDA = "lambda";

/** The axis of the user's own metric. */
export const PERFORMANCE = "performance";

/** The axis of something else that h2 was trained with. */
export const settingOf = (name: string): string => `setting:${name}`;

export const BEC = "bec_given_h1_wrong";

export const seriesKey = (run: string, dataset: string): string => JSON.stringify([run, dataset]);

/** The latest step of every series; of the series that is looked at, the step that is looked at. */
export function sweepPoints(index: Index, current: TableRef | null): SweepPoint[] {
  const points: SweepPoint[] = [];
  // A run is trained once, and what it was trained with may be told of one of its data sets only.
  const settings = new Map<string, Settings>();
  for (const { run, settings: own } of index.series) settings.set(run, { ...settings.get(run), ...own });
  const telling = tellingSettings([...settings.values()]);
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
      settings: settings.get(run) ?? {},
      besides: telling.map((name) => `${name} ${settings.get(run)?.[name] ?? "not stated"}`).join(" · "),
      performance: [series.performance?.[0] ?? Number.NaN, series.performance?.[1] ?? Number.NaN],
    });
  }
  return points;
}

/** The settings in words that differ among runs; numbers, such as seeds, are seldom of another kind. */
export function tellingSettings(settings: readonly Settings[]): string[] {
  return distinct(settings.flatMap((own) => Object.keys(own))).filter((name) => {
    const values = distinct(settings.map((own) => own[name]));
    return values.length > 1 && values.some((each) => typeof each === "string");
  });
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
    return { dataset, y, label: `h1 on ${shorten(dataset, 24)}${whose}: ${percent(y)}` };
  });
}

/** Best y that is reached at each x or at a better one, as the corners of a line of steps. */
export function stepLine(
  front: readonly { readonly x: number; readonly y: number }[],
  xHigher = true,
): { x: number; y: number }[] {
  const corners: { x: number; y: number }[] = [];
  for (const point of front) {
    const last = corners[corners.length - 1];
    if (last) corners.push(xHigher ? { x: last.x, y: point.y } : { x: point.x, y: last.y });
    corners.push(point);
  }
  return corners;
}

/** A score of a point by name, or its lambda; NaN where it has none. */
export function coordinate(point: SweepPoint, name: string): number {
  if (name === LAMBDA) return point.lambda ?? Number.NaN;
  if (name === PERFORMANCE) return point.performance[1];
  if (!isScore(name)) return Number(point.settings[name.slice(settingOf("").length)] ?? Number.NaN);
  return value(name, point.cells);
}

export const isScore = (name: string): boolean => SCORES.some((score) => score.name === name);

export function titleOf(name: string): string {
  if (name === LAMBDA) return "λ";
  if (name === PERFORMANCE) return "Performance of h2 (your metric)";
  return isScore(name) ? scoreInfo(name).title : name.slice(settingOf("").length);
}

/** Null where neither direction is better by itself. A metric of one's own is taken to be better where it is higher. */
export function isHigherBetter(name: string): boolean | null {
  return isScore(name) ? scoreInfo(name).higherIsBetter : name === PERFORMANCE ? true : null;
}

/** What can lie on an axis beside the scores: the user's metric, and settings that are numbers and differ. */
export function moreAxes(points: readonly SweepPoint[]): string[] {
  const names = distinct(points.flatMap((point) => Object.keys(point.settings)));
  const numeric = names.filter((name) => {
    const values = distinct(points.flatMap((point) => point.settings[name] ?? []));
    return values.length > 1 && values.every((each) => typeof each === "number");
  });
  const hasMetric = points.some((point) => !Number.isNaN(point.performance[1]));
  return [...(hasMetric ? [PERFORMANCE] : []), ...numeric.map(settingOf)];
}

/** Where h1 itself would be, were it its own update. */
export interface OldModel {
  readonly key: string;
  readonly dataset: string;
  readonly x: number;
  readonly y: number;
}

/** h1's points: one for each data set, and for each h1 that runs were compared with. */
export function oldModels(points: readonly SweepPoint[], xName: string, yName: string): OldModel[] {
  const found = new Map<string, OldModel>();
  for (const { ref, cells, performance } of points) {
    const kept: Cells = [cells[0] + cells[1], 0, 0, cells[2] + cells[3]];
    const at = (name: string): number =>
      isScore(name) ? value(name, kept) : name === PERFORMANCE ? performance[0] : Number.NaN;
    const [x, y] = [at(xName), at(yName)];
    const key = `${ref.dataset} ${x.toFixed(6)} ${y.toFixed(6)}`;
    if (!Number.isNaN(x) && !Number.isNaN(y)) found.set(key, { key, dataset: ref.dataset, x, y });
  }
  return [...found.values()];
}

/** A number that is no share, as an axis or a table writes it. */
export const plainNumber = (number: number): string => String(Number(number.toPrecision(4)));

/** From 0 to a little beyond the largest lambda, for an axis on which 1, 4, 16 stand alike apart. */
export function lambdaDomain(lambdas: readonly number[]): [number, number] {
  const most = Math.max(1, ...lambdas);
  return [-0.15, most * 1.3];
}

const MOST_LABELS = 60;

/** Each point's lambda beside its mark and within the plot, where that covers neither another mark nor another label. */
export function lambdaLabels(
  points: readonly SweepPoint[],
  place: (point: SweepPoint) => { x: number; y: number },
  em: number,
  right: number,
): { key: string; text: string; at: { x: number; y: number } }[] {
  if (points.length > MOST_LABELS) return [];
  const marks = points.map(place);
  const labels: { key: string; text: string; at: { x: number; y: number } }[] = [];
  points.forEach((point, i) => {
    if (point.lambda === null) return;
    const text = lambdaText(point.lambda);
    const width = 0.6 * em * text.length;
    const beside = marks[i]!.x + 0.65 * em;
    const at = { x: beside + width > right ? marks[i]!.x - 0.65 * em - width : beside, y: marks[i]!.y + 0.95 * em };
    const covers = (other: { x: number; y: number }, reach: number): boolean =>
      other.x > at.x - reach && other.x < at.x + width + 0.3 * em && Math.abs(other.y - at.y + 0.3 * em) < 0.75 * em;
    const isTaken =
      marks.some((mark, j) => j !== i && covers(mark, 0.3 * em)) ||
      labels.some((label) => covers({ x: label.at.x, y: label.at.y - 0.3 * em }, 0.6 * em * label.text.length));
    if (!isTaken) labels.push({ key: point.key, text, at });
  });
  return labels;
}

/** The 95 % interval of a score, or null where the score is not defined. */
export function errorBar(name: string, cells: Cells): [number, number] | null {
  if (!isScore(name)) return null;
  return fraction(name, cells).trials > 0 ? interval(name, cells) : null;
}
