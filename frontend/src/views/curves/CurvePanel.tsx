import { scaleLinear } from "d3-scale";
import { useContext, useId, useMemo } from "preact/hooks";
import { count } from "../../layout/format";
import type { Series } from "../../model";
import { Axes, type Plot } from "../parts/Axis";
import { nearestStep, stretches, thinned, type CurvePoint } from "./curvePoints";
import { MountId } from "../parts/mountId";
import { spread, textWidth } from "../parts/size";

export interface Curve {
  readonly key: string;
  /** What it shows, as the ending of a class name: a score, or "lambda". */
  readonly mark: string;
  /** Short name beside the end of the line. */
  readonly label: string;
  /** Of the other series: drawn dashed. */
  readonly other: boolean;
  readonly band: boolean;
  readonly points: readonly CurvePoint[];
}

export interface CurvePanelProps {
  readonly title: string;
  readonly curves: readonly Curve[];
  /** The series whose steps are pointed at and chosen. */
  readonly series: Series;
  readonly xDomain: readonly [number, number];
  readonly yDomain: readonly [number, number];
  readonly yText?: (value: number) => string;
  readonly current: number | null;
  readonly cursor: number | null;
  readonly width: number;
  readonly height: number;
  readonly em: number;
  readonly onCursor: (step: number | null, x: number, byKey: boolean) => void;
  readonly onStep: (step: number) => void;
}

/** Ticks at whole steps only. */
export function stepTicks([low, high]: readonly [number, number], most: number): number[] {
  if (high - low < 1e-9) return [low];
  const ticks = scaleLinear([low, high], [0, 1])
    .ticks(Math.max(1, most))
    .filter((tick) => Number.isInteger(tick));
  return ticks.length ? ticks : [Math.round((low + high) / 2)];
}

function shortStep(step: number): string {
  if (Math.abs(step) >= 1e6) return `${Number((step / 1e6).toPrecision(4))}M`;
  return Math.abs(step) >= 1e5 ? `${step / 1e3}k` : count(step);
}

