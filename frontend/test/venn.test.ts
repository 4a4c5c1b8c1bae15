import { describe, expect, test } from "vitest";
import { venn, type VennLayout, type VennState } from "../src/layout/venn";
import { random } from "./tables";

const [WIDTH, HEIGHT] = [400, 240];

/**
 * Area that both circles cover, by integrating the height of the overlap along the axis. Within each stretch the
 * variable is bent so that the square roots at its ends are smooth (Simpson's rule then has all its digits).
 */
function sharedArea({ r1, r2, x1, x2 }: VennLayout): number {
  const [from, to] = [Math.max(x1 - r1, x2 - r2), Math.min(x1 + r1, x2 + r2)];
  if (!(to > from)) {
    return 0;
  }
  const half = (x: number, centre: number, r: number) =>
    Math.sqrt(Math.max(0, (r - (x - centre)) * (r + (x - centre))));
  const height = (x: number) => 2 * Math.min(half(x, x1, r1), half(x, x2, r2));
  const d = x2 - x1;
  const corner = d > 0 ? x1 + (d * d + r1 * r1 - r2 * r2) / (2 * d) : Number.NaN;
  const edges = [from, ...(corner > from && corner < to ? [corner] : []), to];
  let area = 0;
  for (let i = 1; i < edges.length; i++) {
    const [a, b] = [edges[i - 1]!, edges[i]!];
    const middle = (a + b) / 2;
    const reach = (b - a) / 2;
    const steps = 4000;
    for (let k = 0; k <= steps; k++) {
      const angle = -Math.PI / 2 + (Math.PI * k) / steps;
      const weight = k === 0 || k === steps ? 1 : k % 2 === 1 ? 4 : 2;
      area += (weight * height(middle + reach * Math.sin(angle)) * reach * Math.cos(angle) * Math.PI) / steps / 3;
    }
  }
  return area;
}

/** Area inside a path of arcs with fill-rule evenodd, from the path alone: Green's theorem on short chords of arcs. */
function pathArea(path: string): number {
  let total = 0;
  for (const subpath of path.split("M").slice(1)) {
    const numbers = subpath.match(/-?\d+(\.\d+)?(e[+-]?\d+)?/g)!.map(Number);
    let [x, y] = [numbers[0]!, numbers[1]!];
    let area = 0;
    for (let i = 2; i + 6 < numbers.length; i += 7) {
      const [r, , , large, sweep, toX, toY] = numbers.slice(i, i + 7) as [
        number,
        number,
        number,
        number,
        number,
        number,
        number,
      ];
      const chord = Math.hypot(toX - x, toY - y);
      const small = 2 * Math.asin(Math.min(1, chord / 2 / r));
      const angle = large === 1 ? 2 * Math.PI - small : small;
      area += (x * toY - toX * y) / 2 + ((sweep === 1 ? 1 : -1) * r * r * (angle - Math.sin(angle))) / 2;
      [x, y] = [toX, toY];
    }
    total += (total === 0 ? 1 : -1) * Math.abs(area);
  }
  return Math.abs(total);
}

const CASES: readonly [h1: number, h2: number, common: number, state: VennState][] = [
  [0, 0, 0, "empty"],
  [12, 0, 0, "only_h1"],
  [0, 1, 0, "only_h2"],
  [7, 9, 0, "disjoint"],
  [1, 100_000, 0, "disjoint"],
  [5, 5, 5, "identical"],
  [1, 100_000, 1, "h1_in_h2"],
  [100_000, 99_999, 99_999, "h2_in_h1"],
  [40, 25, 25, "h2_in_h1"],
  [100, 80, 30, "overlap"],
  [100, 100, 50, "overlap"],
  [100_000, 100_000, 1, "overlap"],
  [100_000, 100_000, 99_999, "overlap"],
  [2, 100_000, 1, "overlap"],
  [100_000, 2, 1, "overlap"],
  [1_000_000, 300, 299, "overlap"],
];

