import type { Cells, Estimate, Invariance, InvarianceDepth, InvarianceLayer, TransformGroup } from "../model";
import { checked } from "./checked";

const { finite, finiteOrNull, list, object, text, unreadable, whole } = checked("The invariance of this step");

const VERSION = 1;

/** Check and convert what `./invariance` answers; the same JSON is embedded in a page. */
export function invarianceFromJson(json: unknown): Invariance {
  const update = object(json, "the document");
  if (update["version"] !== VERSION) {
    throw unreadable("its version", update["version"]);
  }
  const transforms = list(update["transforms"], "transforms").map((name) => text(name, "a transformation"));
  const overall = object(update["overall"], "overall");
  const { depth, overlaps } = update;
  const perTransform = (value: unknown, what: string) => {
    const rows = list(value, what).map(cellsFrom);
    if (rows.length !== transforms.length) {
      throw unreadable(`the length of ${what}`, rows.length);
    }
    return rows;
  };
  return {
    samples: whole(update["samples"], "samples"),
    transforms,
    identity: whole(update["identity"], "identity"),
    groups: list(update["groups"], "groups").map((group) => groupFrom(group, transforms.length)),
    consistency: perTransform(update["consistency"], "consistency"),
    overlaps: overlaps == null ? null : perTransform(overlaps, "overlaps"),
    overall: {
      h1: known(estimateFrom(overall["consistency_h1"]), "consistency_h1"),
      h2: known(estimateFrom(overall["consistency_h2"]), "consistency_h2"),
      flips: known(estimateFrom(overall["negative_flip_rate"]), "negative_flip_rate"),
    },
    depth: depth == null ? null : depthFrom(depth),
  };
}

function groupFrom(json: unknown, transforms: number): TransformGroup {
  const group = object(json, "a group");
  const members = list(group["members"], "members").map((member) => whole(member, "a member"));
  const { sizes } = group;
  const found = sizes == null ? null : list(sizes, "sizes").map((size) => finite(size, "a size"));
  if (members.some((member) => member >= transforms) || (found !== null && found.length !== members.length)) {
    throw unreadable("a group", json);
  }
  return { kind: text(group["kind"], "kind"), axis: text(group["axis"], "axis"), members, sizes: found };
}

function depthFrom(json: unknown): InvarianceDepth {
  const depth = object(json, "depth");
  return {
    kind: depth["kind"] === "same_equivariance" ? "same_equivariance" : "invariance",
    statistic: text(depth["statistic"], "statistic"),
    how: text(depth["how"], "how"),
    confidence: finiteOrNull(depth["confidence"], "confidence"),
    order: text(depth["order"], "order"),
    end: finite(depth["end"], "end"),
    beyond: depth["beyond"] === true,
    reach: finite(depth["reach"], "reach"),
    farther: depth["farther"] === true,
    layers: list(depth["layers"], "layers").map(layerFrom),
  };
}

function layerFrom(json: unknown): InvarianceLayer {
  const layer = object(json, "a layer");
  const pair = <T>(name: string, convert: (value: unknown) => T): readonly [T, T] => {
    const both = list(layer[name], name);
    if (both.length !== 2) {
      throw unreadable(name, both);
    }
    return [convert(both[0]), convert(both[1])];
  };
  return {
    name: text(layer["name"], "name"),
    depth: pair("depth", (value) => finiteOrNull(value, "depth")),
    nv: pair("nv", estimateFrom),
    difference: estimateFrom(layer["difference"]),
    features: pair("features", (value) => finiteOrNull(value, "features")),
    dead: pair("dead", (value) => finiteOrNull(value, "dead")),
    heat: pair("heat", bytesFrom),
    change: bytesFrom(layer["change"]),
  };
}

function cellsFrom(json: unknown): Cells {
  const cells = list(json, "counts").map((cell) => whole(cell, "a count"));
  if (cells.length !== 4) {
    throw unreadable("counts", json);
  }
  return cells as unknown as Cells;
}

function estimateFrom(json: unknown): Estimate | null {
  if (json == null) {
    return null;
  }
  const [value, low, high] = list(json, "an estimate");
  return {
    value: finite(value, "an estimate"),
    low: finiteOrNull(low, "a bound") ?? Number.NaN,
    high: finiteOrNull(high, "a bound") ?? Number.NaN,
  };
}

function known(estimate: Estimate | null, what: string): Estimate {
  if (estimate === null) {
    throw unreadable(what, null);
  }
  return estimate;
}

function bytesFrom(json: unknown): Uint8Array | null {
  if (json == null) {
    return null;
  }
  try {
    return Uint8Array.from(atob(text(json, "a row")), (letter) => letter.charCodeAt(0));
  } catch {
    throw unreadable("a row", json);
  }
}
