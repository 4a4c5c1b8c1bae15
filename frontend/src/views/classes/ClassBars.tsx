import { scaleLinear } from "d3-scale";
import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";
import { sortClasses, type ClassRow } from "../../data/engine";
import { count, percent, shorten, signedPercent } from "../../layout/format";
import type { ClassSort, Flips, ViewState } from "../../model";
import { Pager } from "../parts/Pager";

type ClassView = ViewState["classView"];

export interface ClassBarsProps {
  readonly rows: readonly ClassRow[];
  readonly view: ClassView;
  readonly sort: ClassSort;
  readonly search: string;
  /** Counted from 0. */
  readonly page: number;
  /** The true class that instances are filtered by. */
  readonly selected: number | null;
  /** Negative flips of all classes together. */
  readonly totalRegress: number;
  readonly onView: (view: ClassView) => void;
  readonly onSort: (sort: ClassSort) => void;
  readonly onSearch: (search: string) => void;
  readonly onPage: (page: number) => void;
  readonly onSelect: (target: number | null) => void;
  /** Instances of each class that one of two updates breaks alone; null without a second. */
  readonly broken: Record<Flips, Uint32Array> | null;
  readonly flips: Flips | null;
  readonly onFlips: (target: number | null, flips: Flips | null) => void;
}

const ALONE = ["a", "b"] as const;

const PAGE_SIZE = 15;

const VIEWS: readonly { view: ClassView; title: string; explanation: string }[] = [
  { view: "accuracy", title: "Accuracy", explanation: "Accuracy of h1 and of h2 on the instances of each true class." },
  {
    view: "incompatible",
    title: "Incompatible",
    explanation: "Instances that h1 gets right and h2 gets wrong, in percent of all such instances",
  },
];

const SORTS: readonly { sort: ClassSort; title: string }[] = [
  { sort: "flips", title: "negative flips" },
  { sort: "loss", title: "drop of accuracy" },
  { sort: "count", title: "instances" },
  { sort: "name", title: "name" },
];

/** Upper end and ticks of the axis of shares: the largest bar decides, on whatever page it stands. */
export function shareAxis(rows: readonly ClassRow[]): { top: number; ticks: number[] } {
  let largest = 0;
  for (const row of rows) if (row.share > largest) largest = row.share;
  const scale = scaleLinear([0, Math.min(1, largest) || 1], [0, 1]).nice(4);
  const top = Math.min(1, scale.domain()[1]!);
  return { top, ticks: scale.ticks(4).filter((tick) => tick <= top + 1e-9) };
}

/** A difference of shares: a percent sign would read as a ratio. */
export function pointsText(change: number): string {
  return signedPercent(change).replace("%", " pp");
}

interface BarProps {
  readonly share: number;
  readonly mark: string;
  readonly children: ComponentChildren;
}

function Bar({ share, mark, children }: BarProps) {
  const width = Math.min(1, Math.max(0, share)) * 100;
  return (
    <div class="bc-bar">
      <div class={`bc-bar-fill bc-bar-${mark}`} style={{ width: `${width}%` }} />
      <span class="bc-bar-value">{children}</span>
    </div>
  );
}

