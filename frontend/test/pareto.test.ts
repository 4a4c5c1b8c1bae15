import { expect, test } from "vitest";
import { paretoFront, type Point } from "../src/layout/pareto";
import { random } from "./tables";

function byDefinition(points: readonly Point[], xHigher: boolean, yHigher: boolean): number[] {
  const better = (a: number, b: number, higher: boolean) => (higher ? a > b : a < b);
  const beats = (a: Point, b: Point) =>
    !better(b.x, a.x, xHigher) &&
    !better(b.y, a.y, yHigher) &&
    (better(a.x, b.x, xHigher) || better(a.y, b.y, yHigher));
  const known = points.map((_, index) => index).filter((index) => !Number.isNaN(points[index]!.x + points[index]!.y));
  return known.filter((index) => !known.some((other) => beats(points[other]!, points[index]!)));
}

test.each([
  [true, true],
  [true, false],
  [false, true],
  [false, false],
])("the front is what nothing else beats (x higher: %s, y higher: %s)", (xHigher, yHigher) => {
  const next = random(3);
  for (let i = 0; i < 300; i++) {
    // A coarse grid makes ties and equal points common.
    const coordinate = () => (next() < 0.05 ? Number.NaN : Math.floor(next() * 6) / 5);
    const points = Array.from({ length: Math.floor(next() * 15) }, () => ({ x: coordinate(), y: coordinate() }));
    const front = paretoFront(points, xHigher, yHigher);
    expect([...front].sort((a, b) => a - b)).toEqual(byDefinition(points, xHigher, yHigher));
    const xs = front.map((index) => points[index]!.x);
    expect(xs).toEqual([...xs].sort((a, b) => a - b));
  }
});
