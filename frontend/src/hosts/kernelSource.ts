import { decodeComparison, decodeMedia } from "../data/format";
import { indexFromJson } from "../data/indexFromJson";
import { invarianceFromJson } from "../data/invarianceFromJson";
import { Recent } from "../data/recent";
import { DataError, type DataSource, type Index, type InstanceId, type Invariance, type Table } from "../model";

/** The part of anywidget's model that this view uses. */
export interface WidgetModel {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  send(content: unknown): void;
  on(event: string, callback: (...values: never[]) => void): void;
  off(event: string, callback: (...values: never[]) => void): void;
}

interface Reply {
  readonly type: "reply";
  readonly id: number;
  readonly ok: boolean;
  readonly error?: { readonly error: string; readonly advice: string | null };
}

interface Waiting {
  resolve(bytes: Uint8Array<ArrayBuffer> | null): void;
  reject(error: Error): void;
  /** Undefined where the answer may take as long as it likes. */
  readonly timer: ReturnType<typeof setTimeout> | undefined;
}

/** A kernel answers between two cells, so this is longer than any server would need. */
const PATIENCE_MS = 120_000;
const TABLES_KEPT = 6;
const IMAGES_KEPT = 500;

function bytesOf(buffer: DataView | ArrayBuffer): Uint8Array<ArrayBuffer> {
  const view =
    buffer instanceof ArrayBuffer
      ? new Uint8Array(buffer)
      : new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  return Uint8Array.from(view);
}

/** Type of an image from its first bytes; a browser refuses to guess for data URLs in some places. */
function imageType(bytes: Uint8Array): string {
  if (bytes[0] === 0x89) return "image/png";
  if (bytes[0] === 0xff) return "image/jpeg";
  return "image/webp";
}

function dataUrl(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return `data:${imageType(bytes)};base64,${btoa(text)}`;
}

export interface KernelSource extends DataSource {
  dispose(): void;
}

/** Asks the kernel for tables, texts and images by messages; the index comes as a trait. */
export function kernelSource(model: WidgetModel): KernelSource {
  const waiting = new Map<number, Waiting>();
  const tables = new Recent<Table>(TABLES_KEPT);
  const updates = new Recent<Invariance>(TABLES_KEPT);
  const images = new Recent<string | null>(IMAGES_KEPT);
  // Messages of the kernel reach every view of a model, so two outputs of one widget must not share numbers.
  let request = (crypto.getRandomValues(new Uint32Array(1))[0] ?? 0) * 2 ** 20;

  let index: Index | null = null;

  function onMessage(message: Reply, buffers: readonly (DataView | ArrayBuffer)[] = []): void {
    if (message?.type !== "reply") return;
    const asked = waiting.get(message.id);
    if (asked === undefined) return;
    waiting.delete(message.id);
    clearTimeout(asked.timer);
    if (message.ok) asked.resolve(buffers[0] === undefined ? null : bytesOf(buffers[0]));
    else {
      const { error, advice } = message.error ?? { error: "The kernel could not answer", advice: null };
      asked.reject(new DataError(error, advice));
    }
  }
  model.on("msg:custom", onMessage);

  function ask(content: Record<string, unknown>, isPatient = false): Promise<Uint8Array<ArrayBuffer> | null> {
    request += 1;
    const id = request;
    return new Promise((resolve, reject) => {
      const giveUp = () => {
        waiting.delete(id);
        reject(
          new DataError(
            "The kernel did not answer",
            "It may be busy with another cell: wait for that, then retry. After a restart, run the cell of this view again.",
          ),
        );
      };
      waiting.set(id, { resolve, reject, timer: isPatient ? undefined : setTimeout(giveUp, PATIENCE_MS) });
      model.send({ ...content, id });
    });
  }

  return {
    async index() {
      index = indexFromJson(model.get("index"));
      return index;
    },
    table({ run, dataset, step }) {
      const series = index?.series.find((candidate) => candidate.run === run && candidate.dataset === dataset);
      // A step that was logged again has another time, and is asked for anew.
      const time = series?.steps.find((candidate) => candidate.step === step)?.wallTime ?? null;
      return tables.get(JSON.stringify([run, dataset, step, time]), async () => {
        const bytes = await ask({ type: "table", run, dataset, step });
        if (bytes === null)
          throw new DataError(`No table of ${run} on ${dataset} at step ${step}.`, "Choose another step.");
        return decodeComparison(bytes);
      });
    },
    async media(run, dataset) {
      const bytes = await ask({ type: "media", run, dataset });
      return bytes === null ? null : decodeMedia(bytes);
    },
    invariance({ run, dataset, step }) {
      const series = index?.invariance.find((each) => each.run === run && each.dataset === dataset);
      const time = series?.steps.find((each) => each.step === step)?.wallTime ?? null;
      return updates.get(JSON.stringify([run, dataset, step, time]), async () => {
        const bytes = await ask({ type: "invariance", run, dataset, step });
        return invarianceFromJson(JSON.parse(new TextDecoder().decode(bytes ?? new Uint8Array())));
      });
    },
    async act(label) {
      // A press that was sent is carried out, however long the kernel is busy: nobody should be told to press again.
      await ask({ type: "action", label }, true);
    },
    image(run: string, dataset: string, id: InstanceId, full = false) {
      return images.get(JSON.stringify([run, dataset, id, full]), async () => {
        const bytes = await ask({ type: "image", run, dataset, instance: id, full });
        return bytes && dataUrl(bytes);
      });
    },
    async text(run, dataset, id) {
      const bytes = await ask({ type: "text", run, dataset, instance: id });
      return bytes && new TextDecoder().decode(bytes);
    },
    async search(run, dataset, text) {
      const bytes = await ask({ type: "search", run, dataset, text });
      return new Set<string>(bytes === null ? [] : JSON.parse(new TextDecoder().decode(bytes)));
    },
    dispose() {
      model.off("msg:custom", onMessage);
      for (const { timer } of waiting.values()) clearTimeout(timer);
      waiting.clear();
    },
  };
}