describe.each(CASES)("%i errors of h1, %i of h2, %i common: %s", (h1, h2, common, state) => {
  const layout = venn(h1, h2, common, WIDTH, HEIGHT);
  const { r1, r2, x1, x2, y, paths, spots, tiny } = layout;

  test("the state is right", () => {
    expect(layout.state).toBe(state);
  });

  test("areas are proportional to counts", () => {
    const unit = (Math.PI * (r1 * r1 + r2 * r2)) / Math.max(1, h1 + h2);
    expect(Math.PI * r1 * r1).toBeCloseTo(h1 * unit, 6);
    expect(Math.PI * r2 * r2).toBeCloseTo(h2 * unit, 6);
    const shared = sharedArea(layout);
    expect(Math.abs(shared - common * unit)).toBeLessThanOrEqual(1e-9 * common * unit);
    for (const [region, count] of [
      ["progress", h1 - common],
      ["common", common],
      ["regress", h2 - common],
    ] as const) {
      expect(paths[region] === "").toBe(count === 0);
      if (count > 0) {
        // The arcs of a thin crescent differ by little, so measuring its path loses digits that the layout has.
        expect(Math.abs(pathArea(paths[region]) - count * unit)).toBeLessThan(1e-5 * count * unit);
      }
    }
  });

  test("both circles lie within the frame, h1 on the left", () => {
    for (const [r, x] of [
      [r1, x1],
      [r2, x2],
    ] as const) {
      expect(x - r).toBeGreaterThanOrEqual(8 - 1e-6);
      expect(x + r).toBeLessThanOrEqual(WIDTH - 8 + 1e-6);
      expect(y - r).toBeGreaterThanOrEqual(8 - 1e-6);
      expect(y + r).toBeLessThanOrEqual(HEIGHT - 8 + 1e-6);
    }
    expect(x1).toBeLessThanOrEqual(x2);
  });

  test("the spot of each region lies within it, and what cannot be seen is marked", () => {
    const inside = (x: number, centre: number, r: number) => r > 0 && Math.abs(x - centre) < r;
    for (const [region, count, in1, in2] of [
      ["progress", h1 - common, true, false],
      ["common", common, true, true],
      ["regress", h2 - common, false, true],
    ] as const) {
      if (count === 0) {
        expect(tiny[region]).toBe(false);
      } else if (!tiny[region]) {
        expect(inside(spots[region].x, x1, r1)).toBe(in1);
        expect(inside(spots[region].x, x2, r2)).toBe(in2);
      }
    }
  });
});

test("one error beside 100,000 is marked as too small to see, and its area is kept", () => {
  const layout = venn(1, 100_000, 0, WIDTH, HEIGHT);
  expect(layout.tiny).toEqual({ progress: true, common: false, regress: false });
  expect((layout.r2 / layout.r1) ** 2).toBeCloseTo(100_000, 3);
});

test("random counts share the area they should", () => {
  const next = random(11);
  for (let i = 0; i < 60; i++) {
    const h1 = 2 + Math.floor(next() ** 3 * 5000);
    const h2 = 2 + Math.floor(next() ** 3 * 5000);
    const common = 1 + Math.floor(next() * (Math.min(h1, h2) - 1));
    const layout = venn(h1, h2, common, WIDTH, HEIGHT);
    const unit = (Math.PI * layout.r1 * layout.r1) / h1;
    expect(Math.abs(sharedArea(layout) / (common * unit) - 1)).toBeLessThan(1e-9);
  }
});

test("counts that cannot be are refused", () => {
  expect(() => venn(3, 3, 4, WIDTH, HEIGHT)).toThrow(RangeError);
  expect(() => venn(Number.NaN, 3, 1, WIDTH, HEIGHT)).toThrow(RangeError);
});

test("a frame without room does not give a picture turned inside out", () => {
  for (const [width, height] of [
    [0, 0],
    [4, 4],
    [1000, 10],
  ] as const) {
    const { r1, r2 } = venn(10, 20, 5, width, height);
    expect(r1).toBeGreaterThanOrEqual(0);
    expect(2 * r2).toBeLessThanOrEqual(height);
  }
});
