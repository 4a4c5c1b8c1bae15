/** Two circles whose areas, and the area they share, are proportional to counts of errors. h1 is on the left. */

import type { Region } from "../model";

export type VennState =
  "overlap" | "identical" | "h1_in_h2" | "h2_in_h1" | "disjoint" | "only_h1" | "only_h2" | "empty";

export interface Spot {
  readonly x: number;
  readonly y: number;
}

export interface VennLayout {
  readonly state: VennState;
  readonly width: number;
  readonly height: number;
  /** Radii; 0 for a model without errors. */
  readonly r1: number;
  readonly r2: number;
  readonly x1: number;
  readonly x2: number;
  readonly y: number;
  /** SVG path of each region, for fill-rule evenodd; "" where the region is empty. */
  readonly paths: Readonly<Record<Region, string>>;
  /** The widest place of each region on the axis: for a label, or a marker where the region is tiny. */
  readonly spots: Readonly<Record<Region, Spot>>;
  /** Regions that hold instances, but too few to be seen or hit with a pointer. */
  readonly tiny: Readonly<Record<Region, boolean>>;
}

/** Space left around the circles, so that outlines and markers are not cut off. */
const PADDING = 8;
/** Thinner than this many pixels, a region needs a marker. */
const VISIBLE = 3;

/** h1Errors and h2Errors each include the common ones. */
export function venn(h1Errors: number, h2Errors: number, common: number, width: number, height: number): VennLayout {
  if (!(common >= 0 && common <= Math.min(h1Errors, h2Errors) && Number.isFinite(h1Errors + h2Errors))) {
    throw new RangeError(`expected 0 <= common <= errors of each, got ${h1Errors}, ${h2Errors} and ${common} common`);
  }
  const state = stateOf(h1Errors, h2Errors, common);
  const [unit1, unit2] = [Math.sqrt(h1Errors / Math.PI), Math.sqrt(h2Errors / Math.PI)];
  const [unitDistance, unitDepth] = distance(state, unit1, unit2, common);

  const left = Math.min(-unit1, unitDistance - unit2);
  const right = Math.max(unit1, unitDistance + unit2);
  const room = (total: number) => Math.max(total - 2 * PADDING, 0.5 * Math.max(total, 0));
  const most = Math.max(unit1, unit2);
  const scale = most > 0 ? Math.min(room(width) / (right - left), room(height) / (2 * most)) : 0;
  const [r1, r2, d, depth] = [unit1 * scale, unit2 * scale, unitDistance * scale, unitDepth * scale];
  const x1 = width / 2 - ((left + right) / 2) * scale;
  const x2 = x1 + d;
  const y = height / 2;

  const apart = common === 0;
  const inside = state === "h1_in_h2" || state === "h2_in_h1";
  // Where each region lies on the axis: its widest stretch, from and to.
  const stretches: Record<Region, readonly [number, number]> = {
    progress: widest([x1 - r1, apart ? x1 + r1 : Math.min(x1 + r1, x2 - r2)], [Math.max(x1 - r1, x2 + r2), x1 + r1]),
    common: [Math.max(x1 - r1, x2 - r2), Math.min(x1 + r1, x2 + r2)],
    regress: widest([Math.max(x2 - r2, apart ? x2 - r2 : x1 + r1), x2 + r2], [x2 - r2, Math.min(x2 + r2, x1 - r1)]),
  };
  const counts: Record<Region, number> = {
    progress: h1Errors - common,
    common,
    regress: h2Errors - common,
  };
  // The thickness of a lens comes from the bisection itself: x1 + r1 - (x2 - r2) would lose its digits.
  const lens = inside || state === "identical" ? 2 * Math.min(r1, r2) : depth;
  const thickness = (region: Region) => (region === "common" ? lens : stretches[region][1] - stretches[region][0]);
  const spot = (region: Region) => ({ x: (stretches[region][0] + stretches[region][1]) / 2, y });
  const tiny = (region: Region) => counts[region] > 0 && thickness(region) < VISIBLE;
  return {
    state,
    width,
    height,
    r1,
    r2,
    x1,
    x2,
    y,
    paths: pathsOf(state, r1, r2, x1, x2, y, depth),
    spots: { progress: spot("progress"), common: spot("common"), regress: spot("regress") },
    tiny: { progress: tiny("progress"), common: tiny("common"), regress: tiny("regress") },
  };
}

function stateOf(h1Errors: number, h2Errors: number, common: number): VennState {
  if (h1Errors === 0 || h2Errors === 0) {
    return h1Errors > 0 ? "only_h1" : h2Errors > 0 ? "only_h2" : "empty";
  }
  if (common === 0) {
    return "disjoint";
  }
  if (common === h1Errors) {
    return common === h2Errors ? "identical" : "h1_in_h2";
  }
  return common === h2Errors ? "h2_in_h1" : "overlap";
}

