/** Writer of the binary format for tests, so that they can also write what no encoder would. */

import { deflateSync } from "node:zlib";

export type Values =
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | Int32Array
  | Float64Array
  | readonly string[];

const TYPES = new Map<unknown, string>([
  [Uint8Array, "u1"],
  [Uint16Array, "u2"],
  [Uint32Array, "u4"],
  [Int32Array, "i4"],
  [Float64Array, "f8"],
]);

export interface Written {
  readonly header: Record<string, unknown> & { columns: Record<string, unknown>[] };
  readonly body: Buffer;
}

export function columns(header: Record<string, unknown>, values: Record<string, Values>): Written {
  const parts: Buffer[] = [];
  const entries = Object.entries(values).map(([name, column]) => {
    const bytes = ArrayBuffer.isView(column) ? Buffer.from(column.buffer) : textBytes(column as readonly string[]);
    parts.push(bytes);
    const type = ArrayBuffer.isView(column) ? TYPES.get(column.constructor)! : "text";
    return { name, type, length: column.length, bytes: bytes.length };
  });
  return { header: { ...header, columns: entries }, body: Buffer.concat(parts) };
}

export function encode({ header, body }: Written, magic = "BCMP", version = 1): Uint8Array {
  const json = Buffer.from(JSON.stringify(header));
  const prefix = Buffer.alloc(12);
  prefix.write(magic, "latin1");
  prefix.writeUInt32LE(version, 4);
  prefix.writeUInt32LE(json.length, 8);
  return Uint8Array.from(Buffer.concat([prefix, json, deflateSync(body)]));
}

function textBytes(texts: readonly string[]): Buffer {
  const encoded = texts.map((text) => Buffer.from(text));
  const lengths = Buffer.alloc(4 * texts.length);
  encoded.forEach((bytes, i) => lengths.writeUInt32LE(bytes.length, 4 * i));
  return Buffer.concat([lengths, ...encoded]);
}

export const COMPARISON = {
  kind: "comparison",
  name: "night run",
  step: 7,
  lambda_c: 0.5,
  dataset: "test",
  dissonance: null,
  num_classes: 3,
  class_names: ["cat", "dog", "été"],
  uncertain_classes: [],
};

/** Five error rows of three classes. The odd length moves every column behind it to an odd address. */
export function smallComparison(values: Record<string, Values> = {}, header: Record<string, unknown> = {}): Written {
  return columns(
    { ...COMPARISON, ...header },
    {
      ids: Uint8Array.of(3, 10, 25, 40, 103),
      target: Uint8Array.of(0, 1, 2, 2, 0),
      h1: Uint8Array.of(0, 2, 0, 2, 1),
      h2: Uint8Array.of(1, 1, 0, 0, 2),
      counts: Uint32Array.of(1, 0, 1, 4, 0, 1, 0, 5, 1, 0, 1, 6),
      ...values,
    },
  );
}

export function smallMedia(): Written {
  return columns(
    { kind: "media" },
    { ids: Uint8Array.of(3, 10, 25), text: ["a cat", "", "été 🦊"], has_image: Uint8Array.of(1, 0, 1) },
  );
}
