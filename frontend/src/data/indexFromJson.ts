import type { Actions, Cells, Index, InvarianceSeries, Series, Settings, Step } from "../model";
import { checked } from "./checked";

const { finite, finiteOrNull, list, object, text, unreadable, whole } = checked("The list of comparisons");

export const NO_ACTIONS: Actions = { offered: [], doing: null, failed: null };

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
    // Pages of earlier releases have none.
    invariance: list(index["invariance"] ?? [], "invariance").map(invarianceFrom),
    actions: index["actions"] == null ? NO_ACTIONS : actionsFrom(index["actions"]),
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
    ...(series["settings"] == null ? {} : { settings: settingsFrom(series["settings"]) }),
    ...(series["performance"] == null ? {} : { performance: performanceFrom(series["performance"]) }),
    steps: steps.sort((a, b) => a.step - b.step),
  };
}

function settingsFrom(json: unknown): Settings {
  const entries = Object.entries(object(json, "settings"));
  return Object.fromEntries(
    entries.map(([name, value]) => [name, typeof value === "number" ? finite(value, name) : text(value, name)]),
  );
}

function performanceFrom(json: unknown): readonly [number | null, number | null] {
  const [h1, h2] = list(json, "performance");
  return [finiteOrNull(h1, "performance of h1"), finiteOrNull(h2, "performance of h2")];
}

function actionsFrom(json: unknown): Actions {
  const { offered, doing, failed } = object(json, "actions");
  const failure = failed == null ? null : object(failed, "failed");
  return {
    offered: list(offered, "offered").map((each) => {
      const action = object(each, "an action");
      return { label: text(action["label"], "label"), note: text(action["note"], "note") };
    }),
    doing: doing == null ? null : text(doing, "doing"),
    failed: failure && { label: text(failure["label"], "label"), error: text(failure["error"], "error") },
  };
}

function invarianceFrom(json: unknown): InvarianceSeries {
  const series = object(json, "a series");
  const steps = list(series["steps"], "steps").map((row) => {
    const [step, wallTime] = list(row, "a step");
    return { step: whole(step, "a step's number"), wallTime: finiteOrNull(wallTime, "wall_time") };
  });
  return {
    run: text(series["run"], "run"),
    dataset: text(series["dataset"], "dataset"),
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
