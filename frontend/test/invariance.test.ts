import { describe, expect, it } from "vitest";
import { NO_ACTIONS } from "../src/data/indexFromJson";
import { invarianceFromJson } from "../src/data/invarianceFromJson";
import { memorySource } from "../src/data/memorySource";
import { wilson } from "../src/data/scores";
import { DataError, type Index, type TransformGroup } from "../src/model";
import {
  axisOf,
  cellColour,
  cellFeatures,
  cellText,
  curvesBeside,
  curvesOf,
  depthPoints,
  differencePoints,
  isRepeated,
  meansByPlace,
  nvText,
  PANELS,
  placeOf,
  places,
  placeText,
  placeTicks,
  sameLayers,
  sameMeasure,
  verdict,
} from "../src/views/invariance/invariancePoints";

const row = (...bytes: number[]) => btoa(String.fromCharCode(...bytes));
const layer = (name: string, depth: (number | null)[] = [0, 0], difference: (number | null)[] | null = [0.1, 0.05, 0.2]) => ({
  name,
  depth,
  nv: depth.map((at) => (at === null ? null : [0.5, 0.4, 0.6])),
  difference,
  features: depth.map((at) => (at === null ? null : 3)),
  dead: depth.map((at) => (at === null ? null : 0.25)),
  heat: depth.map((at) => (at === null ? null : row(0, 127, 255))),
  change: difference && row(0, 127, 254),
});
const document = (layers: unknown[] = [layer("conv1"), layer("fc", [1, 1])]) => ({
  version: 1,
  samples: 100,
  transforms: ["identity", "rotate 30", "rotate 60"],
  identity: 0,
  groups: [{ kind: "rotate", axis: "Angle in degrees", members: [0, 1, 2], sizes: [0, 30, 60] }],
  consistency: [
    [0, 0, 0, 100],
    [5, 5, 10, 80],
    [10, 10, 20, 60],
  ],
  overlaps: null as number[][] | null,
  overall: {
    consistency_h1: [0.85, 0.8, 0.9],
    consistency_h2: [0.775, 0.7, 0.8],
    negative_flip_rate: [0.15, 0.1, 0.2],
  },
  depth: {
    kind: "invariance",
    statistic: "std",
    how: "ratio_of_means",
    confidence: 0.9,
    order: "sorted",
    end: 1.27,
    beyond: true,
    reach: 0.5,
    farther: false,
    layers,
  },
});
const group = (kind: string, sizes: number[] | null): TransformGroup => ({
  kind,
  axis: kind,
  members: (sizes ?? [0, 0, 0]).map((_, i) => i),
  sizes,
});

describe("an invariance update", () => {
  it("comes back with bytes for rows and NaN where there is no interval", () => {
    const update = invarianceFromJson(document([layer("conv1", [0, null], null), layer("fc", [1, 1], [0.1, null, null])]));
    const [first, second] = update.depth!.layers;
    expect([...first!.heat[0]!]).toEqual([0, 127, 255]);
    expect(first!.heat[1]).toBeNull();
    expect(first!.change).toBeNull();
    expect(second!.difference).toEqual({ value: 0.1, low: NaN, high: NaN });
    expect(update.overall.flips).toEqual({ value: 0.15, low: 0.1, high: 0.2 });
  });

  it("says how far its intervals can be relied on, if it was written", () => {
    expect(invarianceFromJson(document()).depth!.confidence).toBe(0.9);
    const { confidence: _, ...older } = document().depth;
    expect(invarianceFromJson({ ...document(), depth: older }).depth!.confidence).toBeNull();
  });

  it("of predictions alone has no layers", () => {
    expect(invarianceFromJson({ ...document(), depth: null }).depth).toBeNull();
  });

  it.each([
    ["a later version", { version: 2 }],
    ["counts of another number of transformations", { consistency: [[0, 0, 0, 1]] }],
    ["counts that are none", { consistency: [[0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]] }],
    ["a member that does not exist", { groups: [{ kind: "", axis: "", members: [3], sizes: null }] }],
    ["sizes of other members", { groups: [{ kind: "", axis: "", members: [1], sizes: [1, 2] }] }],
    ["no totals", { overall: {} }],
    ["no text", null],
  ])("with %s is refused", (_, change) => {
    expect(() => invarianceFromJson(change && { ...document(), ...change })).toThrow(DataError);
  });

  it("with a row that is not base64 is refused", () => {
    expect(() => invarianceFromJson(document([{ ...layer("a"), change: "%" }]))).toThrow("a row");
  });

  it("is found in a page by run, data set and step", async () => {
    const source = memorySource({ index: {}, tables: {}, invariance: { "a\0test\x003": document() } });
    expect((await source.invariance({ run: "a", dataset: "test", step: 3 })).samples).toBe(100);
    await expect(source.invariance({ run: "constructor", dataset: "test", step: 3 })).rejects.toThrow("not in this view");
  });
});

