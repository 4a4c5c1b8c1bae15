/** What an index holds for a state: the series and the steps that are looked at, or what is missing. */

import type { Index, Series, Step, ViewState } from "../model";

export interface Missing {
  readonly what: "run" | "dataset" | "step";
  readonly message: string;
  readonly advice: string;
  /** The step that comes closest to one that is not there. */
  readonly nearest: number | null;
}

export interface Selection {
  readonly runs: readonly string[];
  /** Data sets of the run that is looked at. */
  readonly datasets: readonly string[];
  readonly series: Series | null;
  readonly step: Step | null;
  readonly stepIndex: number;
  /** Series that can be set beside this one: other updates of the same h1 on the same data set, with the same classes. */
  readonly comparable: readonly Series[];
  readonly other: Series | null;
  readonly otherStep: Step | null;
  readonly missing: Missing | null;
}

/** Data sets that say most about an update come first. */
const PREFERRED = ["test", "testing", "val", "validation"];

export function preferredDataset(datasets: readonly string[]): string | null {
  return PREFERRED.find((name) => datasets.includes(name)) ?? datasets[0] ?? null;
}

function distinct(values: Iterable<string>): string[] {
  return [...new Set(values)];
}

/** The run that was written to last; the first one where nobody knows. */
export function latestRun(index: {
  readonly series: readonly { readonly run: string; readonly steps: readonly { readonly wallTime: number | null }[] }[];
}): string | null {
  let latest: { run: string; time: number } | null = null;
  for (const { run, steps } of index.series) {
    const time = steps.at(-1)?.wallTime ?? -1;
    if (latest === null || time > latest.time) latest = { run, time };
  }
  return latest?.run ?? null;
}

export function datasetsOf(index: Index, run: string | null): string[] {
  const compared = index.series.filter((series) => series.run === run);
  // A run may have been looked at under transformations alone.
  const listed = compared.length > 0 ? compared : index.invariance.filter((series) => series.run === run);
  return distinct(listed.map((series) => series.dataset));
}

export function hasInvarianceOnly(index: Index, run: string | null): boolean {
  return !index.series.some((series) => series.run === run) && index.invariance.some((series) => series.run === run);
}

export function findSeries(index: Index, run: string | null, dataset: string | null): Series | null {
  return index.series.find((series) => series.run === run && series.dataset === dataset) ?? null;
}

function nearest(steps: readonly Step[], step: number): Step | null {
  let best: Step | null = null;
  for (const candidate of steps) {
    if (best === null || Math.abs(candidate.step - step) < Math.abs(best.step - step)) best = candidate;
  }
  return best;
}

/** The same moment of both runs where both have it; two runs of unlike length are compared at their ends. */
function stepBeside(other: Series, { step }: Step, isLast: boolean): Step | null {
  const same = other.steps.find((candidate) => candidate.step === step);
  return same ?? (isLast ? (other.steps.at(-1) ?? null) : nearest(other.steps, step));
}

const errorsOfH1 = ({ cells }: Step): number => cells[0] + cells[1];

export function select(index: Index, state: ViewState): Selection {
  const runs = distinct(index.series.map((series) => series.run));
  const datasets = datasetsOf(index, state.run);
  const series = findSeries(index, state.run, state.dataset);
  const empty = { runs, datasets, series, step: null, stepIndex: -1, comparable: [], other: null, otherStep: null };
  if (state.run !== null && datasets.length === 0) {
    return {
      ...empty,
      missing: {
        what: "run",
        message: `There is no run “${state.run}” here`,
        advice: "It may have been renamed or deleted, or the link comes from another log folder. Choose a run above.",
        nearest: null,
      },
    };
  }
  if (series === null && hasInvarianceOnly(index, state.run)) return { ...empty, missing: null };
  if (series === null) {
    return {
      ...empty,
      missing: {
        what: "dataset",
        message: `The run “${state.run ?? ""}” has no comparison on the data set “${state.dataset ?? ""}”`,
        advice: `It was compared on: ${datasets.join(", ")}. Choose one of these above.`,
        nearest: null,
      },
    };
  }
  const others = index.series.filter(
    ({ run, dataset, numClasses }) =>
      run !== series.run && dataset === series.dataset && numClasses === series.numClasses,
  );
  const other = others.find(({ run }) => run === state.other) ?? null;
  const stepIndex =
    state.step === null ? series.steps.length - 1 : series.steps.findIndex(({ step }) => step === state.step);
  const step = series.steps[stepIndex] ?? null;
  if (step === null) {
    const near = state.step === null ? null : nearest(series.steps, state.step);
    const advice = near === null ? "Log one with summary.comparison." : `The nearest is step ${near.step}.`;
    const message = `The run “${series.run}” has no comparison on “${series.dataset}” at step ${state.step ?? "–"}`;
    return { ...empty, comparable: others, other, missing: { what: "step", message, advice, nearest: near?.step ?? null } };
  }
  const beside = (each: Series) => stepBeside(each, step, stepIndex === series.steps.length - 1);
  const otherStep = other && beside(other);
  // One h1 errs as often on the same data, whatever became of it.
  const comparable = others.filter((each) => {
    const itsStep = beside(each);
    return itsStep !== null && errorsOfH1(itsStep) === errorsOfH1(step);
  });
  return { runs, datasets, series, step, stepIndex, comparable, other, otherStep, missing: null };
}

/**
 * State with a run and a data set, whatever was said about them: the address names what is on show from the start.
 * Where no run was said that is the pinned one, else the best of those that keep the promise of a link, else the run
 * that was written to last.
 */
export function opened(index: Index, state: ViewState, pin: string | null, best: string | null = null): ViewState {
  if (state.run !== null && state.dataset !== null) return state;
  const run = state.run ?? (datasetsOf(index, pin).length > 0 ? pin : (best ?? latestRun(index)));
  if (run === null) return state;
  const { dataset } = moveTo(index, state, run, state.dataset);
  return { ...state, run, dataset: state.dataset ?? dataset ?? null };
}

/** A change of run or data set keeps what still means something there and drops the rest. */
export function moveTo(index: Index, state: ViewState, run: string, dataset: string | null): Partial<ViewState> {
  const datasets = datasetsOf(index, run);
  const next = dataset !== null && datasets.includes(dataset) ? dataset : preferredDataset(datasets);
  const from = findSeries(index, state.run, state.dataset);
  const to = findSeries(index, run, next);
  const sameClasses = from !== null && to !== null && from.numClasses === to.numClasses;
  return {
    run,
    dataset: next,
    step: to?.steps.some(({ step }) => step === state.step) ? state.step : null,
    other: state.other === run ? null : state.other,
    page: 0,
    ...(sameClasses ? {} : { target: null, h1: null, h2: null, classPage: 0 }),
  };
}
