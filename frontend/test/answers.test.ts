import { describe, expect, test } from "vitest";
import { answerIn, findInstance, someSteps, story } from "../src/data/answers";
import { classPairs } from "../src/data/classPairs";
import type { Step } from "../src/model";
import { largeTable, tableOf } from "./tables";

const TABLE = tableOf({
  rows: [
    [3, 0, 0, 1],
    [10, 1, 2, 1],
    [25, 2, 0, 0],
  ],
  numClasses: 3,
  right: [4, 4, 4],
});

describe("one instance in a table", () => {
  test("is found by how its id is written, and only by that", () => {
    expect(findInstance(TABLE, "10")).toEqual({ id: 10, row: 1 });
    for (const other of ["010", "1e1", "10 ", "x", "", "11"]) expect(findInstance(TABLE, other).row).toBe(-1);
    const texts = tableOf({ rows: [["10", 0, 0, 1], ["</b>", 0, 1, 0]], numClasses: 2 });
    expect(findInstance(texts, "</b>")).toEqual({ id: "</b>", row: 1 });
    expect(findInstance(texts, "10").id).toBe("10");
  });

  test("answers by both models, or with nothing where neither errs", () => {
    expect(answerIn(TABLE, "3")).toEqual({ target: 0, h1: 0, h2: 1, region: "regress" });
    expect(answerIn(TABLE, "10")!.region).toBe("progress");
    expect(answerIn(TABLE, "25")!.region).toBe("common");
    expect(answerIn(TABLE, "4")).toBeNull();
  });
});

test("of many steps some are looked at, with both ends and the one on show", () => {
  const steps = Array.from({ length: 500 }, (_, i): Step => ({ step: 10 * i, wallTime: null, lambda: null, cells: [0, 0, 0, 1] }));
  const some = someSteps(steps, 40, 1230).map(({ step }) => step);
  expect(some.length).toBe(41);
  expect([some[0], some.at(-1), some.includes(1230)]).toEqual([0, 4990, true]);
  expect(some).toEqual([...some].sort((a, b) => a - b));
  expect(someSteps(steps.slice(0, 40), 40, null).length).toBe(40);
});

test.each([
  ["1111", "h2 is right at every step."],
  ["0000", "h2 is wrong at every step."],
  ["0011", "h2 is right from step 3 on."],
  ["1100", "Forgotten at step 3: h2 was right at step 2 and has been wrong since."],
  ["1011", "Forgotten at step 2: h2 was right at step 1, and is right again from step 3 on."],
  ["10101", "Forgotten at step 4, for the 2nd time: h2 was right at step 3, and is right again from step 5 on."],
  ["01010", "Forgotten at step 5, for the 2nd time: h2 was right at step 4 and has been wrong since."],
  ["1", "h2 is right at step 1, the only step."],
  ["", ""],
])("the story of %s", (rights, told) => {
  const steps = [...rights].map((_, i) => i + 1);
  expect(story(steps, [...rights].map((each) => each === "1"), (step) => `step ${step}`)).toBe(told);
});

describe("pairs of classes", () => {
  test("hold every row once, those that broke most first", () => {
    const table = largeTable(5000, 7);
    const rows = Uint32Array.from({ length: table.size }, (_, row) => row).filter((row) => row % 3 !== 0);
    const pairs = classPairs(table, rows);
    expect(pairs.flatMap((pair) => [...pair.rows]).sort((a, b) => a - b)).toEqual([...rows]);
    for (const { target, says, rows: own, broken } of pairs) {
      expect([...own].every((row) => table.target[row] === target && table.h2[row] === says)).toBe(true);
      expect(broken).toBe([...own].filter((row) => table.h1[row] === target && says !== target).length);
    }
    const flips = pairs.map(({ broken }) => broken);
    expect(flips).toEqual([...flips].sort((a, b) => b - a));
  });

  test("keep the order of the rows", () => {
    const table = tableOf({ rows: [[1, 0, 0, 1], [2, 0, 1, 1], [3, 0, 0, 1]], numClasses: 2 });
    expect(classPairs(table, Uint32Array.from([2, 1, 0]))).toEqual([
      { target: 0, says: 1, rows: Uint32Array.from([2, 1, 0]), broken: 2 },
    ]);
  });
});
