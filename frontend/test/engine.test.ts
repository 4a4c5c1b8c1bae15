import { describe, expect, test } from "vitest";
import {
  classCells,
  classRows,
  compareFlips,
  flipMatrix,
  labelsOf,
  regionCounts,
  regionOf,
  select,
  sortClasses,
  sortRows,
  textsOf,
  totals,
} from "../src/data/engine";
import { pairedDifference } from "../src/data/scores";
import { DataError, type Filter, type InstanceSort, type Media, type Region, type Table } from "../src/model";
import { NO_FILTER } from "../src/state/url";
import { largeTable, random, tableOf } from "./tables";

const NO_MEDIA: Media = { texts: new Map(), longer: new Set(), images: new Set(), reduced: new Set(), leftOut: new Set() };

const SMALL = tableOf({
  rows: [
    [3, 0, 0, 1],
    [10, 1, 2, 1],
    [25, 2, 0, 0],
    [40, 2, 2, 0],
    [103, 0, 1, 2],
  ],
  numClasses: 3,
  right: [4, 5, 6],
  classNames: ["cat", "Dog", "bird 10"],
  texts: ["A red Cat", "", "bird on a roof", "Straße", "img_0025.png"],
});

const seen = (table: Table, filter: Partial<Filter>) => [
  ...select(table, { ...NO_FILTER, ...filter }, textsOf(table, null)),
];

describe("select", () => {
  test("rows that were found in the rest of a long text are among those of a text, and meet the other conditions", () => {
    const found = (filter: Partial<Filter>, elsewhere: ReadonlySet<string>) => [
      ...select(SMALL, { ...NO_FILTER, ...filter }, textsOf(SMALL, null), elsewhere),
    ];
    expect(found({ text: "cat" }, new Set(["40", "999"]))).toEqual([0, 3]);
    expect(found({ text: "cat", target: 2 }, new Set(["40"]))).toEqual([3]);
    expect(found({}, new Set(["40"])).length).toBe(5);
  });

  test("without conditions takes every row", () => {
    expect(seen(SMALL, {})).toEqual([0, 1, 2, 3, 4]);
  });

  test("takes rows of a region", () => {
    expect(seen(SMALL, { region: "regress" })).toEqual([0, 3]);
    expect(seen(SMALL, { region: "progress" })).toEqual([1]);
    expect(seen(SMALL, { region: "common" })).toEqual([2, 4]);
  });

  test("holds all conditions at once", () => {
    expect(seen(SMALL, { target: 2, h2: 0 })).toEqual([2, 3]);
    expect(seen(SMALL, { target: 2, h2: 0, h1: 2 })).toEqual([3]);
    expect(seen(SMALL, { target: 2, region: "progress" })).toEqual([]);
    expect(seen(SMALL, { target: 0, text: "cat" })).toEqual([0]);
    expect(seen(SMALL, { target: 99 })).toEqual([]);
  });

  test("finds a text in ids and texts, whatever its case and the space around it", () => {
    expect(seen(SMALL, { text: "25" })).toEqual([2, 4]);
    expect(seen(SMALL, { text: "10" })).toEqual([1, 4]);
    expect(seen(SMALL, { text: "  CAT " })).toEqual([0]);
    expect(seen(SMALL, { text: "STRASSE" })).toEqual([]);
    expect(seen(SMALL, { text: "straße" })).toEqual([3]);
  });

  test("without texts looks in the ids only", () => {
    expect([...select(SMALL, { ...NO_FILTER, text: "3" }, null)]).toEqual([0, 4]);
    expect([...select(SMALL, { ...NO_FILTER, text: "cat" }, null)]).toEqual([]);
  });

  test("agrees with a plain loop on many rows", () => {
    const table = largeTable(3000, 12);
    const next = random(4);
    const regions: (Region | null)[] = [null, "regress", "common", "progress"];
    for (let i = 0; i < 200; i++) {
      const choose = () => (next() < 0.6 ? null : Math.floor(next() * 12));
      const filter: Filter = {
        ...NO_FILTER,
        region: regions[Math.floor(next() * 4)]!,
        target: choose(),
        h1: choose(),
        h2: choose(),
        text: next() < 0.7 ? "" : String(Math.floor(next() * 50)),
        flips: null,
      };
      const expected = Array.from({ length: table.size }, (_, row) => row).filter(
        (row) =>
          (filter.region === null || regionOf(table, row) === filter.region) &&
          (filter.target === null || table.target[row] === filter.target) &&
          (filter.h1 === null || table.h1[row] === filter.h1) &&
          (filter.h2 === null || table.h2[row] === filter.h2) &&
          String(table.ids[row]).includes(filter.text),
      );
      expect([...select(table, filter, null)]).toEqual(expected);
    }
  });
});

