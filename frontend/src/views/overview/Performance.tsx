import { UNKNOWN } from "../../layout/format";
import type { Series } from "../../model";

const text = (number: number | null): string => (number === null ? UNKNOWN : String(Number(number.toPrecision(4))));

/** What the user's own metric says; it has no interval, since nothing is known of how it was counted. */
export function Performance({ of: [h1, h2] }: { of: NonNullable<Series["performance"]> }) {
  return (
    <p class="bc-note" data-testid="performance">
      By your own metric: h2 <strong>{text(h2)}</strong>, h1 <strong>{text(h1)}</strong>. It can be an axis of the sweep.
    </p>
  );
}
