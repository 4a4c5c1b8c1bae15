import { useState } from "preact/hooks";
import { regionOf, type TextOf } from "../../data/engine";
import type { InstanceId, Region, Table } from "../../model";
import { REGIONS } from "../overview/Venn";
import { copy, csv, fileName, save } from "../parts/takeAway";

export interface TakeInstancesProps {
  readonly run: string;
  readonly dataset: string;
  readonly table: Table;
  /** Numbers of the rows that meet the conditions, in the order of the table. */
  readonly rows: Uint32Array;
  readonly labels: readonly string[];
  /** What a second run says, by row. */
  readonly b: Uint32Array | null;
  readonly textOf: TextOf | null;
  /** Whether some of the texts are only the beginnings of longer ones. */
  readonly isCut: boolean;
}

const TITLES = Object.fromEntries(REGIONS.map(({ region, title }) => [region, title])) as Record<Region, string>;
const HEADER = ["id", "target", "h1", "h2", "region"];

function* lines({ table, rows, labels, b, textOf }: TakeInstancesProps): Generator<(string | number)[]> {
  const name = (index: number) => labels[index] ?? index;
  for (const row of rows) {
    const line = [table.ids[row]!, name(table.target[row]!), name(table.h1[row]!), name(table.h2[row]!)];
    const second = b === null ? [] : [name(b[row]!)];
    const { sure, slices } = table;
    const sureness = sure === null ? [] : [sure.h1[row]!, sure.h2[row]!].map((share) => shareText(share));
    const sliced = slices.map(({ values, codes }) => values[codes[row]!]!);
    const extras = [...sureness, ...sliced, ...(textOf === null ? [] : [textOf(row)])];
    yield [...line, TITLES[regionOf(table, row)], ...second, ...extras];
  }
}

/** Exact to what is kept of it; empty where it is not known. */
function shareText(share: number): string {
  return Number.isNaN(share) ? "" : share.toFixed(4);
}

/** What is listed, to take away: all pages of it. */
export function TakeInstances(props: TakeInstancesProps) {
  const { run, dataset, table, rows, textOf } = props;
  const [said, setSaid] = useState("");
  if (rows.length === 0) return null;
  const textTitle = props.isCut ? "text (beginning)" : "text";
  const asCsv = () => {
    const sureness = table.sure === null ? [] : ["h1 confidence", "h2 confidence"];
    const extras = [...sureness, ...table.slices.map(({ column }) => column), ...(textOf === null ? [] : [textTitle])];
    const header = [...HEADER, ...(props.b === null ? [] : ["h2 of run B"]), ...extras];
    const content = csv(header, lines(props));
    save(`${fileName(run, dataset, "instances")}.csv`, new Blob([content], { type: "text/csv;charset=utf-8" }));
  };
  const asIds = async () => {
    const ids: InstanceId[] = Array.from(rows, (row) => table.ids[row]!);
    setSaid((await copy(ids.join("\n"))) ? "copied" : "not allowed here: take the CSV");
    setTimeout(() => setSaid(""), 3000);
  };
  return (
    <span class="bc-take" role="group" aria-label="Take these instances away">
      <button type="button" class="bc-link-button" title="Copy the ids, one a line" onClick={() => void asIds()}>
        Copy ids
      </button>
      <button type="button" class="bc-link-button" title="Save what is listed, all pages" onClick={asCsv}>
        CSV
      </button>
      <span class="bc-note" role="status">
        {said}
      </span>
    </span>
  );
}
