import { scaleLinear } from "d3-scale";
import { useMemo } from "preact/hooks";
import { regionOf } from "../../data/engine";
import { count, percent } from "../../layout/format";
import type { Table } from "../../model";
import { Axes, type Plot } from "../parts/Axis";
import { useSize } from "../parts/size";

export type Range = readonly [number, number];

export interface SureScatterProps {
  readonly table: Table;
  /** By what the points are coloured: null is the region, else a column of metadata. */
  readonly colour: string | null;
  readonly selected: readonly [Range | null, Range | null];
  readonly onSelect: (sure1: Range | null, sure2: Range | null) => void;
}

/** More points than this are a smear, and slow. */
const MOST_POINTS = 2000;
const TENTHS = 10;
/** Colours that are told apart in both themes; values beyond share the last. */
export const MOST_COLOURS = 5;

/** The most frequent values among the error instances, which get a colour of their own. */
export function colouredValues(table: Table, colour: string): number[] {
  const column = table.slices.find((each) => each.column === colour);
  if (column === undefined) return [];
  const counts = new Uint32Array(column.values.length);
  for (let row = 0; row < table.size; row++) counts[column.codes[row]!]! += 1;
  const order = [...counts.keys()].filter((code) => counts[code]! > 0).sort((a, b) => counts[b]! - counts[a]! || a - b);
  return order.slice(0, MOST_COLOURS);
}

/** Class of a point: region, or place of its value among the coloured ones. */
function markOf(table: Table, colour: string | null): (row: number) => string {
  const column = table.slices.find((each) => each.column === colour);
  if (column === undefined) return (row) => `bc-sure-${regionOf(table, row)}`;
  const places = new Map(colouredValues(table, column.column).map((code, place) => [code, place]));
  return (row) => `bc-hue-${places.get(column.codes[row]!) ?? "other"}`;
}

/** How sure h1 and h2 are of their answers, one point for each error instance, and tenths to choose by. */
export function SureScatter({ table, colour, selected, onSelect }: SureScatterProps) {
  const [frame, { width, em }] = useSize();
  const { sure, size } = table;
  const [h1, h2] = [sure!.h1, sure!.h2];
  const side = Math.min(width, 30 * em);
  const plot: Plot = { left: 3.6 * em, top: 1.9 * em, width: side - 4.4 * em, height: side - 5.2 * em };
  const cells = useMemo(() => tenths(h1, h2), [h1, h2]);
  const start = cells.low / TENTHS;
  const x = scaleLinear([start, 1], [plot.left, plot.left + plot.width]);
  const y = scaleLinear([start, 1], [plot.top + plot.height, plot.top]);
  const points = useMemo(() => {
    const mark = markOf(table, colour);
    const stride = Math.max(1, Math.ceil(size / MOST_POINTS));
    const found: { row: number; mark: string }[] = [];
    for (let row = 0; row < size; row += stride) {
      if (!Number.isNaN(h1[row]!) && !Number.isNaN(h2[row]!)) found.push({ row, mark: mark(row) });
    }
    return { found, stride };
  }, [table, colour, h1, h2, size]);
  const isOn = ([low1, low2]: readonly [number, number]) =>
    selected[0]?.[0] === low1 / TENTHS && selected[1]?.[0] === low2 / TENTHS;
  if (cells.total === 0) return <p class="bc-empty">There is no instance of which both models say how sure they are.</p>;
  return (
    <figure class="bc-sure-figure">
      <div ref={frame} class="bc-chart">
        {width > 0 && (
          <svg width={side} height={side} viewBox={`0 0 ${side} ${side}`} role="group" aria-label="How sure h1 and h2 are">
            <Axes x={x} y={y} plot={plot} em={em} xTitle="h1 is sure" yTitle="h2 is sure" />
            <line class="bc-diagonal" x1={x(start)} y1={y(start)} x2={x(1)} y2={y(1)} />
            <g aria-hidden="true">
              {points.found.map(({ row, mark }) => (
                <circle key={row} class={`bc-sure-point ${mark}`} cx={x(h1[row]!)} cy={y(h2[row]!)} r={0.26 * em} />
              ))}
            </g>
            {cells.filled.map(([a, b, n]) => {
              const ranges: [Range, Range] = [[a / TENTHS, (a + 1) / TENTHS], [b / TENTHS, (b + 1) / TENTHS]]; // prettier-ignore
              const on = isOn([a, b]);
              const text = `h1 ${range(ranges[0])} sure, h2 ${range(ranges[1])}: ${count(n)} error instances`;
              const choose = () => (on ? onSelect(null, null) : onSelect(...ranges));
              return (
                <rect
                  key={`${a} ${b}`}
                  class={`bc-sure-cell${on ? " bc-selected" : ""}`}
                  x={x(ranges[0][0])}
                  y={y(ranges[1][1])}
                  width={x(ranges[0][1]) - x(ranges[0][0])}
                  height={y(ranges[1][0]) - y(ranges[1][1])}
                  role="button"
                  tabIndex={0}
                  aria-pressed={on}
                  aria-label={text}
                  onClick={choose}
                  onKeyDown={(event) => {
                    if (event.key !== "Enter" && event.key !== " ") return;
                    event.preventDefault();
                    choose();
                  }}
                >
                  <title>{text}</title>
                </rect>
              );
            })}
          </svg>
        )}
      </div>
      <figcaption class="bc-note">
        Each point is an error instance
        {points.stride > 1 && `, one in ${points.stride} of ${count(size)} drawn`}; a click on a square lists its
        instances. Bottom right, h1 was surer than h2; top left, h2 is.
        {cells.unknown > 0 && ` Of ${count(cells.unknown)} it is not known how sure both are.`}
      </figcaption>
    </figure>
  );
}

function range([low, high]: Range): string {
  return `${percent(low, 0)} to ${percent(high, 0)}`;
}

interface Tenths {
  /** The lowest tenth in which there is one. */
  readonly low: number;
  readonly filled: readonly (readonly [tenth1: number, tenth2: number, instances: number])[];
  readonly total: number;
  readonly unknown: number;
}

/** Instances by tenths of both. */
export function tenths(h1: Float32Array, h2: Float32Array): Tenths {
  const counts = new Uint32Array(TENTHS * TENTHS);
  let unknown = 0;
  // As a condition on the rows takes them: in steps of 1 / 65534.
  const tenth = (share: number) => Math.min(TENTHS - 1, Math.floor(share * TENTHS + TENTHS / 131068));
  for (let row = 0; row < h1.length; row++) {
    const [a, b] = [h1[row]!, h2[row]!];
    if (Number.isNaN(a) || Number.isNaN(b)) unknown += 1;
    else counts[tenth(a) * TENTHS + tenth(b)]! += 1;
  }
  const filled = [...counts.keys()]
    .filter((cell) => counts[cell]! > 0)
    .map((cell) => [Math.floor(cell / TENTHS), cell % TENTHS, counts[cell]!] as const);
  const low = Math.min(TENTHS - 1, ...filled.map(([a, b]) => Math.min(a, b)));
  return { low, filled, total: h1.length - unknown, unknown };
}
