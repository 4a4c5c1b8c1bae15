import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { httpSource } from "../src/data/httpSource";
import { memorySource } from "../src/data/memorySource";
import { Recent } from "../src/data/recent";
import { DataError, type DataSource } from "../src/model";
import { columns, encode, smallComparison, smallMedia } from "./columns";

const COMPARISON = encode(smallComparison());
const MEDIA = encode(smallMedia());
const index = (time = 1700000000, steps = [1, 2]) => ({
  series: [
    {
      run: "a/b & c",
      dataset: "tést?",
      dissonance: null,
      num_classes: 3,
      has_media: true,
      steps: steps.map((step) => [step, time, 0.5, 2, 1, 2, 15]),
    },
  ],
  warnings: [],
  progress: null,
});
const REF = { run: "a/b & c", dataset: "tést?", step: 2 };

async function failure(promise: Promise<unknown>): Promise<DataError> {
  const error: unknown = await promise.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(DataError);
  return error as DataError;
}

describe("data from a server", () => {
  let server: Server;
  let base: string;
  let asked: string[];
  let answer: (request: IncomingMessage, response: ServerResponse) => void;

  const send = (response: ServerResponse, body: string | Uint8Array, status = 200) => {
    response.writeHead(status);
    response.end(body);
  };

  beforeEach(async () => {
    asked = [];
    answer = (request, response) => {
      const { pathname } = new URL(request.url!, base);
      const route = pathname.split("/").at(-1)!;
      const bodies: Record<string, string | Uint8Array> = {
        index: JSON.stringify(index()),
        table: COMPARISON,
        media: MEDIA,
      };
      send(response, bodies[route] ?? "?", route in bodies ? 200 : 404);
    };
    server = createServer((request, response) => {
      asked.push(request.url!);
      answer(request, response);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}/prefix/data/plugin/backward_compatibility/`;
  });
  afterEach(() => new Promise((resolve) => server.close(resolve)));

  const source = (): DataSource => httpSource({ base });

  test("an invariance update is asked for once for each time it was written", async () => {
    const overall = { consistency_h1: [1, 1, 1], consistency_h2: [1, 1, 1], negative_flip_rate: [0, 0, 0] };
    const update = { version: 1, samples: 7, transforms: [], identity: 0, groups: [], consistency: [], overall };
    let time = 1;
    answer = (request, response) => {
      const listed = { ...index(), invariance: [{ run: REF.run, dataset: REF.dataset, steps: [[2, time]] }] };
      send(response, JSON.stringify(request.url!.includes("/index") ? listed : update));
    };
    const from = source();
    for (time of [1, 1, 2]) {
      await from.index();
      expect((await from.invariance(REF)).samples).toBe(7);
    }
    const urls = asked.map((path) => new URL(path, base)).filter(({ pathname }) => pathname.endsWith("/invariance"));
    expect(urls.length).toBe(2);
    expect(Object.fromEntries(urls[0]!.searchParams)).toEqual({ ...REF, step: "2" });
    answer = (_, response) => send(response, "<html>", 200);
    expect((await failure(from.invariance({ ...REF, step: 3 }))).message).toContain("an invariance update");
  });

  test("index, table and media come from routes beside the page", async () => {
    const from = source();
    expect((await from.index()).series[0]!.run).toBe(REF.run);
    expect((await from.table(REF)).size).toBe(5);
    expect((await from.media(REF.run, REF.dataset))!.texts.get(3)).toBe("a cat");
    const urls = asked.map((path) => new URL(path, base));
    expect(urls.map(({ pathname }) => pathname)).toEqual(
      ["index", "table", "media"].map((route) => `/prefix/data/plugin/backward_compatibility/${route}`),
    );
    expect(Object.fromEntries(urls[1]!.searchParams)).toEqual({ ...REF, step: "2" });
    expect(Object.fromEntries(urls[2]!.searchParams)).toEqual({ run: REF.run, dataset: REF.dataset });
  });

  test("the address of an image names the id, whatever it holds", async () => {
    const url = new URL((await source().image(REF.run, REF.dataset, "a b&c#d"))!);
    expect(url.pathname).toMatch(/backward_compatibility\/image$/);
    expect(Object.fromEntries(url.searchParams)).toEqual({ run: REF.run, dataset: REF.dataset, id: "a b&c#d" });
  });

  test("a larger image, a whole text and a search in texts have routes of their own", async () => {
    const full = new URL((await source().image(REF.run, REF.dataset, 7, true))!);
    expect(full.searchParams.get("full")).toBe("1");
    answer = (request, response) =>
      request.url!.includes("/text") && request.url!.includes("id=8")
        ? send(response, "{}", 404)
        : send(response, JSON.stringify({ text: "</b> & ä", ids: [7, "x"] }));
    expect(await source().text(REF.run, REF.dataset, 7)).toBe("</b> & ä");
    expect(await source().text(REF.run, REF.dataset, 8)).toBeNull();
    expect([...(await source().search(REF.run, REF.dataset, "a&b"))]).toEqual(["7", "x"]);
    const { pathname, searchParams } = new URL(asked.at(-1)!, base);
    expect([pathname.endsWith("/search"), searchParams.get("text")]).toEqual([true, "a&b"]);
    answer = (_, response) => send(response, '{"error": "gone", "advice": "reload"}', 404);
    expect((await failure(source().search(REF.run, REF.dataset, "a"))).message).toBe("gone");
  });

  test("a table that is asked for twice is loaded once, also while it is on its way", async () => {
    const from = source();
    const [first, second] = await Promise.all([from.table(REF), from.table(REF)]);
    expect(first).toBe(second);
    expect(await from.table(REF)).toBe(first);
    expect(asked.length).toBe(1);
  });

  test("a step that was logged again is loaded again", async () => {
    const from = source();
    await from.index();
    const first = await from.table(REF);
    await from.index();
    expect(await from.table(REF)).toBe(first);
    answer = (_, response) => send(response, JSON.stringify(index(1800000000)));
    await from.index();
    answer = (_, response) => send(response, COMPARISON);
    expect(await from.table(REF)).not.toBe(first);
  });

  test("texts and images are loaded again when the run went on", async () => {
    const from = source();
    await from.index();
    const first = await from.media(REF.run, REF.dataset);
    expect(await from.media(REF.run, REF.dataset)).toBe(first);
    answer = (_, response) => send(response, JSON.stringify(index(1700000000, [1, 2, 3])));
    await from.index();
    answer = (_, response) => send(response, MEDIA);
    expect(await from.media(REF.run, REF.dataset)).not.toBe(first);
  });

  test("a series without media has none", async () => {
    answer = (_, response) => send(response, "{}", 404);
    expect(await source().media(REF.run, REF.dataset)).toBeNull();
  });

  test("an error is told in the words of the server", async () => {
    answer = (_, response) => send(response, JSON.stringify({ error: "No step 2.", advice: "Reload." }), 404);
    const error = await failure(source().table(REF));
    expect([error.message, error.advice]).toEqual(["No step 2.", "Reload."]);
    answer = (_, response) => send(response, JSON.stringify({ error: "Broken." }), 500);
    expect(await failure(source().media(REF.run, REF.dataset))).toMatchObject({ message: "Broken.", advice: null });
  });

  test("an error of something between is told by its status", async () => {
    answer = (_, response) => send(response, "<html>Bad gateway</html>", 502);
    const error = await failure(source().index());
    expect(error.message).toMatch(/502 Bad Gateway/);
    expect(error.advice).not.toBeNull();
  });

  test("a page in place of the index, or of a table, is an error with advice", async () => {
    answer = (_, response) => send(response, "<html>Please log in</html>");
    expect((await failure(source().index())).advice).toMatch(/login/);
    expect((await failure(source().table(REF))).advice).toMatch(/login/);
  });

  test("what failed is asked for again", async () => {
    const from = source();
    const works = answer;
    answer = (_, response) => send(response, "", 500);
    await failure(from.table(REF));
    answer = works;
    expect((await from.table(REF)).size).toBe(5);
  });

  test("an answer that breaks off is an error with advice", async () => {
    answer = (_, response) => {
      response.writeHead(200, { "Content-Length": 1000 });
      response.write("BCMP");
      setTimeout(() => response.destroy(), 20);
    };
    expect((await failure(source().table(REF))).message).toMatch(/broke off/);
  });

  test("a server that is gone is an error with advice", async () => {
    const from = httpSource({ base: "http://127.0.0.1:1/" });
    expect((await failure(from.index())).advice).toMatch(/TensorBoard/);
  });
});

describe("data that the page brings along", () => {
  const key = `${REF.run}\0${REF.dataset}`;
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
  const content = {
    index: index(),
    tables: { [`${key}\0${REF.step}`]: base64(COMPARISON) },
    media: { [key]: 0, [`other\0${REF.dataset}`]: 0 },
    packs: [{ blob: base64(MEDIA), images: { 3: "data:image/png;base64,AAAA", 25: "https://example.org/x" } }],
  };

  test("comes back from its JSON", async () => {
    const from = memorySource(JSON.parse(JSON.stringify(content)));
    expect((await from.index()).series.length).toBe(1);
    const table = await from.table(REF);
    expect(table.size).toBe(5);
    expect(await from.table(REF)).toBe(table);
    const media = await from.media(REF.run, REF.dataset);
    expect([...media!.images]).toEqual([3, 25]);
    expect(await from.media(REF.run, REF.dataset)).toBe(media);
    expect(await from.image(REF.run, REF.dataset, 3)).toBe("data:image/png;base64,AAAA");
    expect(await from.media("other", REF.dataset)).toBe(media);
    expect(await from.image("other", REF.dataset, 3)).toBe("data:image/png;base64,AAAA");
  });

  test("may be bytes, as a message from a notebook's kernel holds them", async () => {
    const larger = new Uint8Array(COMPARISON.length + 9);
    larger.set(COMPARISON, 5);
    for (const blob of [
      COMPARISON,
      new DataView(larger.buffer, 5, COMPARISON.length),
      larger.buffer.slice(5, 5 + COMPARISON.length),
    ]) {
      const from = memorySource({ ...content, tables: { [`${key}\0${REF.step}`]: blob } });
      expect([...(await from.table(REF)).ids]).toEqual([3, 10, 25, 40, 103]);
    }
  });

  test("shows only images that are in the page", async () => {
    const from = memorySource(content);
    expect(await from.image(REF.run, REF.dataset, 25)).toBeNull();
    expect(await from.image(REF.run, REF.dataset, "constructor")).toBeNull();
    expect(await from.image("a third", REF.dataset, 3)).toBeNull();
  });

  test("says what is not there", async () => {
    const from = memorySource({ index: index(), tables: {} });
    const error = await failure(from.table(REF));
    expect(error.message).toContain("step 2");
    expect(error.advice).not.toBeNull();
    expect(await from.media(REF.run, REF.dataset)).toBeNull();
    expect(await from.image(REF.run, REF.dataset, 3)).toBeNull();
  });

  test("that is damaged is an error with advice", async () => {
    const from = memorySource({ ...content, tables: { [`${key}\0${REF.step}`]: "§§§" } });
    expect((await failure(from.table(REF))).advice).not.toBeNull();
  });

  test("whole texts and larger images are found where the page keeps them apart", async () => {
    const ids = Array.from({ length: 200 }, (_, i) => 10 * i);
    const media = (known: readonly number[], text: (id: number) => string, longer: (id: number) => boolean) =>
      Buffer.from(
        encode(
          columns(
            { kind: "media" },
            {
              ids: Float64Array.from(known),
              text: known.map(text),
              has_image: Uint8Array.from(known, () => 1),
              is_longer: Uint8Array.from(known, (id) => Number(longer(id))),
            },
          ),
        ),
      ).toString("base64");
    // Every second one goes on, in parts of 64.
    const longer = ids.filter((id) => id % 20 === 0);
    const parts = [0, 64].map((at) => longer.slice(at, at + 64));
    const from = memorySource({
      index: index(),
      tables: {},
      media: { [`${REF.run}\0${REF.dataset}`]: 0 },
      packs: [
        {
          blob: media(ids, (id) => `beginning ${id}`, (id) => id % 20 === 0),
          images: { 20: "data:image/png;base64,small", 40: "data:image/png;base64,only" },
          full: { 20: "data:image/png;base64,large" },
          texts: parts.map((part) => media(part, (id) => `beginning ${id} and the END of ${id}.`, () => false)),
        },
      ],
    });
    const known = (await from.media(REF.run, REF.dataset))!;
    expect([...known.longer]).toEqual(longer);
    for (const id of [0, 20, 1260, 1280, 1980]) {
      expect(await from.text(REF.run, REF.dataset, id)).toBe(`beginning ${id} and the END of ${id}.`);
    }
    expect(await from.text(REF.run, REF.dataset, 10)).toBe("beginning 10");
    expect(await from.text(REF.run, REF.dataset, 5)).toBeNull();
    expect([...(await from.search(REF.run, REF.dataset, "the end of 128"))]).toEqual(["1280"]);
    const image = (id: number, full: boolean) => from.image(REF.run, REF.dataset, id, full);
    expect(await Promise.all([image(20, false), image(20, true), image(40, true), image(60, true)])).toEqual([
      "data:image/png;base64,small",
      "data:image/png;base64,large",
      "data:image/png;base64,only",
      null,
    ]);
  });
});

describe("what was loaded last", () => {
  test("stays up to the limit, and what was asked for longest ago goes first", async () => {
    const recent = new Recent<string>(2);
    const loaded: string[] = [];
    const get = (key: string) =>
      recent.get(key, async () => {
        loaded.push(key);
        return key;
      });
    for (const key of ["a", "b", "a", "c", "a", "b"]) {
      expect(await get(key)).toBe(key);
    }
    expect(loaded).toEqual(["a", "b", "c", "b"]);
  });
});
