import { compareFlips, type FlipComparison } from "../../data/engine";
import type { Difference } from "../../data/scores";
import { accuracyDifference, joined } from "../../data/twoUpdates";
import { count, intervalText, percent, signedPercent } from "../../layout/format";
import type { Flips, Region, Table } from "../../model";
import { Failed, Loading } from "../parts/States";
import { type RegionInfo, VennDrawing } from "./VennDrawing";

/** Two updates, instance by instance. */
export interface Comparison {
  readonly flips: FlipComparison;
  /** Accuracy of B less that of A. */
  readonly accuracy: Difference;
}

export interface ComparedProps {
  /** What `compared` gives: null while a table is missing, an error where they cannot be compared. */
  readonly result: Comparison | Error | null;
  /** The steps of run A and of run B that the tables are from. */
  readonly steps: readonly [number, number];
  readonly error: Error | null;
  readonly onRetry: () => void;
  /** Which negative flips are listed. */
  readonly flips: Flips | null;
  readonly onFlips: (flips: Flips | null) => void;
}

/** What the paired interval says, in one plain sentence. Differences are NFR of A minus NFR of B. */
export function verdict({ onlyA, onlyB, both, neither, low, high }: FlipComparison): string {
  const size = onlyA + onlyB + both + neither;
  const fewer = onlyA - onlyB;
  const amount =
    fewer === 0
      ? `Run B breaks as many of ${count(size)} as run A`
      : `Run B breaks ${count(Math.abs(fewer))} ${fewer > 0 ? "fewer" : "more"} of ${count(size)}`;
  const excludes = low > 0 || high < 0;
  return excludes
    ? `${amount}; the interval excludes 0, so the data set tells them apart.`
    : `${amount}; the interval contains 0, so this data set does not tell them apart.`;
}

/** Whose negative flips lie where in the drawing. */
const PLACES: Readonly<Record<Region, Flips>> = { progress: "a", common: "both", regress: "b" };
const REGIONS: readonly RegionInfo[] = [
  { region: "progress", title: "A only", explanation: "What h1 got right and run A alone gets wrong." },
  { region: "common", title: "Both", explanation: "What h1 got right and both runs get wrong." },
  { region: "regress", title: "B only", explanation: "What h1 got right and run B alone gets wrong." },
];

/** The steps where they differ, so that nobody takes the verdict for one about the same moment. */
export function differentSteps([a, b]: readonly [number, number]): string | null {
  return a === b ? null : `(different steps: A ${count(a)}, B ${count(b)})`;
}

/** A difference of shares is in percentage points, where a percent sign would read as a ratio. */
const points = (text: string) => text.replaceAll("%", "");

export function compared(first: Table | null, second: Table | null): Comparison | Error | null {
  if (first === null || second === null) return null;
  try {
    return { flips: compareFlips(first, second), accuracy: accuracyDifference(joined(first, second)) };
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** Negative flips of two updates, instance by instance. */
export function Compared({ result, steps, error, onRetry, flips, onFlips }: ComparedProps) {
  if (error !== null) return <Failed what="Run B could not be loaded" error={error} onRetry={onRetry} />;
  if (result === null) return <Loading what="Comparing the two runs, instance by instance" />;
  if (result instanceof Error)
    return <Failed what="These two cannot be compared instance by instance" error={result} />;
  const { accuracy } = result;
  const { onlyA, onlyB, both, neither, difference, low, high } = result.flips;
  const size = onlyA + onlyB + both + neither;
  const unlike = differentSteps(steps);
  const parts: [Flips, string, number][] = [
    ["a", "A only", onlyA],
    ["both", "both", both],
    ["b", "B only", onlyB],
  ];
  return (
    <div class="bc-compared" data-testid="compared">
      <div class="bc-compared-words">
        <p>
          <strong>{verdict(result.flips)}</strong>
          {unlike !== null && ` ${unlike}`}
        </p>
        <p class="bc-note">
          NFR of B − NFR of A: {points(signedPercent(0 - difference, 2))} percentage points (95% interval of the paired
          difference: {points(intervalText(0 - high, 0 - low, 2))}). Accuracy of B − accuracy of A:{" "}
          {points(signedPercent(accuracy.difference, 2))} ({points(intervalText(accuracy.low, accuracy.high, 2))}).
        </p>
        <div class="bc-controls" role="group" aria-label="Negative flips of the two runs: which are listed">
          <span>Broken by</span>
          {parts.map(([which, title, number]) => (
            <button
              key={which}
              type="button"
              class="bc-button"
              aria-pressed={flips === which}
              title={`List the instances that ${which === "both" ? "both runs break" : `run ${which.toUpperCase()} alone breaks`}`}
              onClick={() => onFlips(flips === which ? null : which)}
            >
              {title}: {count(number)}
            </button>
          ))}
          <span class="bc-note">
            together {percent((onlyA + onlyB + both) / size)} of {count(size)}
          </span>
        </div>
      </div>
      {onlyA + onlyB + both > 0 && (
        <VennDrawing
          regions={REGIONS}
          counts={{ progress: onlyA, common: both, regress: onlyB }}
          total={size}
          captions={[`Flips of A: ${count(onlyA + both)}`, `Flips of B: ${count(onlyB + both)}`]}
          label={`Negative flips of the two runs as two circles. A only: ${count(onlyA)}; both: ${count(both)}; B only: ${count(onlyB)}.`}
          selected={REGIONS.find(({ region }) => PLACES[region] === flips)?.region ?? null}
          onToggle={(region) => onFlips(flips === PLACES[region] ? null : PLACES[region])}
          most={8}
        />
      )}
    </div>
  );
}
