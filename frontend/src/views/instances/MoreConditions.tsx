import type { Filter, Table } from "../../model";
import { sureText } from "./Chips";

export interface MoreConditionsProps {
  readonly table: Table;
  readonly filter: Filter;
  readonly onChange: (change: Partial<Filter>) => void;
}

const LEAST_SURE = [0.5, 0.8, 0.9, 0.95, 0.99];

/** Conditions that only some comparisons have: how sure the models are, and columns of metadata. */
export function MoreConditions({ table, filter, onChange }: MoreConditionsProps) {
  return (
    <>
      {table.sure !== null &&
        (["sure1", "sure2"] as const).map((name) => (
          <SurePicker
            key={name}
            label={name === "sure1" ? "h1 is sure" : "h2 is sure"}
            value={filter[name]}
            onPick={(range) => onChange({ [name]: range })}
          />
        ))}
      {table.slices.map(({ column, values }) => (
        <label key={column} class="bc-tool">
          <span class="bc-tool-label bc-ellipsis" title={column}>
            {column}
          </span>
          <select
            value={values.indexOf(filter.slices.find(([name]) => name === column)?.[1] ?? "")}
            onChange={({ currentTarget: { value } }) => {
              const others = filter.slices.filter(([name]) => name !== column);
              const chosen = values[Number(value)];
              onChange({ slices: chosen === undefined ? others : [...others, [column, chosen]] });
            }}
          >
            <option value={-1}>any</option>
            {values.map((value, i) => (
              <option key={i} value={i}>
                {value}
              </option>
            ))}
          </select>
        </label>
      ))}
    </>
  );
}

interface SurePickerProps {
  readonly label: string;
  readonly value: readonly [number, number] | null;
  readonly onPick: (range: readonly [number, number] | null) => void;
}

function SurePicker({ label, value, onPick }: SurePickerProps) {
  const listed = LEAST_SURE.map((least) => [least, 1] as const);
  const isListed = (range: readonly [number, number]) =>
    listed.some(([low, high]) => low === range[0] && high === range[1]);
  // A cell of the picture is a range of its own.
  const offered = value === null || isListed(value) ? listed : [value, ...listed];
  return (
    <label class="bc-tool">
      <span class="bc-tool-label">{label}</span>
      <select
        value={value === null ? "" : value.join()}
        onChange={({ currentTarget: { value: chosen } }) => {
          const [low, high] = chosen.split(",").map(Number);
          onPick(chosen === "" ? null : [low!, high!]);
        }}
      >
        <option value="">any</option>
        {offered.map((range) => (
          <option key={range.join()} value={range.join()}>
            {sureText(range)}
          </option>
        ))}
      </select>
    </label>
  );
}
