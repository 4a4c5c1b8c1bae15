import { SCORES } from "../../data/scores";
import type { ViewState } from "../../model";
import { LAMBDA, titleOf } from "./sweepPoints";

const NAMES = SCORES.map((score) => score.name);

export interface AxisPickersProps {
  readonly state: Pick<ViewState, "sweepX" | "sweepY">;
  readonly onState: (patch: Partial<ViewState>) => void;
}

/** What lies on the axes of the two charts. */
export function AxisPickers({ state, onState }: AxisPickersProps) {
  const picker = (title: string, names: readonly string[], chosen: string, onChosen: (name: string) => void) => (
    <label class="bc-field" key={title}>
      <span>{title}</span>
      <select value={chosen} onChange={(event) => onChosen(event.currentTarget.value)}>
        {names.map((name) => (
          <option key={name} value={name}>
            {titleOf(name)}
          </option>
        ))}
      </select>
    </label>
  );
  return (
    <div class="bc-controls">
      {picker("Upwards", NAMES, state.sweepY, (name) => onState({ sweepY: name }))}
      {state.sweepX.map((x, chart) =>
        picker(chart === 0 ? "First chart across" : "Second chart across", [...NAMES, LAMBDA], x, (name) =>
          onState({ sweepX: state.sweepX.map((old, i) => (i === chart ? name : old)) }),
        ),
      )}
    </div>
  );
}
