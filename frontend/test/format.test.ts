import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { regionCounts, totals } from "../src/data/engine";
import { decodeComparison, decodeMedia } from "../src/data/format";
import { DataError } from "../src/model";
import { columns, encode, smallComparison, smallMedia, type Values, type Written } from "./columns";

describe("a comparison", () => {
  test("comes back with its captions, counts and columns", async () => {
    const table = await decodeComparison(encode(smallComparison()));
    expect(table).toEqual({
      name: "night run",
      step: 7,
      lambda: 0.5,
      numClasses: 3,
      classNames: ["cat", "dog", "été"],
      counts: Int32Array.of(1, 0, 1, 4, 0, 1, 0, 5, 1, 0, 1, 6),
      uncertainClasses: [],
      newClasses: [],
      size: 5,
      ids: Float64Array.of(3, 10, 25, 40, 103),
      target: Uint8Array.of(0, 1, 2, 2, 0),
      h1: Uint8Array.of(0, 2, 0, 2, 1),
      h2: Uint8Array.of(1, 1, 0, 0, 2),
      texts: null,
      sure: null,
      calibration: null,
      thresholds: null,
      slices: [],
      foundSlices: [],
    });
  });

  test("may have no captions, no names and no rows", async () => {
    const empty = { ids: new Uint8Array(), target: new Uint8Array(), h1: new Uint8Array(), h2: new Uint8Array() };
    const header = { name: null, step: null, lambda_c: null, class_names: null };
    const table = await decodeComparison(encode(smallComparison(empty, header)));
    expect([table.name, table.step, table.lambda, table.classNames, table.size]).toEqual([null, null, null, null, 0]);
  });

  test("may carry texts, in any script and with any sign in them", async () => {
    const metadata = ["<b>&amp;", "漢字", "", "\0🦊", "\ufeffx"];
    expect((await decodeComparison(encode(smallComparison({ metadata })))).texts).toEqual(metadata);
  });

  test.each<[string, Values, readonly (number | string)[]]>([
    ["u2", Uint16Array.of(1, 2, 3, 4, 65535), [1, 2, 3, 4, 65535]],
    ["u4", Uint32Array.of(1, 2, 3, 4, 2 ** 32 - 1), [1, 2, 3, 4, 2 ** 32 - 1]],
    ["i4", Int32Array.of(-1, 2, -3, 4, 5), [-1, 2, -3, 4, 5]],
    ["f8", Float64Array.of(2 ** 53, -(2 ** 53), 0, 1, 2), [2 ** 53, -(2 ** 53), 0, 1, 2]],
    ["text", ["a", "b", "0007", "", "é"], ["a", "b", "0007", "", "é"]],
  ])("reads ids of type %s at an address of any kind", async (_, ids, expected) => {
    for (const before of [{}, { padding: Uint8Array.of(1, 2, 3) }]) {
      const { ids: __, ...rest } = { ...smallComparisonColumns(), ids };
      const written = columns(smallHeader(), { ...before, ids, ...rest });
      expect([...(await decodeComparison(encode(written))).ids]).toEqual(expected);
    }
  });

  test("reads ids that are stored as differences", async () => {
    const written = smallComparison({ ids: Int32Array.of(-5, 1, 2, 2 ** 31 - 1, 2 ** 31 - 1) });
    written.header.columns[0]!["delta"] = true;
    const { ids } = await decodeComparison(encode(written));
    expect(ids).toEqual(Float64Array.of(-5, -4, -2, 2 ** 31 - 3, 2 ** 32 - 4));
  });

  test("reads integers beyond 2^53 as digits, and the others of that column as numbers", async () => {
    const written = smallComparison({ ids: ["1", "-2", "9007199254740993", "-9007199254740993", "9007199254740992"] });
    written.header.columns[0]!["integer"] = true;
    const { ids } = await decodeComparison(encode(written));
    expect(ids).toEqual([1, -2, "9007199254740993", "-9007199254740993", 9007199254740992]);
  });

  test("is read wherever it lies in a larger buffer", async () => {
    const bytes = encode(smallComparison());
    const larger = new Uint8Array(bytes.length + 7);
    larger.set(bytes, 3);
    const table = await decodeComparison(larger.subarray(3, 3 + bytes.length));
    expect([...table.ids]).toEqual([3, 10, 25, 40, 103]);
  });
});

