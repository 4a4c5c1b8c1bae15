import { scaleLinear } from "d3-scale";
import { useMemo, useState } from "preact/hooks";
import { shorten } from "../../layout/format";
import type { Estimate, InvarianceDepth as Depth, InvarianceLayer } from "../../model";
import { Axes, type Plot, type Scale } from "../parts/Axis";
import {
  depthPoints,
  differencePoints,
  type DepthPoint,
  everyOf,
  type Named,
  nvBounds,
  nvText,
  sameLayers,
  verdict,
} from "./invariancePoints";
import { markPath } from "../parts/marks";
import { textWidth, useSize } from "../parts/size";
import { Tooltip } from "../parts/Tooltip";

const NETWORKS = ["h1", "h2"] as const;
/** Names of layers differ at their end. */
const LONGEST = 22;
const tail = (name: string) => (name.length <= LONGEST ? name : `…${name.slice(1 - LONGEST)}`);

const VERDICTS = [
  { name: "worse", label: "h2 less invariant" },
  { name: "better", label: "h2 more invariant" },
  { name: "open", label: "not told apart" },
] as const;

const NO_LAYERS: readonly InvarianceLayer[] = [];
/** Number of the shape of a second run's differences. */
const DIAMOND = 3;

interface Line {
  readonly of: (typeof NETWORKS)[number];
  readonly points: readonly DepthPoint[];
  readonly other: boolean;
}

/** h1 and h2; then h2 of the second run, and its h1 where that is another network or was measured otherwise. */
function linesOf(layers: readonly InvarianceLayer[], others: readonly InvarianceLayer[]): Line[] {
  const of = (from: readonly InvarianceLayer[], other: boolean) =>
    ([0, 1] as const).map((which): Line => ({ of: NETWORKS[which], points: depthPoints(from, which), other }));
  const firsts = of(layers, false);
  const isRepeated = ({ of: network, points }: Line) =>
    network === "h1" && points.every(({ value }, i) => value === firsts[0]!.points[i]?.value);
  return [...firsts, ...of(others, true).filter((line) => line.points.length > 0 && !isRepeated(line))];
}

function bounded(points: readonly DepthPoint[]): boolean {
  return points.some(({ low }) => !Number.isNaN(low));
}

function extent(points: readonly DepthPoint[]): number[] {
  return points.flatMap(({ value, low, high }) => (Number.isNaN(low) ? [value] : [value, low, high]));
}

interface LayerAxisProps {
  readonly names: readonly string[];
  readonly x: Scale;
  readonly bottom: number;
  readonly em: number;
  readonly upright: boolean;
  readonly every: number;
}

function LayerAxis({ names, x, bottom, em, upright, every }: LayerAxisProps) {
  return (
    <g class="bc-axes" aria-hidden="true">
      {names.map(
        (name, i) =>
          i % every === 0 && (
            <text
              key={name}
              x={x(i)}
              y={bottom + (upright ? 0.6 : 1.2) * em}
              dy={upright ? "0.32em" : undefined}
              text-anchor={upright ? "end" : "middle"}
              transform={upright ? `rotate(-90 ${x(i)} ${bottom + 0.6 * em})` : undefined}
            >
              {tail(name)}
            </text>
          ),
      )}
    </g>
  );
}

function EstimateRow({ label, icon, estimate }: { label: string; icon: string | null; estimate: Estimate | null }) {
  return (
    <tr>
      <th scope="row">
        {icon !== null && <span class={`bc-line-icon ${icon}`} aria-hidden="true" />} {label}
      </th>
      <td>{estimate ? nvText(estimate.value) : "no such layer"}</td>
      <td class="bc-tooltip-note">{estimate && nvBounds(estimate)}</td>
    </tr>
  );
}

