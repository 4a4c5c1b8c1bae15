/** What models say of one instance, over the steps of a run and over runs. */

import type { InstanceId, Region, Step, Table } from "../model";
import { regionOf } from "./engine";

/** What the two models of one comparison say; null where neither errs, so that the instance is not in its table. */
export interface Answer {
  readonly target: number;
  readonly h1: number;
  readonly h2: number;
  readonly region: Region;
}

/** The id of an address as it stands in a table, and its row; -1 where it is none of the table's. */
export function findInstance(table: Table, written: string): { readonly id: InstanceId; readonly row: number } {
  const { ids } = table;
  if (ids instanceof Float64Array) {
    const id = Number(written);
    return { id, row: String(id) === written ? ids.indexOf(id) : -1 };
  }
  const row = ids.findIndex((id) => String(id) === written);
  return { id: ids[row] ?? written, row };
}

export function answerIn(table: Table, written: string): Answer | null {
  const { row } = findInstance(table, written);
  if (row < 0) return null;
  return { target: table.target[row]!, h1: table.h1[row]!, h2: table.h2[row]!, region: regionOf(table, row) };
}

/** At most so many of the steps, evenly over all, with the first, the last and the one that is looked at. */
export function someSteps(steps: readonly Step[], most: number, kept: number | null): readonly Step[] {
  if (steps.length <= most) return steps;
  const last = steps.length - 1;
  const chosen = new Set(Array.from({ length: most }, (_, i) => Math.round((i * last) / (most - 1))));
  const own = steps.findIndex(({ step }) => step === kept);
  if (own >= 0) chosen.add(own);
  return steps.filter((_, i) => chosen.has(i));
}

/** How h2 fared over the steps that were asked, in words. `rights` are in the order of `steps`. */
export function story(steps: readonly number[], rights: readonly boolean[], name: (step: number) => string): string {
  const falls = rights.flatMap((right, i) => (i > 0 && !right && rights[i - 1] ? [i] : []));
  const last = rights.length - 1;
  if (last < 0) return "";
  if (last === 0) return `h2 is ${rights[0] ? "right" : "wrong"} at ${name(steps[0]!)}, the only step.`;
  if (falls.length === 0) {
    const first = rights.indexOf(true);
    if (first < 0) return "h2 is wrong at every step.";
    return first === 0 ? "h2 is right at every step." : `h2 is right from ${name(steps[first]!)} on.`;
  }
  const at = falls.at(-1)!;
  const times = falls.length > 1 ? `, for the ${ordinal(falls.length)} time` : "";
  const forgotten = `Forgotten at ${name(steps[at]!)}${times}: h2 was right at ${name(steps[at - 1]!)}`;
  if (!rights[last]) {
    return rights.indexOf(true, at) < 0 ? `${forgotten} and has been wrong since.` : `${forgotten}.`;
  }
  return `${forgotten}, and is right again from ${name(steps[rights.indexOf(true, at)]!)} on.`;
}

function ordinal(number: number): string {
  const ending = { one: "st", two: "nd", few: "rd", other: "th" } as Record<string, string>;
  return `${number}${ending[new Intl.PluralRules("en", { type: "ordinal" }).select(number)] ?? "th"}`;
}
