import { describe, expect, it } from "vitest";
import { NO_ACTIONS } from "../../src/data/indexFromJson";
import type { Cells, Index, Series, Settings } from "../../src/model";
import { matching } from "../../src/views/toolbar/RunPicker";
import { runOptions } from "../../src/views/toolbar/Toolbar";
import { lookBy, looksOffered, oldModelsAmong, runsOfOneH1 } from "../../src/views/sweep/looks";
import { coordinate, moreAxes, oldModels, sweepPoints, titleOf } from "../../src/views/sweep/sweepPoints";

const made = (
  run: string,
  dataset: string,
  lambda: number,
  cells: Cells,
  more: { readonly settings?: Settings; readonly performance?: readonly [number | null, number | null] } = {},
): Series => ({
  run,
  dataset,
  dissonance: lambda > 0 ? "new error" : "plain",
  numClasses: 2,
  hasMedia: false,
  steps: [{ step: 1, wallTime: null, lambda, cells }],
  ...more,
});

const indexOf = (series: readonly Series[]): Index => ({
  series,
  invariance: [],
  warnings: [],
  progress: null,
  actions: NO_ACTIONS,
});

const POINTS = sweepPoints(
  indexOf([
    made("a", "val", 16, [5, 5, 10, 80]),
    made("a", "test", 16, [4, 6, 10, 80], { settings: { start: "warm", seed: 0 }, performance: [0.5, -2.25] }),
    made("b", "test", 0, [4, 6, 5, 85], { settings: { start: "cold", seed: 1 } }),
    made("c", "test", 4, [8, 12, 5, 75]),
  ]),
  null,
);

describe("what points are told apart by", () => {
  it("is offered where it differs, and told of a run on all its data sets", () => {
    expect(looksOffered(POINTS)).toEqual(["dataset", "loss", "lambda", "h1", "setting:start", "setting:seed"]);
    const look = lookBy("setting:start", "dataset", POINTS);
    expect([look.options, POINTS.map(look.of)]).toEqual([["warm", "cold", "not stated"], [0, 0, 1, 2]]);
    const lambda = lookBy("lambda", "dataset", POINTS);
    expect([lambda.options, POINTS.map(lambda.of)]).toEqual([["0", "4", "16"], [2, 2, 0, 1]]);
  });

  it("are settings in words where there is one data set, which tells nothing apart", () => {
    const starts = { cold: { start: "cold", seed: 0 }, warm: { start: "warm", seed: 0 } };
    const alone = sweepPoints(
      indexOf([
        made("a", "test", 16, [4, 6, 10, 80], { settings: starts.cold }),
        made("b", "test", 16, [4, 6, 5, 85], { settings: starts.warm }),
        made("c", "test", 16, [4, 5, 6, 85], { settings: { ...starts.warm, seed: 1 } }),
      ]),
      null,
    );
    const look = lookBy("dataset", "dataset", alone);
    expect([look.by, look.options, alone.map(look.of)]).toEqual(["setting:start", ["cold", "warm"], [0, 1, 1]]);
    expect(alone.map(({ besides }) => besides)).toEqual(["start cold", "start warm", "start warm"]);
    expect(looksOffered(alone)).not.toContain("dataset");
    // Seeds are no other recipe.
    const seeds = sweepPoints(
      indexOf([
        made("a", "test", 16, [4, 6, 10, 80], { settings: { seed: 0 } }),
        made("b", "test", 16, [4, 6, 5, 85], { settings: { seed: 1 } }),
      ]),
      null,
    );
    expect([lookBy("dataset", "dataset", seeds).by, seeds[0]!.besides]).toEqual(["dataset", ""]);
  });

  it("falls back where a link names what is not there", () => {
    expect(lookBy("setting:other", "loss", POINTS).options).toEqual(["new error", "plain"]);
  });
});

describe("300 updates of a dozen h1s", () => {
  const accuracy = (i: number) => 70 + (i % 12);
  const cells = (i: number): Cells => [90 - accuracy(i), 10, 2, accuracy(i) - 2];
  const runs = Array.from({ length: 300 }, (_, i) => made(`sweep/h1-${i % 12}/seed-${i}`, "test", i % 5, cells(i)));
  const points = sweepPoints(indexOf(runs), null);

  it("are told apart by their h1", () => {
    expect(oldModelsAmong(points)).toBe(12);
    const look = lookBy("h1", "dataset", points);
    expect(look.options.slice(0, 2)).toEqual(["test 70%", "test 71%"]);
    expect(points.map(look.of)).toEqual(points.map((_, i) => i % 12));
  });

  it("are narrowed down to those of the h1 of one of them", () => {
    const wanted = points.map(({ ref }) => ref.run).filter((run) => run.startsWith("sweep/h1-3/"));
    expect([...runsOfOneH1(points, "sweep/h1-3/seed-27")]).toEqual(wanted);
    expect(runsOfOneH1(points, "gone").size).toBe(0);
  });

  it("of one h1 are those that agree on every data set that both have", () => {
    const more = [
      made("a", "val", 1, [5, 5, 10, 80]),
      made("a", "test", 1, [4, 6, 10, 80]),
      made("by chance as good", "val", 1, [5, 5, 10, 80]),
      made("by chance as good", "test", 1, [4, 7, 10, 79]),
      made("on one alone", "test", 1, [0, 10, 0, 90]),
      made("on another alone", "train", 1, [5, 5, 10, 80]),
    ];
    expect([...runsOfOneH1(sweepPoints(indexOf(more), null), "a")]).toEqual(["a", "on one alone"]);
  });

  it("of one h1 on several data sets are not", () => {
    const same = [made("a", "val", 1, [5, 5, 10, 80]), made("a", "test", 1, [8, 12, 5, 75])];
    expect(looksOffered(sweepPoints(indexOf(same), null))).not.toContain("h1");
  });

  it("are found in the picker by parts of their names", () => {
    const found = matching(runOptions(indexOf(runs), "test"), "h1-3/ SEED-27");
    expect(found.map(({ run }) => run)).toEqual(["sweep/h1-3/seed-27", "sweep/h1-3/seed-279"]);
  });
});

describe("axes beside the scores", () => {
  it("are the user's own metric, and settings that are numbers", () => {
    expect(moreAxes(POINTS)).toEqual(["performance", "setting:seed"]);
    expect(moreAxes(POINTS.slice(2))).toEqual([]);
    expect(POINTS.map((point) => coordinate(point, "performance"))).toEqual([NaN, -2.25, NaN, NaN]);
    expect(POINTS.map((point) => coordinate(point, "setting:seed"))).toEqual([0, 0, 1, NaN]);
    expect(titleOf("setting:seed")).toBe("seed");
  });
});

describe("h1's own point", () => {
  it("is that of an update that answers as h1 does, once for each h1", () => {
    const found = oldModels(POINTS, "btc", "accuracy_h2");
    expect(found.map(({ dataset, x, y }) => [dataset, x, y])).toEqual([
      ["val", 1, 0.9],
      ["test", 1, 0.9],
      ["test", 1, 0.8],
    ]);
    expect(oldModels(POINTS, "nfr", "pfr").map(({ x, y }) => [x, y])).toEqual([[0, 0], [0, 0]]);
    expect(oldModels(POINTS, "nfr", "performance").map(({ x, y }) => [x, y])).toEqual([[0, 0.5]]);
    expect(oldModels(POINTS, "lambda", "btc")).toEqual([]);
  });
});
