import { scaleLinear } from "d3-scale";
import { count } from "../../layout/format";
import type { TransformGroup } from "../../model";
import { Axes, type Plot, shareDomain } from "../parts/Axis";
import { meansByPlace, type SizeCurve, type SizePoint, places, placeText, placeTicks } from "./invariancePoints";
import { spread, textWidth } from "../parts/size";

export interface SizePanelProps {
  readonly title: string;
  /** What stands on the axis. */
  readonly group: TransformGroup;
  readonly curves: readonly SizeCurve[];
  /** Place that is pointed at. */
  readonly cursor: number | null;
  readonly width: number;
  readonly height: number;
  readonly em: number;
  readonly onCursor: (place: number | null, x: number, byKey: boolean) => void;
}

const known = ({ value }: SizePoint) => !Number.isNaN(value);
const classOf = ({ mark, other }: SizeCurve) => `bc-of-${mark}${other ? " bc-other" : ""}`;

/** Scores against the size of a transformation. */
export function SizePanel({ title, group, curves, cursor, width, height, em, onCursor }: SizePanelProps) {
  const labels = Math.max(0, ...curves.map(({ label }) => textWidth(label, 0.88 * em)));
  const plot: Plot = {
    left: 4.2 * em,
    top: 1.9 * em,
    width: Math.max(80, width - 4.2 * em - labels - 1.8 * em),
    height: height - 1.9 * em - 2.9 * em,
  };
  const distinct = [...new Set(places(group))].sort((a, b) => a - b);
  const [first, last] = [distinct[0]!, distinct[distinct.length - 1]!];
  const x = scaleLinear(
    first < last ? [first, last] : [first - 1, first + 1],
    [plot.left + 0.4 * em, plot.left + plot.width - 0.4 * em],
  );
  const shares = curves.flatMap(({ points, other }) =>
    points.filter(known).flatMap(({ value, low, high }) => (other ? [value] : [low, high])),
  );
  const y = scaleLinear(shareDomain(shares), [plot.top + plot.height, plot.top]);
  const bottom = plot.top + plot.height;

  const nearest = (wanted: number) =>
    distinct.reduce((best, place) => (Math.abs(place - wanted) < Math.abs(best - wanted) ? place : best), first);
  const move = (place: number | null, byKey = false) => onCursor(place, place === null ? 0 : x(place), byKey);
  const pressed = (event: KeyboardEvent): void => {
    const i = cursor === null ? -1 : distinct.indexOf(cursor);
    const end = distinct.length - 1;
    const to = { ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: end }[event.key];
    if (event.key === "Escape") return move(null);
    if (to === undefined) return;
    event.preventDefault();
    move(distinct[Math.min(end, Math.max(0, to))]!, true);
  };

  const drawn = curves.map((curve) => {
    const all = curve.points.filter(known);
    /** Several of one size have no band that could be theirs. */
    const single = new Set(curve.points.map((point) => point.x)).size === curve.points.length;
    const line = meansByPlace(all);
    const at = (place: number, share: number) => `${x(place).toFixed(1)} ${y(share).toFixed(1)}`;
    return {
      key: classOf(curve),
      curve,
      all,
      single,
      line: line.length > 0 ? `M${line.map((point) => at(point.x, point.value)).join("L")}` : "",
      // Bands of a second run would hide those of the first.
      band:
        !curve.other && single && all.length > 1
          ? `M${all.map((point) => at(point.x, point.high)).join("L")}L${[...all]
              .reverse()
              .map((point) => at(point.x, point.low))
              .join("L")}Z`
          : "",
      end: line.at(-1) ?? null,
    };
  });
  // Dashed lines have the colours of the others: one label is enough.
  const ends = drawn.flatMap(({ curve: { mark, label, other }, end }) => (end && !other ? [{ mark, label, end }] : []));
  const labelled = spread(
    ends.map(({ end }) => y(end.value)),
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
      aria-label={`${title}: ${group.axis.toLowerCase()}, ${count(distinct.length)} sizes. Arrow keys go from one to the next.`}
      onPointerMove={(event) => {
        const box = event.currentTarget.getBoundingClientRect();
        move(nearest(x.invert(event.clientX - box.left)));
      }}
      onPointerLeave={() => move(null)}
      onBlur={() => move(null)}
      onKeyDown={pressed}
    >
      <Axes
        x={x}
        y={y}
        plot={plot}
        em={em}
        xTitle={group.axis}
        yTitle={title}
        xText={(tick) => placeText(group, tick)}
        xTicks={placeTicks(group, Math.floor(plot.width / (3.8 * em)))}
      />
      <g aria-hidden="true">
        {drawn.map(({ key, band }) => band && <path key={key} class={`bc-band ${key}`} d={band} />)}
        {cursor !== null && <line class="bc-step-cursor" x1={x(cursor)} x2={x(cursor)} y1={plot.top} y2={bottom} />}
        {drawn.map(({ key, curve, line, all, single }) => (
          <g key={key} class={`bc-curve ${key}`}>
            <path d={line} />
            {!single &&
              !curve.other &&
              all.map(({ member, x: place, low, high }) => (
                <line key={member} class="bc-whisker" x1={x(place)} x2={x(place)} y1={y(low)} y2={y(high)} />
              ))}
            {(all.length <= 40 || !single) &&
              all.map(({ member, x: place, value }) => (
                <circle key={member} cx={x(place)} cy={y(value)} r={0.2 * em} />
              ))}
          </g>
        ))}
        {cursor !== null &&
          drawn.map(({ key, curve, all }) =>
            all
              .filter((point) => point.x === cursor)
              .map((point) => (
                <circle
                  key={`${key} ${point.member}`}
                  class={`bc-cursor-dot bc-of-${curve.mark}`}
                  cx={x(point.x)}
                  cy={y(point.value)}
                  r={0.32 * em}
                />
              )),
          )}
      </g>
      {ends.length > 1 &&
        ends.map(({ mark, label, end }, i) => (
          <g key={mark} class={`bc-curve-label bc-of-${mark}`} aria-hidden="true">
            <path d={`M${x(end.x) + 0.4 * em} ${y(end.value)}L${plot.left + plot.width + 0.9 * em} ${labelled[i]}`} />
            <text x={plot.left + plot.width + 1.1 * em} y={labelled[i]} dy="0.32em">
              {label}
            </text>
          </g>
        ))}
    </svg>
  );
}
