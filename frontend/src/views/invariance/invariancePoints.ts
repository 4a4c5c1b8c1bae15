import { scaleLinear } from "d3-scale";
import { fraction, interval, value } from "../../data/scores";
import type { Cells, Estimate, Index, Invariance, InvarianceDepth, InvarianceLayer, TableRef, TransformGroup } from "../../model";
import type { TableRequest } from "../../state/loading";

/** A byte of a row that stands for a dead feature; the others are steps of the scale. */
export const DEAD = 255;
const STEPS = 254;

/** What is drawn together: rates near 0 and shares near 1 would flatten each other on one axis. */
export interface ScorePanel {
  readonly title: string;
  readonly note: string;
  readonly lines: readonly {
    readonly mark: string;
    readonly label: string;
    readonly score: string;
    readonly labels: boolean;
  }[];
}

export const PANELS: readonly ScorePanel[] = [
  {
    title: "Accuracy",
    note: "higher is better",
    lines: [
      { mark: "accuracy_h1", label: "h1", score: "accuracy_h1", labels: true },
      { mark: "accuracy_h2", label: "h2", score: "accuracy_h2", labels: true },
    ],
  },
  {
    title: "BTC",
    note: "higher is better",
    lines: [{ mark: "btc", label: "BTC", score: "btc", labels: true }],
  },
  {
    title: "Consistency",
    note: "higher is better",
    lines: [
      { mark: "consistency_h1", label: "h1", score: "accuracy_h1", labels: false },
      { mark: "consistency_h2", label: "h2", score: "accuracy_h2", labels: false },
    ],
  },
  {
    title: "Negative flips",
    note: "lower is better",
    lines: [
      { mark: "nfr", label: "NFR", score: "nfr", labels: true },
      { mark: "negative_flip_rate", label: "inv. flips", score: "nfr", labels: false },
    ],
  },
];

export const MARK_TITLES: Readonly<Record<string, string>> = {
  accuracy_h1: "Accuracy of h1",
  accuracy_h2: "Accuracy of h2",
  btc: "BTC",
  consistency_h1: "Consistency of h1",
  consistency_h2: "Consistency of h2",
  nfr: "NFR",
  negative_flip_rate: "Invariance negative flips",
};

export interface SizePoint extends Estimate {
  /** Place on the axis. */
  readonly x: number;
  /** Which transformation. */
  readonly member: number;
}

export interface SizeCurve {
  readonly mark: string;
  readonly label: string;
  readonly points: readonly SizePoint[];
  /** Whether it is of the run that is set beside the first. */
  readonly other: boolean;
}

/** An update, or a part of one, with the name of its run. */
export interface Named<T> {
  readonly run: string;
  readonly value: T;
}

const NONE: Estimate = { value: NaN, low: NaN, high: NaN };

function estimate(score: string, cells: Cells): Estimate {
  if (fraction(score, cells).trials === 0) return NONE;
  const [low, high] = interval(score, cells);
  return { value: value(score, cells), low, high };
}

/** Half and twice are equally far from 1, so factors stand at their logarithm; what has no size by its number. */
export function places(group: TransformGroup): readonly number[] {
  if (group.sizes === null) return group.members.map((_, i) => i);
  return group.kind === "scale" ? group.sizes.map(Math.log2) : group.sizes;
}

/** How a place on the axis of a group is written. */
export function placeText(group: TransformGroup, place: number): string {
  const number = group.kind === "scale" ? 2 ** place : place;
  const text = String(Number(number.toPrecision(3))).replace("-", "−");
  return group.kind === "rotate" ? `${text}°` : text;
}

/** Angles at parts of a turn, factors where there are any, else round numbers. */
export function placeTicks(group: TransformGroup, most: number): number[] {
  const all = places(group);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  if (low === high) return [low];
  if (group.kind === "rotate") {
    const step = [1, 2, 5, 15, 30, 45, 90, 180].find((each) => (high - low) / each <= most) ?? 360;
    const first = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
  }
  if (group.kind === "scale") {
    const least = (high - low) / Math.max(1, most);
    const kept = all.includes(0) ? [0] : [];
    for (const place of all) if (kept.every((other) => Math.abs(place - other) >= least)) kept.push(place);
    return kept.sort((a, b) => a - b);
  }
  return scaleLinear([low, high], [0, 1]).ticks(Math.max(1, most));
}