describe("curves by size", () => {
  const update = invarianceFromJson(document());
  const named = (title: string) => PANELS.find((panel) => panel.title === title)!;

  it("are shares of the counts with Wilson intervals", () => {
    const [h1, h2] = curvesOf(update, named("Consistency"), update.groups[0]!);
    expect(h1!.points.map(({ value }) => value)).toEqual([1, 0.9, 0.8]);
    expect(h2!.points.map(({ value }) => value)).toEqual([1, 0.85, 0.7]);
    expect([h1!.points[1]!.low, h1!.points[1]!.high]).toEqual(wilson(90, 100));
    const [flips] = curvesOf(update, named("Negative flips"), update.groups[0]!);
    expect(flips!.points.map(({ value }) => value)).toEqual([0, 0.1, 0.2]);
  });

  it("need labels for accuracy and BTC, which are not defined where h1 is never right", () => {
    expect(curvesOf(update, named("Accuracy"), update.groups[0]!)).toEqual([]);
    const overlaps = [
      [0, 0, 0, 100],
      [50, 50, 0, 0],
      [0, 0, 50, 50],
    ];
    const labelled = invarianceFromJson({ ...document(), overlaps });
    expect(curvesOf(labelled, named("BTC"), labelled.groups[0]!)[0]!.points.map(({ value }) => value)).toEqual([
      1,
      NaN,
      0.5,
    ]);
  });

  it("go through the means of transformations of one size", () => {
    const at = (x: number, value: number) => ({ x, value, low: 0, high: 1, member: 0 });
    expect(meansByPlace([at(2, 0.5), at(0, 1), at(2, 1), at(3, NaN)])).toEqual([
      { x: 0, value: 1 },
      { x: 2, value: 0.75 },
    ]);
  });
});

