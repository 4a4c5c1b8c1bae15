import { useMemo } from "preact/hooks";
import { flipMatrix } from "../../data/engine";
import { count, percent } from "../../layout/format";
import type { Table } from "../../model";

export interface FlipTarget {
  readonly target: number | null;
  readonly h2: number | null;
}

export interface FlipMatrixProps {
  readonly table: Table;
  readonly selected: FlipTarget;
  readonly onSelect: (target: number | null, h2: number | null) => void;
}

/** What a click asks for: the same click twice takes the condition back. */
export function toggled(selected: FlipTarget, clicked: FlipTarget): FlipTarget {
  const same = selected.target === clicked.target && selected.h2 === clicked.h2;
  return same ? { target: null, h2: null } : clicked;
}

/** Strength of a cell's colour in 0..1; the square root keeps small counts apart beside one large one. */
export function heat(value: number, largest: number): number {
  return largest > 0 ? Math.sqrt(value / largest) : 0;
}

export function FlipMatrix({ table, selected, onSelect }: FlipMatrixProps) {
  const { rows, columns, cells, total } = useMemo(() => flipMatrix(table), [table]);
  if (total === 0) {
    return <p class="bc-empty">No negative flips: h2 is right wherever h1 is right.</p>;
  }
  // Cells of "other" add up many classes and would outshine every pair of two.
  const isNamed = (i: number, k: number): boolean => rows[i]!.index !== null && columns[k]!.index !== null;
  const largest = Math.max(0, ...cells.flatMap((row, i) => row.filter((_, k) => isNamed(i, k))));
  const rowSums = cells.map((row) => row.reduce((sum, n) => sum + n, 0));
  const columnSums = columns.map((_, k) => cells.reduce((sum, row) => sum + row[k]!, 0));
  const select = (target: number | null, h2: number | null): void => {
    const next = toggled(selected, { target, h2 });
    onSelect(next.target, next.h2);
  };
  const isOn = (target: number | null, h2: number | null): boolean => selected.target === target && selected.h2 === h2;
  const upright = columns.every(({ label }) => label.length <= 3);
  const share = (n: number): string => `${percent(n / total)} of all negative flips`;
  const header = (index: number | null, label: string, sum: number, isRow: boolean) => {
    const text = (
      <span class="bc-flips-label" title={label}>
        {label}
      </span>
    );
    const what = isRow ? `true class ${label}` : `h2 now says ${label}`;
    if (index === null) return text;
    const [target, h2] = isRow ? [index, null] : [null, index];
    return (
      <button
        type="button"
        class="bc-flips-button"
        aria-pressed={isOn(target, h2)}
        aria-label={`${what}: ${count(sum)} negative flips`}
        title={`${what}: ${count(sum)}, ${share(sum)}`}
        onClick={() => select(target, h2)}
      >
        {text}
      </button>
    );
  };

  return (
    <div class="bc-flips">
      <p class="bc-note">
        What h1 got right and h2 gets wrong ({count(total)}): the true class, and what h2 says instead. A click on a cell
        or a name shows these instances.
      </p>
      <div class="bc-flips-scroll">
        <table class={`bc-flips-table${upright ? " bc-flips-upright" : ""}`} aria-label="Negative flips by class">
          <thead>
            <tr>
              <th scope="col" class="bc-flips-corner">
                <span>h2 says →</span> <span>true class ↓</span>
              </th>
              {columns.map((column, k) => (
                <th scope="col" key={column.index ?? "other"} class="bc-flips-column">
                  {header(column.index, column.label, columnSums[k]!, false)}
                </th>
              ))}
              <th scope="col" class="bc-flips-column bc-flips-sum">
                <span class="bc-flips-label">all</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row, i) => (
              <tr key={row.index ?? "other"}>
                <th scope="row" class="bc-flips-row">
                  {header(row.index, row.label, rowSums[i]!, true)}
                </th>
                {columns.map((column, k) => {
                  const n = cells[i]![k]!;
                  const { index: target } = row;
                  const { index: h2 } = column;
                  const on = target !== null && h2 !== null && isOn(target, h2);
                  const inLine = (target !== null && isOn(target, null)) || (h2 !== null && isOn(null, h2));
                  const title = `${count(n)} × true class ${row.label}, h2 says ${column.label}: ${share(n)}`;
                  return (
                    <td
                      key={column.index ?? "other"}
                      class={`bc-flips-cell${on ? " bc-selected" : inLine ? " bc-touched" : ""}`}
                      style={{ "--bc-heat": (isNamed(i, k) ? heat(n, largest) : 0).toFixed(3) }}
                      title={n ? title : undefined}
                    >
                      {n > 0 && target !== null && h2 !== null ? (
                        <button
                          type="button"
                          class="bc-flips-button"
                          aria-pressed={on}
                          aria-label={title}
                          onClick={() => select(target, h2)}
                        >
                          {count(n)}
                        </button>
                      ) : (
                        <span class={n ? "" : "bc-flips-zero"}>{n ? count(n) : "·"}</span>
                      )}
                    </td>
                  );
                })}
                <td class="bc-flips-cell bc-flips-sum">{count(rowSums[i]!)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </div>
  );
}