describe("sortRows", () => {
  const sorted = (table: Table, sort: InstanceSort, descending: boolean, rows?: readonly number[]) => {
    const some = Uint32Array.from(rows ?? Array.from({ length: table.size }, (_, row) => row));
    return [...sortRows(table, some, sort, descending, labelsOf(table), textsOf(table, null))];
  };

  test("orders classes by label, numbers within labels by value", () => {
    const table = tableOf({
      rows: [
        [1, 0, 1, 2],
        [2, 1, 1, 0],
        [3, 2, 0, 2],
        [4, 3, 0, 3],
      ],
      numClasses: 4,
      classNames: ["class 10", "class 9", "apple", "Zebra"],
    });
    expect(sorted(table, "target", false)).toEqual([2, 1, 0, 3]);
    expect(sorted(table, "target", true)).toEqual([3, 0, 1, 2]);
  });

  test("orders regions as they are named: broken, both wrong, repaired", () => {
    expect(sorted(SMALL, "region", false)).toEqual([0, 3, 2, 4, 1]);
    expect(sorted(SMALL, "region", true)).toEqual([1, 2, 4, 0, 3]);
  });

  test("orders texts without regard to case, and some of the rows only", () => {
    expect(sorted(SMALL, "text", false)).toEqual([1, 0, 2, 4, 3]);
    expect(sorted(SMALL, "text", false, [4, 3, 0])).toEqual([0, 4, 3]);
  });

  test("without texts leaves rows as they are", () => {
    const rows = Uint32Array.of(4, 0, 2);
    expect([...sortRows(SMALL, rows, "text", true, labelsOf(SMALL), null)]).toEqual([4, 0, 2]);
  });

  test("does not touch the rows it was given", () => {
    const rows = Uint32Array.of(4, 0, 2);
    sortRows(SMALL, rows, "id", false, labelsOf(SMALL), null);
    expect([...rows]).toEqual([4, 0, 2]);
  });

  const withIds = (...ids: (number | string)[]) =>
    tableOf({ rows: ids.map((id) => [id, 0, 0, 1] as const), numClasses: 2 });

  test.each([
    ["numbers", withIds(5, -3, 2 ** 52, 0, -(2 ** 51)), [4, 1, 3, 0, 2]],
    ["texts", withIds("b", "a10", "a2", "B", ""), [4, 3, 1, 2, 0]],
    ["digits as numbers", withIds("10", "9", "0009", "100"), [1, 2, 0, 3]],
    ["integers of any size", withIds("9007199254740993", "-9007199254740995", 12, "9007199254740994"), [1, 2, 0, 3]],
    ["many digits", withIds("12345678901234567890123", "2", "12345678901234567890122"), [1, 2, 0]],
  ] as const)("orders ids: %s", (_, table, expected) => {
    expect(sorted(table, "id", false)).toEqual(expected);
  });

  test("agrees with a stable sort by comparison, in both directions", () => {
    const next = random(8);
    const words = ["dog", "cat", "a cat", "Dog", "", "zebra"];
    const base = largeTable(70_000, 300, 3, () => Math.floor(next() * 2 ** 40) - 2 ** 39);
    const table = { ...base, texts: Array.from({ length: base.size }, () => words[Math.floor(next() * 6)]!) };
    const rows = select(table, NO_FILTER, null).filter(() => next() < 0.97);
    const collator = new Intl.Collator("en", { numeric: true });
    const labels = labelsOf(table);
    const byText = (a: string, b: string) => {
      const [first, second] = [a.toLowerCase(), b.toLowerCase()];
      return first < second ? -1 : Number(first > second);
    };
    const order: readonly Region[] = ["regress", "common", "progress"];
    const compare: Record<Exclude<InstanceSort, "sure1" | "sure2">, (a: number, b: number) => number> = {
      id: (a, b) => Number(table.ids[a]) - Number(table.ids[b]),
      text: (a, b) => byText(table.texts[a]!, table.texts[b]!),
      target: (a, b) => collator.compare(labels[table.target[a]!]!, labels[table.target[b]!]!),
      h1: (a, b) => collator.compare(labels[table.h1[a]!]!, labels[table.h1[b]!]!),
      h2: (a, b) => collator.compare(labels[table.h2[a]!]!, labels[table.h2[b]!]!),
      region: (a, b) => order.indexOf(regionOf(table, a)) - order.indexOf(regionOf(table, b)),
    };
    for (const sort of Object.keys(compare) as (keyof typeof compare)[]) {
      for (const sign of [1, -1]) {
        const expected = [...rows].sort((a, b) => sign * compare[sort](a, b));
        const got = sortRows(table, rows, sort, sign === -1, labels, textsOf(table, null));
        expect(got.every((row, i) => row === expected[i])).toBe(true);
      }
    }
  });
});

