import { lambdaText } from "../../layout/format";
import type { ViewState } from "../../model";
import { markPath, setClass } from "../parts/marks";
import { toggleOption } from "./sweepPoints";

export interface MarkIconProps {
  readonly shape: number;
  /** Number of the data set whose colour and filling it has; null for the bare shape. */
  readonly set: number | null;
}

export function MarkIcon({ shape, set }: MarkIconProps) {
  return (
    <svg class="bc-mark-icon" viewBox="-8 -8 16 16" aria-hidden="true">
      <g class={`bc-point ${set === null ? "bc-set-none" : setClass(set)}`}>
        <path class="bc-point-mark" d={markPath(shape, 5)} />
      </g>
    </svg>
  );
}

interface OptionsProps {
  readonly title: string;
  readonly options: readonly string[];
  readonly chosen: readonly string[] | null;
  readonly icon: (i: number) => MarkIconProps | null;
  readonly onChosen: (chosen: string[] | null) => void;
}

function Options({ title, options, chosen, icon, onChosen }: OptionsProps) {
  return (
    <fieldset class="bc-options">
      <legend>{title}</legend>
      {options.map((option, i) => (
        <label key={option} class="bc-check">
          <input
            type="checkbox"
            checked={chosen === null || chosen.includes(option)}
            onChange={() => onChosen(toggleOption(options, chosen, option))}
          />
          {icon(i) !== null && <MarkIcon {...icon(i)!} />}
          <span>{option}</span>
        </label>
      ))}
    </fieldset>
  );
}

/** Rank of the first lambda of at least `wanted`, and of the last one of at most it. */
export function rankFrom(lambdas: readonly number[], wanted: number | null): number {
  if (wanted === null) return 0;
  const rank = lambdas.findIndex((lambda) => lambda >= wanted);
  return rank < 0 ? lambdas.length - 1 : rank;
}

export function rankTo(lambdas: readonly number[], wanted: number | null): number {
  if (wanted === null) return lambdas.length - 1;
  const rank = lambdas.findLastIndex((lambda) => lambda <= wanted);
  return Math.max(0, rank);
}

type Chosen = Pick<ViewState, "datasets" | "dissonances" | "lambdaMin" | "lambdaMax" | "sameH1">;

export interface SweepFiltersProps {
  readonly datasets: readonly string[];
  readonly dissonances: readonly string[];
  readonly lambdas: readonly number[];
  /** Whether marks have the colour of their data set, and the shape of their dissonance. */
  readonly isColoured: boolean;
  readonly isShaped: boolean;
  /** Whether all are updates of one h1. */
  readonly isOneH1: boolean;
  readonly state: Chosen;
  readonly onState: (patch: Partial<Chosen>) => void;
}

export function SweepFilters(props: SweepFiltersProps) {
  const { datasets, dissonances, lambdas, state, onState } = props;
  const last = lambdas.length - 1;
  const from = rankFrom(lambdas, state.lambdaMin);
  const to = rankTo(lambdas, state.lambdaMax);
  const setFrom = (rank: number): void => onState({ lambdaMin: rank <= 0 ? null : lambdas[rank]! });
  const setTo = (rank: number): void => onState({ lambdaMax: rank >= last ? null : lambdas[rank]! });
  const picker = (title: string, rank: number, isOffered: (rank: number) => boolean, onRank: (rank: number) => void) => (
    <select
      aria-label={title}
      title={title}
      value={rank}
      onChange={(event) => onRank(Number(event.currentTarget.value))}
    >
      {lambdas.map((lambda, i) => isOffered(i) && <option value={i}>{lambdaText(lambda)}</option>)}
    </select>
  );
  return (
    <div class="bc-filters">
      <Options
        title="Data set"
        options={datasets}
        chosen={state.datasets}
        icon={(i) => (props.isColoured ? { shape: 0, set: i } : null)}
        onChosen={(chosen) => onState({ datasets: chosen })}
      />
      <Options
        title="Dissonance"
        options={dissonances}
        chosen={state.dissonances}
        icon={(i) => (props.isShaped ? { shape: i, set: null } : null)}
        onChosen={(chosen) => onState({ dissonances: chosen })}
      />
      {last > 0 && (
        <fieldset class="bc-options">
          <legend title="Weight of the dissonance that h2 was trained with">λ</legend>
          {picker("Smallest λ shown", from, (rank) => rank <= to, setFrom)}
          <span>to</span>
          {picker("Largest λ shown", to, (rank) => rank >= from, setTo)}
        </fieldset>
      )}
      {!props.isOneH1 && (
        <fieldset class="bc-options">
          <legend>h1</legend>
          <label class="bc-check">
            <input
              type="checkbox"
              checked={state.sameH1}
              onChange={(event) => onState({ sameH1: event.currentTarget.checked })}
            />
            <span>that of the chosen run only</span>
          </label>
        </fieldset>
      )}
    </div>
  );
}
