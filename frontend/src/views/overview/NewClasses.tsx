import { labelsOf } from "../../data/engine";
import { value } from "../../data/scores";
import { count, percent } from "../../layout/format";
import type { Cells, Table } from "../../model";
import { digitsFor } from "./Scores";

const NAMED = 5;

/** Counts of the instances of some classes, and of all others. */
export function apart(table: Table): { readonly among: Cells; readonly others: Cells } {
  const isNew = new Set(table.newClasses);
  const sums = [
    [0, 0, 0, 0],
    [0, 0, 0, 0],
  ];
  for (let at = 0; at < table.counts.length; at++) sums[isNew.has(at >> 2) ? 0 : 1]![at & 3]! += table.counts[at]!;
  return { among: sums[0] as unknown as Cells, others: sums[1] as unknown as Cells };
}

/** What became of classes that h1 did not know, which its own scores hold against it. */
export function NewClasses({ table }: { table: Table }) {
  if (table.newClasses.length === 0) return null;
  const { among, others } = apart(table);
  const labels = labelsOf(table);
  const more = table.newClasses.length - NAMED;
  const names = table.newClasses.slice(0, NAMED).map((index) => labels[index]);
  const total = among.reduce((sum, cell) => sum + cell, 0);
  const share = (score: string, cells: Cells) => percent(value(score, cells), digitsFor(value(score, cells)));
  return (
    <p class="bc-note" data-new-classes>
      {count(total)} {total === 1 ? "instance" : "instances"} of classes that h1 did not know (
      <span class="bc-name">{names.join(", ")}</span>
      {more > 0 && ` and ${more} more`})
      {total > 0 && <>: h2 is right on {share("accuracy_h2", among)}</>}. Without them h1 is right on{" "}
      {share("accuracy_h1", others)}, h2 on {share("accuracy_h2", others)}, and {share("nfr", others)} break.
    </p>
  );
}
