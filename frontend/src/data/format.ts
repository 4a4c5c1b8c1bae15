/** Reader of the binary "columns" format: one header in JSON, one compressed body with all columns in it. */

import { DataError, type InstanceId, type Media, type Table } from "../model";
import { extrasOf } from "./extras";

const MAGIC = 0x504d4342; // "BCMP", read as a little-endian number
const VERSION = 1;
const PREFIX = 12;
/** Deflate never packs better than this, so a header cannot make us reserve more memory than the data may fill. */
const MAX_RATIO = 1032;
/** The writer puts integers beyond into texts, as numbers here would round them. */
const EXACT = 2 ** 53;
/** Of an instance whose image, or whose larger image, is left out by a limit; others have one that can be asked for. */
const LEFT_OUT = 2;
const REDUCED = 4;
const NEWER = "It may have been written by a newer release; update backward-compat-ml.";
const DAMAGED = "The data is damaged or cut off; write or load it again.";

type Classes = Uint8Array | Uint16Array | Uint32Array;
type Numbers = Classes | Int32Array | Float64Array;
type Column = Numbers | readonly string[];

interface Entry {
  readonly name: string;
  readonly type: keyof typeof WIDTHS | "text";
  readonly length: number;
  readonly delta: boolean;
  readonly integer: boolean;
  readonly bytes: number;
}

interface Content {
  readonly header: Readonly<Record<string, unknown>>;
  readonly entries: ReadonlyMap<string, Entry>;
  readonly columns: ReadonlyMap<string, Column>;
}

const WIDTHS = { u1: 1, u2: 2, u4: 4, i4: 4, f8: 8 } as const;

export async function decodeComparison(bytes: Uint8Array): Promise<Table> {
  const content = await decode(bytes, "comparison");
  const { header } = content;
  const numClasses = count(header["num_classes"], "num_classes");
  const counts = countsOf(content, numClasses);
  const ids = idsOf(content);
  const size = ids.length;
  const classes = (name: string): Classes => {
    const column = numbers(content, name, size);
    if (!(column instanceof Uint8Array || column instanceof Uint16Array || column instanceof Uint32Array)) {
      throw damaged(`the column "${name}" holds no class numbers`);
    }
    for (let row = 0; row < size; row++) {
      if (column[row]! >= numClasses) {
        throw damaged(`"${name}" has class ${column[row]} in row ${row}, and there are ${numClasses} classes`);
      }
    }
    return column;
  };
  const [target, h1, h2] = [classes("target"), classes("h1"), classes("h2")];
  for (let row = 0; row < size; row++) {
    if (h1[row] === target[row] && h2[row] === target[row]) {
      throw damaged(`row ${row} of the error instances is an error of neither model`);
    }
  }
  return {
    name: textOrNull(header["name"], "name"),
    step: numberOrNull(header["step"], "step"),
    lambda: numberOrNull(header["lambda_c"], "lambda_c"),
    numClasses,
    classNames: namesOf(header["class_names"], numClasses),
    counts,
    uncertainClasses: classNumbers(header["uncertain_classes"], numClasses, "uncertain"),
    newClasses: classNumbers(header["new_classes"], numClasses, "new"),
    size,
    ids,
    target,
    h1,
    h2,
    texts: content.columns.has("metadata") ? texts(content, "metadata", size) : null,
    ...extrasOf(header, {
      size,
      target,
      h1,
      h2,
      total: counts.reduce((sum, cell) => sum + cell, 0),
      column: (name, length) => (content.columns.has(name) ? numbers(content, name, length) : null),
      damaged,
    }),
  };
}

export async function decodeMedia(bytes: Uint8Array): Promise<Media> {
  const content = await decode(bytes, "media");
  const ids = idsOf(content);
  const words = texts(content, "text", ids.length);
  const hasImage = numbers(content, "has_image", ids.length);
  // Of texts that are all there, nothing is said.
  const isLonger = content.columns.has("is_longer") ? numbers(content, "is_longer", ids.length) : null;
  const found = new Map<InstanceId, string>();
  const [longer, images, reduced, leftOut] = Array.from({ length: 4 }, () => new Set<InstanceId>()) as Sets;
  ids.forEach((id: InstanceId, row: number) => {
    if (words[row] !== "") {
      found.set(id, words[row]!);
    }
    if (isLonger !== null && isLonger[row] !== 0) {
      longer.add(id);
    }
    if (hasImage[row] === REDUCED) {
      reduced.add(id);
    }
    if (hasImage[row] === LEFT_OUT) {
      leftOut.add(id);
    } else if (hasImage[row] !== 0) {
      images.add(id);
    }
  });
  return { texts: found, longer, images, reduced, leftOut };
}

type Sets = [Set<InstanceId>, Set<InstanceId>, Set<InstanceId>, Set<InstanceId>];