/** The lines of a panel for one group; without labels some have nothing to show. */
export function curvesOf(update: Invariance, panel: ScorePanel, group: TransformGroup, other = false): SizeCurve[] {
  const at = places(group);
  return panel.lines.flatMap(({ mark, label, score, labels }) => {
    const counts = labels ? update.overlaps : update.consistency;
    if (counts === null) return [];
    const points = group.members.map((member, i) => ({ ...estimate(score, counts[member]!), x: at[i]!, member }));
    return [{ mark, label, points, other }];
  });
}

/** The group of a second update that belongs on the axis of one of the first; null where there is none. */
export function groupLike(second: Invariance, { kind, sizes }: TransformGroup): TransformGroup | null {
  return second.groups.find((each) => each.kind === kind && (each.sizes === null) === (sizes === null)) ?? null;
}

/** The axis of both groups: with every size that one of them has. */
export function axisOf(group: TransformGroup, other: TransformGroup | null): TransformGroup {
  if (group.sizes === null || !other?.sizes) return group;
  return { ...group, sizes: [...new Set([...group.sizes, ...other.sizes])].sort((a, b) => a - b) };
}

/** The lines of a second update in a panel of the first; without sizes its points stand where the first has their names. */
export function curvesBeside(
  first: Invariance,
  second: Invariance,
  panel: ScorePanel,
  group: TransformGroup,
): SizeCurve[] {
  const own = groupLike(second, group);
  if (own === null) return [];
  const curves = curvesOf(second, panel, own, true);
  if (group.sizes !== null) return curves;
  return curves.map((curve) => ({
    ...curve,
    points: group.members.map((member, x) => {
      const found = curve.points.find((point) => second.transforms[point.member] === first.transforms[member]);
      return { ...(found ?? NONE), x, member };
    }),
  }));
}

/** Two updates have one h1, whose line would lie on itself. */
export function isRepeated(curve: SizeCurve, firsts: readonly SizeCurve[]): boolean {
  const points = firsts.find(({ mark }) => mark === curve.mark)?.points;
  return (
    curve.mark.endsWith("_h1") &&
    points?.length === curve.points.length &&
    curve.points.every(({ x, value: share }, i) => x === points[i]!.x && Object.is(share, points[i]!.value))
  );
}

/** One point for each place: of several transformations of one size, such as shifts up and down, their mean. */
export function meansByPlace(points: readonly SizePoint[]): { x: number; value: number }[] {
  const sums = new Map<number, [number, number]>();
  for (const { x, value: share } of points) {
    if (Number.isNaN(share)) continue;
    const [sum, count] = sums.get(x) ?? [0, 0];
    sums.set(x, [sum + share, count + 1]);
  }
  return [...sums].map(([x, [sum, count]]) => ({ x, value: sum / count })).sort((a, b) => a.x - b.x);
}

export interface InvariancePlace {
  readonly request: TableRequest | null;
  /** Places of other runs and data sets, where this one has none. */
  readonly others: readonly TableRef[];
}

/** What was measured last up to a step (null is the latest) of a run and data set. */
export function placeOf(
  index: Index,
  run: string | null,
  dataset: string | null,
  step: number | null,
): InvariancePlace {
  const found = index.invariance.find((series) => series.run === run && series.dataset === dataset);
  if (found === undefined || found.steps.length === 0) {
    const others = index.invariance.flatMap((series) => {
      const last = series.steps.at(-1);
      return last ? [{ run: series.run, dataset: series.dataset, step: last.step }] : [];
    });
    return { request: null, others };
  }
  const upTo = step === null ? found.steps : found.steps.filter((each) => each.step <= step);
  const at = upTo.at(-1) ?? found.steps[0]!;
  return { request: { run: found.run, dataset: found.dataset, step: at.step, wallTime: at.wallTime }, others: [] };
}

// Depth

export interface DepthPoint extends Estimate {
  readonly x: number;
  readonly layer: number;
}

/** Whether both networks have the same layers, so that these can stand on the axis by name. */
export function sameLayers(layers: readonly InvarianceLayer[]): boolean {
  return layers.every(({ depth }) => depth[0] !== null && depth[1] !== null && depth[0] === depth[1]);
}