describe("counts", () => {
  test("of all and of each class", () => {
    expect(totals(SMALL)).toEqual([2, 1, 2, 15]);
    expect(classCells(SMALL, 2)).toEqual([1, 0, 1, 6]);
    expect(classCells(SMALL, 7)).toEqual([0, 0, 0, 0]);
  });

  test("of regions, over all rows and over some", () => {
    expect(regionCounts(SMALL)).toEqual({ regress: 2, common: 2, progress: 1 });
    expect(regionCounts(SMALL, Uint32Array.of(0, 1))).toEqual({ regress: 1, common: 0, progress: 1 });
  });

  test("labels are names, or numbers without names", () => {
    expect(labelsOf(SMALL)).toEqual(["cat", "Dog", "bird 10"]);
    expect(labelsOf(largeTable(5, 3))).toEqual(["0", "1", "2"]);
    expect(labelsOf(SMALL)).toBe(labelsOf(SMALL));
  });

  test("texts of the media come before those of the comparison", () => {
    const media: Media = { ...NO_MEDIA, texts: new Map([[10, "from the media"]]) };
    const of = textsOf(SMALL, media)!;
    expect([of(0), of(1)]).toEqual(["A red Cat", "from the media"]);
    expect(textsOf(SMALL, media)).toBe(of);
    expect(textsOf({ ...SMALL, texts: null }, null)).toBeNull();
    expect(textsOf(SMALL, NO_MEDIA)!(0)).toBe("A red Cat");
  });
});

describe("classes", () => {
  test("have accuracies, flips and their share of all negative flips", () => {
    expect(classRows(SMALL)[2]).toEqual({
      index: 2,
      label: "bird 10",
      total: 8,
      accuracyH1: 7 / 8,
      accuracyH2: 6 / 8,
      regress: 1,
      common: 1,
      progress: 0,
      share: 0.5,
      uncertain: false,
    });
  });

  test("without instances have no accuracy, and without flips no share", () => {
    const [none] = classRows(tableOf({ rows: [], numClasses: 2, right: [0, 3], uncertain: [0] }));
    expect(none).toMatchObject({ total: 0, accuracyH1: Number.NaN, share: 0, uncertain: true });
  });

  test("are sorted by what was asked for, and found by their label", () => {
    const rows = classRows(
      tableOf({
        rows: [
          [1, 0, 0, 1],
          [2, 1, 1, 0],
          [3, 1, 1, 0],
          [4, 2, 2, 0],
          [5, 2, 0, 2],
        ],
        numClasses: 4,
        right: [1, 10, 3, 0],
        classNames: ["k 10", "k 9", "a", "empty"],
      }),
    );
    const order = (sort: Parameters<typeof sortClasses>[1], search = "") =>
      sortClasses(rows, sort, search).map(({ index }) => index);
    expect(order("flips")).toEqual([1, 0, 2, 3]);
    expect(order("loss")).toEqual([0, 1, 2, 3]);
    expect(order("count")).toEqual([1, 2, 0, 3]);
    expect(order("name")).toEqual([2, 3, 1, 0]);
    expect(order("flips", " K ")).toEqual([1, 0]);
    expect(order("name", "nothing")).toEqual([]);
  });
});

