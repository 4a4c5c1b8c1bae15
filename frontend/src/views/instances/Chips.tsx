import { REGIONS } from "../overview/Venn";
import { percent } from "../../layout/format";
import type { Filter, Flips } from "../../model";
import { NO_FILTER } from "../../state/url";

export interface ChipsProps {
  readonly filter: Filter;
  readonly labels: readonly string[];
  readonly onChange: (change: Partial<Filter>) => void;
}

export const BROKEN_BY: Record<Flips, string> = { a: "run A only", b: "run B only", both: "both runs" };

interface Condition {
  readonly name: string;
  readonly value: string;
  readonly without: Partial<Filter>;
}

/** "at least 90%", or "40% to 60%". */
export function sureText([low, high]: readonly [number, number]): string {
  return high >= 1 ? `at least ${percent(low, 0)}` : `${percent(low, 0)} to ${percent(high, 0)}`;
}

export function conditions(filter: Filter, labels: readonly string[]): Condition[] {
  const found: Condition[] = [];
  const label = (index: number) => labels[index] ?? String(index);
  if (filter.region !== null) {
    const title = REGIONS.find(({ region }) => region === filter.region)?.title ?? filter.region;
    found.push({ name: "Region", value: title, without: { region: null } });
  }
  if (filter.flips !== null)
    found.push({ name: "Broken by", value: BROKEN_BY[filter.flips], without: { flips: null, b: null } });
  if (filter.target !== null)
    found.push({ name: "True class", value: label(filter.target), without: { target: null } });
  if (filter.h1 !== null) found.push({ name: "h1 says", value: label(filter.h1), without: { h1: null } });
  if (filter.h2 !== null) found.push({ name: "h2 says", value: label(filter.h2), without: { h2: null } });
  if (filter.b !== null && filter.flips !== null)
    found.push({ name: "Run B says", value: label(filter.b), without: { b: null } });
  if (filter.sure1 !== null) found.push({ name: "h1 is sure", value: sureText(filter.sure1), without: { sure1: null } });
  if (filter.sure2 !== null) found.push({ name: "h2 is sure", value: sureText(filter.sure2), without: { sure2: null } });
  for (const [name, value] of filter.slices) {
    found.push({ name, value, without: { slices: filter.slices.filter(([other]) => other !== name) } });
  }
  if (filter.text.trim() !== "") found.push({ name: "Text", value: `“${filter.text.trim()}”`, without: { text: "" } });
  return found;
}

/** All conditions that the instances meet, each with a way out. */
export function Chips({ filter, labels, onChange }: ChipsProps) {
  const active = conditions(filter, labels);
  return (
    <div class="bc-chips" data-testid="chips" role="group" aria-label="Conditions on the instances">
      {active.length === 0 ? (
        <span class="bc-note">
          All errors are shown. Click a region, a class or a cell of the matrix to narrow them down.
        </span>
      ) : (
        <>
          <span class="bc-note">Only instances with</span>
          {active.map(({ name, value, without }) => (
            <button
              key={name}
              type="button"
              class="bc-chip"
              title={`Remove the condition: ${name} ${value}`}
              onClick={() => onChange(without)}
            >
              <span class="bc-chip-name">{name}:</span> <span class="bc-ellipsis">{value}</span>
              <span aria-hidden="true">×</span>
            </button>
          ))}
          <button type="button" class="bc-link" onClick={() => onChange(NO_FILTER)}>
            Clear all
          </button>
        </>
      )}
    </div>
  );
}