function smallHeader(): Record<string, unknown> {
  const { columns: _, ...header } = smallComparison().header;
  return header;
}

function smallComparisonColumns(): Record<string, Values> {
  return {
    target: Uint8Array.of(0, 1, 2, 2, 0),
    h1: Uint8Array.of(0, 2, 0, 2, 1),
    h2: Uint8Array.of(1, 1, 0, 0, 2),
    counts: Uint32Array.of(1, 0, 1, 4, 0, 1, 0, 5, 1, 0, 1, 6),
  };
}

describe("media", () => {
  test("come back as texts and the ids that have an image", async () => {
    const media = await decodeMedia(encode(smallMedia()));
    expect([...media.texts]).toEqual([
      [3, "a cat"],
      [25, "été 🦊"],
    ]);
    expect([...media.images]).toEqual([3, 25]);
    expect([...media.leftOut]).toEqual([]);
  });

  test("tell an image that a limit left out from none", async () => {
    const ids = Uint8Array.of(3, 10, 25);
    const written = columns({ kind: "media" }, { ids, text: ["", "", ""], has_image: Uint8Array.of(2, 0, 1) });
    const media = await decodeMedia(encode(written));
    expect([[...media.images], [...media.leftOut]]).toEqual([[25], [3]]);
  });
});

describe("data that cannot be right are refused with advice", () => {
  async function refusal(bytes: Uint8Array): Promise<DataError> {
    const error: unknown = await decodeComparison(bytes).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(DataError);
    expect((error as DataError).advice).not.toBeNull();
    return error as DataError;
  }
  const changed = (change: (written: Written) => void) => {
    const written = smallComparison();
    change(written);
    return encode(written);
  };

  test("another file, another version, another kind", async () => {
    expect((await refusal(new TextEncoder().encode("<!doctype html>"))).message).toMatch(/BCMP/);
    const newer = await refusal(encode(smallComparison(), "BCMP", 2));
    expect(newer.message).toMatch(/version 2/);
    expect(newer.advice).toMatch(/update backward-compat-ml/);
    expect((await refusal(encode(smallMedia()))).message).toMatch(/"comparison", got "media"/);
  });

  test("cut off at any byte", async () => {
    const bytes = encode(smallComparison());
    for (let length = 0; length < bytes.length; length++) {
      await refusal(bytes.subarray(0, length));
    }
  });

  test("a byte turned over, anywhere behind the header", async () => {
    const bytes = encode(smallComparison());
    const start = 12 + new DataView(bytes.buffer).getUint32(8, true);
    for (let at = start + 2; at < bytes.length; at++) {
      const damaged = bytes.slice();
      damaged[at]! ^= 0x55;
      await refusal(damaged);
    }
  });

  test.each<[string, (written: Written) => void]>([
    ["a column that is missing", ({ header }) => (header.columns[1]!["name"] = "tarjet")],
    ["a column that comes twice", ({ header }) => (header.columns[1]!["name"] = "h1")],
    ["an unknown type", ({ header }) => (header.columns[1]!["type"] = "u3")],
    ["the name of a method as type", ({ header }) => (header.columns[1]!["type"] = "constructor")],
    ["a length that its bytes cannot have", ({ header }) => (header.columns[1]!["length"] = 6)],
    ["a negative length", ({ header }) => (header.columns[1]!["length"] = -1)],
    ["more bytes than there are", ({ header }) => Object.assign(header.columns[4]!, { length: 24, bytes: 96 })],
    ["fewer bytes than there are", ({ header }) => header.columns.pop()],
    [
      "an amount that no memory holds",
      ({ header }) => Object.assign(header.columns[4]!, { length: 2 ** 50, bytes: 2 ** 52 }),
    ],
    ["no list of columns", ({ header }) => Object.assign(header, { columns: null })],
    ["a column that is null", ({ header }) => header.columns.unshift(null as never)],
    ["another number of classes", ({ header }) => (header["num_classes"] = 4)],
    ["a number of classes that is a text", ({ header }) => (header["num_classes"] = "3")],
    ["too few class names", ({ header }) => (header["class_names"] = ["cat"])],
    ["class names that are numbers", ({ header }) => (header["class_names"] = [1, 2, 3])],
    ["an uncertain class that is none", ({ header }) => (header["uncertain_classes"] = [3])],
    ["a new class that is none", ({ header }) => (header["new_classes"] = [-1])],
    ["a step that is a text", ({ header }) => (header["step"] = "seven")],
    ["a name that is a number", ({ header }) => (header["name"] = 7)],
    ["a row of class 3 of three", ({ body }) => void (body[5] = 3)],
    ["a row that neither model gets wrong", ({ body }) => void (body[15] = 0)],
    ["a count beyond 2^31", ({ body }) => void body.writeUInt32LE(2 ** 31, 20)],
  ])("%s", async (_, change) => {
    await refusal(changed(change));
  });

  test("a text that ends outside its column", async () => {
    const written = smallComparison({ metadata: ["a", "b", "c", "d", "e"] });
    written.body.writeUInt32LE(9, 68);
    expect((await refusal(encode(written))).message).toMatch(/ends within text/);
    const shorter = smallComparison({ metadata: ["a", "b", "c", "d", "e"] });
    shorter.body.writeUInt32LE(0, 68);
    expect((await refusal(encode(shorter))).message).toMatch(/after its last text/);
  });

  test("texts that are cut within a character, or no UTF-8", async () => {
    const cut = smallComparison({ metadata: ["é", "b", "c", "d", "e"] });
    cut.body.writeUInt32LE(1, 68);
    cut.body.writeUInt32LE(2, 72);
    expect((await refusal(encode(cut))).message).toMatch(/ends within text 1/);
    const latin = smallComparison({ metadata: ["a", "b", "c", "d", "e"] });
    latin.body[latin.body.length - 1] = 0xe9;
    expect((await refusal(encode(latin))).message).toMatch(/UTF-8/);
  });

  test("ids that are not whole numbers", async () => {
    await refusal(encode(smallComparison({ ids: Float64Array.of(0.5, 1, 2, 3, 4) })));
    await refusal(encode(smallComparison({ ids: Float64Array.of(Number.NaN, 1, 2, 3, 4) })));
  });

  test("columns of unequal length, and class numbers as text or with a sign", async () => {
    await refusal(encode(smallComparison({ target: Uint8Array.of(0, 1) })));
    await refusal(encode(smallComparison({ target: ["0", "1", "2", "2", "0"] })));
    await refusal(encode(smallComparison({ target: Int32Array.of(0, 1, 2, 2, 0) })));
    await refusal(encode(smallComparison({ metadata: ["a"] })));
  });

  test("media that are none", async () => {
    await expect(decodeMedia(encode(smallComparison()))).rejects.toThrow(DataError);
    const cut = encode(smallMedia()).subarray(0, 60);
    await expect(decodeMedia(cut)).rejects.toThrow(DataError);
  });
});

