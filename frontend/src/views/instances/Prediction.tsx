import { percent } from "../../layout/format";
import type { Flips, Region } from "../../model";
import { REGIONS } from "../overview/Venn";
import { BROKEN_BY } from "./Chips";

export const TITLES: Record<Region, string> = {
  regress: "only h2 wrong",
  common: "both wrong",
  progress: "only h1 wrong",
};

/** How sure a model is; one that is right on 999 of 1,000 is not certain. */
export const sureness = (share: number) => percent(share, share > 0.995 ? 1 : 0);

/** What a model says, and whether that is so. */
export function Prediction({ label, right }: { label: string; right: boolean }) {
  return (
    <span class={`bc-prediction bc-clamp ${right ? "bc-right" : "bc-wrong"}`} title={label}>
      <span aria-hidden="true">{right ? "✓" : "✗"}</span>
      <span class="bc-hidden">{right ? "right: " : "wrong: "}</span>
      {label}
    </span>
  );
}

/** Who is wrong. */
export function Badge({ region, flips }: { region: Region; flips: Flips | null }) {
  if (flips !== null)
    return (
      <span class="bc-badge bc-badge-regress" title="h1 gets it right, and these runs do not">
        broken by {BROKEN_BY[flips]}
      </span>
    );
  const { explanation } = REGIONS.find((info) => info.region === region)!;
  return (
    <span class={`bc-badge bc-badge-${region}`} title={explanation}>
      {TITLES[region]}
    </span>
  );
}
