import { type DataSource, DataError, type Media, type Table } from "../model";
import { decodeComparison, decodeMedia } from "./format";
import { indexFromJson } from "./indexFromJson";
import { invarianceFromJson } from "./invarianceFromJson";
import { Recent } from "./recent";

/** Base64 in a page; bytes in a message from a notebook's kernel. */
export type Blobs = string | Uint8Array | DataView | ArrayBuffer;

export interface MemoryMedia {
  readonly blob: Blobs;
  /** Data URLs by id as text. */
  readonly images?: Readonly<Record<string, string>>;
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

/** Data that the page or the notebook brings along. */
export function memorySource(content: MemoryContent): DataSource {
  const tables = new Recent<Table>(TABLES);
  const media = new Recent<Media>(TABLES);
  const packOf = (run: string, dataset: string) => own(content.media ?? {}, `${run}\0${dataset}`);
  const mediaOf = (run: string, dataset: string) => content.packs?.[packOf(run, dataset) ?? -1];

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

    async media(run, dataset) {
      const found = mediaOf(run, dataset);
      return found === undefined
        ? null
        : media.get(String(packOf(run, dataset)), async () => decodeMedia(bytesOf(found.blob)));
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

    async image(run, dataset, id) {
      const url = own(mediaOf(run, dataset)?.images ?? {}, String(id));
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
