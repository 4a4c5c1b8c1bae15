import { describe, expect, it } from "vitest";
import { NO_ACTIONS } from "../../src/data/indexFromJson";
import type { Cells, Index, Series } from "../../src/model";
import { startsZoom } from "../../src/views/sweep/Scatter";
import { rankFrom, rankTo } from "../../src/views/sweep/SweepFilters";
import {
  errorBar,
  lambdas,
  passes,
  referenceLines,
  stepLine,
  sweepPoints,
  toggleOption,
} from "../../src/views/sweep/sweepPoints";

const series = (run: string, dataset: string, lambda: number | null, ...cells: Cells[]): Series => ({
  run,
  dataset,
  dissonance: lambda === null ? null : "new error",
  numClasses: 2,
  hasMedia: false,
  steps: cells.map((each, i) => ({ step: 10 * (i + 1), wallTime: null, lambda, cells: each })),
});

const index: Index = {
  series: [
    series("a", "test", 0, [5, 5, 20, 70], [5, 5, 10, 80]),
    series("b", "test", 16, [5, 5, 2, 88]),
    series("b", "train", null, [0, 0, 1, 99]),
    series("empty", "test", 1),
  ],
  invariance: [],
    warnings: [],
  progress: null,
  actions: NO_ACTIONS,
};
const all = { datasets: null, dissonances: null, lambdaMin: null, lambdaMax: null };

describe("points of the sweep", () => {
  it("are one for each series with a step, at its latest step", () => {
    const points = sweepPoints(index, null);
    expect(points.map(({ ref }) => `${ref.run} ${ref.dataset} ${ref.step}`)).toEqual([
      "a test 20",
      "b test 10",
      "b train 10",
    ]);
    expect(points[0]!.btc).toBeCloseTo(80 / 90, 12);
    expect(points[0]!.bec).toBeCloseTo(5 / 10, 12);
    expect(points[0]!.accuracyH2).toBeCloseTo(85 / 100, 12);
    expect(points[2]!.bec).toBeNaN();
  });

  it("follow the step that is looked at, in its own series only", () => {
    const points = sweepPoints(index, { run: "a", dataset: "test", step: 10 });
    expect(points.map(({ ref }) => ref.step)).toEqual([10, 10, 10]);
    expect(points[0]!.nfr).toBeCloseTo(0.2, 12);
    expect(sweepPoints(index, { run: "a", dataset: "test", step: 11 })[0]!.ref.step).toBe(20);
  });

  it("pass filters that all hold at once; one without a lambda passes only an open range", () => {
    const points = sweepPoints(index, null);
    const kept = (filters: object) => points.filter((point) => passes(point, { ...all, ...filters })).length;
    expect(kept({})).toBe(3);
    expect(kept({ datasets: ["test"] })).toBe(2);
    expect(kept({ datasets: [] })).toBe(0);
    expect(kept({ dissonances: ["not stated"] })).toBe(1);
    expect(kept({ lambdaMin: 0 })).toBe(2);
    expect(kept({ lambdaMax: 4 })).toBe(1);
    expect(kept({ datasets: ["train"], lambdaMax: 16 })).toBe(0);
  });

  it("give one line of h1 for each data set, more where h1 differs", () => {
    const points = sweepPoints(index, null);
    expect(referenceLines(points, null)).toEqual([
      { dataset: "test", y: 0.9, label: "h1 on test: 90.0%" },
      { dataset: "train", y: 1, label: "h1 on train: 100.0%" },
    ]);
    const other = sweepPoints({ ...index, series: [...index.series, series("c", "test", 0, [9, 9, 1, 81])] }, null);
    expect(referenceLines(other, null).map(({ y, label }) => [y, label])).toEqual([
      [0.9, "h1 on test (a and 1 more): 90.0%"],
      [1, "h1 on train: 100.0%"],
      [0.82, "h1 on test (c): 82.0%"],
    ]);
  });

  it("keep the lines of h1 of the data sets that are shown", () => {
    const points = sweepPoints(index, null);
    expect(referenceLines(points, ["train"]).map(({ dataset }) => dataset)).toEqual(["train"]);
    expect(referenceLines(points, [])).toEqual([]);
  });

  it("have no error bar where the score is not defined", () => {
    expect(errorBar("bec_given_h1_wrong", [0, 0, 1, 99])).toBeNull();
    const [low, high] = errorBar("btc", [5, 5, 10, 80])!;
    expect(low).toBeLessThan(80 / 90);
    expect(high).toBeGreaterThan(80 / 90);
  });
});

describe("filters of the sweep", () => {
  it("turn a full list back into no condition", () => {
    expect(toggleOption(["test", "train"], null, "test")).toEqual(["train"]);
    expect(toggleOption(["test", "train"], ["train"], "test")).toBeNull();
    expect(toggleOption(["test", "train"], ["train"], "train")).toEqual([]);
  });

  it("drop names that no longer occur", () => {
    expect(toggleOption(["test", "train"], ["gone"], "train")).toEqual(["train"]);
  });

  it("move over the ranks of the lambdas, also for a bound between two of them", () => {
    const levels = lambdas(sweepPoints(index, null));
    expect(levels).toEqual([0, 16]);
    const grid = [0, 1, 4, 16];
    expect([rankFrom(grid, null), rankTo(grid, null)]).toEqual([0, 3]);
    expect([rankFrom(grid, 1), rankTo(grid, 4)]).toEqual([1, 2]);
    expect([rankFrom(grid, 2), rankTo(grid, 3)]).toEqual([2, 1]);
    expect([rankFrom(grid, 99), rankTo(grid, -1)]).toEqual([3, 0]);
  });
});

describe("the front", () => {
  it("goes down at each point and right to the next", () => {
    const corners = stepLine([
      { x: 1, y: 9 },
      { x: 3, y: 5 },
    ]);
    expect(corners).toEqual([
      { x: 1, y: 9 },
      { x: 1, y: 5 },
      { x: 3, y: 5 },
    ]);
  });
});

describe("zooming", () => {
  const plain = { altKey: false, ctrlKey: false, metaKey: false, shiftKey: false };

  it("leaves plain scrolling and one finger to the page", () => {
    expect(startsZoom({ type: "wheel", ...plain })).toBe(false);
    expect(startsZoom({ type: "wheel", ...plain, altKey: true })).toBe(true);
    expect(startsZoom({ type: "touchstart", ...plain, touches: [0] })).toBe(false);
    expect(startsZoom({ type: "touchstart", ...plain, touches: [0, 0] })).toBe(true);
    expect(startsZoom({ type: "mousedown", ...plain, button: 0 })).toBe(true);
    expect(startsZoom({ type: "mousedown", ...plain, button: 2 })).toBe(false);
  });
});