describe("what Python wrote", () => {
  const folder = new URL("./fixtures/", import.meta.url);
  const written = readdirSync(folder)
    .filter((name) => name.endsWith(".bin") && !name.startsWith("insight"))
    .map((name) => name.replace(".bin", ""));
  const read = (name: string) => new Uint8Array(readFileSync(new URL(name, folder)));
  const expected = (name: string) => JSON.parse(readFileSync(new URL(`${name}.json`, folder), "utf8"));

  test("is there", () => {
    expect(written).toContain("media");
    expect(written.length).toBeGreaterThan(3);
  });

  test.each(written.filter((name) => name !== "media"))("is the same here: %s", async (name) => {
    const table = await decodeComparison(read(`${name}.bin`));
    // The size that Python wrote is that of the data set; here it is that of the table of errors.
    const { size, ...rest } = expected(name);
    expect({
      name: table.name,
      step: table.step,
      lambda: table.lambda,
      numClasses: table.numClasses,
      classNames: table.classNames,
      counts: [...table.counts],
      ids: [...table.ids],
      target: [...table.target],
      h1: [...table.h1],
      h2: [...table.h2],
      texts: table.texts,
    }).toEqual(rest);
    expect(table.uncertainClasses).toEqual([1]);
    expect(table.size).toBe(rest.ids.length);
    expect(totals(table).reduce((sum, cell) => sum + cell, 0)).toBe(size);
    const { common, progress, regress } = regionCounts(table);
    expect([common, progress, regress]).toEqual(totals(table).slice(0, 3));
  });

  test("is the same here: media", async () => {
    const { texts, images } = await decodeMedia(read("media.bin"));
    const { ids, texts: words, images: has } = expected("media");
    expect(ids.map((id: number) => texts.get(id) ?? "")).toEqual(words);
    expect(ids.map((id: number) => images.has(id))).toEqual(has);
  });
});