/** Distance of the centres, and how deep the circles reach into each other on the axis. */
function distance(state: VennState, r1: number, r2: number, common: number): [number, number] {
  switch (state) {
    case "disjoint":
      return [1.08 * (r1 + r2), 0];
    case "h1_in_h2":
    case "h2_in_h1":
      // Off the centre, so that the ring has a wide side for its label; h1 stays on the left.
      return [0.6 * Math.abs(r1 - r2), 0];
    case "overlap": {
      const depth = depthOf(r1, r2, common);
      return [r1 + r2 - depth, depth];
    }
    default:
      return [0, 0];
  }
}

/** Bisection on the depth, not the distance: a thin lens between large circles keeps all its digits. */
function depthOf(r1: number, r2: number, area: number): number {
  let [low, high] = [0, 2 * Math.min(r1, r2)];
  for (;;) {
    const middle = (low + high) / 2;
    if (!(low < middle && middle < high)) {
      return middle;
    }
    if (lensArea(r1, r2, middle) < area) {
      low = middle;
    } else {
      high = middle;
    }
  }
}

function lensArea(r1: number, r2: number, depth: number): number {
  return segmentArea(r1, halfAngle(r1, r2, depth)) + segmentArea(r2, halfAngle(r2, r1, depth));
}

/** Half the angle under which the centre of the first circle sees the lens: half-angle formula of a triangle. */
function halfAngle(own: number, other: number, depth: number): number {
  const above = Math.max(0, 2 * other - depth) * depth;
  const below = (2 * (own + other) - depth) * Math.max(0, 2 * own - depth);
  return 2 * Math.atan2(Math.sqrt(above), Math.sqrt(below));
}

function segmentArea(radius: number, half: number): number {
  const angle = 2 * half;
  // angle - sin(angle), which cancels for small angles, there as its power series.
  let gap = angle - Math.sin(angle);
  if (angle < 0.5) {
    let term = angle ** 3 / 6;
    gap = term;
    for (let n = 4; Math.abs(term) > 1e-18 * gap; n += 2) {
      term *= -(angle * angle) / (n * (n + 1));
      gap += term;
    }
  }
  return (radius * radius * gap) / 2;
}

function widest(a: readonly [number, number], b: readonly [number, number]): readonly [number, number] {
  return b[1] - b[0] > a[1] - a[0] ? b : a;
}

function pathsOf(
  state: VennState,
  r1: number,
  r2: number,
  x1: number,
  x2: number,
  y: number,
  depth: number,
): Record<Region, string> {
  const first = circlePath(r1, x1, y);
  const second = circlePath(r2, x2, y);
  switch (state) {
    case "empty":
    case "only_h1":
    case "only_h2":
    case "disjoint":
      return { progress: first, common: "", regress: second };
    case "identical":
      return { progress: "", common: first, regress: "" };
    case "h1_in_h2":
      return { progress: "", common: first, regress: second + first };
    case "h2_in_h1":
      return { progress: first + second, common: second, regress: "" };
    case "overlap": {
      const [half1, half2] = [halfAngle(r1, r2, depth), halfAngle(r2, r1, depth)];
      // The smaller circle's angle places the corners more exactly.
      const cornerX = r1 <= r2 ? x1 + r1 * Math.cos(half1) : x2 - r2 * Math.cos(half2);
      const reach = r1 <= r2 ? r1 * Math.sin(half1) : r2 * Math.sin(half2);
      const [top, bottom] = [`${cornerX} ${y - reach}`, `${cornerX} ${y + reach}`];
      const arc = (radius: number, large: boolean, sweep: 0 | 1, to: string) =>
        `A${radius} ${radius} 0 ${large ? 1 : 0} ${sweep} ${to}`;
      const [long1, long2] = [half1 > Math.PI / 2, half2 > Math.PI / 2];
      return {
        progress: `M${top}${arc(r1, !long1, 0, bottom)}${arc(r2, long2, 1, top)}Z`,
        common: `M${top}${arc(r1, long1, 1, bottom)}${arc(r2, long2, 1, top)}Z`,
        regress: `M${top}${arc(r2, !long2, 1, bottom)}${arc(r1, long1, 0, top)}Z`,
      };
    }
  }
}

function circlePath(radius: number, x: number, y: number): string {
  if (radius === 0) {
    return "";
  }
  const half = `A${radius} ${radius} 0 1 1`;
  return `M${x - radius} ${y}${half} ${x + radius} ${y}${half} ${x - radius} ${y}Z`;
}
