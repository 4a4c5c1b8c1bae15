import { expect, test } from "vitest";
import { sinceLastStep } from "../src/state/running";

const steps = (...times: (number | null)[]) => ({
  steps: times.map((wallTime, step) => ({ step, wallTime, lambda: null, cells: [0, 0, 0, 1] as const })),
});

test.each([
  ["a step of a minute ago, of steps that take ten", steps(0, 600, 1200), 1260, 60],
  ["three of its steps have not come", steps(0, 600, 1200), 1200 + 1801, null],
  ["fast steps, and a minute is not over", steps(0, 1, 2, 3), 62, 59],
  ["fast steps, and a minute is over", steps(0, 1, 2, 3), 64, null],
  ["logged once, after a training", steps(1000), 1001, null],
  ["nobody knows when", steps(null, null), 10, null],
  ["a clock that is a little behind", steps(0, 10, 20), 5, 0],
  ["a clock that is far behind", steps(0, 10, 1000), 20, null],
  ["no step", steps(), 0, null],
  ["one long pause among its last steps", steps(0, 10, 20, 5000, 5010, 5020), 5075, 55],
])("%s", (_, series, now, wanted) => {
  expect(sinceLastStep(series, now)).toBe(wanted);
});
