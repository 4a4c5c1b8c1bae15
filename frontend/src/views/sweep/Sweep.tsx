import { useMemo, useState } from "preact/hooks";
import { value } from "../../data/scores";
import { count, lambdaText, percent, shorten } from "../../layout/format";
import type { Index, TableRef, ViewState } from "../../model";
import { PromiseBar, promiseOf } from "./PromiseBar";
import { Scatter } from "./Scatter";
import { AxisPickers } from "./AxisPickers";
import { setClass, markPath } from "../parts/marks";
import { useSize } from "../parts/size";
import { DATASET, H1, type Look, lookBy, LOSS, oldModelsAmong, runsOfOneH1, titleOfLook } from "./looks";
import { SweepFilters } from "./SweepFilters";
import {
  BEC,
  distinct,
  errorBar,
  lambdas,
  type OldModel,
  oldModels,
  passes,
  type ReferenceLine,
  referenceLines,
  seriesKey,
  sweepPoints,
  type SweepPoint,
} from "./sweepPoints";

export interface SweepProps {
  readonly index: Index;
  readonly state: ViewState;
  readonly current: TableRef | null;
  readonly onPoint: (ref: TableRef) => void;
  readonly onState: (patch: Partial<ViewState>) => void;
}

const NO_LINES: readonly ReferenceLine[] = [];
const NO_OLD: readonly OldModel[] = [];
const MOST_LINES = 6;
const MOST_IN_KEY = 12;

const TABLE_SCORES: readonly { title: string; score: string }[] = [
  { title: "Accuracy of h2", score: "accuracy_h2" },
  { title: "Accuracy of h1", score: "accuracy_h1" },
  { title: "BTC", score: "btc" },
  { title: "BEC (given h1 wrong)", score: BEC },
  { title: "NFR", score: "nfr" },
];

const share = (score: number): string => (Number.isNaN(score) ? "not defined" : percent(score));

const recipeOf = ({ dissonance, lambda, besides }: SweepPoint): string =>
  [dissonance, lambda === null ? "λ unknown" : `λ ${lambdaText(lambda)}`, besides].filter(Boolean).join(" · ");

const nameOf = (point: SweepPoint): string => `${point.ref.dataset} · ${recipeOf(point)}`;

function describe(point: SweepPoint): string {
  return (
    `${point.ref.run}: ${nameOf(point)}, step ${point.ref.step}. Accuracy of h2 ${share(point.accuracyH2)}, ` +
    `BTC ${share(point.btc)}, BEC given h1 wrong ${share(point.bec)}, NFR ${share(point.nfr)}.`
  );
}

