import { describe, expect, it } from "vitest";
import { NO_ACTIONS } from "../src/data/indexFromJson";
import type { Cells, Index, Series, ViewState } from "../src/model";
import { moveTo, opened, preferredDataset, select } from "../src/state/selection";
import { DEFAULT_STATE } from "../src/state/url";
import { bestRun } from "../src/views/sweep/PromiseBar";
import { runOptions } from "../src/views/toolbar/Toolbar";

function series(run: string, dataset: string, steps: readonly number[], numClasses = 10): Series {
  const cells: Cells = [1, 2, 3, 4];
  return {
    run,
    dataset,
    dissonance: null,
    numClasses,
    hasMedia: false,
    steps: steps.map((step) => ({ step, wallTime: step, lambda: null, cells })),
  };
}

const index: Index = {
  series: [
    series("a", "train", [0, 10]),
    series("a", "test", [0, 10, 20]),
    series("b", "test", [10, 30]),
    series("c", "test", [10], 2),
  ],
  invariance: [],
    warnings: [],
  progress: null,
  actions: NO_ACTIONS,
};
const state = { ...DEFAULT_STATE, run: "a", dataset: "test" };

describe("what an index holds for a state", () => {
  it("is the latest step where none is named", () => {
    expect(select(index, state).step?.step).toBe(20);
    expect(select(index, { ...state, step: 10 }).stepIndex).toBe(1);
  });

  it("can be compared with runs of the same classes only", () => {
    expect(select(index, state).comparable.map(({ run }) => run)).toEqual(["b"]);
  });

  it("can be compared with updates of the same h1 only, which errs as often", () => {
    const cells: Cells = [1, 3, 3, 3];
    const otherH1: Series = { ...series("d", "test", [10]), steps: [{ step: 10, wallTime: 0, lambda: null, cells }] };
    const more = { ...index, series: [...index.series, otherH1] };
    expect(select(more, state).comparable.map(({ run }) => run)).toEqual(["b"]);
    // What a link asks for is set beside it all the same, and the cards say why they differ.
    expect(select(more, { ...state, other: "d" }).other?.run).toBe("d");
  });

  it("sets the other run at the same step beside it, and compares two ends with each other", () => {
    expect(select(index, { ...state, step: 10, other: "b" }).otherStep?.step).toBe(10);
    expect(select(index, { ...state, step: 20, other: "b" }).otherStep?.step).toBe(30);
    expect(select(index, { ...state, other: "b" }).otherStep?.step).toBe(30);
    expect(select(index, state).otherStep).toBeNull();
  });

  it("takes the nearest step of the other run in the midst of this one", () => {
    const uneven = { ...index, series: [series("a", "test", [0, 3, 9]), series("b", "test", [0, 5, 10])] };
    expect(select(uneven, { ...state, step: 3, other: "b" }).otherStep?.step).toBe(5);
    expect(select(uneven, { ...state, step: 9, other: "b" }).otherStep?.step).toBe(10);
    expect(select(index, { ...state, step: 0, other: "b" }).otherStep?.step).toBe(10);
  });

  it.each([
    [{ run: "gone" }, "run", "“gone”"],
    [{ dataset: "val" }, "dataset", "“val”"],
    [{ step: 12 }, "step", "at step 12"],
  ])("says what is missing: %o", (change, what, text) => {
    const { missing, step } = select(index, { ...state, ...change });
    expect(missing?.what).toBe(what);
    expect(missing?.message).toContain(text);
    expect(step).toBeNull();
  });

  it("names the step that comes closest to a missing one", () => {
    expect(select(index, { ...state, step: 12 }).missing?.nearest).toBe(10);
  });
});

describe("where nothing was said of what to show", () => {
  it.each([
    ["the run that was written to last", null, "b"],
    ["the pinned run", "a", "a"],
    ["the last one where the pinned one is not there", "gone", "b"],
  ])("is %s at its newest step", (_, pin, run) => {
    const state = opened(index, DEFAULT_STATE, pin);
    expect([state.run, state.dataset, state.step]).toEqual([run, "test", null]);
  });

  it("is the run to take where a promise is said, unless another is pinned", () => {
    const of = (run: string, lambda: number, cells: Cells): Series => ({
      ...series(run, "val", []),
      steps: [{ step: 1, wallTime: lambda, lambda, cells }],
    });
    const kept = { ...index, series: [of("safe", 4, [80, 20, 1, 899]), of("last", 16, [50, 50, 40, 860])] };
    const promised = { ...DEFAULT_STATE, promise: "nfr <= 1%" };
    const open = (said: ViewState, pin: string | null = null) => opened(kept, said, pin, bestRun(kept, said)).run;
    expect([open(promised), open(DEFAULT_STATE), open(promised, "last")]).toEqual(["safe", "last", "last"]);
    expect([open({ ...promised, promise: "nfr <= 0.1%" }), open({ ...promised, lambdaMin: 8 })]).toEqual(["last", "last"]);
    expect(open({ ...promised, run: "last" })).toBe("last");
  });

  it("is what was said, whatever is pinned", () => {
    expect(opened(index, { ...DEFAULT_STATE, run: "c" }, "a")).toMatchObject({ run: "c", dataset: "test" });
  });
});

describe("a change of run", () => {
  const filtered = { ...state, target: 7, h2: 3, step: 10, other: "b" };

  it("keeps the step and the classes where they mean the same", () => {
    const next = { ...filtered, ...moveTo(index, filtered, "b", "test") };
    expect(next).toMatchObject({ run: "b", dataset: "test", step: 10, target: 7, h2: 3, other: null });
  });

  it("drops classes of another numbering and steps that are not there", () => {
    const late = { ...filtered, step: 20 };
    expect({ ...late, ...moveTo(index, late, "c", "test") }).toMatchObject({ step: null, target: null, h2: null });
  });

  it("falls back to a data set that the run has", () => {
    expect(moveTo(index, { ...state, dataset: "train" }, "b", "train").dataset).toBe("test");
    expect(preferredDataset(["train", "val"])).toBe("val");
    expect(preferredDataset([])).toBeNull();
  });
});

describe("a run of which only invariance was logged", () => {
  const invariance = [{ run: "turned", dataset: "test", steps: [{ step: 3, wallTime: 3 }] }];
  const both: Index = { ...index, invariance };

  it("can be moved to, and nothing is missing there", () => {
    const moved = moveTo(both, state, "turned", "test");
    expect([moved.run, moved.dataset, moved.step]).toEqual(["turned", "test", null]);
    const selection = select(both, { ...state, ...moved });
    expect([selection.series, selection.missing, selection.datasets]).toEqual([null, null, ["test"]]);
    expect(select(index, { ...state, run: "turned" }).missing?.what).toBe("run");
  });

  it("is offered among the others", () => {
    expect(runOptions(both, "test").at(-1)).toEqual({
      run: "turned",
      dissonance: "invariance only",
      lambda: null,
      nfr: null,
    });
  });
});