/** NV of one network by depth: at the layer's number, or at its share of the depth where the two differ. */
export function depthPoints(layers: readonly InvarianceLayer[], which: 0 | 1): DepthPoint[] {
  const named = sameLayers(layers);
  return layers
    .flatMap(({ nv, depth }, layer) => {
      const estimated = nv[which];
      const at = depth[which];
      return estimated === null || at === null ? [] : [{ ...estimated, x: named ? layer : at, layer }];
    })
    .sort((a, b) => a.x - b.x);
}

export function differencePoints(layers: readonly InvarianceLayer[]): DepthPoint[] {
  const named = sameLayers(layers);
  return layers.flatMap(({ difference, depth }, layer) =>
    difference === null ? [] : [{ ...difference, x: named ? layer : (depth[1] ?? 0), layer }],
  );
}

/** Whether two updates were measured alike in the same layers, so that they can stand on one axis. */
export function sameMeasure(first: InvarianceDepth, second: InvarianceDepth): boolean {
  const names = ({ layers }: InvarianceDepth) => layers.map(({ name }) => name).join("\0");
  return (
    (["kind", "statistic", "how"] as const).every((part) => first[part] === second[part]) &&
    sameLayers(first.layers) &&
    sameLayers(second.layers) &&
    names(first) === names(second)
  );
}

export type Verdict = "worse" | "better" | "open";

/** Whether the interval leaves out 0. */
export function verdict({ value: difference, low, high }: Estimate): Verdict {
  if (low > 0 && difference > 0) return "worse";
  return high < 0 && difference < 0 ? "better" : "open";
}

/** NV as people read it. */
export function nvText(number: number): string {
  if (!Number.isFinite(number)) return "–";
  const size = Math.abs(number);
  const text = size >= 0.095 ? size.toFixed(2) : String(Number(size.toPrecision(2)));
  return Number(text) === 0 || number >= 0 ? text : `−${text}`;
}

export function nvBounds({ low, high }: Estimate): string {
  return Number.isNaN(low) || Number.isNaN(high) ? "" : `${nvText(low)} to ${nvText(high)}`;
}

// Heat maps

const VIRIDIS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"];
/** Below 0, at 0, above 0. */
const CHANGES = {
  light: ["0f766e", "f7f7f5", "c2410c"],
  dark: ["4fd1b5", "22262e", "ff8f5a"],
} as const;
const DEADS = { light: "c3c8cf", dark: "4b525d" } as const;

type Theme = keyof typeof CHANGES;
export type Colour = readonly [number, number, number];

function parsed(hex: string): Colour {
  const number = Number.parseInt(hex, 16);
  return [number >> 16, (number >> 8) & 255, number & 255];
}

function between(stops: readonly string[], share: number): Colour {
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(place), stops.length - 2);
  const [from, to] = [parsed(stops[i]!), parsed(stops[i + 1]!)];
  return [0, 1, 2].map((k) => Math.round(from[k]! + (to[k]! - from[k]!) * (place - i))) as unknown as Colour;
}

/** Colour of a byte of a heat map, of NV or of a difference. */
export function cellColour(byte: number, kind: "nv" | "change", theme: Theme): Colour {
  if (byte === DEAD) return parsed(DEADS[theme]);
  return between(kind === "nv" ? VIRIDIS : CHANGES[theme], byte / STEPS);
}

/** What a byte stands for, within the coarseness of its scale. */
export function cellText(byte: number, low: number, high: number, beyond: boolean): string {
  if (byte === DEAD) return "dead";
  const text = nvText(low + ((high - low) * byte) / STEPS);
  if (beyond && byte === STEPS) return `${text} or more`;
  return beyond && byte === 0 && low < 0 ? `${text} or less` : text;
}

/** Which features a cell holds, for a person: "feature 3", "features 5 to 8 of 512". */
export function cellFeatures(cell: number, cells: number, features: number, sorted: boolean): string {
  const first = Math.floor((cell * features) / cells) + 1;
  const last = Math.max(first, Math.floor(((cell + 1) * features) / cells));
  const what = sorted ? "rank" : "feature";
  // Features are counted from 0, as in code, and ranks from 1.
  const shift = sorted ? 0 : -1;
  return first === last ? `${what} ${first + shift}` : `${what}s ${first + shift} to ${last + shift}`;
}

/** Some layers for the axis: as many as fit, always the first. */
export function everyOf(layers: number, most: number): number {
  return Math.max(1, Math.ceil(layers / Math.max(1, most)));
}