describe("flipMatrix", () => {
  test("counts true class by wrong class of h2 among negative flips", () => {
    const matrix = flipMatrix(SMALL);
    expect(matrix.rows).toEqual([
      { index: 0, label: "cat" },
      { index: 2, label: "bird 10" },
    ]);
    expect(matrix.columns.map(({ label }) => label)).toEqual(["cat", "Dog"]);
    expect(matrix.cells).toEqual([
      [0, 1],
      [1, 0],
    ]);
    expect(matrix.total).toBe(2);
  });

  test("of repaired instances shows the wrong class of h1", () => {
    const matrix = flipMatrix(SMALL, 12, "progress");
    expect([matrix.rows, matrix.columns]).toEqual([[{ index: 1, label: "Dog" }], [{ index: 2, label: "bird 10" }]]);
  });

  test("keeps every instance when classes share the last line", () => {
    const table = largeTable(5000, 40);
    for (const limit of [1, 5, 12, 38, 39, 60]) {
      const { rows, columns, cells, total } = flipMatrix(table, limit);
      expect(cells.flat().reduce((sum, cell) => sum + cell, 0)).toBe(total);
      expect(total).toBe(totals(table)[2]);
      // "other" stands for two classes at least.
      expect(rows.at(-1)!.index === null).toBe(limit < 39);
      expect(rows.length).toBe(limit < 39 ? limit + 1 : 40);
      const [row, column] = [rows[0]!.index!, columns[0]!.index!];
      const count = seen(table, { region: "regress", target: row, h2: column }).length;
      expect(cells[0]![0]).toBe(count);
      const line = cells.map((line) => line.reduce((sum, cell) => sum + cell, 0)).slice(0, limit);
      expect(line).toEqual([...line].sort((a, b) => b - a));
    }
  });

  test("of no flips is empty", () => {
    expect(flipMatrix(tableOf({ rows: [], numClasses: 3 }))).toEqual({ rows: [], columns: [], cells: [], total: 0 });
  });
});

describe("compareFlips", () => {
  /** All instances of a data set under one h1 and one h2. */
  function comparison(
    answers: readonly (readonly [target: number, h1: number, h2: number])[],
    idOf: (position: number) => number | string = (position) => position,
  ): Table {
    const right = [0, 0, 0];
    const rows = answers.flatMap(([target, h1, h2], position) => {
      if (h1 === target && h2 === target) {
        right[target]! += 1;
        return [];
      }
      return [[idOf(position), target, h1, h2] as const];
    });
    return tableOf({ rows, numClasses: 3, right });
  }

  test("counts flips of one, the other, both and neither, as a plain loop does", () => {
    const next = random(21);
    const whole = () => Math.floor(next() * 3);
    for (const idOf of [(position: number) => 3 * position, (position: number) => `img ${position}`]) {
      const base = Array.from({ length: 800 }, () => [whole(), whole()] as const);
      const [h2a, h2b] = [base.map(whole), base.map(whole)];
      const table = (h2: readonly number[]) => comparison(base.map(([y, h1], i) => [y, h1, h2[i]!] as const), idOf);
      const flip = (h2: readonly number[], i: number) => base[i]![0] === base[i]![1] && h2[i] !== base[i]![0];
      const expected = [0, 0, 0, 0];
      base.forEach((_, i) => {
        expected[2 * Number(flip(h2a, i)) + Number(flip(h2b, i))]! += 1;
      });
      const [neither, onlyB, onlyA, both] = expected as [number, number, number, number];
      expect(compareFlips(table(h2a), table(h2b))).toEqual({
        onlyA,
        onlyB,
        both,
        neither,
        ...pairedDifference(onlyA, onlyB, both, neither),
      });
    }
  });

  const base = [
    [0, 0, 1],
    [1, 0, 1],
    [2, 2, 2],
    [2, 1, 0],
  ] as const;

  test.each([
    ["another size", [...base, [1, 1, 1]]],
    ["another error of h1", [base[0], [1, 1, 1], [2, 2, 2], [2, 1, 0]]],
    ["another answer of h1", [base[0], [1, 2, 1], base[2], base[3]]],
    ["errors of h1 on other instances", [base[0], base[1], base[3], base[2]]],
    ["another order of the data", [base[1], base[0], base[2], base[3]]],
  ] as const)("refuses %s", (_, answers) => {
    expect(() => compareFlips(comparison(base), comparison(answers))).toThrow(DataError);
    expect(() => compareFlips(comparison(answers), comparison(base))).toThrow(DataError);
  });

  test("refuses ids of another kind", () => {
    expect(() => compareFlips(comparison(base), comparison(base, String))).toThrow(DataError);
  });

  test("does not compare counts that are not known", () => {
    const table = comparison(base);
    const other = comparison([...base, [2, 2, 2]]);
    expect(() => compareFlips(table, other)).toThrow(DataError);
    expect(compareFlips(table, { ...other, uncertainClasses: [2] }).both).toBe(1);
  });
});
