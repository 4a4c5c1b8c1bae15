/** The state of the view as text for a link, and back. Only what differs from the default is written. */

import { SCORES } from "../data/scores";
import type { ClassSort, Filter, Flips, InstanceSort, Region, SliceCondition, ViewState } from "../model";

export const NO_FILTER: Filter = {
  region: null,
  target: null,
  h1: null,
  h2: null,
  text: "",
  flips: null,
  b: null,
  sure1: null,
  sure2: null,
  slices: [],
};

export const DEFAULT_STATE: ViewState = {
  run: null,
  dataset: null,
  pin: null,
  step: null,
  other: null,
  ...NO_FILTER,
  classView: "accuracy",
  classSort: "flips",
  classSearch: "",
  classPage: 0,
  // Negative flips come first.
  sort: "region",
  descending: false,
  page: 0,
  listed: "table",
  instance: null,
  panel: null,
  datasets: null,
  dissonances: null,
  lambdaMin: null,
  lambdaMax: null,
  sameH1: false,
  sweepX: ["btc", "bec_given_h1_wrong"],
  sweepY: "accuracy_h2",
  colourBy: "dataset",
  shapeBy: "loss",
  promise: "",
  curves: ["btc", "nfr", "accuracy_h1", "accuracy_h2"],
};

/** How one part of the state is written; `read` gives undefined for what it does not accept. */
interface Codec<T> {
  readonly write: (value: T) => string;
  readonly read: (text: string) => T | undefined;
}

const text: Codec<string> = {
  write: (value) => encodeURIComponent(value.replace(/\p{Surrogate}/gu, "\ufffd")),
  read: (written) => {
    try {
      return decodeURIComponent(written);
    } catch {
      return undefined;
    }
  },
};

function number(accepts: (value: number) => boolean): Codec<number> {
  return {
    write: (value) => text.write(String(value)),
    read: (written) => {
      const digits = text.read(written) ?? "";
      const value = /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(digits) ? Number(digits) : Number.NaN;
      return accepts(value) ? value : undefined;
    },
  };
}

function oneOf<T extends string>(...choices: readonly T[]): Codec<T> {
  return { write: (value) => value, read: (written) => choices.find((choice) => choice === written) };
}

const flag: Codec<boolean> = {
  write: (value) => (value ? "1" : "0"),
  read: (written) => (written === "1" ? true : written === "0" ? false : undefined),
};

/**
 * Texts between commas; a backslash takes the next character as it is, and "-" is the empty list. TensorBoard may
 * decode and encode a value again, so nothing hangs on which characters are percent-encoded.
 */
const list: Codec<readonly string[]> = {
  write: (values) => {
    const joined = values.map((value) => value.replace(/[\\,]|^-$/g, "\\$&")).join(",");
    return text.write(values.length === 0 ? "-" : joined).replaceAll("%2C", ",");
  },
  read: (written) => {
    const joined = text.read(written);
    if (joined === undefined || joined === "-") {
      return joined === undefined ? undefined : [];
    }
    const values = [""];
    for (const [part] of joined.matchAll(/\\?[^]/gu)) {
      if (part === ",") {
        values.push("");
      } else {
        values[values.length - 1] += part.length > 1 && part.startsWith("\\") ? part.slice(1) : part;
      }
    }
    return values;
  },
};

const scores: Codec<readonly string[]> = {
  write: list.write,
  read: (written) => {
    const names = list.read(written);
    const known = names?.filter((name) => SCORES.some((score) => score.name === name));
    return known?.length === 0 && names?.length !== 0 ? undefined : known;
  },
};

/** A score, or what may not be there: the user's own metric, or a setting. */
const axis: Codec<string> = {
  write: text.write,
  read: (written) => {
    const name = text.read(written) ?? "";
    const isKnown = SCORES.some((score) => score.name === name) || /^(performance$|setting:.)/.test(name);
    return isKnown ? name : undefined;
  },
};

