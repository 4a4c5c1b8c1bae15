import { useMemo } from "preact/hooks";
import { flipMatrix, matrixOf } from "../../data/engine";
import { flipRows } from "../../data/narrowing";
import type { Joined } from "../../data/twoUpdates";
import { count, percent } from "../../layout/format";
import type { Flips, Table } from "../../model";

export interface FlipTarget {
  readonly target: number | null;
  /** What is said in its place: by h2, or by run B where it alone breaks the instances. */
  readonly h2: number | null;
}

export interface FlipMatrixProps {
  readonly table: Table;
  /** Another update beside this one, and whose flips are counted; null counts those of the first. */
  readonly both: Joined | null;
  readonly flips: Flips | null;
  readonly onFlips: (flips: Flips | null) => void;
  readonly selected: FlipTarget;
  readonly onSelect: (target: number | null, h2: number | null) => void;
}

const WHOSE: readonly { flips: Flips | null; title: string; told: string }[] = [
  { flips: null, title: "run A", told: "What h1 got right and h2 gets wrong" },
  { flips: "a", title: "A only", told: "What h1 got right and run A alone gets wrong" },
  { flips: "both", title: "both", told: "What h1 got right and both runs get wrong, by what run A says" },
  { flips: "b", title: "B only", told: "What h1 got right and run B alone gets wrong" },
];

/** What a click asks for: the same click twice takes the condition back. */
export function toggled(selected: FlipTarget, clicked: FlipTarget): FlipTarget {
  const same = selected.target === clicked.target && selected.h2 === clicked.h2;
  return same ? { target: null, h2: null } : clicked;
}

/** Strength of a cell's colour in 0..1; the square root keeps small counts apart beside one large one. */
export function heat(value: number, largest: number): number {
  return largest > 0 ? Math.sqrt(value / largest) : 0;
}

export function FlipMatrix(props: FlipMatrixProps) {
  const { table, both, flips, onFlips } = props;
  const whose = (both !== null && WHOSE.find((each) => each.flips === flips)) || WHOSE[0]!;
  const matrix = useMemo(() => {
    const counted = flipRows(table, both, whose.flips);
    return counted.rows === null ? flipMatrix(table) : matrixOf(counted.table, counted.wrong, counted.rows);
  }, [table, both, whose]);
  return (
    <div class="bc-flips">
      {both !== null && (
        <div class="bc-toggle bc-flips-whose" role="group" aria-label="Whose negative flips are counted">
          {WHOSE.map((each) => (
            <button
              key={each.title}
              type="button"
              aria-pressed={each === whose}
              title={each.told}
              onClick={() => onFlips(each.flips)}
            >
              {each.title}
            </button>
          ))}
        </div>
      )}
      <Cells {...props} matrix={matrix} told={whose.told} speaker={whose.flips === "b" ? "run B" : "h2"} />
    </div>
  );
}

interface CellsProps extends FlipMatrixProps {
  readonly matrix: ReturnType<typeof flipMatrix>;
  readonly told: string;
  readonly speaker: string;
}

function Cells({ selected, onSelect, matrix, told, speaker }: CellsProps) {
  const { rows, columns, cells, total } = matrix;
  if (total === 0) {
    return (
      <p class="bc-empty">
        {told.includes("run") ? "There are none." : "No negative flips: h2 is right wherever h1 is right."}
      </p>
    );
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
    const what = isRow ? `true class ${label}` : `${speaker} now says ${label}`;
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
    <>
      <p class="bc-note">
        {told} ({count(total)}): the true class, and what {speaker} says instead. A click on a cell or a name shows these
        instances.
      </p>
      <div class="bc-flips-scroll">
        <table class={`bc-flips-table${upright ? " bc-flips-upright" : ""}`} aria-label="Negative flips by class">
          <thead>
            <tr>
              <th scope="col" class="bc-flips-corner">
                <span>{speaker} says →</span> <span>true class ↓</span>
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
                  const title = `${count(n)} × true class ${row.label}, ${speaker} says ${column.label}: ${share(n)}`;
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
    </>
  );
}
