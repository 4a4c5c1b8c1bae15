import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { alongThresholds, atThresholds, expectedError } from "../src/data/confidence";
import { select, sortRows } from "../src/data/engine";
import { decodeComparison } from "../src/data/format";
import { flipRows, narrowed, usable } from "../src/data/narrowing";
import { filterOf, foundRows, inSlices, sameFilter, sliceRows } from "../src/data/slices";
import { flipsByClass, flipsOf, joined } from "../src/data/twoUpdates";
import type { Filter, Table } from "../src/model";
import { NO_FILTER } from "../src/state/url";
import { tenths } from "../src/views/confidence/SureScatter";
import { highest } from "../src/views/confidence/Thresholds";
import { encode, smallComparison, type Values } from "./columns";
import { random, tableOf } from "./tables";

const read = (name: string) => readFileSync(new URL(`./fixtures/insight-${name}`, import.meta.url));
const table = await decodeComparison(Uint8Array.from(read("sure.bin")));
const binary = await decodeComparison(Uint8Array.from(read("binary.bin")));
// What bc_core says of the same.
const golden = {
  sure: JSON.parse(read("sure.expected.json").toString()),
  binary: JSON.parse(read("binary.expected.json").toString()),
};
const rowsOf = (size: number) => Uint32Array.from({ length: size }, (_, row) => row);

describe("what bc_core knows", () => {
  test.each([
    ["sure", table, golden.sure],
    ["binary", binary, golden.binary],
  ])("of how sure the models are comes back, %s", (_, found, expected) => {
    const pairs = [
      [found.sure!.h1, expected.h1_confidence],
      [found.sure!.h2, expected.h2_confidence],
      [found.sure!.h1Truth, expected.h1_of_truth],
      [found.sure!.h2Truth, expected.h2_of_truth],
    ] as const;
    for (const [column, shares] of pairs) {
      expect(column.length).toBe(shares.length);
      column.forEach((share, row) => {
        if (shares[row] === null) expect(share).toBeNaN();
        else expect(share).toBeCloseTo(shares[row], 4);
      });
    }
    found.calibration!.forEach((bins, model) => expect(expectedError(bins)).toBeCloseTo(expected.errors[model], 9));
  });

  test("of slices comes back", () => {
    expect(table.slices.map(({ column }) => column)).toEqual(["country", "age"]);
    golden.sure.slices.forEach((expected: { cells: number[][]; of_rows: string[] }, i: number) => {
      const { cells, codes, values } = table.slices[i]!;
      expect(cells).toEqual(expected.cells);
      expect(Array.from(codes, (code) => values[code])).toEqual(expected.of_rows);
    });
    const found = foundRows(table);
    expect(found.length).toBeGreaterThan(0);
    found.forEach(({ conditions, rate, low, high }, i) => {
      const expected = golden.sure.found[i];
      expect(conditions).toEqual(expected.conditions);
      [rate, low, high].forEach((share, k) =>
        expect(share).toBeCloseTo([expected.rate, expected.low, expected.high][k], 9),
      );
    });
  });

  test("of other thresholds comes back", () => {
    const thresholds = binary.thresholds!;
    const { edges } = thresholds;
    for (const { h1, h2, cells } of golden.binary.at) {
      const [first, second] = [edges.indexOf(h1), edges.indexOf(h2)];
      expect(atThresholds(thresholds, first, second)).toEqual(cells);
      expect(alongThresholds(thresholds, first)[second]).toEqual(cells);
    }
    expect(thresholds.inUse.map((at) => edges[at])).toEqual([0.5, 0.333]);
  });
});

