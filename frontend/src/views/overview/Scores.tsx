import { fraction, interval, SCORES, type ScoreInfo, value } from "../../data/scores";
import { count, intervalText, percent, signedPercent, UNKNOWN } from "../../layout/format";
import type { Cells } from "../../model";
import { Hint } from "../parts/Hint";

export interface ScoresProps {
  readonly cells: Cells;
  /** The second update, with the name that it goes by here. */
  readonly other: { readonly name: string; readonly cells: Cells } | null;
}

/** Share of the strip's width; a position never leaves it. */
const place = (share: number): string => `${(100 * Math.min(1, Math.max(0, share))).toFixed(2)}%`;

/** Rare events need another decimal before two of them look different. */
export function digitsFor(share: number): number {
  return share > 0 && (share < 0.01 || share > 0.99) && share < 1 ? 2 : 1;
}

/** What the update gains, in points of accuracy and relative to h1's. */
export function gain(cells: Cells): string | null {
  const [h1, h2] = [value("accuracy_h1", cells), value("accuracy_h2", cells)];
  if (Number.isNaN(h1) || Number.isNaN(h2)) return null;
  const points = signedPercent(h2 - h1, digitsFor(h2)).replace("%", " pp");
  return h1 > 0 ? `${points} (${signedPercent((h2 - h1) / h1)})` : points;
}

/** A score of the second update, rounded by its own size. */
export function besideText(name: string, score: string, cells: Cells): { text: string; title: string } {
  if (fraction(score, cells).trials === 0) return { text: UNKNOWN, title: `${name}: ${UNKNOWN}` };
  const share = value(score, cells);
  const digits = digitsFor(share);
  const text = percent(share, digits);
  return { text, title: `${name}: ${text} (95% interval ${intervalText(...interval(score, cells), digits)})` };
}

function Direction({ higherIsBetter }: { higherIsBetter: boolean | null }) {
  if (higherIsBetter === null) return null;
  const text = higherIsBetter ? "higher is better" : "lower is better";
  return (
    <span class="bc-score-direction" title={text}>
      <span aria-hidden="true">{higherIsBetter ? "↑" : "↓"}</span>
      <span class="bc-hidden">({text})</span>
    </span>
  );
}

function Interval({ share, low, high, mark }: { share: number; low: number; high: number; mark: string }) {
  return (
    <div class={`bc-score-bar bc-score-${mark}`} aria-hidden="true">
      <span class="bc-score-range" style={{ left: place(low), width: place(high - low) }} />
      <span class="bc-score-point" style={{ left: place(share) }} />
    </div>
  );
}

function Score({ info, cells, other }: ScoresProps & { info: ScoreInfo }) {
  const { successes, trials } = fraction(info.name, cells);
  const share = value(info.name, cells);
  const [low, high] = interval(info.name, cells);
  const digits = digitsFor(share);
  const known = trials > 0;
  const [name, given] = info.title.split(" (");
  const second = other && {
    ...besideText(other.name, info.name, other.cells),
    share: value(info.name, other.cells),
    trials: fraction(info.name, other.cells).trials,
    bounds: interval(info.name, other.cells),
  };
  return (
    <div class="bc-score" data-score={info.name}>
      <dt>
        <Hint
          label={
            <>
              {name}
              {given !== undefined && <span class="bc-score-given"> {given.replace(")", "")}</span>}
            </>
          }
        >
          {info.description}{" "}
          {info.higherIsBetter === null
            ? "Neither direction is better by itself."
            : info.higherIsBetter
              ? "Higher is better."
              : "Lower is better."}
        </Hint>
        <Direction higherIsBetter={info.higherIsBetter} />
      </dt>
      <dd>
        <div class="bc-score-value">{known ? percent(share, digits) : "–"}</div>
        <div class="bc-score-count">{known ? `${count(successes)} of ${count(trials)}` : "nothing to count"}</div>
        {known && (
          <>
            <Interval share={share} low={low} high={high} mark="first" />
            <div
              class="bc-score-interval"
              title="95% interval (Wilson): where the score of endlessly many such instances may lie"
            >
              {intervalText(low, high, digits)}
            </div>
          </>
        )}
        {second && (
          <div class="bc-score-other" title={second.title}>
            {second.trials > 0 && (
              <Interval share={second.share} low={second.bounds[0]} high={second.bounds[1]} mark="second" />
            )}
            <span class="bc-tag">B</span> {second.text}
          </div>
        )}
        {info.name === "accuracy_h2" && (
          <div class="bc-score-gain" title="Gain over the accuracy of h1 in percentage points, in brackets relative to it">
            {gain(cells)}
          </div>
        )}
      </dd>
    </div>
  );
}

/** The eight scores, each with what it was counted from and how sure it is. */
export function Scores({ cells, other }: ScoresProps) {
  return (
    <dl class="bc-scores">
      {SCORES.map((info) => (
        <Score key={info.name} info={info} cells={cells} other={other} />
      ))}
    </dl>
  );
}