function PointTooltip({ point }: { point: SweepPoint }) {
  return (
    <>
      <strong>{shorten(point.ref.run, 60)}</strong>
      <div>
        {nameOf(point)} · step {count(point.ref.step)}
      </div>
      <table class="bc-tooltip-table">
        <tbody>
          {TABLE_SCORES.map(({ title, score }) => {
            const bounds = errorBar(score, point.cells);
            return (
              <tr key={score}>
                <th scope="row">{title}</th>
                <td>{share(value(score, point.cells))}</td>
                <td class="bc-tooltip-note">{bounds && `${percent(bounds[0])} to ${percent(bounds[1])}`}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
      <div class="bc-tooltip-note">to the right: 95% interval</div>
    </>
  );
}

function PointTable({ points, onPoint }: { points: readonly SweepPoint[]; onPoint: (ref: TableRef) => void }) {
  return (
    <div class="bc-table-scroll" tabIndex={0} role="group" aria-label="Numbers of the chart">
      <table class="bc-table" aria-label="The points of both scatters">
        <thead>
          <tr>
            <th scope="col">Run</th>
            <th scope="col">Data set</th>
            <th scope="col">Dissonance</th>
            <th scope="col" class="bc-number">
              λ
            </th>
            <th scope="col" class="bc-number">
              Step
            </th>
            {TABLE_SCORES.map(({ title, score }) => (
              <th scope="col" key={score} class="bc-number">
                {title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {points.map((point) => (
            <tr key={point.key}>
              <th scope="row">
                <button type="button" class="bc-row-button" title="Show this point" onClick={() => onPoint(point.ref)}>
                  {shorten(point.ref.run, 60)}
                </button>
              </th>
              <td>{point.ref.dataset}</td>
              <td>{point.dissonance}</td>
              <td class="bc-number">{point.lambda === null ? "–" : lambdaText(point.lambda)}</td>
              <td class="bc-number">{count(point.ref.step)}</td>
              {TABLE_SCORES.map(({ score }) => (
                <td key={score} class="bc-number">
                  {share(value(score, point.cells))}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** What the marks say, where the filters above do not say it. */
function Key({ colour, shape }: { colour: Look; shape: Look }) {
  const parts = [
    { title: "Colour", look: colour, draw: (i: number) => ({ name: setClass(i), shape: 0 }) },
    { title: "Shape", look: shape, draw: (i: number) => ({ name: "bc-set-none", shape: i }) },
  ];
  return (
    <div class="bc-filters">
      {parts.map(({ title, look, draw }) => (
        <p key={title} class="bc-options">
          <span class="bc-note">
            {title}: {titleOfLook(look.by)}
          </span>
          {look.options.slice(0, MOST_IN_KEY).map((option, i) => (
            <span key={option} class="bc-check">
              <svg class="bc-mark-icon" viewBox="-8 -8 16 16" aria-hidden="true">
                <g class={`bc-point ${draw(i).name}`}>
                  <path class="bc-point-mark" d={markPath(draw(i).shape, 5)} />
                </g>
              </svg>
              <span>{shorten(option, 40)}</span>
            </span>
          ))}
          {look.options.length > MOST_IN_KEY && <span class="bc-note">and {look.options.length - MOST_IN_KEY} more</span>}
        </p>
      ))}
    </div>
  );
}

export function Sweep({ index, state, current, onPoint, onState }: SweepProps) {
  const [frame, { width, em }] = useSize();
  const [hover, setHover] = useState<{ chart: number; key: string } | null>(null);
  const [tableOpen, setTableOpen] = useState(false);
  const points = useMemo(() => sweepPoints(index, current), [index, current?.run, current?.dataset, current?.step]);
  const datasets = useMemo(() => distinct(points.map((point) => point.ref.dataset)), [points]);
  const dissonances = useMemo(() => distinct(points.map((point) => point.dissonance)), [points]);
  const levels = useMemo(() => lambdas(points), [points]);
  const { datasets: chosenSets, dissonances: chosenDissonances, lambdaMin, lambdaMax } = state;
  const isOneH1 = useMemo(() => oldModelsAmong(points) <= 1, [points]);
  const ofThisH1 = useMemo(
    () => (state.sameH1 && current !== null && !isOneH1 ? runsOfOneH1(points, current.run) : null),
    [points, state.sameH1, current?.run, isOneH1],
  );
  const shown = useMemo(
    () => points.filter((point) => passes(point, state) && (ofThisH1?.has(point.ref.run) ?? true)),
    [points, chosenSets, chosenDissonances, lambdaMin, lambdaMax, ofThisH1],
  );
  const colour = useMemo(() => lookBy(state.colourBy, DATASET, points), [state.colourBy, points]);
  const shape = useMemo(() => lookBy(state.shapeBy, LOSS, points), [state.shapeBy, points]);
  // Among very many models in use only that of the run on show has a line and a point.
  const { lines, old } = useMemo(() => {
    const all = referenceLines(ofThisH1 === null ? points : shown, chosenSets);
    const own = points.filter((point) => point.ref.run === current?.run && point.ref.dataset === current.dataset);
    const isMany = all.length > MOST_LINES && own.length > 0;
    return {
      lines: isMany ? referenceLines(own, chosenSets) : all,
      old: state.sweepX.map((x) => oldModels(isMany ? own : shown, x, state.sweepY)),
    };
  }, [points, shown, ofThisH1, chosenSets, current?.run, current?.dataset, state.sweepX, state.sweepY]);
  const models = useMemo(() => oldModelsAmong(shown), [shown]);
  const promised = useMemo(() => promiseOf(shown, state.promise), [shown, state.promise]);
  const best = promised?.best ?? null;
  const listed = useMemo(
    () =>
      [...shown].sort(
        (a, b) =>
          datasets.indexOf(a.ref.dataset) - datasets.indexOf(b.ref.dataset) ||
          dissonances.indexOf(a.dissonance) - dissonances.indexOf(b.dissonance) ||
          (a.lambda ?? Infinity) - (b.lambda ?? Infinity) ||
          a.ref.run.localeCompare(b.ref.run),
      ),
    [shown, datasets, dissonances],
  );
  if (points.length === 0) return <p class="bc-empty">There are no points yet.</p>;

  const currentKey = current && seriesKey(current.run, current.dataset);
  const currentPoint = points.find((point) => point.key === currentKey);
  const isHidden = currentPoint !== undefined && !shown.includes(currentPoint);
  const isFiltered = shown.length < points.length;
  const gap = 1.5 * em;
  const beside = width >= 52 * em;
  const each = beside ? Math.floor((width - gap) / 2) : width;
  const hovered = hover && points.find((point) => point.key === hover.key);

  return (
    <div class="bc-sweep">
      <SweepFilters isColoured={colour.by === DATASET} isShaped={shape.by === LOSS} isOneH1={isOneH1} datasets={datasets} dissonances={dissonances} lambdas={levels} state={state} onState={onState} />
      <div class="bc-controls">
        <label class="bc-field bc-field-wide">
          <span>Point</span>
          <select
            value={isHidden || !currentPoint ? "" : currentPoint.key}
            onChange={(event) => {
              const chosen = points.find((point) => point.key === event.currentTarget.value);
              if (chosen) onPoint(chosen.ref);
            }}
          >
            {(isHidden || !currentPoint) && <option value="">choose a point …</option>}
            {listed.map((point) => (
              <option key={point.key} value={point.key}>
                {nameOf(point)} · {shorten(point.ref.run, 48)}
              </option>
            ))}
          </select>
        </label>
        <span class="bc-note" aria-live="polite">
          {count(shown.length)} of {count(points.length)} {points.length === 1 ? "point" : "points"}
        </span>
        {isFiltered && (
          <button
            type="button"
            class="bc-link-button"
            onClick={() => onState({ datasets: null, dissonances: null, lambdaMin: null, lambdaMax: null, sameH1: false })}
          >
            show all
          </button>
        )}
        {isHidden && (
          <span class="bc-warning" role="status">
            The chosen point ({nameOf(currentPoint)}) is hidden by the filters.
          </span>
        )}
      </div>
      <PromiseBar
        text={state.promise}
        promised={promised}
        points={shown}
        nameOf={(point) => `${recipeOf(point)} (${shorten(point.ref.run, 40)})`}
        onText={(text) => onState({ promise: text })}
        onPoint={(point) => onPoint(point.ref)}
      />
      <AxisPickers {...{ state, points, onState }} colour={colour.by} shape={shape.by} />
      {models > 1 && (
        <p class="bc-note">
          These are updates of {models} different h1s; BTC, BEC and NFR compare updates of one h1 only.{" "}
          {models > MOST_LINES && "Line and cross are of the chosen run’s h1. "}
          {colour.by !== H1 && (
            <button type="button" class="bc-link-button" onClick={() => onState({ colourBy: H1 })}>
              colour by h1
            </button>
          )}
        </p>
      )}
      {[colour, shape].some(({ by }) => by !== DATASET && by !== LOSS) && <Key colour={colour} shape={shape} />}
      <div ref={frame} class="bc-scatters">
        {width > 0 &&
          state.sweepX.map((xName, chart) => (
            <div key={chart} style={{ width: `${each}px` }}>
              <Scatter
                ofOld={old[chart] ?? NO_OLD}
                xName={xName}
                yName={state.sweepY}
                promised={promised}
                best={best?.key ?? null}
                points={shown}
                lines={state.sweepY === "accuracy_h2" ? lines : NO_LINES}
                datasets={datasets}
                colour={colour}
                shape={shape}
                selected={currentKey}
                hovered={hover?.key ?? null}
                describe={describe}
                width={each}
                em={em}
                tip={hover?.chart === chart && hovered ? <PointTooltip point={hovered} /> : null}
                onHover={(key) => setHover(key === null ? null : { chart, key })}
                onPoint={(point) => onPoint(point.ref)}
              />
            </div>
          ))}
      </div>
      <p class="bc-note">
        One point for each run and data set, at its latest step; the chosen point is ringed and stands at the chosen
        step. Beside a mark: λ. Cross: h1 itself, as if it were its own update. Dashed: accuracy of h1. Thin line of steps: the best that is reached at each value of the
        other axis (Pareto front). BEC falls when h2 repairs errors of h1. Bars are 95% intervals.
      </p>
      <details class="bc-as-table" onToggle={(event) => setTableOpen(event.currentTarget.open)}>
        <summary>The same as a table</summary>
        {tableOpen && <PointTable points={listed} onPoint={onPoint} />}
      </details>
    </div>
  );
}