function LayerTable({ layers, label }: { layers: readonly InvarianceLayer[]; label: string }) {
  return (
    <div class="bc-table-scroll" tabIndex={0} role="group" aria-label="Numbers of the chart">
      <table class="bc-table" aria-label={label}>
        <thead>
          <tr>
            <th scope="col">Layer</th>
            {["h1", "h2", "h2 − h1", "Interval", "Features", "Dead units"].map((title) => (
              <th key={title} scope="col" class="bc-number">
                {title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {layers.map(({ name, nv, difference, features, dead }) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              {nv.map((found, which) => (
                <td key={which} class="bc-number" title={found ? nvBounds(found) : undefined}>
                  {nvText(found?.value ?? NaN)}
                </td>
              ))}
              <td class="bc-number">{nvText(difference?.value ?? NaN)}</td>
              <td class="bc-number">{(difference && nvBounds(difference)) || "–"}</td>
              <td class="bc-number">{[...new Set(features.map((each) => each ?? "–"))].join(" / ")}</td>
              <td class="bc-number">
                {dead.map((share) => (share === null ? "–" : `${Math.round(100 * share)}%`)).join(" / ")}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export interface InvarianceDepthProps {
  readonly depth: Depth;
  /** A second run, measured alike in the same layers. */
  readonly second: Named<Depth> | null;
}

/** NV of the layers of h1 and h2 over depth, and below what h2 has more, with its paired interval. */
export function InvarianceDepth({ depth, second }: InvarianceDepthProps) {
  const [frame, { width, em }] = useSize();
  const [cursor, setCursor] = useState<{ layer: number; x: number; byKey: boolean } | null>(null);
  const [tableOpen, setTableOpen] = useState(false);
  const { layers } = depth;
  const coverage = depth.confidence === null ? "" : `${Number((100 * depth.confidence).toFixed(2))}% `;
  const named = useMemo(() => sameLayers(layers), [layers]);
  const others = second?.value.layers ?? NO_LAYERS;
  const lines = useMemo(() => linesOf(layers, others), [layers, others]);
  const differences = useMemo(() => differencePoints(layers), [layers]);
  const otherDifferences = useMemo(() => differencePoints(others), [others]);

  const left = 4.2 * em;
  const right = 2.4 * em;
  const inner = Math.max(80, width - left - right);
  const room = inner / Math.max(1, layers.length);
  const longest = Math.max(0, ...layers.map(({ name }) => textWidth(tail(name), 0.88 * em)));
  const upright = named && longest + 0.8 * em > room;
  const every = named ? everyOf(layers.length, Math.floor(inner / (1.25 * em))) : 1;
  const foot = named ? (upright ? longest + 1.2 * em : 2 * em) : 2.9 * em;
  const x = scaleLinear(named ? [-0.5, layers.length - 0.5] : [-0.03, 1.03], [left, left + inner]);
  const upper: Plot = { left, top: 1.9 * em, width: inner, height: 13 * em };
  const middle = upper.top + upper.height;
  const lower: Plot = { left, top: middle + 2.8 * em, width: inner, height: 9 * em };
  const hasDifferences = differences.length > 0;
  const bottom = hasDifferences ? lower.top + lower.height : middle;
  const height = bottom + foot;

  const top = Math.max(0.02, ...lines.flatMap(({ points }) => extent(points))) * 1.06;
  const y = scaleLinear([0, top], [middle, upper.top]);
  const spread = [...extent(differences), ...extent(otherDifferences)];
  const [least, most] = [Math.min(0, ...spread), Math.max(0, ...spread)];
  const margin = Math.max(0.08 * (most - least), 1e-3);
  const yd = scaleLinear([least - margin, most + margin], [lower.top + lower.height, lower.top]);

  const places = useMemo(
    () => [...new Map(lines.flatMap(({ points }) => points).map(({ layer, x: at }) => [layer, at])).entries()],
    [lines],
  );
  const order = useMemo(() => [...places].sort((a, b) => a[1] - b[1]), [places]);
  const move = (layer: number | undefined, byKey = false) => {
    const at = places.find(([each]) => each === layer)?.[1];
    setCursor(layer === undefined || at === undefined ? null : { layer, x: x(at), byKey });
  };
  const pressed = (event: KeyboardEvent): void => {
    const i = order.findIndex(([layer]) => layer === cursor?.layer);
    const end = order.length - 1;
    const to = { ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: end }[event.key];
    if (event.key === "Escape") return setCursor(null);
    if (to === undefined) return;
    event.preventDefault();
    move(order[Math.min(end, Math.max(0, to))]?.[0], true);
  };
  const shown = cursor === null ? null : layers[cursor.layer]!;
  const beside = cursor === null ? undefined : others[cursor.layer];
  const told = bounded(differences);
  const kinds = VERDICTS.filter(({ name }) =>
    [...differences, ...otherDifferences].some((point) => verdict(point) === name),
  );
  // Beside the points of the first run, whose whiskers they would cover.
  const aside = second === null ? 0 : Math.min(0.45 * em, 0.2 * room);

  return (
    <div>
      <p class="bc-note bc-key">
        {NETWORKS.map((name) => (
          <span key={name} class="bc-key-item">
            <span class={`bc-line-icon bc-of-nv_${name}`} aria-hidden="true" /> {name}
          </span>
        ))}
        {lines
          .filter(({ other }) => other)
          .map(({ of }) => (
            <span key={`other ${of}`} class="bc-key-item">
              <span class={`bc-line-icon bc-other bc-of-nv_${of}`} aria-hidden="true" /> {of} of {shorten(second!.run, 40)}
            </span>
          ))}
        {second !== null && otherDifferences.length > 0 && (
          <span class="bc-key-item">
            <svg class="bc-mark-icon" viewBox="-1.5 -1.5 3 3" aria-hidden="true">
              <path d={markPath(DIAMOND, 1)} />
            </svg>{" "}
            h2 − h1 of {shorten(second.run, 40)}
          </span>
        )}
        {told &&
          kinds.map(({ name, label }) => (
            <span key={name} class="bc-key-item">
              <span class={`bc-strip-dot bc-of-${name}`} aria-hidden="true" /> {label}
            </span>
          ))}
        <span>
          NV 0 is {depth.kind === "invariance" ? "invariant" : "equivariant"}, about 1 as sensitive as to the sample
          {lines.some(({ points }) => bounded(points)) && `; bands and bars are ${coverage}intervals over samples`}.
        </span>
      </p>
      <div ref={frame} class="bc-chart">
        {width > 0 && (
          <svg
            class="bc-curves-surface"
            width={width}
            height={height}
            viewBox={`0 0 ${width} ${height}`}
            role="group"
            tabIndex={0}
            aria-label={`NV by depth, ${layers.length} layers. Arrow keys go from layer to layer.`}
            onPointerMove={(event) => {
              const box = event.currentTarget.getBoundingClientRect();
              const wanted = x.invert(event.clientX - box.left);
              const nearest = order.reduce<readonly [number, number] | null>(
                (best, each) =>
                  best === null || Math.abs(each[1] - wanted) < Math.abs(best[1] - wanted) ? each : best,
                null,
              );
              move(nearest?.[0]);
            }}
            onPointerLeave={() => setCursor(null)}
            onBlur={() => setCursor(null)}
            onKeyDown={pressed}
          >
            <Axes x={x} y={y} plot={upper} em={em} xTitle="" yTitle="NV" xTicks={[]} yText={nvText} />
            {top > 0.9 && (
              <line class="bc-one" x1={left} x2={left + inner} y1={y(1)} y2={y(1)} aria-hidden="true" />
            )}
            {hasDifferences && (
              <>
                <g class="bc-axes" transform={`translate(0 ${lower.top - 1.9 * em})`} aria-hidden="true">
                  <text class="bc-axis-title" x={0} y={0.95 * em}>
                    h2 − h1
                  </text>
                </g>
                <Axes x={x} y={yd} plot={lower} em={em} xTitle="" yTitle="" xTicks={[]} yText={nvText} />
                <line class="bc-zero" x1={left} x2={left + inner} y1={yd(0)} y2={yd(0)} aria-hidden="true" />
              </>
            )}
            {named ? (
              <LayerAxis names={layers.map(({ name }) => name)} {...{ x, bottom, em, upright, every }} />
            ) : (
              <g class="bc-axes" aria-hidden="true">
                <text x={x(0)} y={bottom + 1.3 * em}>
                  first layer
                </text>
                <text x={x(1)} y={bottom + 1.3 * em} text-anchor="end">
                  last layer
                </text>
                <text class="bc-axis-title" x={x(0.5)} y={bottom + 1.3 * em} text-anchor="middle">
                  share of the depth
                </text>
              </g>
            )}
            <g aria-hidden="true">
              {lines.map(({ of, points, other }) => {
                const found = points.filter(({ low }) => !Number.isNaN(low));
                const at = (place: number, value: number) => `${x(place).toFixed(1)} ${y(value).toFixed(1)}`;
                const back = [...found].reverse();
                return (
                  <g key={`${of} ${other}`}>
                    {found.length > 1 && !other && (
                      <path
                        class={`bc-band bc-of-nv_${of}`}
                        d={`M${found.map((point) => at(point.x, point.high)).join("L")}L${back
                          .map((point) => at(point.x, point.low))
                          .join("L")}Z`}
                      />
                    )}
                    <g class={`bc-curve bc-of-nv_${of}${other ? " bc-other" : ""}`}>
                      {points.length > 0 && <path d={`M${points.map((point) => at(point.x, point.value)).join("L")}`} />}
                      {points.length <= 40 &&
                        points.map((point) => (
                          <circle key={point.layer} cx={x(point.x)} cy={y(point.value)} r={0.22 * em} />
                        ))}
                    </g>
                  </g>
                );
              })}
              {differences.map((point) => {
                const kind = verdict(point);
                return (
                  <g key={point.layer} class={`bc-difference bc-of-${kind} bc-difference-${kind}`}>
                    {!Number.isNaN(point.low) && (
                      <line
                        class="bc-whisker"
                        x1={x(point.x) - aside}
                        x2={x(point.x) - aside}
                        y1={yd(point.low)}
                        y2={yd(point.high)}
                      />
                    )}
                    <circle cx={x(point.x) - aside} cy={yd(point.value)} r={(differences.length > 40 ? 0.2 : 0.28) * em} />
                  </g>
                );
              })}
              {otherDifferences.map((point) => {
                const kind = verdict(point);
                const at = x(point.x) + aside;
                return (
                  <g key={`other ${point.layer}`} class={`bc-difference bc-of-${kind} bc-difference-${kind}`}>
                    {!Number.isNaN(point.low) && (
                      <line class="bc-whisker" x1={at} x2={at} y1={yd(point.low)} y2={yd(point.high)} />
                    )}
                    <path
                      d={markPath(DIAMOND, (differences.length > 40 ? 0.2 : 0.28) * em)}
                      transform={`translate(${at} ${yd(point.value)})`}
                    />
                  </g>
                );
              })}
              {cursor !== null && (
                <line class="bc-step-cursor" x1={cursor.x} x2={cursor.x} y1={upper.top} y2={bottom} />
              )}
            </g>
          </svg>
        )}
        {cursor !== null && shown !== null && (
          <Tooltip x={cursor.x} y={bottom - 0.4 * em} below>
            <strong>{shorten(shown.name, 60)}</strong>
            <table class="bc-tooltip-table">
              <tbody>
                {NETWORKS.map((name, which) => (
                  <EstimateRow key={name} label={name} icon={`bc-of-nv_${name}`} estimate={shown.nv[which]!} />
                ))}
                {beside && second && (
                  <EstimateRow
                    label={`h2 of ${shorten(second.run, 24)}`}
                    icon="bc-other bc-of-nv_h2"
                    estimate={beside.nv[1]}
                  />
                )}
                {shown.difference && <EstimateRow label="h2 − h1" icon={null} estimate={shown.difference} />}
                {beside?.difference && second && (
                  <EstimateRow
                    label={`h2 − h1 of ${shorten(second.run, 24)}`}
                    icon={null}
                    estimate={beside.difference}
                  />
                )}
              </tbody>
            </table>
          </Tooltip>
        )}
      </div>
      <div class="bc-hidden" aria-live="polite">
        {cursor?.byKey === true &&
          shown !== null &&
          `${shown.name}: ${NETWORKS.map((name, which) => `${name} ${nvText(shown.nv[which]?.value ?? NaN)}`).join(", ")}` +
            (beside ? `, h2 of run B ${nvText(beside.nv[1]?.value ?? NaN)}` : "")}
      </div>
      <details class="bc-as-table" onToggle={(event) => setTableOpen(event.currentTarget.open)}>
        <summary>The same as a table</summary>
        {tableOpen && <LayerTable layers={layers} label="NV by layer" />}
        {tableOpen && second !== null && (
          <>
            <p class="bc-note">Run B, {second.run}:</p>
            <LayerTable layers={others} label="NV of run B by layer" />
          </>
        )}
      </details>
    </div>
  );
}