export function CurvePanel(props: CurvePanelProps) {
  const { curves, series, xDomain, yDomain, current, cursor, width, height, em } = props;
  const clip = `${useContext(MountId)}${useId()}`;
  const labels = Math.max(0, ...curves.map((curve) => textWidth(curve.label, 0.88 * em)));
  const plot: Plot = {
    left: 4.4 * em,
    top: 1.9 * em,
    width: Math.max(80, width - 4.4 * em - labels - 1.5 * em),
    height: height - 1.9 * em - 2.9 * em,
  };
  const x = scaleLinear(xDomain, [plot.left, plot.left + plot.width]);
  const y = scaleLinear(yDomain, [plot.top + plot.height, plot.top]);
  const bottom = plot.top + plot.height;

  const pointAt = (event: PointerEvent | MouseEvent): number | null => {
    const box = (event.currentTarget as Element).getBoundingClientRect();
    return nearestStep(series.steps, x.invert(event.clientX - box.left))?.step ?? null;
  };
  const move = (step: number | null, byKey = false): void => props.onCursor(step, step === null ? 0 : x(step), byKey);
  const pressed = (event: KeyboardEvent): void => {
    const at = cursor ?? current;
    const i = series.steps.findIndex(({ step }) => step === at);
    const last = series.steps.length - 1;
    const moves: Record<string, number> = {
      ArrowLeft: i - 1,
      ArrowRight: i + 1,
      PageUp: i - 10,
      PageDown: i + 10,
      Home: 0,
      End: last,
    };
    const to = moves[event.key];
    if (event.key === "Escape") return move(null);
    if ((event.key === "Enter" || event.key === " ") && cursor !== null) props.onStep(cursor);
    else if (to === undefined) return;
    else move(series.steps[Math.min(last, Math.max(0, to))]?.step ?? null, true);
    event.preventDefault();
  };

  const shapes = useMemo(
    () =>
      curves.map((curve) => {
        const runs = stretches(thinned(curve.points, Math.max(1, Math.floor(plot.width))));
        const at = (step: number, value: number) => `${x(step).toFixed(1)} ${y(value).toFixed(1)}`;
        return {
          curve,
          line: runs.map((run) => `M${run.map((point) => at(point.step, point.value)).join("L")}`).join(""),
          band: curve.band
            ? runs
                .map((run) => {
                  const upper = run.map((point) => at(point.step, point.high));
                  const lower = run.map((point) => at(point.step, point.low)).reverse();
                  return `M${upper.join("L")}L${lower.join("L")}Z`;
                })
                .join("")
            : "",
          // A stretch of one point has no line to show.
          dots: curve.points.length <= 40 ? runs.flat() : runs.filter((run) => run.length === 1).flat(),
          last: runs.at(-1)?.at(-1) ?? null,
        };
      }),
    [curves, plot.left, plot.width, plot.height, xDomain[0], xDomain[1], yDomain[0], yDomain[1]],
  );
  // The lines of the other series lie beside those of the first and have their colours: one label is enough.
  const labelled = shapes.flatMap(({ curve, last }) => (last && !curve.other ? [{ curve, last }] : []));
  const places = spread(
    labelled.map(({ last }) => y(last.value)),
    1.2 * em,
    plot.top + 0.3 * em,
    bottom,
  );

  return (
    <svg
      class="bc-curves-surface"
      width={width}
      height={height}
      viewBox={`0 0 ${width} ${height}`}
      role="group"
      tabIndex={0}
      aria-label={
        `${props.title} over steps, ${series.steps.length} steps. ` +
        "Arrow keys go from step to step, Enter shows the comparison of that step."
      }
      onPointerMove={(event) => move(pointAt(event))}
      onPointerLeave={() => move(null)}
      onBlur={() => move(null)}
      onClick={(event) => {
        const step = pointAt(event);
        if (step !== null) props.onStep(step);
      }}
      onKeyDown={pressed}
    >
      <clipPath id={clip}>
        <rect x={plot.left - 4} y={plot.top - 4} width={plot.width + 8} height={plot.height + 8} />
      </clipPath>
      <Axes
        x={x}
        y={y}
        plot={plot}
        em={em}
        xTitle="step"
        yTitle={props.title}
        xText={shortStep}
        xTicks={stepTicks(xDomain, Math.floor(plot.width / (5.5 * em)))}
        {...(props.yText ? { yText: props.yText } : {})}
      />
      <g clip-path={`url(#${clip})`} aria-hidden="true">
        {shapes.map(
          ({ curve, band }) => band && <path key={curve.key} class={`bc-band bc-of-${curve.mark}`} d={band} />,
        )}
        {current !== null && current >= xDomain[0] && current <= xDomain[1] && (
          <line class="bc-step-current" x1={x(current)} x2={x(current)} y1={plot.top} y2={bottom} />
        )}
        {cursor !== null && <line class="bc-step-cursor" x1={x(cursor)} x2={x(cursor)} y1={plot.top} y2={bottom} />}
        {shapes.map(({ curve, line, dots }) => (
          <g key={curve.key} class={`bc-curve bc-of-${curve.mark}${curve.other ? " bc-other" : ""}`}>
            <path d={line} />
            {dots.map((point) => (
              <g key={point.step}>
                {curve.points.length === 1 && (
                  <line class="bc-whisker" x1={x(point.step)} x2={x(point.step)} y1={y(point.low)} y2={y(point.high)} />
                )}
                <circle cx={x(point.step)} cy={y(point.value)} r={(curve.points.length === 1 ? 0.3 : 0.18) * em} />
              </g>
            ))}
          </g>
        ))}
        {cursor !== null &&
          shapes.map(({ curve }) => {
            const point = curve.points.find(({ step }) => step === cursor);
            return (
              point &&
              !Number.isNaN(point.value) && (
                <circle
                  key={curve.key}
                  class={`bc-cursor-dot bc-of-${curve.mark}`}
                  cx={x(point.step)}
                  cy={y(point.value)}
                  r={0.32 * em}
                />
              )
            );
          })}
      </g>
      {current !== null && current >= xDomain[0] && current <= xDomain[1] && (
        <path
          class="bc-step-flag"
          d={`M${x(current)} ${plot.top + 0.3 * em}l${-0.45 * em} ${-0.7 * em}h${0.9 * em}Z`}
          aria-hidden="true"
        />
      )}
      {labelled.map(({ curve, last }, k) => (
        <g key={curve.key} class={`bc-curve-label bc-of-${curve.mark}`} aria-hidden="true">
          <path
            d={`M${x(last.step) + 0.4 * em} ${y(last.value)}L${plot.left + plot.width + 0.9 * em} ${places[k]}`}
          />
          <text x={plot.left + plot.width + 1.1 * em} y={places[k]} dy="0.32em">
            {curve.label}
          </text>
        </g>
      ))}
    </svg>
  );
}
