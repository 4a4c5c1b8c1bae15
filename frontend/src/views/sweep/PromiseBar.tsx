import { useContext, useId, useState } from "preact/hooks";
import { bestOf, type Promised, readPromise, spelled, unfavourableBound, verdict, type Verdict } from "../../data/promise";
import { value } from "../../data/scores";
import { percent } from "../../layout/format";
import type { Index, ViewState } from "../../model";
import { MountId } from "../parts/mountId";
import { useTyped } from "../parts/typed";
import { distinct, passes, sweepPoints, type SweepPoint, titleOf } from "./sweepPoints";

export interface PromiseMade {
  readonly promise: Promised;
  /** By the key of a point. */
  readonly verdicts: ReadonlyMap<string, Verdict>;
  /** The data set that is chosen on: validation data where there are some, as test data should decide nothing. */
  readonly dataset: string | null;
  readonly best: SweepPoint | null;
}

const CHOSEN_ON = ["val", "validation", "test", "testing"];
const EXAMPLES = ["nfr <= 0.5%", "nfr <= 1%", "btc >= 98%", "btc >= 99%"];

/** What a promise means for points; null where none is made, or none that can be read. */
export function promiseOf(points: readonly SweepPoint[], text: string): PromiseMade | null {
  const promise = text.trim() === "" ? "" : readPromise(text);
  if (typeof promise === "string") return null;
  const verdicts = new Map(points.map((point) => [point.key, verdict(promise, point.cells)]));
  const datasets = distinct(points.map((point) => point.ref.dataset));
  const dataset = CHOSEN_ON.find((name) => datasets.includes(name)) ?? datasets[0] ?? null;
  const best = bestOf(
    promise,
    points.filter((point) => point.ref.dataset === dataset),
  );
  return { promise, verdicts, dataset, best };
}

/** The run to take by the promise of a state; null where there is no promise, or nobody keeps it. */
export function bestRun(index: Index, state: ViewState): string | null {
  const points = sweepPoints(index, null).filter((point) => passes(point, state));
  return promiseOf(points, state.promise)?.best?.ref.run ?? null;
}

export interface PromiseBarProps {
  readonly text: string;
  readonly promised: PromiseMade | null;
  readonly points: readonly SweepPoint[];
  readonly nameOf: (point: SweepPoint) => string;
  readonly onText: (text: string) => void;
  readonly onPoint: (point: SweepPoint) => void;
}

/** Which update to take: the most accurate of those that keep a promise for certain. */
export function PromiseBar({ text, promised, points, nameOf, onText, onPoint }: PromiseBarProps) {
  const { typed, setTyped, sent } = useTyped(text);
  const [copied, setCopied] = useState(false);
  const examples = `${useContext(MountId)}${useId()}`;
  const complaint = typed.trim() === "" ? null : readPromise(typed);
  const code = promised && `found.best("${spelled(promised.promise)}")`;
  return (
    <div class="bc-promise">
      <div class="bc-controls">
        <label class="bc-field bc-field-wide">
          <span>Promise to keep</span>
          <input
            type="text"
            list={examples}
            placeholder="such as nfr <= 0.5%"
            value={typed}
            aria-invalid={typeof complaint === "string"}
            onInput={(event) => {
              const wanted = event.currentTarget.value;
              setTyped(wanted);
              if (wanted.trim() !== "" && typeof readPromise(wanted) === "string") return;
              sent.current = wanted.trim();
              onText(sent.current);
            }}
          />
          <datalist id={examples}>
            {EXAMPLES.map((example) => (
              <option key={example} value={example} />
            ))}
          </datalist>
        </label>
        {code !== null && (
          <button
            type="button"
            class="bc-button"
            title={`Copy ${code}`}
            onClick={() => void navigator.clipboard?.writeText(code).then(() => setCopied(true))}
          >
            {copied ? "copied" : "Copy as code"}
          </button>
        )}
      </div>
      <p class="bc-note" role="status">
        {typeof complaint === "string" ? (
          complaint
        ) : promised === null ? (
          "Type a promise, and the most accurate update that keeps it for certain is marked."
        ) : promised.best === null ? (
          <Nobody {...{ promised, points, nameOf }} />
        ) : (
          <>
            <strong>Take {nameOf(promised.best)}</strong>: accuracy {percent(value("accuracy_h2", promised.best.cells))},{" "}
            {titleOf(promised.promise.score)} {percent(value(promised.promise.score, promised.best.cells), 2)}, bound{" "}
            {percent(unfavourableBound(promised.promise, promised.best.cells), 2)} — the most accurate on{" "}
            {promised.dataset} of those that keep {spelled(promised.promise)} for certain (95%). Faded: broken for
            certain.{" "}
            <button type="button" class="bc-link-button" onClick={() => onPoint(promised.best!)}>
              show it
            </button>
          </>
        )}
      </p>
    </div>
  );
}

function Nobody({ promised, points, nameOf }: Pick<PromiseBarProps, "points" | "nameOf"> & { promised: PromiseMade }) {
  const { promise, dataset, verdicts } = promised;
  const lack = (point: SweepPoint) =>
    (unfavourableBound(promise, point.cells) - promise.limit) * (promise.higherIsBetter ? -1 : 1);
  const own = points.filter((point) => point.ref.dataset === dataset);
  if (own.length === 0) return <>There is no point to choose.</>;
  const nearest = own.reduce((best, point) => (lack(point) < lack(best) ? point : best));
  const isUnsure = verdicts.get(nearest.key) === "unsure";
  return (
    <>
      No update keeps {spelled(promise)} for certain on {dataset}. Nearest: {nameOf(nearest)},{" "}
      {titleOf(promise.score)} {percent(value(promise.score, nearest.cells), 2)}, bound{" "}
      {percent(unfavourableBound(promise, nearest.cells), 2)}.{" "}
      {isUnsure ? "More instances would decide it." : "Try larger values of λ, or another loss."}
    </>
  );
}
