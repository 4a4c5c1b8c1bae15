import { expect, test } from "vitest";
import { fraction, interval, pairedDifference, SCORES, scoreInfo, value, wilson } from "../src/data/scores";
import type { Cells } from "../src/model";
import golden from "./fixtures/intervals.json";

/** The same order of operations in both languages leaves the normal quantile, whose last digits may differ. */
const CLOSE = 1e-12;

test("Wilson's interval is that of bc_core", () => {
  for (const row of golden.wilson) {
    const [successes, trials, confidence, low, high] = row as [number, number, number, number, number];
    const got = wilson(successes, trials, confidence);
    expect(Math.abs(got[0] - low)).toBeLessThan(CLOSE);
    expect(Math.abs(got[1] - high)).toBeLessThan(CLOSE);
  }
});

test("the interval of a paired difference is that of bc_core", () => {
  for (const row of golden.paired) {
    const [both, onlyFirst, onlySecond, neither, confidence, low, high] = row as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    const got = pairedDifference(onlyFirst, onlySecond, both, neither, confidence);
    expect(Math.abs(got.low - low)).toBeLessThan(CLOSE);
    expect(Math.abs(got.high - high)).toBeLessThan(CLOSE);
  }
});

test("of no instances no difference is known", () => {
  expect(pairedDifference(0, 0, 0, 0)).toEqual({ difference: Number.NaN, low: -1, high: 1 });
});

test("swapping the two updates turns the interval round", () => {
  const there = pairedDifference(30, 12, 100, 858);
  const back = pairedDifference(12, 30, 100, 858);
  expect(there.difference).toBeCloseTo(0.018, 12);
  expect(back.low).toBeCloseTo(-there.high, 12);
  expect(back.high).toBeCloseTo(-there.low, 12);
});

test("scores are the ratios of the definitions", () => {
  const [bothWrong, h2Right, h1Right, bothRight] = [3, 5, 7, 85];
  const cells: Cells = [bothWrong, h2Right, h1Right, bothRight];
  const expected: Record<string, number> = {
    btc: 85 / 92,
    bec_given_h1_wrong: 3 / 8,
    bec_given_h2_wrong: 3 / 10,
    nfr: 7 / 100,
    pfr: 5 / 100,
    nfi: 7 / 10,
    accuracy_h1: 92 / 100,
    accuracy_h2: 90 / 100,
  };
  expect(SCORES.map(({ name }) => name)).toEqual(expect.arrayContaining(Object.keys(expected)));
  for (const [name, share] of Object.entries(expected)) {
    expect(value(name, cells)).toBe(share);
    expect(interval(name, cells)).toEqual(wilson(fraction(name, cells).successes, fraction(name, cells).trials));
  }
});

test("an empty denominator has no value and every value in its interval", () => {
  expect(value("btc", [1, 2, 0, 0])).toBeNaN();
  expect(interval("btc", [1, 2, 0, 0])).toEqual([0, 1]);
});

test("unknown scores and impossible confidences are refused", () => {
  expect(() => scoreInfo("acc")).toThrow(/btc/);
  expect(() => wilson(1, 2, 1)).toThrow(/0.95/);
});