describe("a second update beside the first", () => {
  const consistency = PANELS.find((panel) => panel.title === "Consistency")!;
  const first = invarianceFromJson(document());
  const axis = first.groups[0]!;
  const secondOf = (change: object) => invarianceFromJson({ ...document(), ...change });
  const flipped = [
    [0, 0, 0, 100],
    [5, 5, 40, 50],
    [10, 10, 30, 50],
  ];

  it("draws its own h2, and the h1 of both once", () => {
    const firsts = curvesOf(first, consistency, axis);
    const same = curvesBeside(first, secondOf({}), consistency, axis);
    expect(same.map((curve) => [curve.mark, curve.other, isRepeated(curve, firsts)])).toEqual([
      ["consistency_h1", true, true],
      // h2 is another network, even where it says the same.
      ["consistency_h2", true, false],
    ]);
    const [h1, h2] = curvesBeside(first, secondOf({ consistency: flipped }), consistency, axis);
    expect(h2!.points.map(({ value }) => value)).toEqual([1, 0.55, 0.6]);
    expect(h1!.points.map(({ value }) => value)).toEqual([1, 0.9, 0.8]);
    const [other] = curvesBeside(first, secondOf({ consistency: [...flipped.slice(0, 2), [20, 20, 10, 50]] }), consistency, axis);
    expect(isRepeated(other!, firsts)).toBe(false);
  });

  it("stands on an axis with the sizes of both", () => {
    const groups = [{ kind: "rotate", axis: "Angle in degrees", members: [0, 2], sizes: [0, 90] }];
    const second = secondOf({ groups });
    expect(axisOf(axis, second.groups[0]!).sizes).toEqual([0, 30, 60, 90]);
    expect(axisOf(axis, null)).toBe(axis);
    const [, h2] = curvesBeside(first, second, consistency, axis);
    expect(h2!.points.map(({ x, value }) => [x, value])).toEqual([
      [0, 1],
      [90, 0.7],
    ]);
  });

  it("has nothing on an axis of another kind", () => {
    expect(curvesBeside(first, secondOf({ groups: [{ kind: "scale", axis: "", members: [1], sizes: [2] }] }), consistency, axis)).toEqual([]);
    expect(curvesBeside(first, secondOf({ groups: [{ kind: "rotate", axis: "", members: [1], sizes: null }] }), consistency, axis)).toEqual([]);
  });

  it("stands by name where transformations have no size", () => {
    const named = { ...axis, kind: "", sizes: null };
    const second = secondOf({
      transforms: ["rotate 60", "identity", "mirror"],
      identity: 1,
      consistency: [[0, 0, 0, 100], [0, 0, 0, 100], [0, 0, 50, 50]],
      groups: [{ kind: "", axis: "", members: [0, 1, 2], sizes: null }],
    }); // prettier-ignore
    const [, h2] = curvesBeside(first, second, consistency, named);
    // "rotate 30" was not measured there, and "mirror" has no row here.
    expect(h2!.points.map(({ x, member, value }) => [x, member, value])).toEqual([
      [0, 0, 1],
      [1, 1, NaN],
      [2, 2, 1],
    ]);
  });

  it("shares the axis of layers only where these are the same and measured alike", () => {
    const depthOf = (layers: unknown[], change: object = {}) =>
      invarianceFromJson({ ...document(), depth: { ...document(layers).depth, ...change } }).depth!;
    const both = [layer("a"), layer("b", [1, 1])];
    expect(sameMeasure(depthOf(both), depthOf(both, { end: 3 }))).toBe(true);
    expect(sameMeasure(depthOf(both), depthOf([layer("a"), layer("c", [1, 1])]))).toBe(false);
    expect(sameMeasure(depthOf(both), depthOf(both, { statistic: "var" }))).toBe(false);
    expect(sameMeasure(depthOf(both), depthOf(both, { kind: "same_equivariance" }))).toBe(false);
    const unlike = [layer("a", [0, null], null), layer("b", [1, 1])];
    expect(sameMeasure(depthOf(unlike), depthOf(unlike))).toBe(false);
  });
});

describe("the axis of a group", () => {
  it("has factors at their logarithm, with 1 among the ticks", () => {
    const scales = group("scale", [0.5, 0.9, 1, 2]);
    expect(places(scales).map((place) => placeText(scales, place))).toEqual(["0.5", "0.9", "1", "2"]);
    const ticks = placeTicks(scales, 4).map((place) => placeText(scales, place));
    expect(ticks).toEqual(["0.5", "1", "2"]);
  });

  it("has angles at parts of a turn", () => {
    const turns = group("rotate", [-30, 0, 60]);
    expect(placeTicks(turns, 6)).toEqual([-30, -15, 0, 15, 30, 45, 60]);
    expect(placeText(turns, -30)).toBe("−30°");
    expect(placeTicks(group("rotate", [0, 350]), 5)).toEqual([0, 90, 180, 270]);
    expect(placeTicks(group("rotate", [0]), 5)).toEqual([0]);
  });

  it("counts transformations without a size", () => {
    expect(places(group("", null))).toEqual([0, 1, 2]);
  });
});

