import { DataError } from "../model";

type Json = Readonly<Record<string, unknown>>;

/** What JSON from a server or a page is read by: each part is of its kind, or the whole is refused. */
export interface Checked {
  object(value: unknown, what: string): Json;
  list(value: unknown, what: string): readonly unknown[];
  text(value: unknown, what: string): string;
  /** A whole number of at least 0. */
  whole(value: unknown, what: string): number;
  finite(value: unknown, what: string): number;
  finiteOrNull(value: unknown, what: string): number | null;
  unreadable(what: string, value: unknown): DataError;
}

/** Checks for a document that is called `subject` when it cannot be read. */
export function checked(subject: string): Checked {
  const unreadable = (what: string, value: unknown) => {
    const shown = JSON.stringify(value) ?? "nothing";
    return new DataError(
      `${subject} cannot be read: ${what} is ${shown.length > 60 ? `${shown.slice(0, 60)}…` : shown}.`,
      "Page and data may come from different releases; update backward-compat-ml, restart what serves them and reload.",
    );
  };
  const finite = (value: unknown, what: string) => {
    if (typeof value !== "number" || !Number.isFinite(value)) {
      throw unreadable(what, value);
    }
    return value;
  };
  return {
    unreadable,
    finite,
    object(value, what) {
      if (typeof value !== "object" || value === null || Array.isArray(value)) {
        throw unreadable(what, value);
      }
      return value as Json;
    },
    list(value, what) {
      if (!Array.isArray(value)) {
        throw unreadable(what, value);
      }
      return value;
    },
    text(value, what) {
      if (typeof value !== "string") {
        throw unreadable(what, value);
      }
      return value;
    },
    whole(value, what) {
      if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
        throw unreadable(what, value);
      }
      return value;
    },
    finiteOrNull(value, what) {
      return value === null || value === undefined ? null : finite(value, what);
    },
  };
}