describe("conditions", () => {
  const narrow = (filter: Partial<Filter>) => [...narrowed(table, rowsOf(table.size), { ...NO_FILTER, ...filter }, null)];

  test("on how sure a model is leave out what is not known", () => {
    const { h1, h2 } = table.sure!;
    const expected = [...rowsOf(table.size)].filter((row) => h1[row]! >= 0.4 && h1[row]! < 0.6 && h2[row]! >= 0.5);
    expect(expected.length).toBeGreaterThan(10);
    expect(narrow({ sure1: [0.4, 0.6], sure2: [0.5, 1] })).toEqual(expected);
    expect(narrow({ sure1: [0, 1] }).length).toBe(h1.filter((share) => !Number.isNaN(share)).length);
  });

  test("on tenths list as many as the picture counts", () => {
    const { filled, total, unknown } = tenths(table.sure!.h1, table.sure!.h2);
    expect(total + unknown).toBe(table.size);
    for (const [a, b, n] of filled) {
      expect(narrow({ sure1: [a / 10, (a + 1) / 10], sure2: [b / 10, (b + 1) / 10] }).length).toBe(n);
    }
  });

  test("on slices hold at once", () => {
    const [country, age] = table.slices;
    const expected = [...rowsOf(table.size)].filter(
      (row) => country!.values[country!.codes[row]!] === "fr, it" && age!.codes[row] === 0,
    );
    expect(narrow({ slices: [["country", "fr, it"], ["age", age!.values[0]!]] })).toEqual(expected); // prettier-ignore
    expect(narrow({ slices: [["country", "nowhere"]] })).toEqual([]);
    expect(inSlices(table, rowsOf(3), [["no column", "x"]]).length).toBe(3);
  });

  test("that mean nothing for a table are dropped", () => {
    const plain = tableOf({ rows: [[1, 0, 0, 1]], numClasses: 2 });
    const filter: Filter = { ...NO_FILTER, sure1: [0, 1], sure2: [0.5, 1], slices: [["country", "de"]] };
    expect(usable(plain, filter)).toEqual(NO_FILTER);
    expect(usable(table, filter).slices).toBe(filter.slices);
    expect(usable(table, { ...filter, slices: [["country", "xx"]] }).slices).toEqual([]);
  });

  test("of a slice of a true class are that class", () => {
    expect(filterOf(table, [["class", "2"], ["country", "de"]])).toEqual({ target: 2, slices: [["country", "de"]] }); // prettier-ignore
    expect(sameFilter({ target: 2, slices: [] }, { ...NO_FILTER, target: 2 })).toBe(true);
    expect(sameFilter({ target: 2, slices: [] }, { ...NO_FILTER, target: 2, slices: [["country", "de"]] })).toBe(false);
  });
});

test("slices are ordered by what even their size does not explain", () => {
  const rows = sliceRows(table, null);
  expect(rows.length).toBe(8);
  rows.slice(1).forEach((row, i) => expect(row.low).toBeLessThanOrEqual(rows[i]!.low));
  expect(sliceRows(table, "country").map(({ total }) => total).reduce((a, b) => a + b)).toBe(900);
  expect(rows[0]!.conditions).toEqual([["country", "de"]]);
});

test("the surest new mistakes come first, in both directions of the regions", () => {
  const { h1, h2, target } = table;
  const labels = ["0", "1", "2"];
  const region = (row: number) => (h1[row] === target[row] ? 0 : h2[row] === target[row] ? 2 : 1);
  for (const descending of [false, true]) {
    const order = sortRows(table, rowsOf(table.size), "region", descending, labels, null);
    for (let i = 1; i < order.length; i++) {
      const [before, after] = [order[i - 1]!, order[i]!];
      const step = (region(after) - region(before)) * (descending ? -1 : 1);
      expect(step).toBeGreaterThanOrEqual(0);
      if (step === 0) expect(table.sure!.h2[after]!).toBeLessThanOrEqual(table.sure!.h2[before]!);
    }
  }
  const bySure = sortRows(table, rowsOf(table.size), "sure1", true, labels, null);
  // What is not known is last.
  const last = table.sure!.h1[bySure.at(-1)!]!;
  expect(Number.isNaN(last) || table.sure!.h1.every((share) => share >= last)).toBe(true);
});

test("the most accurate threshold is the nearest of equals", () => {
  const along = [[0, 0, 0, 5], [1, 0, 0, 4], [0, 0, 0, 5], [0, 0, 0, 5]] as const; // prettier-ignore
  expect(highest(along, "accuracy_h2", 1)).toBe(0);
  expect(highest(along, "accuracy_h2", 3)).toBe(3);
});

