/** A promise such as "nfr <= 0.5%": the grammar and the verdict of `bc_core`, by one-sided bounds. */

import type { Cells } from "../model";
import { fraction, SCORES, scoreInfo, value } from "./scores";

export interface Promised {
  readonly score: string;
  readonly limit: number;
  readonly higherIsBetter: boolean;
}

export type Verdict = "kept" | "broken" | "unsure";

const DIRECTED = SCORES.filter((score) => score.higherIsBetter !== null).map((score) => score.name);

/** As `read_share` of `bc_core` decides it. */
const ALSO_PERCENT = 0.1;

/** What a text promises; or, as text, why it promises nothing. */
export function readPromise(text: string): Promised | string {
  const match = /^\s*(\w+)\s*(<=|>=|<|>|==?)\s*([0-9.eE+-]+)\s*(%?)\s*$/.exec(text);
  const given = match === null ? Number.NaN : Number(match[3]);
  if (match === null || Number.isNaN(given)) return "A promise reads like nfr <= 0.5% or btc >= 98%.";
  const score = match[1]!.toLowerCase();
  if (!DIRECTED.includes(score)) return `Take one of ${DIRECTED.join(", ")}.`;
  const { higherIsBetter } = scoreInfo(score);
  const sign = higherIsBetter ? ">=" : "<=";
  if (match[2] !== sign) return `Write ${score} ${sign} ${match[3]}${match[4]}.`;
  const limit = match[4] === "%" ? given / 100 : given;
  if (!(limit >= 0 && limit <= 1)) return "The limit is a share from 0 to 1, or 0% to 100%.";
  if (sign === "<=" && match[4] !== "%" && limit >= ALSO_PERCENT) {
    return `The limit must have a % sign, ${inPercent(limit)} or ${match[3]}%, as ${match[3]} may be meant for either.`;
  }
  return { score, limit, higherIsBetter: higherIsBetter! };
}

export const spelled = ({ score, limit, higherIsBetter }: Promised): string =>
  `${score} ${higherIsBetter ? ">=" : "<="} ${inPercent(limit)}`;

const inPercent = (share: number): string => `${+(share * 100).toPrecision(12)}%`;

/** Whether it is kept or broken for certain; as `ErrorOverlap.gate` decides. */
export function verdict({ score, limit, higherIsBetter }: Promised, cells: Cells, confidence = 0.95): Verdict {
  const { successes, trials } = fraction(score, cells);
  // What is to be rare, how often it came, and how often it may come.
  const [count, most] = higherIsBetter ? [trials - successes, 1 - limit] : [successes, limit];
  const unlikely = 1 - confidence;
  if (count === trials ? most >= 1 : most >= 1 || binomialAtMost(count, trials, most) <= unlikely) return "kept";
  return count > 0 && binomialAtMost(trials - count, trials, 1 - most) < unlikely ? "broken" : "unsure";
}

/** The unfavourable one-sided bound of Clopper and Pearson. */
export function unfavourableBound({ score, higherIsBetter }: Promised, cells: Cells, confidence = 0.95): number {
  const { successes, trials } = fraction(score, cells);
  if (!higherIsBetter) return upperBound(successes, trials, confidence);
  return 1 - upperBound(trials - successes, trials, confidence);
}

/** Of the points that keep the promise the most accurate one, of equals that with the smaller lambda; null if none. */
export function bestOf<T extends { readonly cells: Cells; readonly lambda: number | null }>(
  promised: Promised,
  points: readonly T[],
): T | null {
  let best: T | null = null;
  for (const point of points) {
    const accuracy = value("accuracy_h2", point.cells);
    if (Number.isNaN(accuracy) || verdict(promised, point.cells) !== "kept") continue;
    const lead = best === null ? 1 : accuracy - value("accuracy_h2", best.cells);
    if (lead > 0 || (lead === 0 && (point.lambda ?? 0) < (best!.lambda ?? 0))) best = point;
  }
  return best;
}

function upperBound(successes: number, trials: number, confidence: number): number {
  if (successes === trials) return 1;
  let [low, high] = [0, 1];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (binomialAtMost(successes, trials, middle) <= 1 - confidence) high = middle;
    else low = middle;
  }
  return high;
}

/** P(X <= k) of a binomial variable: the regularised incomplete beta function I_{1-p}(n - k, k + 1). */
export function binomialAtMost(k: number, n: number, p: number): number {
  if (p <= 0 || k >= n) return 1;
  return regularisedBeta(1 - p, n - k, k + 1);
}

/** By Lentz's evaluation of its continued fraction, on the side where that converges fast. */
function regularisedBeta(x: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - regularisedBeta(1 - x, b, a);
  const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x)) / a;
  const awayFromZero = (number: number): number => (Math.abs(number) < 1e-300 ? 1e-300 : number);
  let [c, d] = [1, 1 / awayFromZero(1 - ((a + b) * x) / (a + 1))];
  let sum = d;
  for (let m = 1; m < 10_000; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / awayFromZero(1 + even * d);
    c = awayFromZero(1 + even / c);
    sum *= c * d;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / awayFromZero(1 + odd * d);
    c = awayFromZero(1 + odd / c);
    sum *= c * d;
    if (Math.abs(c * d - 1) < 1e-14) break;
  }
  return front * sum;
}

/** Stirling's series, after the argument is large enough for it. */
function logGamma(x: number): number {
  let shift = 0;
  while (x < 12) {
    shift -= Math.log(x);
    x += 1;
  }
  const inverse = 1 / (x * x);
  const series = (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse / 1680))) / x;
  return shift + (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) + series;
}
