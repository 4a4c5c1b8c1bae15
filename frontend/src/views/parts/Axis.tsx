import type { ScaleLinear } from "d3-scale";
import { percent } from "../../layout/format";

/** The inner rectangle of a chart, in pixels of its SVG. */
export interface Plot {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

export type Scale = ScaleLinear<number, number>;

/** Decimals that percent labels need so that every tick is written exactly. */
export function tickDigits(ticks: readonly number[]): number {
  const step = ticks.length > 1 ? Math.abs(ticks[1]! - ticks[0]!) * 100 : 1;
  for (let digits = 0; digits < 6; digits++) {
    const scaled = step * 10 ** digits;
    if (scaled > 0.5 && Math.abs(scaled - Math.round(scaled)) < 1e-4) return digits;
  }
  return 6;
}

/**
 * Smallest and largest of the values with some room around, never narrower than `minimum`. Lines stop at 0 and 1;
 * `beyond` keeps the room there too, for marks that would be cut in half.
 */
export function shareDomain(values: Iterable<number>, minimum = 0.004, room = 0.06, beyond = false): [number, number] {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return [0, 1];
  const missing = Math.max(0, minimum - (high - low)) / 2;
  [low, high] = [low - missing, high + missing];
  const shift = low < 0 ? -low : high > 1 ? 1 - high : 0;
  const padding = missing > 0 && !beyond ? 0 : (high - low) * room;
  [low, high] = [low + shift - padding, high + shift + padding];
  return beyond ? [low, high] : [Math.max(0, low), Math.min(1, high)];
}

/** Smallest and largest of numbers that are no shares, with some room around. */
export function plainDomain(values: readonly number[]): [number, number] {
  const [low, high] = values.length === 0 ? [0, 1] : [Math.min(...values), Math.max(...values)];
  const room = high > low ? 0.08 * (high - low) : Math.max(1, Math.abs(high)) * 0.1;
  return [low - room, high + room];
}

export interface AxesProps {
  readonly x: Scale;
  readonly y: Scale;
  readonly plot: Plot;
  readonly em: number;
  readonly xTitle: string;
  readonly yTitle: string;
  /** How values on the x axis are written; percent where it is left out. */
  readonly xText?: (tick: number) => string;
  readonly xTicks?: readonly number[];
  readonly yText?: (tick: number) => string;
}

export function Axes({ x, y, plot, em, xTitle, yTitle, xText, xTicks, yText }: AxesProps) {
  const possible = (tick: number, text: unknown): boolean => text !== undefined || (tick >= 0 && tick <= 1);
  const most = (length: number, each: number): number => Math.max(2, Math.floor(length / (each * em)));
  const across = xTicks ?? x.ticks(most(plot.width, 5.5)).filter((tick) => possible(tick, xText));
  const up = y.ticks(most(plot.height, 2.6)).filter((tick) => possible(tick, yText));
  const xDigits = tickDigits(across);
  const yDigits = tickDigits(up);
  const bottom = plot.top + plot.height;
  return (
    <g class="bc-axes" aria-hidden="true">
      {up.map((tick) => (
        <g key={`y${tick}`}>
          <line class="bc-grid" x1={plot.left} x2={plot.left + plot.width} y1={y(tick)} y2={y(tick)} />
          <text x={plot.left - 0.45 * em} y={y(tick)} dy="0.32em" text-anchor="end">
            {yText ? yText(tick) : percent(tick, yDigits)}
          </text>
        </g>
      ))}
      {across.map((tick) => (
        <g key={`x${tick}`}>
          <line class="bc-grid bc-grid-x" x1={x(tick)} x2={x(tick)} y1={plot.top} y2={bottom} />
          <text x={x(tick)} y={bottom + 1.2 * em} text-anchor="middle">
            {xText ? xText(tick) : percent(tick, xDigits)}
          </text>
        </g>
      ))}
      <line class="bc-axis-line" x1={plot.left} x2={plot.left + plot.width} y1={bottom} y2={bottom} />
      <text class="bc-axis-title" x={plot.left + plot.width} y={bottom + 2.5 * em} text-anchor="end">
        {xTitle}
      </text>
      <text class="bc-axis-title" x={0} y={0.95 * em}>
        {yTitle}
      </text>
    </g>
  );
}
