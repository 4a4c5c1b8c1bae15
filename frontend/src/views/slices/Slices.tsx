import { useMemo, useState } from "preact/hooks";
import { filterOf, foundRows, sameFilter, sliceName, type SliceFilter, type SliceRow, sliceRows } from "../../data/slices";
import { count, intervalText, percent, signedPercent, UNKNOWN } from "../../layout/format";
import type { Filter, Table } from "../../model";
import { Pager } from "../parts/Pager";

export interface SlicesProps {
  readonly table: Table;
  readonly filter: Filter;
  /** Null takes the conditions back. */
  readonly onSelect: (slice: SliceFilter | null) => void;
}

const PAGE_SIZE = 10;

/** Where the update breaks most, by columns of metadata. */
export function Slices({ table, filter, onSelect }: SlicesProps) {
  const [chosen, setChosen] = useState<string | null>(null);
  const [page, setPage] = useState(0);
  const column = table.slices.some((each) => each.column === chosen) ? chosen : null;
  const found = useMemo(() => foundRows(table), [table]);
  const rows = useMemo(() => sliceRows(table, column), [table, column]);
  const pages = Math.max(1, Math.ceil(rows.length / PAGE_SIZE));
  const current = Math.min(page, pages - 1);
  const top = Math.max(1e-9, ...[...rows, ...found].map(({ high }) => high));
  const lines = { table, filter, onSelect, top };
  return (
    <div class="bc-slices">
      {found.length > 0 && (
        <>
          <h3>More breaks here than elsewhere</h3>
          <p class="bc-note">
            All slices of one and two columns, true classes among them, were looked at in one half of the instances. Shown
            are those that hold up in the other half, by its counts, with Holm’s correction for how many were tried.
          </p>
          <Lines rows={found} name="Slices that were found" {...lines} />
        </>
      )}
      <div class="bc-controls bc-slices-head">
        <h3>Slices of one column, worst first</h3>
        {table.slices.length > 1 && (
          <label class="bc-field">
            <span>Column</span>
            <select
              value={column ?? ""}
              onChange={({ currentTarget: { value } }) => {
                setChosen(value === "" ? null : value);
                setPage(0);
              }}
            >
              <option value="">all</option>
              {table.slices.map((each) => (
                <option key={each.column} value={each.column}>
                  {each.column}
                </option>
              ))}
            </select>
          </label>
        )}
      </div>
      <Lines
        rows={rows.slice(current * PAGE_SIZE, (current + 1) * PAGE_SIZE)}
        name="Slices of one column"
        {...lines}
      />
      <Pager page={current} pages={pages} total={rows.length} label="slices" onPage={setPage} />
      <p class="bc-note">
        Ordered by the lower end of the 95% interval, so that no slice leads by being small. A click lists what broke in
        a slice.
      </p>
    </div>
  );
}

interface LinesProps extends SlicesProps {
  readonly rows: readonly SliceRow[];
  readonly name: string;
  readonly top: number;
}

function Lines({ rows, name, top, table, filter, onSelect }: LinesProps) {
  const hasAccuracy = rows.some(({ cells }) => cells !== null);
  const place = (share: number) => `${((100 * share) / top).toFixed(2)}%`;
  return (
    <table class={`bc-table bc-slices-table${hasAccuracy ? "" : " bc-slices-found"}`} aria-label={name}>
      <thead>
        <tr>
          <th scope="col">Slice</th>
          <th scope="col" class="bc-number bc-slices-broken">
            Broken
          </th>
          <th scope="col" class="bc-slices-bar" title="Negative flip rate with its 95% interval">
            NFR
          </th>
          {hasAccuracy && (
            <th scope="col" class="bc-number bc-slices-change" title="Accuracy of h2 less that of h1, in percentage points">
              h2 − h1
            </th>
          )}
        </tr>
      </thead>
      <tbody>
        {rows.map(({ conditions, flips, total, rate, low, high, accuracyChange }) => {
          const slice = filterOf(table, conditions);
          const isOn = filter.region === "regress" && sameFilter(slice, filter);
          const text = sliceName(conditions);
          return (
            <tr key={text} class={isOn ? "bc-selected" : ""}>
              <th scope="row">
                <button
                  type="button"
                  class="bc-row-button bc-slice-name"
                  aria-pressed={isOn}
                  title={`${text}: show ${isOn ? "all errors again" : "what broke in it"}`}
                  onClick={() => onSelect(isOn ? null : slice)}
                >
                  {conditions.map(([column, value]) => (
                    <span key={column} class="bc-slice-condition">
                      <span class="bc-note">{column}</span> {value}
                    </span>
                  ))}
                </button>
              </th>
              <td class="bc-number">
                {count(flips)} of {count(total)}
              </td>
              <td class="bc-slices-bar" title={`95% interval ${intervalText(low, high)}`}>
                <span class="bc-slice-track" aria-hidden="true">
                  <span class="bc-slice-range" style={{ left: place(low), width: place(high - low) }} />
                  <span class="bc-slice-rate" style={{ left: place(rate) }} />
                </span>
                <span class="bc-slice-share">{percent(rate)}</span>
              </td>
              {hasAccuracy && (
                <td class={`bc-number bc-slices-change${accuracyChange < 0 ? " bc-worse" : ""}`}>
                  {Number.isNaN(accuracyChange) ? UNKNOWN : signedPercent(accuracyChange).replace("%", "")}
                </td>
              )}
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}