describe("two updates", () => {
  function updates() {
    const next = random(11);
    const of = (which: "a" | "b") => {
      const wrong = all.filter((each) => each.h1 !== each.target || each[which] !== each.target);
      const right = [0, 1, 2].map((c) => all.filter((each) => each.target === c && !wrong.includes(each)).length);
      const rows = wrong.map((each) => [each.id, each.target, each.h1, each[which]] as const);
      const sure = Float32Array.from(wrong, ({ id }) => (id % 10) / 10);
      const codes = Uint8Array.from(wrong, ({ id }) => id % 2);
      const slices = [{ column: "parity", values: ["even", "odd"], codes, cells: [] }];
      const extras = { sure: { h1: sure, h2: sure, h1Truth: sure, h2Truth: sure }, slices };
      return tableOf({ rows, numClasses: 3, right, extras });
    };
    const answer = (target: number) => (next() < 0.7 ? target : (target + 1 + Math.floor(next() * 2)) % 3);
    const all = Array.from({ length: 300 }, (_, id) => {
      const target = Math.floor(next() * 3);
      return { id, target, h1: answer(target), a: answer(target), b: answer(target) };
    });
    return { all, a: of("a"), b: of("b") };
  }
  const { all, a, b } = updates();
  const both = joined(a, b);

  test("know of each instance what its own table says", () => {
    for (let row = 0; row < both.table.size; row++) {
      const id = both.table.ids[row] as number;
      expect(both.table.slices[0]!.codes[row]).toBe(id % 2);
      expect(both.table.sure!.h1[row]).toBeCloseTo((id % 10) / 10, 6);
      // Of what A gets right with h1, nobody kept how sure it was.
      if (row >= a.size) expect(both.table.sure!.h2[row]).toBeNaN();
    }
    const other = { ...b, slices: [{ ...b.slices[0]!, values: ["x", "y"] }] };
    expect(joined(a, other).table.slices).toEqual([]);
    expect(joined(a, { ...b, sure: null }).table.sure).toBeNull();
  });

  test("count whose flips they are by class, and what is said instead", () => {
    const found = flipsByClass(both);
    const broken = ({ target, h1, a, b }: (typeof all)[number]) =>
      h1 !== target ? null : a !== target && b !== target ? "both" : a !== target ? "a" : b !== target ? "b" : null;
    for (const which of ["a", "b", "both"] as const) {
      for (const index of [0, 1, 2]) {
        expect(found[which][index]).toBe(all.filter((each) => broken(each) === which && each.target === index).length);
      }
      const { table: shown, rows, wrong } = flipRows(a, both, which);
      expect(rows!.length).toBe(all.filter((each) => broken(each) === which).length);
      for (const row of rows!) {
        expect(flipsOf(both, row)).toBe(which);
        const truth = all[shown.ids[row] as number]!;
        expect(wrong[row]).toBe(which === "b" ? truth.b : truth.a);
      }
    }
    expect(flipRows(a, both, null)).toEqual({ table: a, rows: null, wrong: a.h2 });
  });

  test("can be asked for what B says instead", () => {
    const rows = select(both.table, NO_FILTER, null);
    const found = narrowed(both.table, rows, { ...NO_FILTER, flips: "b", b: 1 }, both);
    const expected = all.filter((each) => each.h1 === each.target && each.a === each.target && each.b === 1 && each.target !== 1); // prettier-ignore
    expect([...found].map((row) => both.table.ids[row])).toEqual(expected.map(({ id }) => id));
  });
});

describe("damage is told", () => {
  const slices = [{ column: "c", values: ["x", "y"] }];
  const counts = Uint8Array.of(1, 1, 1, 9, 1, 0, 1, 6);
  const cases: [string, Record<string, Values>, Record<string, unknown>, string][] = [
    ["codes", { slice0: Uint8Array.of(0, 0, 0, 0, 2), slice0_counts: counts }, { slices }, "is in no slice"],
    ["counts", { slice0: new Uint8Array(5), slice0_counts: new Uint8Array(8) }, { slices }, "hold 0 of 20"],
    ["columns", {}, { slices }, 'slices of "c" are missing'],
    ["names", {}, { slices: [{ column: 7 }] }, "has no names"],
    ["no list", {}, { slices: "x" }, "no list"],
    ["found", {}, { found_slices: [{ conditions: [["a"]] }] }, "no conditions"],
    ["found counts", {}, { found_slices: [{ conditions: [], flips: 3, total: 2 }] }, "no counts"],
    ["edges", {}, { thresholds: { edges: [0, 0.5], in_use: [0.5, 0.4] } }, "without counts"],
    ["many edges", {}, { thresholds: { edges: Array(1001).fill(0), in_use: [0, 0] } }, "thresholds that are none"],
    ["length", { h1_sure: new Uint8Array(4) }, {}, "has 4 values where 5"],
  ];
  test.each(cases)("%s", async (_, values, header, told) => {
    await expect(decodeComparison(encode(smallComparison(values, header)))).rejects.toThrow(told);
  });

  test("a probability that is none", async () => {
    const four = { h1_sure: new Uint8Array(5), h2_sure: new Uint8Array(5), h1_truth: new Uint8Array(5) };
    const written = smallComparison({ ...four, h2_truth: Float64Array.of(1, 2, 3, 4, 70_000) });
    await expect(decodeComparison(encode(written))).rejects.toThrow("row 4 has a probability of 70000");
    const found: Table = await decodeComparison(encode(smallComparison({ ...four, h2_truth: new Uint8Array(5) })));
    expect(found.sure!.h1.length).toBe(5);
  });
});
