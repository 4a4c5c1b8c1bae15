/** By what the points of a sweep are told apart: the colour and the shape of their marks. */

import { lambdaText } from "../../layout/format";
import { distinct, settingOf, type SweepPoint, tellingSettings } from "./sweepPoints";

export const DATASET = "dataset";
export const LOSS = "loss";
const BY_LAMBDA = "lambda";
export const H1 = "h1";

export interface Look {
  readonly by: string;
  readonly options: readonly string[];
  /** Which of the options a point has. */
  readonly of: (point: SweepPoint) => number;
}

/** The h1 that a point was compared with; two of them are told apart by their accuracy alone. */
function oldModelOf({ ref, accuracyH1 }: SweepPoint): string {
  return Number.isNaN(accuracyH1) ? "not stated" : `${ref.dataset} ${Number((100 * accuracyH1).toFixed(4))}%`;
}

/** The runs that are updates of the same h1 as this one: wherever both were compared, h1 is as accurate. */
export function runsOfOneH1(points: readonly SweepPoint[], run: string): Set<string> {
  const models = new Map<string, Map<string, string>>();
  for (const point of points) {
    const own = models.get(point.ref.run) ?? new Map<string, string>();
    models.set(point.ref.run, own.set(point.ref.dataset, oldModelOf(point)));
  }
  const wanted = models.get(run) ?? new Map<string, string>();
  const isOne = (own: ReadonlyMap<string, string>): boolean => {
    const shared = [...own].filter(([dataset]) => wanted.has(dataset));
    return shared.length > 0 && shared.every(([dataset, model]) => wanted.get(dataset) === model);
  };
  return new Set([...models].filter(([, own]) => isOne(own)).map(([name]) => name));
}

/** How many h1s there are, on the data set that has the most. */
export function oldModelsAmong(points: readonly SweepPoint[]): number {
  const sets = new Map<string, Set<string>>();
  for (const point of points) {
    const set = sets.get(point.ref.dataset) ?? new Set();
    sets.set(point.ref.dataset, set.add(oldModelOf(point)));
  }
  return Math.max(0, ...[...sets.values()].map(({ size }) => size));
}

/**
 * What points can be told apart by: whatever differs among them, but for what is always offered. One data set tells
 * nothing apart where a setting does.
 */
export function looksOffered(points: readonly SweepPoint[]): string[] {
  const names = distinct(points.flatMap((point) => Object.keys(point.settings)));
  const differing = names.filter((name) => distinct(points.map((point) => point.settings[name])).length > 1);
  const sets = distinct(points.map((point) => point.ref.dataset)).length > 1 || tellingOf(points) === null;
  return [...(sets ? [DATASET] : []), LOSS, BY_LAMBDA, ...(oldModelsAmong(points) > 1 ? [H1] : []), ...differing.map(settingOf)];
}

function tellingOf(points: readonly SweepPoint[]): string | null {
  const [name] = tellingSettings(points.map((point) => point.settings));
  return name === undefined ? null : settingOf(name);
}

export function titleOfLook(by: string): string {
  if (by === DATASET) return "data set";
  if (by === LOSS) return "dissonance";
  if (by === H1) return "h1 (accuracy)";
  return by === BY_LAMBDA ? "λ" : by.slice(settingOf("").length);
}

export function lookBy(wanted: string, otherwise: string, points: readonly SweepPoint[]): Look {
  const offered = looksOffered(points);
  const by = offered.includes(wanted) ? wanted : offered.includes(otherwise) ? otherwise : tellingOf(points)!;
  const textOf = (point: SweepPoint): string => {
    if (by === DATASET) return point.ref.dataset;
    if (by === LOSS) return point.dissonance;
    if (by === BY_LAMBDA) return lambdaText(point.lambda);
    if (by === H1) return oldModelOf(point);
    return String(point.settings[by.slice(settingOf("").length)] ?? "not stated");
  };
  const ordered = by === H1 ? [...points].sort((a, b) => a.accuracyH1 - b.accuracyH1) : points;
  const texts = distinct(ordered.map(textOf));
  const options = by === BY_LAMBDA ? texts.sort((a, b) => Number(a) - Number(b)) : texts;
  return { by, options, of: (point) => options.indexOf(textOf(point)) };
}
