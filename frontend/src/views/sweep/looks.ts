/** By what the points of a sweep are told apart: the colour and the shape of their marks. */

import { lambdaText } from "../../layout/format";
import { distinct, settingOf, type SweepPoint } from "./sweepPoints";

export const DATASET = "dataset";
export const LOSS = "loss";
const BY_LAMBDA = "lambda";

export interface Look {
  readonly by: string;
  readonly options: readonly string[];
  /** Which of the options a point has. */
  readonly of: (point: SweepPoint) => number;
}

/** What points can be told apart by: whatever differs among them, but for what is always offered. */
export function looksOffered(points: readonly SweepPoint[]): string[] {
  const names = distinct(points.flatMap((point) => Object.keys(point.settings)));
  const differing = names.filter((name) => distinct(points.map((point) => point.settings[name])).length > 1);
  return [DATASET, LOSS, BY_LAMBDA, ...differing.map(settingOf)];
}

export function titleOfLook(by: string): string {
  if (by === DATASET) return "data set";
  if (by === LOSS) return "dissonance";
  return by === BY_LAMBDA ? "λ" : by.slice(settingOf("").length);
}

export function lookBy(wanted: string, otherwise: string, points: readonly SweepPoint[]): Look {
  const by = looksOffered(points).includes(wanted) ? wanted : otherwise;
  const textOf = (point: SweepPoint): string => {
    if (by === DATASET) return point.ref.dataset;
    if (by === LOSS) return point.dissonance;
    if (by === BY_LAMBDA) return lambdaText(point.lambda);
    return String(point.settings[by.slice(settingOf("").length)] ?? "not stated");
  };
  const texts = distinct(points.map(textOf));
  const options = by === BY_LAMBDA ? texts.sort((a, b) => Number(a) - Number(b)) : texts;
  return { by, options, of: (point) => options.indexOf(textOf(point)) };
}