describe("what is measured of what is looked at", () => {
  const index: Index = {
    series: [],
    warnings: [],
    progress: null,
    actions: NO_ACTIONS,
    invariance: [
      { run: "a", dataset: "test", steps: [2, 4].map((step) => ({ step, wallTime: step * 10 })) },
      { run: "b", dataset: "test", steps: [{ step: 1, wallTime: null }] },
    ],
  };

  it("is the last up to its step, or the first there is", () => {
    const stepAt = (step: number | null) => placeOf(index, "a", "test", step).request?.step;
    expect([null, 1, 2, 3, 9].map(stepAt)).toEqual([4, 2, 2, 2, 4]);
    expect(placeOf(index, "a", "test", null).request?.wallTime).toBe(40);
  });

  it("may be elsewhere", () => {
    const { request, others } = placeOf(index, "a", "val", null);
    expect(request).toBeNull();
    expect(others).toEqual([
      { run: "a", dataset: "test", step: 4 },
      { run: "b", dataset: "test", step: 1 },
    ]);
  });
});

describe("layers", () => {
  const layersOf = (...layers: unknown[]) => invarianceFromJson(document(layers)).depth!.layers;

  it("stand by number where both networks have the same, else at their share of the depth", () => {
    const same = layersOf(layer("a"), layer("b", [1, 1]));
    expect(sameLayers(same)).toBe(true);
    expect(depthPoints(same, 0).map(({ x }) => x)).toEqual([0, 1]);
    const other = layersOf(layer("a"), layer("b", [1, null], null), layer("c", [null, 1], null), layer("d", [null, 0.5], null));
    expect(sameLayers(other)).toBe(false);
    expect(depthPoints(other, 1).map(({ x, layer: number }) => [x, number])).toEqual([
      [0, 0],
      [0.5, 3],
      [1, 2],
    ]);
    expect(differencePoints(other).map(({ layer: number }) => number)).toEqual([0]);
  });

  it("are told apart where the interval of the difference leaves out 0", () => {
    const of = (value: number, low: number, high: number) => verdict({ value, low, high });
    expect([of(0.1, 0.05, 0.2), of(-0.1, -0.2, -0.05), of(0.1, -0.1, 0.3), of(0.1, NaN, NaN)]).toEqual([
      "worse",
      "better",
      "open",
      "open",
    ]);
  });
});

describe("cells of a heat map", () => {
  it("run through the scale, and dead ones are grey in both themes", () => {
    expect(cellColour(0, "nv", "light")).toEqual([0x44, 0x01, 0x54]);
    expect(cellColour(254, "nv", "dark")).toEqual([0xfd, 0xe7, 0x25]);
    expect(cellColour(127, "change", "light")).toEqual([0xf7, 0xf7, 0xf5]);
    for (const theme of ["light", "dark"] as const) {
      const [red, green, blue] = cellColour(255, "nv", theme);
      expect(Math.max(red, green, blue) - Math.min(red, green, blue)).toBeLessThan(20);
      expect(cellColour(255, "change", theme)).toEqual([red, green, blue]);
    }
  });

  it("say their value, and that it may lie beyond the scale", () => {
    expect([0, 127, 254, 255].map((byte) => cellText(byte, 0, 2, true))).toEqual(["0", "1.00", "2.00 or more", "dead"]);
    expect([0, 127, 254].map((byte) => cellText(byte, -1, 1, true))).toEqual(["−1.00 or less", "0", "1.00 or more"]);
    expect(cellText(254, 0, 2, false)).toBe("2.00");
    expect([nvText(0.0123), nvText(-0.5), nvText(NaN)]).toEqual(["0.012", "−0.50", "–"]);
  });

  it("say which features they hold", () => {
    expect(cellFeatures(2, 10, 10, false)).toBe("feature 2");
    expect(cellFeatures(2, 10, 10, true)).toBe("rank 3");
    expect(cellFeatures(1, 128, 512, true)).toBe("ranks 5 to 8");
    // All of them, each once.
    const cells = 5;
    expect(Array.from({ length: cells }, (_, i) => cellFeatures(i, cells, 12, true))).toEqual([
      "ranks 1 to 2",
      "ranks 3 to 4",
      "ranks 5 to 7",
      "ranks 8 to 9",
      "ranks 10 to 12",
    ]);
  });
});
