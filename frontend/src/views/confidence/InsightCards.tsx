import type { Filter, Table, ViewState } from "../../model";
import { Card, type CardProps } from "../parts/Card";
import { Slices } from "../slices/Slices";
import { Confidence } from "./Confidence";
import { Thresholds } from "./Thresholds";

export interface InsightCardsProps {
  readonly table: Table;
  readonly filter: Filter;
  readonly card: Pick<CardProps, "attempt" | "stale">;
  readonly choose: (change: Partial<ViewState>, isChosen: boolean) => void;
}

/** What only comparisons with scores or columns of metadata have. */
export function InsightCards({ table, filter, card, choose }: InsightCardsProps) {
  return (
    <>
      {table.slices.length > 0 && (
        <Card name="slices" title="Slices" drawn {...card}>
          <Slices
            table={table}
            filter={filter}
            onSelect={(slice) => {
              const region = slice === null ? null : "regress";
              choose({ ...(slice ?? { target: null, slices: [] }), region, flips: null }, slice !== null);
            }}
          />
        </Card>
      )}
      {table.sure !== null && (
        <Card name="confidence" title="How sure the models are" drawn {...card}>
          <Confidence
            table={table}
            filter={filter}
            onSelect={(change) => choose({ ...change, flips: null }, change.sure1 !== null)}
          />
        </Card>
      )}
      {table.thresholds !== null && (
        <Card name="thresholds" title="Other thresholds" drawn {...card}>
          <Thresholds table={table} />
        </Card>
      )}
    </>
  );
}