const axes: Codec<readonly string[]> = {
  write: list.write,
  read: (written) => {
    const names = list.read(written);
    const isKnown = names?.every((name) => name === "lambda" || axis.read(text.write(name)) !== undefined);
    return isKnown && names?.length === 2 ? names : undefined;
  },
};

function orNull<T>(codec: Codec<T>): Codec<T | null> {
  return { write: (value) => (value === null ? "" : codec.write(value)), read: codec.read };
}

const weight = number((value) => Number.isFinite(value) && value >= 0);

/** Two probabilities, ascending. */
const range: Codec<readonly [number, number]> = {
  write: (ends) => list.write(ends.map(String)),
  read: (written) => {
    const [low, high, ...more] = (list.read(written) ?? []).map((end) => weight.read(end) ?? Number.NaN);
    return low! <= high! && high! <= 1 && more.length === 0 ? [low!, high!] : undefined;
  },
};

/** Column and value by turns. */
const slices: Codec<readonly SliceCondition[]> = {
  write: (conditions) => list.write(conditions.flat()),
  read: (written) => {
    const parts = list.read(written);
    if (parts === undefined || parts.length % 2 === 1) return undefined;
    return Array.from({ length: parts.length / 2 }, (_, i) => [parts[2 * i]!, parts[2 * i + 1]!] as const);
  },
};

const position = number((value) => Number.isSafeInteger(value) && value >= 0);

const CODECS: { readonly [K in keyof ViewState]: Codec<ViewState[K]> } = {
  run: orNull(text),
  dataset: orNull(text),
  pin: orNull(text),
  step: orNull(number(Number.isSafeInteger)),
  other: orNull(text),
  region: orNull(oneOf<Region>("regress", "common", "progress")),
  target: orNull(position),
  h1: orNull(position),
  h2: orNull(position),
  text,
  flips: orNull(oneOf<Flips>("a", "b", "both")),
  b: orNull(position),
  sure1: orNull(range),
  sure2: orNull(range),
  slices,
  classView: oneOf("accuracy", "incompatible"),
  classSort: oneOf<ClassSort>("flips", "loss", "count", "name"),
  classSearch: text,
  classPage: position,
  sort: oneOf<InstanceSort>("id", "text", "target", "h1", "h2", "region", "sure1", "sure2"),
  descending: flag,
  page: position,
  listed: oneOf("table", "pictures"),
  instance: orNull(text),
  panel: orNull(text),
  datasets: orNull(list),
  dissonances: orNull(list),
  lambdaMin: orNull(weight),
  lambdaMax: orNull(weight),
  sameH1: flag,
  sweepX: axes,
  sweepY: axis,
  colourBy: text,
  shapeBy: text,
  promise: text,
  curves: scores,
};

export function encodeState(state: ViewState): string {
  return (Object.keys(CODECS) as (keyof ViewState)[])
    .filter((key) => !same(state[key], DEFAULT_STATE[key]))
    .map((key) => `${key}=${(CODECS[key] as Codec<ViewState[typeof key]>).write(state[key])}`)
    .join("&");
}

/** Takes any text, with or without a leading "#" or "?"; what makes no sense is left at its default. */
export function decodeState(encoded: string): ViewState {
  const state: Record<string, unknown> = { ...DEFAULT_STATE };
  for (const part of encoded.replace(/^[#?]+/, "").split("&")) {
    const equals = part.indexOf("=");
    const key = part.slice(0, Math.max(0, equals));
    if (Object.hasOwn(CODECS, key)) {
      const value = CODECS[key as keyof ViewState].read(part.slice(equals + 1));
      if (value !== undefined) {
        state[key] = value;
      }
    }
  }
  return state as unknown as ViewState;
}

function same(a: unknown, b: unknown): boolean {
  if (Array.isArray(a) && Array.isArray(b)) {
    return a.length === b.length && a.every((value, index) => value === b[index]);
  }
  return Object.is(a, b);
}
