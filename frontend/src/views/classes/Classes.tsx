import { useMemo } from "preact/hooks";
import { classRows, totals } from "../../data/engine";
import { flipsByClass, type Joined } from "../../data/twoUpdates";
import type { Flips, Table, ViewState } from "../../model";
import type { Patch } from "../../state/viewState";
import { ClassBars } from "./ClassBars";

interface ClassesProps {
  readonly table: Table;
  readonly state: ViewState;
  readonly selected: number | null;
  readonly patch: Patch;
  readonly both: Joined | null;
  readonly flips: Flips | null;
  readonly onFlips: (target: number | null, flips: Flips | null) => void;
}

/** The classes of a table, and what two updates break of each. */
export function Classes({ table, state, selected, patch, both, flips, onFlips }: ClassesProps) {
  const rows = useMemo(() => classRows(table), [table]);
  const broken = useMemo(() => both && flipsByClass(both), [both]);
  return (
    <ClassBars
      rows={rows}
      view={state.classView}
      sort={state.classSort}
      search={state.classSearch}
      page={state.classPage}
      selected={selected}
      totalRegress={totals(table)[2]}
      onView={(classView) => patch({ classView })}
      onSort={(classSort) => patch({ classSort, classPage: 0 })}
      onSearch={(classSearch) => patch({ classSearch, classPage: 0 })}
      onPage={(classPage) => patch({ classPage })}
      onSelect={(target) => patch({ target }, true)}
      {...{ broken, flips, onFlips }}
    />
  );
}
