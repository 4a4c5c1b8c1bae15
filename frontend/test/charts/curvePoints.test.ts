import { describe, expect, it } from "vitest";
import type { Cells, Series } from "../../src/model";
import { stepTicks } from "../../src/views/curves/CurvePanel";
import { shortTitle, toggleCurve } from "../../src/views/curves/Curves";
import { boundsText, curveOf, nearestStep, stretches, thinned, variesInLambda } from "../../src/views/curves/curvePoints";

const series = (cells: Cells[], lambda: (i: number) => number | null = () => 1): Series => ({
  run: "r",
  dataset: "test",
  dissonance: "new error",
  numClasses: 2,
  hasMedia: false,
  steps: cells.map((each, i) => ({ step: 5 * i, wallTime: null, lambda: lambda(i), cells: each })),
});

describe("a curve", () => {
  it("breaks where its score is not defined", () => {
    const curve = curveOf(series([[1, 1, 0, 8], [0, 0, 0, 10], [1, 3, 0, 6]]), "bec_given_h1_wrong"); // prettier-ignore
    expect(curve.map(({ value }) => value)).toEqual([0.5, NaN, 0.25]);
    expect(stretches(curve).map((run) => run.map(({ step }) => step))).toEqual([[0], [10]]);
    expect(curve[0]!.low).toBeLessThan(0.5);
    expect(curve[0]!.high).toBeGreaterThan(0.5);
    expect(curve.map((point) => boundsText(point, 1))).toEqual([
      expect.stringMatching(/^\d+\.\d% to \d+\.\d%$/),
      "–",
      expect.stringMatching(/^\d+\.\d% to \d+\.\d%$/),
    ]);
  });

  it("keeps its ends and its spikes when thinned", () => {
    const points = Array.from({ length: 50_000 }, (_, step) => {
      const value = step === 31_234 ? 1 : step === 17 ? -1 : Math.sin(step) / 10;
      return { step, value, low: value, high: value };
    });
    const kept = thinned(points, 300);
    expect(kept.length).toBeLessThanOrEqual(3 * 300 + 1);
    expect(kept[0]).toBe(points[0]);
    expect(kept.at(-1)).toBe(points.at(-1));
    expect(kept).toContain(points[31_234]);
    expect(kept).toContain(points[17]);
    expect(kept.every((point, i) => i === 0 || point.step > kept[i - 1]!.step)).toBe(true);
    expect(thinned(points.slice(0, 100), 300)).toHaveLength(100);
  });
});

describe("the nearest step", () => {
  it("is what a plain search finds", () => {
    const steps = [3, 4, 10, 11, 50].map((step) => ({ step, wallTime: null, lambda: null, cells: [0, 0, 0, 1] as Cells }));
    for (let wanted = -2; wanted < 60; wanted += 0.7) {
      const distances = steps.map(({ step }) => Math.abs(step - wanted));
      expect(steps[distances.indexOf(Math.min(...distances))]).toBe(nearestStep(steps, wanted));
    }
    expect(nearestStep([], 1)).toBeNull();
  });
});

describe("lambda over steps", () => {
  it("is drawn only where it changes", () => {
    const cells: Cells[] = [[1, 1, 1, 1], [1, 1, 1, 1]]; // prettier-ignore
    expect(variesInLambda([series(cells)])).toBe(false);
    expect(variesInLambda([series(cells, () => null)])).toBe(false);
    expect(variesInLambda([series(cells, (i) => i)])).toBe(true);
  });
});

describe("the axis of steps", () => {
  it("has whole steps only", () => {
    expect(stepTicks([0, 3], 10)).toEqual([0, 1, 2, 3]);
    expect(stepTicks([99.5, 100.5], 6)).toEqual([100]);
    expect(stepTicks([7, 7], 6)).toEqual([7]);
  });
});

describe("the choice of curves", () => {
  it("stays in one order, without names that do not exist", () => {
    expect(toggleCurve(["nfr", "unknown"], "btc")).toEqual(["btc", "nfr"]);
    expect(toggleCurve(["btc", "nfr"], "btc")).toEqual(["nfr"]);
  });

  it("tells the two BECs apart in short as well", () => {
    expect(shortTitle("bec_given_h1_wrong")).toBe("BEC | h1 wr.");
    expect(shortTitle("bec_given_h2_wrong")).toBe("BEC | h2 wr.");
    expect(shortTitle("accuracy_h1")).toBe("acc. h1");
  });
});
