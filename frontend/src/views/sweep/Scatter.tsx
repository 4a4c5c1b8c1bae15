import { scaleLinear, scaleSymlog } from "d3-scale";
import { select } from "d3-selection";
import { zoom, zoomIdentity, type ZoomBehavior, type ZoomTransform } from "d3-zoom";
import type { ComponentChildren } from "preact";
import { useCallback, useContext, useEffect, useId, useMemo, useRef, useState } from "preact/hooks";
import type { Promised, Verdict } from "../../data/promise";
import { lambdaText } from "../../layout/format";
import { paretoFront } from "../../layout/pareto";
import { Axes, plainDomain, shareDomain, type Plot, type Scale } from "../parts/Axis";
import { markPath, setClass } from "../parts/marks";
import { MountId } from "../parts/mountId";
import { spread, textWidth } from "../parts/size";
import {
  coordinate,
  distinct,
  errorBar,
  isHigherBetter,
  isScore,
  LAMBDA,
  lambdaDomain,
  lambdaLabels,
  type OldModel,
  plainNumber,
  type ReferenceLine,
  stepLine,
  type SweepPoint,
  titleOf,
} from "./sweepPoints";
import { DATASET, type Look } from "./looks";
import { Tooltip } from "../parts/Tooltip";

export interface ScatterProps {
  readonly points: readonly SweepPoint[];
  /** Accuracies of h1. */
  readonly lines: readonly ReferenceLine[];
  /** Names of what lies on the axes. */
  readonly xName: string;
  readonly yName: string;
  /** What each point does to a promise, by key; null where none is made. */
  readonly promised: { readonly promise: Promised; readonly verdicts: ReadonlyMap<string, Verdict> } | null;
  /** The point that is recommended. */
  readonly best: string | null;
  readonly datasets: readonly string[];
  /** What the colour and the shape of a mark say. */
  readonly colour: Look;
  readonly shape: Look;
  /** Points of h1 itself. */
  readonly ofOld: readonly OldModel[];
  readonly selected: string | null;
  readonly hovered: string | null;
  readonly describe: (point: SweepPoint) => string;
  readonly width: number;
  readonly em: number;
  /** What is said about the hovered point, if it is hovered in this chart. */
  readonly tip: ComponentChildren;
  readonly onHover: (key: string | null) => void;
  readonly onPoint: (point: SweepPoint) => void;
}

const MOST_LINES = 6;
const MANY_MARKS = 120;

type Gesture = Pick<WheelEvent, "type" | "altKey" | "ctrlKey" | "metaKey" | "shiftKey"> & {
  readonly button?: number;
  readonly touches?: ArrayLike<unknown>;
};

/** Plain scrolling belongs to the page; TensorBoard's own charts zoom with Alt and the wheel as well. */
export function startsZoom(event: Gesture): boolean {
  if (event.type === "wheel") return event.altKey || event.ctrlKey || event.metaKey || event.shiftKey;
  if (event.touches) return event.touches.length > 1;
  return !event.button && !event.ctrlKey;
}

