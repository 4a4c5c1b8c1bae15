/** How sure the models are: calibration, and scores at other thresholds. */

import type { Cells, SureBin, Thresholds } from "../model";
import { wilson } from "./scores";

export interface ReliabilityPoint {
  readonly bin: SureBin;
  readonly total: number;
  readonly accuracy: number;
  readonly low: number;
  readonly high: number;
}

/** How often a model is right where it is about equally sure; bins without instances have no point. */
export function reliability(bins: readonly SureBin[]): ReliabilityPoint[] {
  return bins
    .filter(({ wrong, right }) => wrong + right > 0)
    .map((bin) => {
      const total = bin.wrong + bin.right;
      const [low, high] = wilson(bin.right, total);
      return { bin, total, accuracy: bin.right / total, low, high };
    });
}

/** Expected calibration error, as `Calibration.expected_error` gives it; NaN where nothing is known. */
export function expectedError(bins: readonly SureBin[]): number {
  const points = reliability(bins);
  const total = points.reduce((sum, point) => sum + point.total, 0);
  return points.reduce((sum, { bin, accuracy, total: own }) => sum + own * Math.abs(bin.mean - accuracy), 0) / total;
}

/** Counts where h1 says class 1 from one edge on, and h2 from another. */
export function atThresholds({ edges, counts }: Thresholds, first: number, second: number): Cells {
  const size = edges.length;
  const cells: [number, number, number, number] = [0, 0, 0, 0];
  for (let a = 0; a < size; a++) {
    for (let b = 0; b < size; b++) {
      const at = 2 * (a * size + b);
      const [one, two] = [Number(a >= first), Number(b >= second)];
      // Of class 0 whoever says 0 is right, of class 1 whoever says 1.
      cells[2 * (1 - one) + (1 - two)]! += counts[at]!;
      cells[2 * one + two]! += counts[at + 1]!;
    }
  }
  return cells;
}

/** Counts at each edge of h2, with h1 read at one edge. */
export function alongThresholds(thresholds: Thresholds, first: number): Cells[] {
  const { edges, counts } = thresholds;
  const size = edges.length;
  /** By bin of h2: instances of class 0 and 1 that h1 gets wrong and right. */
  const by = Array.from({ length: size }, () => [0, 0, 0, 0] as [number, number, number, number]);
  for (let a = 0; a < size; a++) {
    const one = Number(a >= first);
    for (let b = 0; b < size; b++) {
      const at = 2 * (a * size + b);
      by[b]![1 - one]! += counts[at]!;
      by[b]![2 + one]! += counts[at + 1]!;
    }
  }
  // At the first edge h2 says 1 always; each further one makes a bin say 0.
  let cells: [number, number, number, number] = [0, 0, 0, 0];
  for (const [wrong0, right0, wrong1, right1] of by) {
    cells[0] += wrong0;
    cells[2] += right0;
    cells[1] += wrong1;
    cells[3] += right1;
  }
  return by.map(([wrong0, right0, wrong1, right1]) => {
    const here = cells;
    cells = [cells[0] - wrong0 + wrong1, cells[1] - wrong1 + wrong0, cells[2] - right0 + right1, cells[3] - right1 + right0];
    return here;
  });
}
