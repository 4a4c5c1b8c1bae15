import { afterEach, describe, expect, it, vi } from "vitest";
import { NO_ACTIONS } from "../src/data/indexFromJson";
import { kernelSource, type WidgetModel } from "../src/hosts/kernelSource";

type Message = { id: number; type: string; [name: string]: unknown };

/** A model whose kernel is the test itself. */
function fakeModel(index: object = { series: [], warnings: [], progress: null }) {
  const listeners = new Set<(message: unknown, buffers: DataView[]) => void>();
  const sent: Message[] = [];
  const model: WidgetModel = {
    get: (name) => (name === "index" ? index : ""),
    set: () => undefined,
    save_changes: () => undefined,
    send: (content) => sent.push(content as Message),
    on: (_, callback) => listeners.add(callback as never),
    off: (_, callback) => listeners.delete(callback as never),
  };
  const reply = (message: unknown, buffers: DataView[] = []) =>
    listeners.forEach((listener) => listener(message, buffers));
  return { model, sent, reply, listeners };
}

const PNG = new DataView(Uint8Array.from([0, 0, 0x89, 0x50, 0x4e, 0x47]).buffer, 2);

describe("data from a kernel", () => {
  afterEach(() => vi.useRealTimers());

  it("takes the index from the trait", async () => {
    expect(await kernelSource(fakeModel().model).index()).toEqual({
      series: [],
      invariance: [],
      actions: NO_ACTIONS,
      warnings: [],
      progress: null,
    });
  });

  it("makes a data URL of the bytes that answer its own request", async () => {
    const { model, sent, reply } = fakeModel();
    const image = kernelSource(model).image("run", "test", 7);
    const { id } = sent[0]!;
    reply({ type: "reply", id: id + 1, ok: true }, [new DataView(new ArrayBuffer(4))]);
    reply({ type: "reply", id, ok: true }, [PNG]);
    expect(sent[0]).toEqual({ type: "image", run: "run", dataset: "test", instance: 7, full: false, id });
    expect(await image).toBe(`data:image/png;base64,${btoa("\x89PNG")}`);
  });

  it("asks for a larger image, a whole text and a search by messages of their own", async () => {
    const { model, sent, reply } = fakeModel();
    const source = kernelSource(model);
    const answers = [source.image("run", "test", 7, true), source.text("run", "test", 7), source.search("run", "test", "ä")];
    const ids = sent.map(({ id }) => id);
    expect(sent.map(({ id, ...content }) => content)).toEqual([
      { type: "image", run: "run", dataset: "test", instance: 7, full: true },
      { type: "text", run: "run", dataset: "test", instance: 7 },
      { type: "search", run: "run", dataset: "test", text: "ä" },
    ]);
    const bytes = (text: string) => new DataView(new TextEncoder().encode(text).buffer);
    reply({ type: "reply", id: ids[1]!, ok: true }, [bytes("whole ä")]);
    reply({ type: "reply", id: ids[2]!, ok: true }, [bytes('["1","x"]')]);
    expect(await answers[1]).toBe("whole ä");
    expect([...((await answers[2]) as ReadonlySet<string>)]).toEqual(["1", "x"]);
  });

  it("asks for an image once, and again after a refusal", async () => {
    const { model, sent, reply } = fakeModel();
    const source = kernelSource(model);
    const refused = source.image("run", "test", "x");
    void source.image("run", "test", "x").catch(() => undefined);
    expect(sent).toHaveLength(1);
    reply({ type: "reply", id: sent[0]!.id, ok: false, error: { error: "no such image", advice: "log it" } });
    await expect(refused).rejects.toMatchObject({ message: "no such image", advice: "log it" });
    void source.image("run", "test", "x");
    expect(sent).toHaveLength(2);
  });

  it("has no image and no texts where the reply has no bytes", async () => {
    const { model, sent, reply } = fakeModel();
    const source = kernelSource(model);
    const [image, media] = [source.image("run", "test", 1), source.media("run", "test")];
    for (const { id } of sent) reply({ type: "reply", id, ok: true });
    expect(await image).toBeNull();
    expect(await media).toBeNull();
  });

  it("uses other numbers than a second view of the same model", () => {
    const { model, sent } = fakeModel();
    void kernelSource(model).media("run", "test");
    void kernelSource(model).media("run", "test");
    expect(sent[0]!.id).not.toBe(sent[1]!.id);
    expect(sent.every(({ id }) => Number.isSafeInteger(id))).toBe(true);
  });

  it("gives up on a kernel that is gone, and says what to do", async () => {
    vi.useFakeTimers();
    const media = kernelSource(fakeModel().model).media("run", "test");
    const refusal = expect(media).rejects.toMatchObject({
      message: "The kernel did not answer",
      advice: expect.stringMatching(/retry/),
    });
    await vi.runAllTimersAsync();
    await refusal;
  });

  it("waits for a button that was pressed as long as the kernel is busy", async () => {
    vi.useFakeTimers();
    const { model, sent, reply } = fakeModel();
    let settled = false;
    const acted = kernelSource(model).act!("Start the sweep").finally(() => (settled = true));
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(settled).toBe(false);
    expect(sent).toEqual([{ type: "action", label: "Start the sweep", id: sent[0]!.id }]);
    reply({ type: "reply", id: sent[0]!.id, ok: true });
    await expect(acted).resolves.toBeUndefined();
  });

  it("reads invariance from the bytes that answer, and asks again once it was measured anew", async () => {
    const steps = [[3, 10]];
    const { model, sent, reply } = fakeModel({ series: [], invariance: [{ run: "a", dataset: "test", steps }] });
    const source = kernelSource(model);
    const ask = () => source.invariance({ run: "a", dataset: "test", step: 3 });
    await source.index();
    const first = ask();
    expect(sent).toEqual([{ type: "invariance", run: "a", dataset: "test", step: 3, id: sent[0]!.id }]);
    const json = {
      version: 1, samples: 7, transforms: ["identity"], identity: 0, groups: [], consistency: [[0, 0, 0, 7]],
      overlaps: null, depth: null,
      overall: { consistency_h1: [1, 0.9, 1], consistency_h2: [1, 0.9, 1], negative_flip_rate: [0, 0, 0.1] },
    }; // prettier-ignore
    reply({ type: "reply", id: sent[0]!.id, ok: true }, [new DataView(new TextEncoder().encode(JSON.stringify(json)).buffer)]);
    expect((await first).samples).toBe(7);
    await ask();
    expect(sent).toHaveLength(1);
    steps[0] = [3, 11];
    await source.index();
    const refused = expect(ask()).rejects.toThrow("cannot be read");
    expect(sent).toHaveLength(2);
    reply({ type: "reply", id: sent[1]!.id, ok: true }, [new DataView(new TextEncoder().encode("{}").buffer)]);
    await refused;
  });

  it("leaves no listener behind", () => {
    const { model, listeners } = fakeModel();
    kernelSource(model).dispose();
    expect(listeners.size).toBe(0);
  });
});
