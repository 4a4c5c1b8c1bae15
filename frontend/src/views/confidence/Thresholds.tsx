import { scaleLinear } from "d3-scale";
import { useMemo, useState } from "preact/hooks";
import { alongThresholds, atThresholds } from "../../data/confidence";
import { interval, SCORES, value } from "../../data/scores";
import { intervalText, percent, signedPercent, UNKNOWN } from "../../layout/format";
import type { Cells, Table, Thresholds as Counts } from "../../model";
import { Axes, type Plot, shareDomain } from "../parts/Axis";
import { useSize } from "../parts/size";

/** Drawn over the threshold of h2. */
const DRAWN = ["accuracy_h2", "nfr"];

/** A threshold with as few decimals as it has. */
const edgeText = (edge: number) => String(Number(edge.toPrecision(6)));

/** What the scores would be if the models said class 1 from other probabilities on. */
export function Thresholds({ table }: { table: Table }) {
  const thresholds = table.thresholds!;
  const { edges, inUse } = thresholds;
  const [moved, setMoved] = useState<{ readonly of: Counts; readonly at: readonly [number, number] } | null>(null);
  // Another step may have other edges.
  const [first, second] = moved?.of === thresholds ? moved.at : inUse;
  const move = (at: readonly [number, number]) => setMoved({ of: thresholds, at });
  const before = useMemo(() => atThresholds(thresholds, ...inUse), [thresholds]);
  const now = useMemo(() => atThresholds(thresholds, first, second), [thresholds, first, second]);
  const along = useMemo(() => alongThresholds(thresholds, first), [thresholds, first]);
  const best = useMemo(() => highest(along, "accuracy_h2", inUse[1]), [along, inUse]);
  const isMoved = first !== inUse[0] || second !== inUse[1];
  const labels = table.classNames ?? ["0", "1"];
  // An h1 that gave labels alone has nothing to be moved.
  const hasH1 = table.calibration?.[0].some(({ wrong, right }) => wrong + right > 0) ?? true;
  return (
    <div class="bc-thresholds">
      <div class="bc-controls">
        <Slider model="h2" at={second} {...{ edges, label: labels[1]! }} onMove={(to) => move([first, to])} />
        {hasH1 && <Slider model="h1" at={first} {...{ edges, label: labels[1]! }} onMove={(to) => move([to, second])} />}
        <button type="button" class="bc-button" disabled={!isMoved} onClick={() => setMoved(null)}>
          As in use
        </button>
        {best !== second && (
          <button
            type="button"
            class="bc-button"
            title="Where h2's accuracy on these instances is highest"
            onClick={() => move([first, best])}
          >
            Most accurate: {edgeText(edges[best]!)}
          </button>
        )}
      </div>
      <div class="bc-threshold-parts">
        <table class="bc-table bc-threshold-table" aria-label="Scores at these thresholds">
          <thead>
            <tr>
              <th scope="col">Score</th>
              <th scope="col" class="bc-number">
                in use
              </th>
              <th scope="col" class="bc-number">
                here
              </th>
              <th scope="col" class="bc-number" title="In percentage points">
                change
              </th>
            </tr>
          </thead>
          <tbody>
            {SCORES.map(({ name, title, description }) => {
              const [was, is] = [value(name, before), value(name, now)];
              return (
                <tr key={name} data-score={name}>
                  <th scope="row" title={description}>
                    {title}
                  </th>
                  <td class="bc-number">{percent(was, 2)}</td>
                  <td class="bc-number" title={`95% interval ${intervalText(...interval(name, now), 2)}`}>
                    <b>{percent(is, 2)}</b>
                  </td>
                  <td class="bc-number">{Number.isNaN(is - was) ? UNKNOWN : signedPercent(is - was, 2).replace("%", "")}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
        {DRAWN.map((name) => (
          <Along key={name} name={name} {...{ along, edges, second }} inUse={inUse[1]} onMove={(to) => move([first, to])} />
        ))}
      </div>
      <p class="bc-note">
        Counted over all instances at each percent and at the thresholds in use ({edgeText(edges[inUse[0]]!)} of h1,{" "}
        {edgeText(edges[inUse[1]]!)} of h2): what is shown is exact, and between two percents there is nothing. The rest of
        the page stays with the thresholds in use. A threshold that was chosen by these instances looks better on them than
        on others: choose it on validation data.
      </p>
    </div>
  );
}

interface SliderProps {
  readonly model: string;
  readonly at: number;
  readonly edges: readonly number[];
  readonly label: string;
  readonly onMove: (to: number) => void;
}

function Slider({ model, at, edges, label, onMove }: SliderProps) {
  return (
    <label class="bc-tool bc-threshold">
      <span class="bc-tool-label">
        <span class="bc-ellipsis">
          {model} says {label} from <b>{edgeText(edges[at]!)}</b> on
        </span>
      </span>
      <input
        type="range"
        min={0}
        max={edges.length - 1}
        step={1}
        value={at}
        aria-label={`Threshold of ${model}`}
        aria-valuetext={edgeText(edges[at]!)}
        onInput={({ currentTarget }) => onMove(Number(currentTarget.value))}
      />
    </label>
  );
}

/** The edge at which a score is highest; of several the one nearest to that in use. */
export function highest(along: readonly Cells[], name: string, inUse: number): number {
  const scores = along.map((cells) => value(name, cells));
  const most = Math.max(...scores);
  const places = [...scores.keys()].filter((i) => scores[i] === most);
  return places.sort((a, b) => Math.abs(a - inUse) - Math.abs(b - inUse))[0] ?? inUse;
}

interface AlongProps {
  readonly name: string;
  readonly along: readonly Cells[];
  readonly edges: readonly number[];
  readonly second: number;
  readonly inUse: number;
  readonly onMove: (to: number) => void;
}

function Along({ name, along, edges, second, inUse, onMove }: AlongProps) {
  const [frame, { width, em }] = useSize();
  const height = 15 * em;
  const plot: Plot = { left: 4.2 * em, top: 1.9 * em, width: width - 5.2 * em, height: height - 4.8 * em };
  const shares = along.map((cells) => value(name, cells));
  const x = scaleLinear([0, 1], [plot.left, plot.left + plot.width]);
  const y = scaleLinear(shareDomain(shares), [plot.top + plot.height, plot.top]);
  const title = SCORES.find((score) => score.name === name)!.title;
  const line = shares.map((share, i) => `${x(edges[i]!).toFixed(1)} ${y(share).toFixed(1)}`).join("L");
  const nearest = (event: MouseEvent): number => {
    const at = x.invert(event.clientX - (event.currentTarget as Element).getBoundingClientRect().left);
    return edges.reduce((found, edge, i) => (Math.abs(edge - at) < Math.abs(edges[found]! - at) ? i : found), 0);
  };
  return (
    <div ref={frame} class="bc-chart bc-threshold-chart">
      {width > 0 && (
        <svg
          width={width}
          height={height}
          viewBox={`0 0 ${width} ${height}`}
          role="img"
          aria-label={`${title} by the threshold of h2: ${percent(shares[second]!)} at ${edgeText(edges[second]!)}`}
          onClick={(event) => onMove(nearest(event))}
        >
          <Axes x={x} y={y} plot={plot} em={em} xTitle="threshold of h2" yTitle={title} xText={edgeText} />
          <line class="bc-step-cursor" x1={x(edges[inUse]!)} x2={x(edges[inUse]!)} y1={plot.top} y2={plot.top + plot.height} />
          <g class={`bc-curve bc-of-${name}`}>
            <path d={`M${line}`} />
            <circle cx={x(edges[second]!)} cy={y(shares[second]!)} r={0.34 * em} />
          </g>
        </svg>
      )}
    </div>
  );
}
