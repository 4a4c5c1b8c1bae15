import { type Cells, DataError, type Index, type Series, type Step } from "../model";

type Json = Readonly<Record<string, unknown>>;

/** Check and convert what `./index` answers; the same JSON is embedded in a page and sent by a notebook. */
export function indexFromJson(json: unknown): Index {
  const index = object(json, "the list of comparisons");
  const warnings = list(index["warnings"] ?? [], "warnings");
  const progress = index["progress"] ?? null;
  if (progress !== null && !(typeof progress === "number" && progress >= 0)) {
    throw unreadable("progress", progress);
  }
  return {
    series: list(index["series"], "series").map(seriesFrom),
    warnings: warnings.map(String),
    progress: progress === null ? null : Math.min(1, progress),
  };
}

function seriesFrom(json: unknown): Series {
  const series = object(json, "a series");
  const steps = list(series["steps"], "steps").map(stepFrom);
  return {
    run: text(series["run"], "run"),
    dataset: text(series["dataset"], "dataset"),
    dissonance: series["dissonance"] == null ? null : text(series["dissonance"], "dissonance"),
    numClasses: whole(series["num_classes"], "num_classes"),
    hasMedia: series["has_media"] === true,
    steps: steps.sort((a, b) => a.step - b.step),
  };
}

function stepFrom(json: unknown): Step {
  const row = list(json, "a step");
  if (row.length !== 7) {
    throw unreadable("a step", row);
  }
  const [step, wallTime, lambda] = row;
  if (!Number.isSafeInteger(step)) {
    throw unreadable("a step's number", step);
  }
  return {
    step: step as number,
    wallTime: finiteOrNull(wallTime, "wall_time"),
    lambda: finiteOrNull(lambda, "lambda"),
    cells: row.slice(3).map((cell) => whole(cell, "a count")) as unknown as Cells,
  };
}

function object(value: unknown, what: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw unreadable(what, value);
  }
  return value as Json;
}

function list(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) {
    throw unreadable(what, value);
  }
  return value;
}

function text(value: unknown, what: string): string {
  if (typeof value !== "string") {
    throw unreadable(what, value);
  }
  return value;
}

function whole(value: unknown, what: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw unreadable(what, value);
  }
  return value;
}

function finiteOrNull(value: unknown, what: string): number | null {
  if (value === null || value === undefined) {
    return null;
  }
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw unreadable(what, value);
  }
  return value;
}

function unreadable(what: string, value: unknown): DataError {
  const shown = JSON.stringify(value) ?? "nothing";
  return new DataError(
    `The list of comparisons cannot be read: ${what} is ${shown.length > 60 ? `${shown.slice(0, 60)}…` : shown}.`,
    "Page and data may come from different releases; update backward-compat-ml, restart what serves them and reload.",
  );
}
