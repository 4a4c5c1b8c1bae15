import { scaleLinear } from "d3-scale";
import { useMemo, useState } from "preact/hooks";
import { shorten } from "../layout/format";
import type { InvarianceDepth as Depth } from "../model";
import { Axes, type Plot, type Scale } from "./Axis";
import {
  depthPoints,
  differencePoints,
  type DepthPoint,
  everyOf,
  nvBounds,
  nvText,
  sameLayers,
  verdict,
} from "./invariancePoints";
import { textWidth, useSize } from "./size";
import { Tooltip } from "./Tooltip";

const NETWORKS = ["h1", "h2"] as const;
/** Names of layers differ at their end. */
const LONGEST = 22;
const tail = (name: string) => (name.length <= LONGEST ? name : `…${name.slice(1 - LONGEST)}`);

const VERDICTS = [
  { name: "worse", label: "h2 less invariant" },
  { name: "better", label: "h2 more invariant" },
  { name: "open", label: "not told apart" },
] as const;

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

/** NV of the layers of h1 and h2 over depth, and below what h2 has more, with its paired interval. */
export function InvarianceDepth({ depth }: { depth: Depth }) {
  const [frame, { width, em }] = useSize();
  const [cursor, setCursor] = useState<{ layer: number; x: number; byKey: boolean } | null>(null);
  const [tableOpen, setTableOpen] = useState(false);
  const { layers } = depth;
  const named = useMemo(() => sameLayers(layers), [layers]);
  const lines = useMemo(() => ([0, 1] as const).map((which) => depthPoints(layers, which)), [layers]);
  const differences = useMemo(() => differencePoints(layers), [layers]);

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

  const top = Math.max(0.02, ...lines.flatMap(extent)) * 1.06;
  const y = scaleLinear([0, top], [middle, upper.top]);
  const spread = extent(differences);
  const [least, most] = [Math.min(0, ...spread), Math.max(0, ...spread)];
  const margin = Math.max(0.08 * (most - least), 1e-3);
  const yd = scaleLinear([least - margin, most + margin], [lower.top + lower.height, lower.top]);

  const places = useMemo(
    () => [...new Map([...lines[0]!, ...lines[1]!].map(({ layer, x: at }) => [layer, at])).entries()],
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
  const told = bounded(differences);
  const kinds = VERDICTS.filter(({ name }) => differences.some((point) => verdict(point) === name));

  return (
    <div>
      <p class="bc-note bc-key">
        {NETWORKS.map((name) => (
          <span key={name} class="bc-key-item">
            <span class={`bc-line-icon bc-of-nv_${name}`} aria-hidden="true" /> {name}
          </span>
        ))}
        {told &&
          kinds.map(({ name, label }) => (
            <span key={name} class="bc-key-item">
              <span class={`bc-strip-dot bc-of-${name}`} aria-hidden="true" /> {label}
            </span>
          ))}
        <span>
          NV 0 is {depth.kind === "invariance" ? "invariant" : "equivariant"}, about 1 as sensitive as to the sample
          {lines.some(bounded) && "; bands and bars are intervals over samples"}.
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
              {lines.map((points, which) => {
                const found = points.filter(({ low }) => !Number.isNaN(low));
                const at = (place: number, value: number) => `${x(place).toFixed(1)} ${y(value).toFixed(1)}`;
                const back = [...found].reverse();
                return (
                  <g key={which}>
                    {found.length > 1 && (
                      <path
                        class={`bc-band bc-of-nv_${NETWORKS[which]!}`}
                        d={`M${found.map((point) => at(point.x, point.high)).join("L")}L${back
                          .map((point) => at(point.x, point.low))
                          .join("L")}Z`}
                      />
                    )}
                    <g class={`bc-curve bc-of-nv_${NETWORKS[which]!}`}>
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
                      <line class="bc-whisker" x1={x(point.x)} x2={x(point.x)} y1={yd(point.low)} y2={yd(point.high)} />
                    )}
                    <circle cx={x(point.x)} cy={yd(point.value)} r={(differences.length > 40 ? 0.2 : 0.28) * em} />
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
                  <tr key={name}>
                    <th scope="row">
                      <span class={`bc-line-icon bc-of-nv_${name}`} aria-hidden="true" /> {name}
                    </th>
                    <td>{shown.nv[which] ? nvText(shown.nv[which]!.value) : "no such layer"}</td>
                    <td class="bc-tooltip-note">{shown.nv[which] && nvBounds(shown.nv[which]!)}</td>
                  </tr>
                ))}
                {shown.difference && (
                  <tr>
                    <th scope="row">h2 − h1</th>
                    <td>{nvText(shown.difference.value)}</td>
                    <td class="bc-tooltip-note">{nvBounds(shown.difference)}</td>
                  </tr>
                )}
              </tbody>
            </table>
          </Tooltip>
        )}
      </div>
      <div class="bc-hidden" aria-live="polite">
        {cursor?.byKey === true &&
          shown !== null &&
          `${shown.name}: ${NETWORKS.map((name, which) => `${name} ${nvText(shown.nv[which]?.value ?? NaN)}`).join(", ")}`}
      </div>
      <details class="bc-as-table" onToggle={(event) => setTableOpen(event.currentTarget.open)}>
        <summary>The same as a table</summary>
        {tableOpen && (
          <div class="bc-table-scroll">
            <table class="bc-table" aria-label="NV by layer">
              <thead>
                <tr>
                  <th scope="col">Layer</th>
                  <th scope="col" class="bc-number">
                    h1
                  </th>
                  <th scope="col" class="bc-number">
                    h2
                  </th>
                  <th scope="col" class="bc-number">
                    h2 − h1
                  </th>
                  <th scope="col" class="bc-number">
                    Interval
                  </th>
                  <th scope="col" class="bc-number">
                    Features
                  </th>
                  <th scope="col" class="bc-number">
                    Dead units
                  </th>
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
        )}
      </details>
    </div>
  );
}
