import { useMemo, useState } from "preact/hooks";
import { SCORES, scoreInfo } from "../../data/scores";
import { count, lambdaText, percent, shorten, stepText } from "../../layout/format";
import type { Series } from "../../model";
import { shareDomain } from "../parts/Axis";
import { CurvePanel, type Curve } from "./CurvePanel";
import { boundsText, curveOf, nearestStep, variesInLambda } from "./curvePoints";
import { Pager } from "../parts/Pager";
import { useSize } from "../parts/size";
import { Tooltip } from "../parts/Tooltip";

export interface CurvesProps {
  /** The series that is looked at; then, if there is one, the other update it is compared with. */
  readonly series: readonly Series[];
  /** The step that is looked at; null is the latest. */
  readonly step: number | null;
  readonly onStep: (step: number) => void;
  /** Names of the scores that are drawn. */
  readonly curves: readonly string[];
  readonly onCurves: (curves: string[]) => void;
}

/** Rates near 0 and shares near 1 would flatten each other on one axis. */
const NEAR_ZERO = new Set(["nfr", "nfi", "pfr"]);
const namesOf = (near: boolean) => SCORES.map(({ name }) => name).filter((name) => NEAR_ZERO.has(name) === near);
const PANELS: readonly { title: string; scores: readonly string[] }[] = [
  { title: "Accuracy and compatibility", scores: namesOf(false) },
  { title: "Flips", scores: namesOf(true) },
];

const PAGE_SIZE = 20;

/** The chosen scores in the order of the list, with one more or one fewer. */
export function toggleCurve(curves: readonly string[], name: string): string[] {
  const on = new Set(curves);
  if (!on.delete(name)) on.add(name);
  return SCORES.map((score) => score.name).filter((each) => on.has(each));
}

/** A name that fits beside the end of a line. */
export function shortTitle(name: string): string {
  return scoreInfo(name)
    .title.replace("Accuracy of", "acc.")
    .replace(/ \(given (h\d) wrong\)/, " | $1 wr.");
}

