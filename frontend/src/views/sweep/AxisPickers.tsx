import { useMemo } from "preact/hooks";
import { SCORES } from "../../data/scores";
import type { ViewState } from "../../model";
import { looksOffered, titleOfLook } from "./looks";
import { LAMBDA, moreAxes, type SweepPoint, titleOf } from "./sweepPoints";

const NAMES = SCORES.map((score) => score.name);

export interface AxisPickersProps {
  readonly state: Pick<ViewState, "sweepX" | "sweepY">;
  /** What colour and shape tell apart. */
  readonly colour: string;
  readonly shape: string;
  readonly points: readonly SweepPoint[];
  readonly onState: (patch: Partial<ViewState>) => void;
}

/** What lies on the axes of the two charts, and what colour and shape tell apart. */
export function AxisPickers({ state, colour, shape, points, onState }: AxisPickersProps) {
  const more = useMemo(() => moreAxes(points), [points]);
  const looks = useMemo(() => looksOffered(points), [points]);
  const picker = (
    title: string,
    names: readonly string[],
    chosen: string,
    onChosen: (name: string) => void,
    nameOf = titleOf,
  ) => (
    <label class="bc-field" key={title}>
      <span>{title}</span>
      <select value={chosen} onChange={(event) => onChosen(event.currentTarget.value)}>
        {names.map((name) => (
          <option key={name} value={name}>
            {nameOf(name)}
          </option>
        ))}
      </select>
    </label>
  );
  return (
    <div class="bc-controls">
      {picker("Upwards", [...NAMES, ...more], state.sweepY, (name) => onState({ sweepY: name }))}
      {state.sweepX.map((x, chart) =>
        picker(chart === 0 ? "First chart across" : "Second chart across", [...NAMES, LAMBDA, ...more], x, (name) =>
          onState({ sweepX: state.sweepX.map((old, i) => (i === chart ? name : old)) }),
        ),
      )}
      {picker("Colour", looks, colour, (name) => onState({ colourBy: name }), titleOfLook)}
      {picker("Shape", looks, shape, (name) => onState({ shapeBy: name }), titleOfLook)}
    </div>
  );
}