export function Scatter(props: ScatterProps) {
  const { points, lines, xName, yName, promised, best, datasets, colour, shape, ofOld, selected, hovered, width, em } = props;
  // Lines of a data set have its colour only where that is what colour says.
  const lineClass = (set: number): string => (colour.by === DATASET ? setClass(set) : "bc-set-none");
  const valueOf = useCallback((point: SweepPoint) => coordinate(point, xName), [xName]);
  const heightOf = useCallback((point: SweepPoint) => coordinate(point, yName), [yName]);
  const title = `${titleOf(yName)} over ${titleOf(xName)}`;
  const surface = useRef<SVGSVGElement>(null);
  const behaviour = useRef<ZoomBehavior<SVGSVGElement, unknown> | null>(null);
  const [transform, setTransform] = useState<ZoomTransform>(zoomIdentity);
  const [hint, setHint] = useState(false);
  const [reached, setReached] = useState<string | null>(null);
  const clip = `${useContext(MountId)}${useId()}`;

  const height = Math.round(Math.min(24 * em, Math.max(17 * em, width * 0.62)));
  const plot: Plot = {
    left: 4.6 * em,
    top: 1.9 * em,
    width: Math.max(80, width - 5.6 * em),
    height: height - 1.9 * em - 2.9 * em,
  };

  const drawn = useMemo(
    () => points.filter((point) => !Number.isNaN(valueOf(point)) && !Number.isNaN(heightOf(point))),
    [points, valueOf, heightOf],
  );
  const base = useMemo(() => {
    const heights = [...drawn.map(heightOf), ...lines.map((line) => line.y), ...ofOld.map((old) => old.y)];
    const across = [...drawn.map(valueOf), ...ofOld.map((old) => old.x)];
    const domain = (name: string, values: readonly number[]) =>
      isScore(name) ? shareDomain(values, 0.02, 0.08, true) : plainDomain(values);
    return { x: xName === LAMBDA ? lambdaDomain(across) : domain(xName, across), y: domain(yName, heights) };
  }, [drawn, lines, ofOld, xName, yName, valueOf, heightOf]);
  const span: [number, number] = [plot.left, plot.left + plot.width];
  // Of the two kinds of scale only what both have is used.
  const x0 = xName === LAMBDA ? (scaleSymlog(base.x, span) as unknown as Scale) : scaleLinear(base.x, span);
  const y0 = scaleLinear(base.y, [plot.top + plot.height, plot.top]);
  const x = transform.rescaleX(x0);
  const y = transform.rescaleY(y0);

  useEffect(() => {
    const element = surface.current;
    if (!element) return;
    let fading: ReturnType<typeof setTimeout>;
    const zooming = zoom<SVGSVGElement, unknown>()
      .scaleExtent([0.5, 500])
      .filter(startsZoom)
      .wheelDelta((event: WheelEvent) => {
        const turned = event.deltaY || event.deltaX; // Shift turns the wheel sideways in some browsers
        return -turned * (event.deltaMode === 1 ? 0.05 : event.deltaMode ? 1 : 0.002);
      })
      .on("zoom", (event: { transform: ZoomTransform }) => setTransform(event.transform));
    behaviour.current = zooming;
    const selection = select(element);
    selection.call(zooming);
    const explain = (event: WheelEvent): void => {
      if (startsZoom(event)) return;
      setHint(true);
      clearTimeout(fading);
      fading = setTimeout(() => setHint(false), 1500);
    };
    element.addEventListener("wheel", explain, { passive: true });
    return () => {
      clearTimeout(fading);
      element.removeEventListener("wheel", explain);
      selection.on(".zoom", null);
    };
  }, []);

  useEffect(() => {
    const { left, top } = plot;
    const [right, bottom] = [left + plot.width, top + plot.height];
    behaviour.current
      ?.extent([
        [left, top],
        [right, bottom],
      ])
      .translateExtent([
        [left - plot.width, top - plot.height],
        [right + plot.width, bottom + plot.height],
      ]);
  }, [plot.left, plot.top, plot.width, plot.height]);

  const zoomBy = (factor: number): void => {
    if (surface.current) behaviour.current?.scaleBy(select(surface.current), factor);
  };
  const reset = (): void => {
    if (surface.current) behaviour.current?.transform(select(surface.current), zoomIdentity);
  };

  const place = (point: SweepPoint) => ({ x: x(valueOf(point)), y: y(heightOf(point)) });
  const isInside = (point: SweepPoint): boolean => {
    const at = place(point);
    const [right, bottom] = [plot.left + plot.width, plot.top + plot.height];
    return at.x >= plot.left && at.x <= right && at.y >= plot.top && at.y <= bottom;
  };
  const bringIntoView = (point: SweepPoint): void => {
    if (isInside(point) || !surface.current) return;
    behaviour.current?.translateTo(select(surface.current), x0(valueOf(point)), y0(heightOf(point)));
  };

  // Arrow keys walk along x, so that marks in one spot are all reached; Tab enters at one mark only.
  const order = useMemo(
    () => [...drawn].sort((a, b) => valueOf(a) - valueOf(b) || heightOf(a) - heightOf(b)),
    [drawn, valueOf, heightOf],
  );
  const find = (key: string | null) => order.find((point) => point.key === key);
  const entry = find(reached) ?? find(selected) ?? order[0];
  const pressed = (event: KeyboardEvent, point: SweepPoint): void => {
    const at = order.indexOf(point);
    const moves: Record<string, number> = {
      ArrowRight: at + 1,
      ArrowUp: at + 1,
      ArrowLeft: at - 1,
      ArrowDown: at - 1,
      Home: 0,
      End: order.length - 1,
    };
    const to = moves[event.key];
    if (event.key === "Escape") return props.onHover(null);
    if (event.key === "Enter" || event.key === " ") props.onPoint(point);
    else if (to === undefined) return;
    else {
      const next = order[Math.min(order.length - 1, Math.max(0, to))];
      const i = next ? drawn.indexOf(next) : -1;
      surface.current?.querySelector<SVGElement>(`[data-point="${i}"]`)?.focus();
    }
    event.preventDefault();
  };

  const staircases = useMemo(() => {
    const [xHigher, yHigher] = [isHigherBetter(xName), isHigherBetter(yName)];
    if (xHigher === null || yHigher === null) return [];
    return datasets.flatMap((dataset, set) => {
      const own = drawn.filter((point) => point.ref.dataset === dataset);
      const spots = own.map((point) => ({ x: valueOf(point), y: heightOf(point) }));
      const front = paretoFront(spots, xHigher, yHigher).map((i) => spots[i]!);
      return front.length > 1 ? [{ set, corners: stepLine(front, xHigher) }] : [];
    });
  }, [drawn, datasets, xName, yName, valueOf, heightOf]);

  const visibleLines = lines.slice(0, MOST_LINES).filter(({ y: at }) => {
    const pixel = y(at);
    return pixel >= plot.top - 1 && pixel <= plot.top + plot.height + 1;
  });
  const small = em * 0.88;
  const lineLabels = spread(
    visibleLines.map((line) => y(line.y) - 0.4 * em),
    1.15 * em,
    plot.top + 0.9 * em,
    plot.top + plot.height - 0.3 * em,
  );
  /** A label stands where on its line the fewest marks are in the way, at an end if possible. */
  const labelX = (text: string, baseline: number): number => {
    const length = textWidth(text, small);
    const left = plot.left + 0.4 * em;
    const right = Math.max(left, plot.left + plot.width - length - 0.6 * em);
    const barrier = promised?.promise.score === xName ? [{ x: x(promised.promise.limit), y: baseline - 0.3 * em }] : [];
    const covered = (from: number): number =>
      [...drawn.map(place), ...ofOld.map((old) => ({ x: x(old.x), y: y(old.y) })), ...barrier].filter(
        (at) => at.x > from - em && at.x < from + length + em && Math.abs(at.y - baseline + 0.3 * em) < em,
      ).length;
    return [right, left, (left + right) / 2].reduce((best, from) => (covered(from) < covered(best) ? from : best));
  };
  // Many marks of the usual size would be one stain.
  const r = (drawn.length > MANY_MARKS ? 0.26 : 0.42) * em;
  const acts = useRef({ onHover: props.onHover, onPoint: props.onPoint, pressed, bringIntoView });
  acts.current = { onHover: props.onHover, onPoint: props.onPoint, pressed, bringIntoView };
  // Hundreds of marks, and each move of the pointer draws the chart: the same elements are not compared again.
  const marks = useMemo(
    () =>
      drawn.map((point, i) => {
        const at = place(point);
        return (
          <g
            key={point.key}
            data-point={i}
            class={`bc-point ${setClass(colour.of(point))}${
              promised?.verdicts.get(point.key) === "broken" ? " bc-point-broken" : ""
            }`}
            transform={`translate(${at.x},${at.y})`}
            role="button"
            tabIndex={point === entry ? 0 : -1}
            aria-pressed={point.key === selected}
            aria-label={props.describe(point)}
            onClick={() => acts.current.onPoint(point)}
            onKeyDown={(event) => acts.current.pressed(event, point)}
            onPointerEnter={() => acts.current.onHover(point.key)}
            onPointerLeave={() => acts.current.onHover(null)}
            onFocus={() => {
              setReached(point.key);
              acts.current.bringIntoView(point);
              acts.current.onHover(point.key);
            }}
            onBlur={() => acts.current.onHover(null)}
          >
            <circle class="bc-point-hit" r={0.75 * em} />
            <path class="bc-point-mark" d={markPath(shape.of(point), r)} />
          </g>
        );
      }),
    [drawn, base, transform, width, em, selected, entry, colour, shape, props.describe, promised, heightOf],
  );
  const special = distinct([selected, hovered]).flatMap((key) => drawn.find((point) => point.key === key) ?? []);
  const bestPoint = drawn.find((point) => point.key === best);
  const labels = xName === LAMBDA ? [] : lambdaLabels(drawn.filter(isInside), place, em, span[1]);
  const lambdaTicks = distinct(drawn.map(valueOf)).filter((tick) => x(tick) >= plot.left && x(tick) <= span[1]);
  const tipPoint = drawn.find((point) => point.key === hovered);
  const undrawn = points.length - drawn.length;

  return (
    <figure class="bc-scatter">
      <figcaption class="bc-scatter-head">
        <span class="bc-scatter-title">{title}</span>
        <span class="bc-zoom" role="group" aria-label={`Zoom of ${title}`}>
          <button type="button" title="Zoom in" aria-label="Zoom in" onClick={() => zoomBy(1.6)}>
            +
          </button>
          <button type="button" title="Zoom out" aria-label="Zoom out" onClick={() => zoomBy(1 / 1.6)}>
            −
          </button>
          <button type="button" title="Show all points again" onClick={reset}>
            reset
          </button>
        </span>
      </figcaption>
      <div class="bc-chart">
        <svg
          ref={surface}
          class="bc-scatter-surface"
          width={width}
          height={height}
          viewBox={`0 0 ${width} ${height}`}
          role="group"
          aria-label={`${title}: ${drawn.length} points. Arrow keys go from point to point, Enter chooses one.`}
        >
          <clipPath id={clip}>
            <rect x={plot.left} y={plot.top - 0.2 * em} width={plot.width} height={plot.height + 0.4 * em} />
          </clipPath>
          <rect class="bc-scatter-ground" x={plot.left} y={plot.top} width={plot.width} height={plot.height} />
          <Axes x={x} y={y} plot={plot} em={em} xTitle={`${titleOf(xName)} →`} yTitle={titleOf(yName)} {...(xName === LAMBDA ? { xText: lambdaText, xTicks: lambdaTicks } : isScore(xName) ? {} : { xText: plainNumber })} {...(isScore(yName) ? {} : { yText: plainNumber })} />
          <g clip-path={`url(#${clip})`}>
            {lines.map(({ dataset, y: at }) => (
              <line
                key={`${dataset}${at}`}
                class={`bc-reference ${lineClass(datasets.indexOf(dataset))}`}
                x1={plot.left}
                x2={plot.left + plot.width}
                y1={y(at)}
                y2={y(at)}
              />
            ))}
            {staircases.map(({ set, corners }) => (
              <path
                key={set}
                class={`bc-front ${lineClass(set)}`}
                d={`M${corners.map((corner) => `${x(corner.x)} ${y(corner.y)}`).join("L")}`}
              />
            ))}
            {visibleLines.map((line, k) => {
              return (
                <text
                  key={`${line.dataset}${line.y}`}
                  class={`bc-reference-label ${lineClass(datasets.indexOf(line.dataset))}`}
                  x={labelX(line.label, lineLabels[k]!)}
                  y={lineLabels[k]}
                >
                  {line.label}
                </text>
              );
            })}
            {special.map((point) => {
              const across = errorBar(xName, point.cells);
              const up = errorBar(yName, point.cells);
              const { x: px, y: py } = place(point);
              return (
                <g key={point.key} class={`bc-error-bars ${setClass(colour.of(point))}`} aria-hidden="true">
                  {across && <line x1={x(across[0])} x2={x(across[1])} y1={py} y2={py} />}
                  {up && <line x1={px} x2={px} y1={y(up[0])} y2={y(up[1])} />}
                </g>
              );
            })}
            {ofOld.map((old) => (
              <g
                key={old.key}
                class={`bc-old ${lineClass(datasets.indexOf(old.dataset))}`}
                transform={`translate(${x(old.x)},${y(old.y)})`}
                role="img"
                aria-label={`h1 itself on ${old.dataset}`}
              >
                <title>h1 itself on {old.dataset}: as if it were its own update</title>
                <path d={`M${-r} ${-r}L${r} ${r}M${-r} ${r}L${r} ${-r}`} />
                {/* Where the line of its accuracy is drawn, that says whose it is. */}
                {lines.length === 0 && (
                  <text class="bc-old-label" x={-1.3 * r} y={0.32 * em} text-anchor="end">
                    h1
                  </text>
                )}
              </g>
            ))}
            {marks}
            {promised !== null && promised.promise.score === xName && (
              <line
                class="bc-promise-line"
                x1={x(promised.promise.limit)}
                x2={x(promised.promise.limit)}
                y1={plot.top}
                y2={plot.top + plot.height}
              />
            )}
            {promised !== null && promised.promise.score === yName && (
              <line
                class="bc-promise-line"
                x1={plot.left}
                x2={plot.left + plot.width}
                y1={y(promised.promise.limit)}
                y2={y(promised.promise.limit)}
              />
            )}
            {labels.map(({ key, text, at }) => (
              <text key={key} class="bc-point-label" x={at.x} y={at.y} aria-hidden="true">
                {text}
              </text>
            ))}
            {special.map((point) => {
              const at = place(point);
              const name = point.key === selected ? "bc-ring bc-ring-selected" : "bc-ring";
              return <circle key={point.key} class={name} cx={at.x} cy={at.y} r={0.85 * em} aria-hidden="true" />;
            })}
          </g>
          {bestPoint && isInside(bestPoint) && (
            <text
              class="bc-point-best"
              x={place(bestPoint).x}
              y={place(bestPoint).y - 1.1 * em}
              text-anchor="middle"
              aria-hidden="true"
            >
              ★ best
            </text>
          )}
          {drawn.length === 0 && (
            <text
              class="bc-scatter-none"
              x={plot.left + plot.width / 2}
              y={plot.top + plot.height / 2}
              text-anchor="middle"
            >
              {points.length ? "This score is not defined for any of the points." : "No points to show."}
            </text>
          )}
          {hint && (
            <text class="bc-scatter-hint" x={plot.left + plot.width / 2} y={plot.top + 1.4 * em} text-anchor="middle">
              Alt or Ctrl + wheel zooms, dragging moves
            </text>
          )}
        </svg>
        {props.tip && tipPoint && isInside(tipPoint) && <Tooltip {...place(tipPoint)}>{props.tip}</Tooltip>}
      </div>
      {undrawn > 0 && drawn.length > 0 && (
        <p class="bc-note">
          {undrawn === 1 ? "One point is" : `${undrawn} points are`} not drawn: the score is not defined there.
        </p>
      )}
    </figure>
  );
}