async function decode(bytes: Uint8Array, kind: string): Promise<Content> {
  if (bytes.length < PREFIX) {
    throw damaged(`expected at least ${PREFIX} bytes, got ${bytes.length}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC) {
    throw new DataError(
      "This is not data of the compatibility dashboard: it does not start with BCMP.",
      "A proxy or a login page may have answered in its place; look at the address in a tab of its own.",
    );
  }
  const version = view.getUint32(4, true);
  if (version !== VERSION) {
    throw new DataError(`The data is in version ${version} of its format, and this page reads ${VERSION}.`, NEWER);
  }
  const bodyStart = PREFIX + view.getUint32(8, true);
  if (bodyStart > bytes.length) {
    throw damaged(`the header ends at byte ${bodyStart}, the data at ${bytes.length}`);
  }
  const header = headerOf(bytes.subarray(PREFIX, bodyStart));
  if (header["kind"] !== kind) {
    throw new DataError(`Expected data of the kind "${kind}", got ${JSON.stringify(header["kind"])}.`, NEWER);
  }
  if (!Array.isArray(header["columns"])) {
    throw damaged("the header lists no columns");
  }
  const list = header["columns"].map(entryOf);
  const entries = new Map(list.map((entry) => [entry.name, entry]));
  if (entries.size < list.length) {
    throw damaged("a column comes twice");
  }
  const total = list.reduce((sum, entry) => sum + entry.bytes, 0);
  const body = await inflate(bytes.subarray(bodyStart), total);
  const columns = new Map<string, Column>();
  let start = 0;
  for (const entry of list) {
    columns.set(entry.name, columnOf(entry, body, start));
    start += entry.bytes;
  }
  return { header, entries, columns };
}

function headerOf(bytes: Uint8Array): Record<string, unknown> {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw damaged("its header is not JSON");
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) {
    throw damaged("its header is no JSON object");
  }
  return header as Record<string, unknown>;
}

function entryOf(value: unknown): Entry {
  const entry = (value ?? {}) as Record<string, unknown>;
  const { name, type } = entry;
  if (typeof name !== "string" || typeof type !== "string") {
    throw damaged("a column has no name or no type");
  }
  if (type !== "text" && !Object.hasOwn(WIDTHS, type)) {
    throw new DataError(`The column "${name}" has the unknown type "${type}".`, NEWER);
  }
  const known = type as Entry["type"];
  const length = count(entry["length"], `the length of "${name}"`);
  const bytes = count(entry["bytes"], `the bytes of "${name}"`);
  if (known === "text" ? bytes < 4 * length : bytes !== WIDTHS[known] * length) {
    throw damaged(`the column "${name}" has ${length} values in ${bytes} bytes`);
  }
  return { name, type: known, length, bytes, delta: entry["delta"] === true, integer: entry["integer"] === true };
}

async function inflate(compressed: Uint8Array, total: number): Promise<Uint8Array> {
  if (typeof DecompressionStream === "undefined") {
    throw new DataError(
      "This browser cannot unpack the data: it has no DecompressionStream.",
      "Use a browser of 2023 or later.",
    );
  }
  if (total > MAX_RATIO * compressed.length) {
    throw damaged(`${compressed.length} bytes cannot hold the ${total} bytes that its header announces`);
  }
  const body = new Uint8Array(total);
  let filled = 0;
  // Blob's type asks for a buffer that is not shared; a message from a notebook's kernel is never shared.
  const blob = new Blob([compressed as Uint8Array<ArrayBuffer>]);
  const reader = blob.stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  for (;;) {
    let chunk: Uint8Array | undefined;
    try {
      chunk = (await reader.read()).value;
    } catch {
      throw damaged("its compressed part cannot be unpacked");
    }
    if (chunk === undefined) {
      break;
    }
    if (filled + chunk.length > total) {
      void reader.cancel().catch(() => undefined);
      throw damaged(`it holds more than the ${total} bytes that its header announces`);
    }
    body.set(chunk, filled);
    filled += chunk.length;
  }
  if (filled < total) {
    throw damaged(`it holds ${filled} of the ${total} bytes that its header announces`);
  }
  return body;
}

function columnOf(entry: Entry, body: Uint8Array, start: number): Column {
  if (entry.type === "text") {
    return textColumn(entry, body.subarray(start, start + entry.bytes));
  }
  const stored = typed(entry.type, body, start, entry.length);
  return entry.delta ? runningSum(stored) : stored;
}

function typed(type: keyof typeof WIDTHS, body: Uint8Array, start: number, length: number): Numbers {
  // A view needs its start at a multiple of the width; only where it is not there is a copy made.
  const aligned = start % WIDTHS[type] === 0;
  const buffer = aligned ? body.buffer : body.buffer.slice(start, start + WIDTHS[type] * length);
  const at = aligned ? start : 0;
  switch (type) {
    case "u1":
      return new Uint8Array(buffer, at, length);
    case "u2":
      return new Uint16Array(buffer, at, length);
    case "u4":
      return new Uint32Array(buffer, at, length);
    case "i4":
      return new Int32Array(buffer, at, length);
    case "f8":
      return new Float64Array(buffer, at, length);
  }
}

function runningSum(stored: Numbers): Float64Array {
  const values = new Float64Array(stored.length);
  let sum = 0;
  for (let i = 0; i < stored.length; i++) {
    sum += stored[i]!;
    values[i] = sum;
  }
  return values;
}

function textColumn({ length, name }: Entry, bytes: Uint8Array): string[] {
  const lengths = new DataView(bytes.buffer, bytes.byteOffset, 4 * length);
  let at = 4 * length;
  let joined: string;
  try {
    // All texts at once: decoding 100,000 of them one by one takes several times as long. A mark of byte order at the
    // start is a part of the text like any other.
    joined = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(at));
  } catch {
    throw damaged(`the column "${name}" is not UTF-8`);
  }
  const values = new Array<string>(length);
  let unit = 0;
  for (let i = 0; i < length; i++) {
    const end = at + lengths.getUint32(4 * i, true);
    if (end > bytes.length || (at < end && isWithinCharacter(bytes[at]!))) {
      throw damaged(`the column "${name}" ends within text ${i}`);
    }
    const first = unit;
    for (; at < end; at++) {
      // UTF-16 needs two units where UTF-8 needs four bytes, and one for any other character.
      unit += isWithinCharacter(bytes[at]!) ? 0 : bytes[at]! < 0xf0 ? 1 : 2;
    }
    values[i] = joined.slice(first, unit);
  }
  if (at !== bytes.length) {
    throw damaged(`the column "${name}" has ${bytes.length - at} bytes after its last text`);
  }
  return values;
}

function isWithinCharacter(byte: number): boolean {
  return (byte & 0xc0) === 0x80;
}

function idsOf(content: Content): Float64Array | readonly InstanceId[] {
  const column = content.columns.get("ids");
  if (column === undefined) {
    throw damaged('the column "ids" is missing');
  }
  if (!isNumbers(column)) {
    return content.entries.get("ids")!.integer ? column.map(exactInteger) : column;
  }
  const ids = column instanceof Float64Array ? column : Float64Array.from(column);
  if (!ids.every((id) => Number.isInteger(id) && Math.abs(id) <= EXACT)) {
    throw damaged('the column "ids" holds numbers that are not whole');
  }
  return ids;
}

/** A number where a number is exact, so that the same id is the same value in every table and in the media. */
function exactInteger(digits: string): InstanceId {
  const value = Number(digits);
  return Math.abs(value) <= EXACT && String(value) === digits ? value : digits;
}

function countsOf(content: Content, numClasses: number): Int32Array {
  const stored = numbers(content, "counts", 4 * numClasses);
  for (let i = 0; i < stored.length; i++) {
    if (!(stored[i]! >= 0 && stored[i]! < 2 ** 31 && Number.isInteger(stored[i]))) {
      throw damaged(`the counts of class ${i >> 2} hold ${stored[i]}`);
    }
  }
  return stored instanceof Uint32Array
    ? new Int32Array(stored.buffer, stored.byteOffset, stored.length)
    : Int32Array.from(stored);
}

function numbers(content: Content, name: string, length: number): Numbers {
  const column = content.columns.get(name);
  if (column === undefined || !isNumbers(column)) {
    throw damaged(`the column "${name}" of numbers is missing`);
  }
  checkLength(name, column.length, length);
  return column;
}

function texts(content: Content, name: string, length: number): readonly string[] {
  const column = content.columns.get(name);
  if (column === undefined || isNumbers(column)) {
    throw damaged(`the column "${name}" of texts is missing`);
  }
  checkLength(name, column.length, length);
  return column;
}

function isNumbers(column: Column): column is Numbers {
  return ArrayBuffer.isView(column);
}

function checkLength(name: string, length: number, expected: number): void {
  if (length !== expected) {
    throw damaged(`the column "${name}" has ${length} values where ${expected} are expected`);
  }
}

function namesOf(value: unknown, numClasses: number): readonly string[] | null {
  if (value === null || value === undefined) {
    return null;
  }
  if (!Array.isArray(value) || !value.every((name) => typeof name === "string")) {
    throw damaged("the class names are no texts");
  }
  checkLength("class_names", value.length, numClasses);
  return value;
}

function classNumbers(value: unknown, numClasses: number, what: string): readonly number[] {
  const classes: unknown = value ?? [];
  if (!Array.isArray(classes) || !classes.every((c) => Number.isInteger(c) && c >= 0 && c < numClasses)) {
    throw damaged(`the ${what} classes are no class numbers`);
  }
  return classes;
}

function count(value: unknown, what: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw damaged(`${what} is ${JSON.stringify(value)}, no count`);
  }
  return value;
}

function numberOrNull(value: unknown, what: string): number | null {
  if (value === null || value === undefined || typeof value === "number") {
    return value ?? null;
  }
  throw damaged(`${what} is ${JSON.stringify(value)}, no number`);
}

function textOrNull(value: unknown, what: string): string | null {
  if (value === null || value === undefined || typeof value === "string") {
    return value ?? null;
  }
  throw damaged(`${what} is ${JSON.stringify(value)}, no text`);
}

function damaged(what: string): DataError {
  return new DataError(`The data cannot be read: ${what}.`, DAMAGED);
}
