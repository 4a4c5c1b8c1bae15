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
  readonly icon: (i: number) => MarkIconProps;
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
          <MarkIcon {...icon(i)} />
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

type Patch = Partial<Pick<ViewState, "datasets" | "dissonances" | "lambdaMin" | "lambdaMax">>;

export interface SweepFiltersProps {
  readonly datasets: readonly string[];
  readonly dissonances: readonly string[];
  readonly lambdas: readonly number[];
  readonly state: Pick<ViewState, "datasets" | "dissonances" | "lambdaMin" | "lambdaMax">;
  readonly onState: (patch: Patch) => void;
}

export function SweepFilters({ datasets, dissonances, lambdas, state, onState }: SweepFiltersProps) {
  const last = lambdas.length - 1;
  const from = rankFrom(lambdas, state.lambdaMin);
  const to = rankTo(lambdas, state.lambdaMax);
  const setFrom = (rank: number): void => onState({ lambdaMin: rank <= 0 ? null : lambdas[rank]! });
  const setTo = (rank: number): void => onState({ lambdaMax: rank >= last ? null : lambdas[rank]! });
  const range = (
    rank: number,
    title: string,
    className: string,
    limit: (rank: number) => number,
    onRank: (rank: number) => void,
  ) => (
    <input
      type="range"
      class={className}
      min={0}
      max={last}
      step={1}
      value={rank}
      aria-label={title}
      aria-valuetext={lambdaText(lambdas[rank]!)}
      title={`${title}: ${lambdaText(lambdas[rank]!)}`}
      onInput={(event) => {
        const kept = limit(Number(event.currentTarget.value));
        event.currentTarget.value = String(kept); // one end stops at the other, and so does its handle
        onRank(kept);
      }}
    />
  );
  // With both handles at the right end, only the lower one can move, so it must not lie below the other.
  const lower = from === last ? "bc-range-above" : "";
  const shareOf = (rank: number): string => String(rank / Math.max(1, last));
  return (
    <div class="bc-filters">
      <Options
        title="Data set"
        options={datasets}
        chosen={state.datasets}
        icon={(i) => ({ shape: 0, set: i })}
        onChosen={(chosen) => onState({ datasets: chosen })}
      />
      <Options
        title="Dissonance"
        options={dissonances}
        chosen={state.dissonances}
        icon={(i) => ({ shape: i, set: null })}
        onChosen={(chosen) => onState({ dissonances: chosen })}
      />
      {last > 0 && (
        <fieldset class="bc-options">
          <legend title="Weight of the dissonance that h2 was trained with">λ</legend>
          <output class="bc-range-end">{lambdaText(lambdas[from]!)}</output>
          <span class="bc-range" style={{ "--bc-from-share": shareOf(from), "--bc-to-share": shareOf(to) }}>
            {range(from, "Smallest λ shown", lower, (rank) => Math.min(rank, to), setFrom)}
            {range(to, "Largest λ shown", "", (rank) => Math.max(rank, from), setTo)}
          </span>
          <output class="bc-range-end">{lambdaText(lambdas[to]!)}</output>
        </fieldset>
      )}
    </div>
  );
}
