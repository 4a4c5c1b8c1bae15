import { expect, test } from "vitest";
import { indexFromJson, NO_ACTIONS } from "../src/data/indexFromJson";
import { DataError } from "../src/model";

const SERIES = {
  run: "night/1",
  dataset: "test",
  dissonance: "new error",
  num_classes: 10,
  has_media: true,
  steps: [
    [20, 1700000020.5, 0.5, 1, 2, 3, 94],
    [10, null, null, 2, 2, 3, 93],
  ],
};

test("an index comes back with its steps in order", () => {
  expect(indexFromJson({ series: [SERIES], warnings: ["one run left out"], progress: 0.25 })).toEqual({
    series: [
      {
        run: "night/1",
        dataset: "test",
        dissonance: "new error",
        numClasses: 10,
        hasMedia: true,
        steps: [
          { step: 10, wallTime: null, lambda: null, cells: [2, 2, 3, 93] },
          { step: 20, wallTime: 1700000020.5, lambda: 0.5, cells: [1, 2, 3, 94] },
        ],
      },
    ],
    invariance: [],
    actions: NO_ACTIONS,
    warnings: ["one run left out"],
    progress: 0.25,
  });
});

test("what may be missing has a default", () => {
  const { dissonance: _, has_media: __, ...series } = SERIES;
  const index = indexFromJson({ series: [series] });
  expect(index).toMatchObject({ warnings: [], progress: null });
  expect(index.series[0]).toMatchObject({ dissonance: null, hasMedia: false });
  expect(indexFromJson({ series: [], progress: 1.0000001 }).progress).toBe(1);
});

test.each<[string, unknown]>([
  ["null", null],
  ["a text", "<html>"],
  ["a list", []],
  ["no series", {}],
  ["a series that is null", { series: [null] }],
  ["a run that is a number", { series: [{ ...SERIES, run: 3 }] }],
  ["no data set", { series: [{ ...SERIES, dataset: undefined }] }],
  ["negative classes", { series: [{ ...SERIES, num_classes: -1 }] }],
  ["a step with too few counts", { series: [{ ...SERIES, steps: [[1, null, null, 1, 2, 3]] }] }],
  ["a step that is no integer", { series: [{ ...SERIES, steps: [[1.5, null, null, 1, 2, 3, 4]] }] }],
  ["a count that is a text", { series: [{ ...SERIES, steps: [[1, null, null, 1, 2, 3, "4"]] }] }],
  ["a weight that is a text", { series: [{ ...SERIES, steps: [[1, null, "0.5", 1, 2, 3, 4]] }] }],
  ["progress that is a text", { series: [], progress: "half" }],
  ["actions that are a list", { series: [], actions: [] }],
  ["an action without a label", { series: [], actions: { offered: [{ note: "" }] } }],
  ["a failure that is a text", { series: [], actions: { offered: [], failed: "no" } }],
  ["warnings that are no list", { series: [], warnings: "one" }],
])("%s is refused with advice", (_, json) => {
  let error: unknown;
  try {
    indexFromJson(json);
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toBeInstanceOf(DataError);
  expect((error as DataError).message.length).toBeLessThan(200);
  expect((error as DataError).advice).toMatch(/reload/);
});

test("where invariance was measured comes in order of steps", () => {
  const steps = [
    [20, 1700000020.5],
    [10, null],
  ];
  const index = indexFromJson({ series: [], invariance: [{ run: "a", dataset: "test", steps }] });
  expect(index.invariance).toEqual([
    {
      run: "a",
      dataset: "test",
      steps: [
        { step: 10, wallTime: null },
        { step: 20, wallTime: 1700000020.5 },
      ],
    },
  ]);
  expect(() => indexFromJson({ series: [], invariance: [{ run: "a", dataset: "test", steps: [[-1]] }] })).toThrow(
    DataError,
  );
});

test("what may be done comes with what is being done and what failed", () => {
  const actions = {
    offered: [{ label: "Start", note: "Takes a while." }],
    doing: "Starting",
    failed: { label: "Start", error: "TypeError: no" },
  };
  expect(indexFromJson({ series: [], actions }).actions).toEqual(actions);
  expect(indexFromJson({ series: [], actions: { offered: [] } }).actions).toEqual(NO_ACTIONS);
});

test("what is told of a training comes along, and nonsense is refused", () => {
  const told = { ...SERIES, settings: { start: "warm", seed: 0 }, performance: [null, 0.5] };
  const [series] = indexFromJson({ series: [told], warnings: [] }).series;
  expect([series!.settings, series!.performance]).toEqual([{ start: "warm", seed: 0 }, [null, 0.5]]);
  for (const wrong of [{ settings: { a: [] } }, { settings: [] }, { performance: 3 }, { performance: ["x", 1] }]) {
    expect(() => indexFromJson({ series: [{ ...SERIES, ...wrong }], warnings: [] })).toThrow(DataError);
  }
});
