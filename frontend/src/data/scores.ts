/** Scores and their intervals. What a score is comes from bc_core by way of scores.json. */

import type { Cells } from "../model";
import scores from "./scores.json";

export interface ScoreInfo {
  readonly name: string;
  readonly title: string;
  /** 0 or 1 for each of the four cells, above and below the fraction bar. */
  readonly numerator: readonly number[];
  readonly denominator: readonly number[];
  /** Null where neither direction is an improvement by itself. */
  readonly higherIsBetter: boolean | null;
  readonly description: string;
}

export interface Fraction {
  readonly successes: number;
  readonly trials: number;
}

export interface Difference {
  readonly difference: number;
  readonly low: number;
  readonly high: number;
}

export const SCORES: readonly ScoreInfo[] = scores;

const BY_NAME = new Map(SCORES.map((score) => [score.name, score]));

export function scoreInfo(name: string): ScoreInfo {
  const score = BY_NAME.get(name);
  if (score === undefined) {
    throw new RangeError(`unknown score "${name}"; known scores: ${[...BY_NAME.keys()].join(", ")}`);
  }
  return score;
}

export function fraction(name: string, cells: Cells): Fraction {
  const { numerator, denominator } = scoreInfo(name);
  const sum = (mask: readonly number[]) => cells.reduce((total, count, cell) => total + count * mask[cell]!, 0);
  return { successes: sum(numerator), trials: sum(denominator) };
}

/** NaN where nothing lies below the fraction bar. */
export function value(name: string, cells: Cells): number {
  const { successes, trials } = fraction(name, cells);
  return successes / trials;
}

export function interval(name: string, cells: Cells, confidence = 0.95): [number, number] {
  const { successes, trials } = fraction(name, cells);
  return wilson(successes, trials, confidence);
}

/** Score interval of Wilson for a share; the same numbers as `bc_core.wilson_interval`. */
export function wilson(successes: number, trials: number, confidence = 0.95): [number, number] {
  if (trials === 0) {
    return [0, 1];
  }
  const z = quantile(confidence);
  const share = successes / trials;
  const centre = share + (z * z) / (2 * trials);
  const reach = z * Math.sqrt((share * (1 - share)) / trials + (z * z) / (4 * trials * trials));
  const scale = 1 + (z * z) / trials;
  return [
    successes === 0 ? 0 : Math.max(0, (centre - reach) / scale),
    successes === trials ? 1 : Math.min(1, (centre + reach) / scale),
  ];
}

/**
 * The first share less the second, for two outcomes of the same instances, with Newcombe's interval (his method 10).
 * The same numbers as `bc_core.paired_difference_interval`.
 */
export function pairedDifference(
  onlyFirst: number,
  onlySecond: number,
  both: number,
  neither: number,
  confidence = 0.95,
): Difference {
  const total = both + onlyFirst + onlySecond + neither;
  if (total === 0) {
    return { difference: Number.NaN, low: -1, high: 1 };
  }
  const [first, second] = [both + onlyFirst, both + onlySecond];
  const [share1, share2] = [first / total, second / total];
  const [low1, high1] = wilson(first, total, confidence);
  const [low2, high2] = wilson(second, total, confidence);
  const margins = first * (total - first) * second * (total - second);
  let covariance = both * neither - onlyFirst * onlySecond;
  if (covariance > 0) {
    covariance = Math.max(0, covariance - total / 2);
  }
  const phi = margins === 0 ? 0 : covariance / Math.sqrt(margins);
  const reach = (a: number, b: number) => Math.sqrt(Math.max(0, a * a - 2 * phi * a * b + b * b));
  const difference = (onlyFirst - onlySecond) / total;
  return {
    difference,
    low: difference - reach(share1 - low1, high2 - share2),
    high: difference + reach(high1 - share1, share2 - low2),
  };
}

const quantiles = new Map<number, number>();

/** How many standard deviations around the mean hold this share of a normal distribution. */
function quantile(confidence: number): number {
  if (!(confidence > 0 && confidence < 1)) {
    throw new RangeError(`confidence: expected a number between 0 and 1 such as 0.95, got ${confidence}`);
  }
  let z = quantiles.get(confidence);
  if (z === undefined) {
    z = solveQuantile((1 - confidence) / 2);
    quantiles.set(confidence, z);
  }
  return z;
}

function solveQuantile(tail: number): number {
  // The tail is convex right of 0, so Newton's steps from 0 grow towards the root and never pass it.
  let z = 0;
  for (let i = 0; i < 200; i++) {
    const step = (upperTail(z) - tail) / density(z);
    if (step <= 1e-15 * z) {
      break;
    }
    z += step;
  }
  return z;
}

function density(z: number): number {
  return Math.exp(-(z * z) / 2) / Math.sqrt(2 * Math.PI);
}

/** P(Z > z) of a normal variable, z >= 0. */
function upperTail(z: number): number {
  if (z < 3) {
    let [term, sum] = [z, z];
    for (let n = 3; term > 1e-18 * sum; n += 2) {
      term *= (z * z) / n;
      sum += term;
    }
    return 0.5 - density(z) * sum;
  }
  // Laplace's continued fraction: no cancellation far out.
  let below = z;
  for (let n = 200; n > 0; n--) {
    below = z + n / below;
  }
  return density(z) / below;
}