export function ClassBars(props: ClassBarsProps) {
  const { rows, view, sort, search, page, selected, totalRegress, onView, onSort, onSearch, onPage, onSelect } = props;
  const { broken, flips, onFlips } = props;
  const found = useMemo(() => sortClasses(rows, sort, search), [rows, sort, search]);
  const pages = Math.max(1, Math.ceil(found.length / PAGE_SIZE));
  const current = Math.min(Math.max(0, page), pages - 1);
  const shown = found.slice(current * PAGE_SIZE, (current + 1) * PAGE_SIZE);
  const accuracy = view === "accuracy";
  const shares = useMemo(() => shareAxis(rows), [rows]);
  const { top, ticks } = accuracy ? { top: 1, ticks: [0, 0.25, 0.5, 0.75, 1] } : shares;
  const digits = ticks.length > 1 && (ticks[1]! - ticks[0]!) * 100 < 1 ? 1 : 0;
  const shareDigits = top < 0.02 ? 2 : 1;
  const isUncertain = shown.some((row) => row.uncertain);
  const explanation = VIEWS.find((item) => item.view === view)!.explanation;
  const nothingBroke = !accuracy && totalRegress === 0;

  return (
    <div class="bc-classes">
      <div class="bc-controls">
        <div class="bc-toggle" role="group" aria-label="What the bars show">
          {VIEWS.map((item) => (
            <button
              key={item.view}
              type="button"
              aria-pressed={view === item.view}
              title={item.explanation}
              onClick={() => onView(item.view)}
            >
              {item.title}
            </button>
          ))}
        </div>
        <label class="bc-field">
          <span>Sort by</span>
          <select value={sort} onChange={(event) => onSort(event.currentTarget.value as ClassSort)}>
            {SORTS.map((item) => (
              <option key={item.sort} value={item.sort}>
                {item.title}
              </option>
            ))}
          </select>
        </label>
        <label class="bc-field">
          <input
            type="search"
            value={search}
            placeholder="find a class"
            aria-label="Find classes by name"
            onInput={(event) => onSearch(event.currentTarget.value)}
          />
        </label>
      </div>
      <p class="bc-note bc-key">
        {accuracy ? (
          <>
            <span class="bc-key-item">
              <span class="bc-swatch bc-swatch-h1" aria-hidden="true" /> h1, upper bar
            </span>
            <span class="bc-key-item">
              <span class="bc-swatch bc-swatch-h2" aria-hidden="true" /> h2, lower bar
            </span>
            <span>{explanation}</span>
          </>
        ) : (
          <span>
            {explanation} ({count(totalRegress)})
          </span>
        )}
      </p>
      {nothingBroke ? (
        <p class="bc-empty">No negative flips: h2 is right wherever h1 is right.</p>
      ) : shown.length === 0 ? (
        <p class="bc-empty">
          {search.trim() ? `No class has “${shorten(search.trim(), 40)}” in its name.` : "There are no classes."}
        </p>
      ) : (
        <table class={`bc-table bc-bars bc-bars-${view}`} aria-label={explanation}>
          <thead>
            <tr>
              <th scope="col" class="bc-bars-name">
                True class
              </th>
              <th scope="col" class="bc-number bc-bars-count" title="Instances of this true class in the data set">
                Instances
              </th>
              <th scope="col" class="bc-bars-axis">
                <span class="bc-hidden">{accuracy ? "Accuracy" : "Share of all negative flips"}</span>
                <span class="bc-bars-scale" aria-hidden="true">
                  {ticks.map((tick) => (
                    <span key={tick} style={{ left: `${(tick / top) * 100}%` }}>
                      {percent(tick, digits)}
                    </span>
                  ))}
                </span>
              </th>
              <th
                scope="col"
                class="bc-number bc-bars-change"
                title={accuracy ? "Accuracy of h2 less that of h1, in percentage points" : "Negative flips of this class"}
              >
                {accuracy ? "h2 − h1" : "Flips"}
              </th>
              {broken !== null &&
                ALONE.map((which) => (
                  <th
                    key={which}
                    scope="col"
                    class="bc-number bc-bars-alone"
                    title={`Instances of this class that run ${which.toUpperCase()} alone breaks`}
                  >
                    {which.toUpperCase()} only
                  </th>
                ))}
            </tr>
          </thead>
          <tbody>
            {shown.map((row) => {
              const isSelected = selected === row.index;
              const change = row.accuracyH2 - row.accuracyH1;
              const { regress, progress, common } = row;
              const parts = `${count(regress)} broken, ${count(progress)} repaired, ${count(common)} wrong in both`;
              const toggle = () => onSelect(isSelected ? null : row.index);
              return (
                <tr key={row.index} class={isSelected ? "bc-selected" : ""} onClick={toggle}>
                  <th scope="row" class="bc-bars-name">
                    <button
                      type="button"
                      class="bc-row-button"
                      aria-pressed={isSelected}
                      title={`${row.label}: show ${isSelected ? "all classes again" : "only errors of this class"}`}
                      onClick={(event) => {
                        event.stopPropagation();
                        toggle();
                      }}
                    >
                      <span class="bc-ellipsis">{shorten(row.label, 60)}</span>
                      {row.uncertain && <span aria-label="uncertain">†</span>}
                    </button>
                  </th>
                  <td class="bc-number bc-bars-count">{count(row.total)}</td>
                  <td class="bc-bars-axis">
                    {row.total === 0 ? (
                      <span class="bc-note">{row.uncertain ? "not known" : "no instances"}</span>
                    ) : accuracy ? (
                      <>
                        <Bar share={row.accuracyH1} mark="h1">
                          <span class="bc-hidden">h1 </span>
                          {percent(row.accuracyH1)}
                        </Bar>
                        <Bar share={row.accuracyH2} mark="h2">
                          <span class="bc-hidden">h2 </span>
                          {percent(row.accuracyH2)}
                        </Bar>
                      </>
                    ) : (
                      <Bar share={row.share / top} mark="regress">
                        {percent(row.share, shareDigits)}
                      </Bar>
                    )}
                  </td>
                  <td
                    class={`bc-number${accuracy && change < 0 ? " bc-worse" : ""}`}
                    title={
                      accuracy
                        ? `In percentage points; ${parts}`
                        : `${count(row.regress)} of ${count(totalRegress)} negative flips`
                    }
                  >
                    {row.total === 0 ? "–" : accuracy ? pointsText(change) : count(row.regress)}
                  </td>
                  {broken !== null &&
                    ALONE.map((which) => {
                      const n = broken[which][row.index]!;
                      const isOn = isSelected && flips === which;
                      return (
                        <td key={which} class="bc-number bc-bars-alone">
                          {n === 0 ? (
                            "·"
                          ) : (
                            <button
                              type="button"
                              class="bc-link-button"
                              aria-pressed={isOn}
                              aria-label={`${row.label}: ${count(n)} that run ${which.toUpperCase()} alone breaks`}
                              onClick={(event) => {
                                event.stopPropagation();
                                onFlips(isOn ? null : row.index, isOn ? null : which);
                              }}
                            >
                              {count(n)}
                            </button>
                          )}
                        </td>
                      );
                    })}
                </tr>
              );
            })}
          </tbody>
        </table>
      )}
      {isUncertain && (
        <p class="bc-note">
          † How many instances of this class both models get right is not known: its count and accuracies are not
          exact.
        </p>
      )}
      <Pager
        page={current}
        pages={pages}
        total={found.length}
        label={found.length === 1 ? "class" : "classes"}
        onPage={onPage}
      />
    </div>
  );
}
