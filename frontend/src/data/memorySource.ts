import { type DataSource, DataError, type Media, type Table } from "../model";
import { decodeComparison, decodeMedia } from "./format";
import { indexFromJson } from "./indexFromJson";
import { invarianceFromJson } from "./invarianceFromJson";
import { Recent } from "./recent";

/** Base64 in a page; bytes in a message from a notebook's kernel. */
export type Blobs = string | Uint8Array | DataView | ArrayBuffer;

export interface MemoryMedia {
  readonly blob: Blobs;
  /** Data URLs by id as text; `full` are larger ones of some of them. */
  readonly images?: Readonly<Record<string, string>>;
  readonly full?: Readonly<Record<string, string>>;
  /** Whole texts, as media of some at a time, of those that go on after what `blob` holds of them, in its order. */
  readonly texts?: readonly Blobs[];
}

export interface MemoryContent {
  /** As `./index` answers. */
  readonly index: unknown;
  /** By run, data set and step with "\0" between them. */
  readonly tables: Readonly<Record<string, Blobs>>;
  /** By run and data set with "\0" between them: which of `packs`; runs on one data set share it. */
  readonly media?: Readonly<Record<string, number>>;
  readonly packs?: readonly MemoryMedia[];
  /** By run, data set and step, as `./invariance` answers. */
  readonly invariance?: Readonly<Record<string, unknown>>;
}

const TABLES = 6;
/** How many whole texts are packed together; `bc_tensorboard/plugin/_packs.py` writes them so. */
const TEXTS_TOGETHER = 64;

/** Data that the page or the notebook brings along. */
export function memorySource(content: MemoryContent): DataSource {
  const tables = new Recent<Table>(TABLES);
  const media = new Recent<Media>(TABLES);
  const packOf = (run: string, dataset: string) => own(content.media ?? {}, `${run}\0${dataset}`);
  const mediaOf = (run: string, dataset: string) => content.packs?.[packOf(run, dataset) ?? -1];

  const known = async (run: string, dataset: string): Promise<Media | null> => {
    const found = mediaOf(run, dataset);
    return found === undefined
      ? null
      : media.get(String(packOf(run, dataset)), async () => decodeMedia(bytesOf(found.blob)));
  };
  const whole = new Recent<Media>(TABLES);
  const textsAt = (run: string, dataset: string, at: number) =>
    whole.get(`${packOf(run, dataset)} ${at}`, async () =>
      decodeMedia(bytesOf(mediaOf(run, dataset)?.texts?.[at] ?? new Uint8Array())),
    );

  return {
    async index() {
      return indexFromJson(content.index);
    },

    table({ run, dataset, step }) {
      const key = `${run}\0${dataset}\0${step}`;
      return tables.get(key, async () => {
        const blob = own(content.tables, key);
        if (blob === undefined) {
          throw new DataError(
            `The comparison of "${run}" on "${dataset}" at step ${step} is not in this view.`,
            "Write the page, or make the view, again with this comparison in it.",
          );
        }
        return decodeComparison(bytesOf(blob));
      });
    },

    media: known,

    async text(run, dataset, id) {
      const found = await known(run, dataset);
      if (!found?.longer.has(id)) {
        return found?.texts.get(id) ?? null;
      }
      const at = Math.floor([...found.longer].indexOf(id) / TEXTS_TOGETHER);
      return (await textsAt(run, dataset, at)).texts.get(id) ?? null;
    },

    async search(run, dataset, text) {
      const wanted = text.toLowerCase();
      const ids = new Set<string>();
      for (let at = 0; at < (mediaOf(run, dataset)?.texts?.length ?? 0); at++) {
        for (const [id, written] of (await textsAt(run, dataset, at)).texts) {
          if (written.toLowerCase().includes(wanted)) {
            ids.add(String(id));
          }
        }
      }
      return ids;
    },

    async invariance({ run, dataset, step }) {
      const found = own(content.invariance ?? {}, `${run}\0${dataset}\0${step}`);
      if (found === undefined) {
        throw new DataError(
          `The invariance of "${run}" on "${dataset}" at step ${step} is not in this view.`,
          "Write the page again with this update in it.",
        );
      }
      return invarianceFromJson(found);
    },

    async image(run, dataset, id, full = false) {
      const pack = mediaOf(run, dataset);
      const url = (full ? own(pack?.full ?? {}, String(id)) : undefined) ?? own(pack?.images ?? {}, String(id));
      return url?.startsWith("data:image/") ? url : null;
    },
  };
}

/** Keys are names that users chose; "constructor" is one as good as any. */
function own<T>(record: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(record, key) ? record[key] : undefined;
}

function bytesOf(blob: Blobs): Uint8Array {
  if (typeof blob !== "string") {
    return ArrayBuffer.isView(blob)
      ? new Uint8Array(blob.buffer, blob.byteOffset, blob.byteLength)
      : new Uint8Array(blob);
  }
  let binary: string;
  try {
    binary = atob(blob);
  } catch {
    throw new DataError("The data in this page cannot be read: it is not base64.", "Write the page again.");
  }
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) {
    bytes[i] = binary.charCodeAt(i);
  }
  return bytes;
}
