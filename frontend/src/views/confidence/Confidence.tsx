import { useState } from "preact/hooks";
import type { Filter, Table } from "../../model";
import { REGIONS } from "../overview/Venn";
import { colouredValues, MOST_COLOURS, SureScatter } from "./SureScatter";
import { Reliability } from "./Reliability";

export interface ConfidenceProps {
  readonly table: Table;
  readonly filter: Filter;
  readonly onSelect: (change: Pick<Filter, "sure1" | "sure2">) => void;
}

/** How sure both models are of what they get wrong, and whether that is worth anything. */
export function Confidence({ table, filter, onSelect }: ConfidenceProps) {
  const [chosen, setChosen] = useState<string | null>(null);
  const column = table.slices.find((each) => each.column === chosen);
  const colour = column?.column ?? null;
  return (
    <div class="bc-sure">
      <div class="bc-controls">
        {table.slices.length > 0 && (
          <label class="bc-field">
            <span>Colour by</span>
            <select
              value={colour ?? ""}
              onChange={({ currentTarget: { value } }) => setChosen(value === "" ? null : value)}
            >
              <option value="">who is wrong</option>
              {table.slices.map((each) => (
                <option key={each.column} value={each.column}>
                  {each.column}
                </option>
              ))}
            </select>
          </label>
        )}
        <p class="bc-note bc-key" aria-label="What the colours mean">
          {column === undefined
            ? REGIONS.map(({ region, title }) => (
                <span key={region} class="bc-key-item">
                  <span class={`bc-dot bc-sure-${region}`} aria-hidden="true" /> {title.toLowerCase()}
                </span>
              ))
            : colouredValues(table, column.column).map((code, place) => (
                <span key={code} class="bc-key-item">
                  <span class={`bc-dot bc-hue-${place}`} aria-hidden="true" />{" "}
                  <span class="bc-ellipsis bc-key-name">{column.values[code]}</span>
                </span>
              ))}
          {column !== undefined && column.values.length > MOST_COLOURS && (
            <span class="bc-key-item">
              <span class="bc-dot bc-hue-other" aria-hidden="true" /> other
            </span>
          )}
        </p>
      </div>
      <div class="bc-sure-figures">
        <SureScatter
          table={table}
          colour={colour}
          selected={[filter.sure1, filter.sure2]}
          onSelect={(sure1, sure2) => onSelect({ sure1, sure2 })}
        />
        {table.calibration !== null && <Reliability calibration={table.calibration} />}
      </div>
    </div>
  );
}
