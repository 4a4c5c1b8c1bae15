import { describe, expect, test } from "vitest";
import { compareFlips } from "../src/data/engine";
import { pairedDifference } from "../src/data/scores";
import { accuracyDifference, flipsOf, joined, mergedMedia, withFlips } from "../src/data/twoUpdates";
import { random, tableOf } from "./tables";

/** Answers of h1 and two updates on the same instances, and the tables of either. */
function updates(size: number, seed: number) {
  const next = random(seed);
  const answer = (target: number, accuracy: number) => (next() < accuracy ? target : (target + 1) % 4);
  const all = Array.from({ length: size }, (_, id) => {
    const target = Math.floor(next() * 4);
    return { id, target, h1: answer(target, 0.8), a: answer(target, 0.85), b: answer(target, 0.75) };
  });
  const table = (which: "a" | "b") => {
    const wrong = all.filter((each) => each.h1 !== each.target || each[which] !== each.target);
    const right = [0, 1, 2, 3].map((c) => all.filter((each) => each.target === c && !wrong.includes(each)).length);
    return tableOf({ rows: wrong.map((each) => [each.id, each.target, each.h1, each[which]]), numClasses: 4, right });
  };
  return { all, a: table("a"), b: table("b") };
}

describe("two updates of one h1", () => {
  const { all, a, b } = updates(500, 7);
  const both = joined(a, b);

  test("stand side by side on every instance that one of the models gets wrong", () => {
    const wrong = all.filter(({ target, h1, a, b }) => h1 !== target || a !== target || b !== target);
    expect(new Set(both.table.ids as Float64Array)).toEqual(new Set(wrong.map(({ id }) => id)));
    for (let row = 0; row < both.table.size; row++) {
      const truth = all[both.table.ids[row] as number]!;
      expect([both.table.target[row], both.table.h1[row], both.table.h2[row], both.b[row]]).toEqual([
        truth.target,
        truth.h1,
        truth.a,
        truth.b,
      ]);
    }
    expect(joined(a, b)).toBe(both);
  });

  test("their negative flips are those that compareFlips counts", () => {
    const rows = Uint32Array.from({ length: both.table.size }, (_, row) => row);
    const counts = (["a", "b", "both"] as const).map((which) => withFlips(both, rows, which).length);
    const { onlyA, onlyB, both: shared } = compareFlips(a, b);
    expect(counts).toEqual([onlyA, onlyB, shared]);
    expect(counts.every((number) => number > 0)).toBe(true);
    expect(rows.filter((row) => flipsOf(both, row) !== null).length).toBe(onlyA + onlyB + shared);
  });

  test("their accuracies differ by what they differ on all instances", () => {
    const count = (keeps: (a: boolean, b: boolean) => boolean) =>
      all.filter(({ target, a, b }) => keeps(a === target, b === target)).length;
    const onlyB = count((x, y) => !x && y);
    const onlyA = count((x, y) => x && !y);
    const wanted = pairedDifference(
      onlyB,
      onlyA,
      count((x, y) => x && y),
      count((x, y) => !x && !y),
    );
    expect(accuracyDifference(both)).toEqual(wanted);
    expect(wanted.difference).toBeCloseTo((onlyB - onlyA) / 500);
  });
});

test("what one run knows of an instance serves both", () => {
  const none = { longer: new Set<number>(), reduced: new Set<number>() };
  const first = { ...none, texts: new Map([[1, "one"]]), images: new Set([1]), leftOut: new Set([2]) };
  const second = {
    texts: new Map([
      [1, "other"],
      [3, "three"],
    ]),
    // Of the first, the text that is shown is the first's, which is whole.
    longer: new Set([1, 3]),
    images: new Set([1, 2]),
    reduced: new Set([1, 2]),
    leftOut: new Set([4]),
  };
  const merged = mergedMedia(first, second)!;
  expect([...merged.texts].sort()).toEqual([
    [1, "one"],
    [3, "three"],
  ]);
  expect([...merged.images].sort()).toEqual([1, 2]);
  expect([...merged.leftOut]).toEqual([4]);
  expect([[...merged.longer], [...merged.reduced]]).toEqual([[3], [2]]);
  expect(mergedMedia(null, second)).toBe(second);
});