function StepTable({ series, scores }: { series: readonly Series[]; scores: readonly string[] }) {
  const [page, setPage] = useState(0);
  const rows = series.flatMap((each) => each.steps.map((step) => ({ run: each.run, ...step })));
  const pages = Math.max(1, Math.ceil(rows.length / PAGE_SIZE));
  const shown = Math.min(page, pages - 1);
  const curves = new Map(series.map((each) => [each.run, scores.map((score) => curveOf(each, score))]));
  const indexOf = new Map(series.map((each) => [each.run, new Map(each.steps.map(({ step }, i) => [step, i]))]));
  return (
    <>
      <div class="bc-table-scroll" tabIndex={0} role="group" aria-label="Numbers of the chart">
        <table class="bc-table" aria-label="Scores by step">
          <thead>
            <tr>
              {series.length > 1 && <th scope="col">Run</th>}
              <th scope="col" class="bc-number">
                Step
              </th>
              <th scope="col" class="bc-number">
                λ
              </th>
              {scores.map((score) => (
                <th scope="col" key={score} class="bc-number" title={scoreInfo(score).description}>
                  {scoreInfo(score).title}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.slice(shown * PAGE_SIZE, (shown + 1) * PAGE_SIZE).map(({ run, step, lambda }) => (
              <tr key={`${run} ${step}`}>
                {series.length > 1 && <td>{shorten(run, 40)}</td>}
                <th scope="row" class="bc-number">
                  {count(step)}
                </th>
                <td class="bc-number">{lambdaText(lambda)}</td>
                {scores.map((score, k) => {
                  const point = curves.get(run)![k]![indexOf.get(run)!.get(step)!]!;
                  return (
                    <td key={score} class="bc-number" title={`95% interval: ${boundsText(point, 2)}`}>
                      {percent(point.value, 2)}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <Pager page={shown} pages={pages} total={rows.length} label="rows" onPage={setPage} />
    </>
  );
}

export function Curves({ series, step, onStep, curves, onCurves }: CurvesProps) {
  const [frame, { width, em }] = useSize();
  const [cursor, setCursor] = useState<{ panel: number; step: number; x: number; byKey: boolean } | null>(null);
  const [tableOpen, setTableOpen] = useState(false);
  const [main, other] = series;
  const chosen = useMemo(() => SCORES.map((score) => score.name).filter((name) => curves.includes(name)), [curves]);

  const xDomain = useMemo((): [number, number] => {
    const ends = series.flatMap(({ steps }) => (steps.length ? [steps[0]!.step, steps[steps.length - 1]!.step] : []));
    const [low, high] = [Math.min(...ends), Math.max(...ends)];
    return low < high ? [low, high] : [low - 0.5, high + 0.5];
  }, [series]);

  const panels = useMemo(
    () =>
      PANELS.flatMap(({ title, scores }) => {
        const names = scores.filter((name) => chosen.includes(name));
        if (names.length === 0) return [];
        const drawn = series.flatMap((each, i) =>
          names.map((name): Curve => {
            // Bands of many dashed lines would hide each other.
            const band = i === 0 || names.length <= 2;
            const points = curveOf(each, name);
            return { key: `${i} ${name}`, mark: name, label: shortTitle(name), other: i > 0, band, points };
          }),
        );
        const values = drawn.flatMap((curve) =>
          curve.points.flatMap((point) =>
            Number.isNaN(point.value) ? [] : curve.band ? [point.low, point.high] : [point.value],
          ),
        );
        return [{ title, curves: drawn, yDomain: shareDomain(values) }];
      }),
    [series, chosen],
  );

  const lambdaPanel = useMemo(() => {
    if (!variesInLambda(series)) return null;
    const drawn = series.map((each, i): Curve => {
      const points = each.steps.map((at) => {
        const value = at.lambda ?? NaN;
        return { step: at.step, value, low: value, high: value };
      });
      return { key: `${i} lambda`, mark: "lambda", label: "λ", other: i > 0, band: false, points };
    });
    const largest = Math.max(...drawn.flatMap((curve) => curve.points.map(({ value }) => value || 0)));
    return { curves: drawn, yDomain: [0, largest > 0 ? largest * 1.08 : 1] as [number, number] };
  }, [series]);

  if (!main || main.steps.length === 0) return <p class="bc-empty">No steps have been logged yet.</p>;

  const current = step ?? main.steps[main.steps.length - 1]!.step;
  const gap = 1.5 * em;
  const beside = width >= 56 * em && panels.length > 1;
  const each = beside ? Math.floor((width - gap) / 2) : width;
  const height = Math.round(Math.min(20 * em, Math.max(14 * em, each * 0.45)));
  const at = cursor && nearestStep(main.steps, cursor.step);
  const otherAt = cursor && other ? nearestStep(other.steps, cursor.step) : null;
  const shared = {
    series: main,
    xDomain,
    current,
    cursor: cursor?.step ?? null,
    em,
    onStep,
  };
  const moved = (panel: number) => (next: number | null, x: number, byKey: boolean) =>
    setCursor(next === null ? null : { panel, step: next, x, byKey });

  const tooltip = at && (
    <>
      <strong>
        {stepText(at.step)}
        {at.lambda !== null && ` · λ ${lambdaText(at.lambda)}`}
        {at.step === current && " · shown"}
      </strong>
      <table class="bc-tooltip-table">
        {otherAt && (
          <thead>
            <tr>
              <td />
              <th scope="col">{shorten(main.run, 18)}</th>
              <th scope="col">
                {shorten(other!.run, 18)}
                {otherAt.step !== at.step && `, ${stepText(otherAt.step)}`}
              </th>
            </tr>
          </thead>
        )}
        <tbody>
          {chosen.map((name) => {
            const point = curveOf({ ...main, steps: [at] }, name)[0]!;
            return (
              <tr key={name}>
                <th scope="row">
                  <span class={`bc-line-icon bc-of-${name}`} aria-hidden="true" /> {shortTitle(name)}
                </th>
                <td>{percent(point.value, 2)}</td>
                {otherAt ? (
                  <td>{percent(curveOf({ ...other!, steps: [otherAt] }, name)[0]!.value, 2)}</td>
                ) : (
                  <td class="bc-tooltip-note">{boundsText(point, 1)}</td>
                )}
              </tr>
            );
          })}
        </tbody>
      </table>
      <div class="bc-tooltip-note">{otherAt ? "" : "95% intervals in grey. "}A click shows this step.</div>
    </>
  );
  // A pointer passes over many steps, and would have a screen reader read out all of them.
  const spoken =
    at &&
    cursor.byKey &&
    `${stepText(at.step)}: ` +
      chosen
        .map((name) => `${scoreInfo(name).title} ${percent(curveOf({ ...main, steps: [at] }, name)[0]!.value, 2)}`)
        .join(", ");

  return (
    <div class="bc-curves">
      <fieldset class="bc-options bc-curve-options">
        <legend class="bc-hidden">Scores that are drawn</legend>
        {SCORES.map(({ name, title, description }) => (
          <label key={name} class="bc-check" title={description}>
            <input
              type="checkbox"
              checked={chosen.includes(name)}
              onChange={() => onCurves(toggleCurve(chosen, name))}
            />
            <span class={`bc-line-icon bc-of-${name}`} aria-hidden="true" />
            <span>{title}</span>
          </label>
        ))}
      </fieldset>
      {other && (
        <p class="bc-note bc-key">
          <span class="bc-key-item">
            <span class="bc-line-icon" aria-hidden="true" /> {shorten(main.run, 60)}
          </span>
          <span class="bc-key-item">
            <span class="bc-line-icon bc-other" aria-hidden="true" /> {shorten(other.run, 60)}
          </span>
        </p>
      )}
      <div ref={frame} class="bc-curve-panels">
        {width > 0 &&
          panels.map((panel, i) => (
            <div key={panel.title} class="bc-chart" style={{ width: `${each}px` }}>
              <CurvePanel {...shared} {...panel} width={each} height={height} onCursor={moved(i)} />
              {cursor?.panel === i && (
                <Tooltip x={cursor.x} y={height - 2.4 * em} below>
                  {tooltip}
                </Tooltip>
              )}
            </div>
          ))}
        {width > 0 && lambdaPanel && (
          <div class="bc-chart" style={{ width: `${each}px` }}>
            <CurvePanel
              {...shared}
              {...lambdaPanel}
              title="λ, the weight of the dissonance"
              yText={lambdaText}
              width={each}
              height={Math.round(10 * em)}
              onCursor={moved(PANELS.length)}
            />
            {cursor?.panel === PANELS.length && (
              <Tooltip x={cursor.x} y={7.6 * em} below>
                {tooltip}
              </Tooltip>
            )}
          </div>
        )}
      </div>
      {panels.length === 0 && <p class="bc-empty">Choose a score above to draw it.</p>}
      <div class="bc-hidden" aria-live="polite">
        {spoken}
      </div>
      {chosen.length > 0 && (
        <details class="bc-as-table" onToggle={(event) => setTableOpen(event.currentTarget.open)}>
          <summary>The same as a table</summary>
          {tableOpen && <StepTable series={series} scores={chosen} />}
        </details>
      )}
    </div>
  );
}
