import { describe, expect, it } from "vitest";
import { NO_ACTIONS } from "../src/data/indexFromJson";
import { conditions } from "../src/views/instances/Chips";
import { NO_FILTER } from "../src/state/url";
import { differentSteps, verdict } from "../src/views/overview/Compared";
import { matching, type RunOption } from "../src/views/toolbar/RunPicker";
import { besideText, digitsFor, gain } from "../src/views/overview/Scores";
import { runOptions } from "../src/views/toolbar/Toolbar";

const flips = { onlyA: 20, onlyB: 8, both: 2, neither: 970, difference: 0.012, low: 0.002, high: 0.022 };

describe("the sentence about two runs", () => {
  it("says how many fewer run B breaks, and whether the data tell them apart", () => {
    expect(verdict(flips)).toMatch(/^Run B breaks 12 fewer of 1,000; the interval excludes 0/);
    expect(verdict({ ...flips, low: -0.001 })).toMatch(/12 fewer of 1,000; the interval contains 0/);
  });

  it("turns round where run B breaks more, and takes a tie for one", () => {
    expect(verdict({ ...flips, onlyA: 8, onlyB: 20, low: -0.022, high: -0.002 })).toMatch(/12 more .* excludes 0/);
    expect(verdict({ ...flips, onlyB: 20, low: -0.01, high: 0.01 })).toMatch(/as many of 1,012 as run A/);
  });
});

describe("two runs at different steps", () => {
  it("are said to be at them", () => {
    expect(differentSteps([3, 1500])).toBe("(different steps: A 3, B 1,500)");
    expect(differentSteps([3, 3])).toBeNull();
  });
});

describe("a score of the second run", () => {
  it("is rounded by its own size", () => {
    expect(besideText("Run B, b", "nfr", [0, 0, 4, 996]).text).toBe("0.40%");
    const { text, title } = besideText("Run B, b", "nfr", [0, 0, 30, 70]);
    expect(text).toBe("30.0%");
    expect(title).toMatch(/^Run B, b: 30\.0% \(95% interval \d+\.\d% to \d+\.\d%\)$/);
  });

  it("is a dash alone where there is nothing to count", () => {
    const beside = besideText("Run B, b", "bec_given_h1_wrong", [0, 0, 1, 99]);
    expect(beside).toEqual({ text: "–", title: "Run B, b: –" });
  });
});

describe("active conditions", () => {
  it("are named by label, each with what removes it alone", () => {
    const filter = { ...NO_FILTER, region: "regress", target: 1, text: " cat " } as const;
    expect(conditions(filter, ["zero", "one"])).toEqual([
      { name: "Region", value: "Only h2 wrong", without: { region: null } },
      { name: "True class", value: "one", without: { target: null } },
      { name: "Text", value: "“cat”", without: { text: "" } },
    ]);
  });

  it("are none where the filter asks for nothing", () => {
    expect(conditions(NO_FILTER, [])).toEqual([]);
  });
});

describe("the search for a run", () => {
  const option = (run: string, dissonance: string | null, lambda: number | null): RunOption => ({
    run,
    dissonance,
    lambda,
    nfr: null,
  });
  const options = [
    option("sweep/a", "new error", 0.5),
    option("sweep/b", "strict imitation", 0.5),
    option("c", null, 1),
  ];

  it("wants every word, in any order, in the name, the dissonance or lambda", () => {
    expect(matching(options, "0.5 STRICT").map(({ run }) => run)).toEqual(["sweep/b"]);
    expect(matching(options, "")).toHaveLength(3);
    expect(matching(options, "sweep nothing")).toEqual([]);
  });

  it("offers each run once, with the figures of the data set that is looked at", () => {
    const steps = (nfr: number) => [{ step: 0, wallTime: null, lambda: 1, cells: [0, 0, nfr, 10 - nfr] as const }];
    const common = { run: "a", dissonance: null, numClasses: 2, hasMedia: false };
    const series = [
      { ...common, dataset: "train", steps: steps(1) },
      { ...common, dataset: "test", steps: steps(2) },
    ];
    const index = { series, invariance: [], actions: NO_ACTIONS, warnings: [], progress: null };
    expect(runOptions(index, "test")).toEqual([{ run: "a", dissonance: null, lambda: 1, nfr: 0.2 }]);
    expect(runOptions(index, "val")).toEqual([{ run: "a", dissonance: null, lambda: 1, nfr: null }]);
  });
});

describe("decimals of a score", () => {
  it("are two near the ends, where one would hide what differs", () => {
    expect([0.004, 0.996].map(digitsFor)).toEqual([2, 2]);
    expect([0, 0.5, 1].map(digitsFor)).toEqual([1, 1, 1]);
  });
});

describe("the gain in accuracy", () => {
  it("is in points, and relative to h1", () => {
    // h1 is right on 50 of 100, h2 on 60.
    expect(gain([30, 20, 10, 40])).toBe("+10.0 pp (+20.0%)");
  });

  it("has nothing to relate to where h1 is never right", () => {
    expect(gain([90, 10, 0, 0])).toBe("+10.0 pp");
    expect(gain([0, 0, 0, 0])).toBeNull();
  });
});
