import { describe, expect, test } from "vitest";
import { bestOf, binomialAtMost, type Promised, readPromise, spelled, unfavourableBound, verdict } from "../src/data/promise";
import type { Cells } from "../src/model";
import golden from "./fixtures/promises.json";

const promised = (text: string): Promised => {
  const read = readPromise(text);
  if (typeof read === "string") throw new Error(read);
  return read;
};

describe("a promise", () => {
  test("is decided as bc_core decides it, on the same bounds", () => {
    expect(golden.length).toBeGreaterThan(200);
    expect(new Set(golden.map((row) => row.verdict))).toEqual(new Set(["kept", "broken", "unsure"]));
    for (const { cells, text, verdict: expected, bound } of golden) {
      expect([cells, text, verdict(promised(text), cells as unknown as Cells)]).toEqual([cells, text, expected]);
      expect(Math.abs(unfavourableBound(promised(text), cells as unknown as Cells) - bound)).toBeLessThan(1e-9);
    }
  });

  test("is read in the grammar of bc_core", () => {
    expect(promised(" NFR <= 0.5% ")).toEqual({ score: "nfr", limit: 0.005, higherIsBetter: false });
    expect(promised("btc >= .98").limit).toBe(0.98);
    expect(spelled(promised("btc>=0.983"))).toBe("btc >= 98.3%");
    expect(readPromise("nfr <= 0.5")).toBe("The limit must have a % sign, 50% or 0.5%, as 0.5 may be meant for either.");
    expect(readPromise("nfr <= 1")).toBe("The limit must have a % sign, 100% or 1%, as 1 may be meant for either.");
    expect(promised("nfr <= 0.005").limit).toBe(0.005);
    expect(readPromise("nfr >= 1%")).toBe("Write nfr <= 1%.");
    expect(readPromise("accuracy >= 1%")).toMatch(/Take one of .*accuracy_h2/);
    expect(readPromise("bec_given_h1_wrong >= 1%")).toMatch(/Take one of/);
    expect(readPromise("nfr <= 120%")).toMatch(/0 to 1/);
    expect(readPromise("nfr <= ")).toMatch(/reads like/);
  });

  test("chooses the most accurate of the points that keep it", () => {
    const point = (cells: Cells, lambda: number | null) => ({ cells, lambda });
    const broken = point([10, 30, 50, 910], 0);
    const kept = point([20, 20, 1, 959], 16);
    const worse = point([30, 10, 1, 959], 4);
    const equal = point([20, 20, 1, 959], 2);
    expect(bestOf(promised("nfr <= 1%"), [broken, worse, kept, equal])).toBe(equal);
    expect(bestOf(promised("nfr <= 0.01%"), [broken, worse, kept])).toBeNull();
  });
});

test("a binomial tail is the sum of its terms", () => {
  for (const [k, n, p] of [
    [3, 10, 0.2],
    [0, 40, 0.01],
    [39, 40, 0.7],
    [12, 60, 0.5],
  ] as const) {
    let [term, sum] = [(1 - p) ** n, 0];
    for (let i = 0; i <= k; i++) {
      sum += term;
      term *= ((n - i) / (i + 1)) * (p / (1 - p));
    }
    expect(binomialAtMost(k, n, p)).toBeCloseTo(sum, 12);
  }
});
