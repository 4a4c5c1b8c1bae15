import { fraction, interval, value } from "../../data/scores";
import { intervalText, UNKNOWN } from "../../layout/format";
import type { Series, Step } from "../../model";

export interface CurvePoint {
  readonly step: number;
  /** NaN where the score is not defined: the curve breaks there. */
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** A score over the steps of a series, with its 95 % interval. */
export function curveOf(series: Series, score: string): CurvePoint[] {
  return series.steps.map(({ step, cells }) => {
    if (fraction(score, cells).trials === 0) return { step, value: NaN, low: NaN, high: NaN };
    const [low, high] = interval(score, cells);
    return { step, value: value(score, cells), low, high };
  });
}

/** The interval of a point; a dash where the score is not defined. */
export function boundsText({ value, low, high }: CurvePoint, digits: number): string {
  return Number.isNaN(value) ? UNKNOWN : intervalText(low, high, digits);
}

/** Leave out what lies within one pixel column, except its lowest and highest point: spikes stay visible. */
export function thinned(points: readonly CurvePoint[], columns: number): readonly CurvePoint[] {
  if (points.length <= 4 * columns) return points;
  const size = points.length / columns;
  const kept: CurvePoint[] = [];
  for (let column = 0; column < columns; column++) {
    const from = Math.floor(column * size);
    const to = Math.floor((column + 1) * size);
    let [low, high] = [from, from];
    for (let i = from; i < to; i++) {
      if (points[i]!.value < points[low]!.value) low = i;
      if (points[i]!.value > points[high]!.value) high = i;
    }
    for (const i of [...new Set([from, low, high])].sort((a, b) => a - b)) kept.push(points[i]!);
  }
  const last = points[points.length - 1]!;
  if (kept[kept.length - 1] !== last) kept.push(last);
  return kept;
}

/** Stretches of points without a gap. */
export function stretches(points: readonly CurvePoint[]): CurvePoint[][] {
  const found: CurvePoint[][] = [];
  let open = false;
  for (const point of points) {
    if (Number.isNaN(point.value)) {
      open = false;
      continue;
    }
    if (!open) found.push([]);
    found[found.length - 1]!.push(point);
    open = true;
  }
  return found;
}

/** The recorded step nearest to a place on the axis; steps ascend. */
export function nearestStep(steps: readonly Step[], wanted: number): Step | null {
  let [low, high] = [0, steps.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle]!.step < wanted) low = middle + 1;
    else high = middle;
  }
  const [before, after] = [steps[low - 1], steps[low]];
  if (!before || !after) return before ?? after ?? null;
  return wanted - before.step <= after.step - wanted ? before : after;
}

/** Whether the weight of the dissonance changes during the training. */
export function variesInLambda(series: readonly Series[]): boolean {
  return series.some(({ steps }) => steps.some(({ lambda }) => lambda !== steps[0]!.lambda && lambda !== null));
}
