import { expect, test } from "vitest";
import { apart } from "../src/views/overview/NewClasses";
import { tableOf } from "./tables";

test("instances of classes that h1 did not know are counted apart from all others", () => {
  // Of class 2, which h1 cannot say, h2 gets one of three right; class 0 has one negative flip.
  const rows = [
    [1, 0, 0, 1],
    [2, 1, 0, 1],
    [3, 2, 0, 2],
    [4, 2, 1, 0],
    [5, 2, 0, 0],
  ] as const;
  const table = tableOf({ rows, numClasses: 3, right: [4, 3, 0], newClasses: [2] });
  expect(apart(table)).toEqual({ among: [2, 1, 0, 0], others: [0, 1, 1, 7] });
  expect(apart({ ...table, newClasses: [] }).among).toEqual([0, 0, 0, 0]);
});
