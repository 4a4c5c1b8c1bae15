/** Tables of many steps and runs, of each of which only one instance is looked at. */

import { useEffect, useRef, useState } from "preact/hooks";
import { type Answer, answerIn } from "../data/answers";
import { totals } from "../data/engine";
import type { Cells, DataSource, Table } from "../model";
import { type TableRequest, tableKey } from "./loading";

/** Rows of all tables that are kept, for the instances that are looked at next. */
const ROWS_KEPT = 2_000_000;
/** Questions that are on their way at a time. */
const AT_ONCE = 4;

class Tables {
  private readonly kept = new Map<string, Table>();
  private rows = 0;

  constructor(private readonly source: DataSource) {}

  get(request: TableRequest): Table | undefined {
    return this.kept.get(tableKey(request, 0)!);
  }

  async load(request: TableRequest): Promise<Table> {
    const key = tableKey(request, 0)!;
    const known = this.kept.get(key);
    if (known !== undefined) return known;
    const table = await this.source.table(request);
    if (!this.kept.has(key)) this.rows += table.size;
    this.kept.set(key, table);
    for (const [oldest, old] of this.kept) {
      if (this.rows <= ROWS_KEPT || oldest === key) break;
      this.kept.delete(oldest);
      this.rows -= old.size;
    }
    return table;
  }
}

const tablesOf = new WeakMap<DataSource, Tables>();

/**
 * Null: neither model errs. "failed": the table could not be had. "unsure": it is no error there, and that comparison
 * is of another number of instances, perhaps without this one. Undefined: still on its way.
 */
export type Asked = Answer | null | "failed" | "unsure" | undefined;

const sizeOf = (cells: Cells): number => cells.reduce((sum, cell) => sum + cell, 0);

/** What is said of an instance at each of the places, in their order; it fills as the tables come. */
export function useAnswers(
  source: DataSource,
  places: readonly TableRequest[],
  instance: string,
  of: Table,
): readonly Asked[] {
  let tables = tablesOf.get(source);
  if (tables === undefined) {
    tables = new Tables(source);
    tablesOf.set(source, tables);
  }
  const all = tables;
  const [, redraw] = useState(0);
  const failed = useRef(new Set<string>());
  const wanted = places.map((place) => tableKey(place, 0)).join("\n");
  useEffect(() => {
    let isWanted = true;
    const waiting = places.filter((place) => all.get(place) === undefined);
    const next = async (): Promise<void> => {
      const place = waiting.shift();
      if (place === undefined || !isWanted) return;
      try {
        await all.load(place);
      } catch {
        failed.current.add(tableKey(place, 0)!);
      }
      if (isWanted) redraw((count) => count + 1);
      return next();
    };
    failed.current.clear();
    for (let i = 0; i < AT_ONCE; i++) void next();
    return () => {
      isWanted = false;
    };
  }, [all, wanted]);
  const size = sizeOf(totals(of));
  return places.map((place) => {
    const table = all.get(place);
    if (table === undefined) return failed.current.has(tableKey(place, 0)!) ? "failed" : undefined;
    return answerIn(table, instance) ?? (sizeOf(totals(table)) === size ? null : "unsure");
  });
}
