import { count, percent } from "../../layout/format";
import type { Cells, Region } from "../../model";
import { type RegionInfo, VennDrawing } from "./VennDrawing";

export interface VennProps {
  readonly cells: Cells;
  readonly region: Region | null;
  readonly onRegion: (region: Region | null) => void;
}

/** From left to right, as they lie in the drawing. */
export const REGIONS: readonly RegionInfo[] = [
  {
    region: "progress",
    title: "Only h1 wrong",
    explanation: "h1 gets these wrong and h2 gets them right: what the update repaired (positive flips).",
  },
  {
    region: "common",
    title: "Both wrong",
    explanation: "h1 and h2 both get these wrong: errors that the update keeps.",
  },
  {
    region: "regress",
    title: "Only h2 wrong",
    explanation: "h1 gets these right and h2 gets them wrong: what the update broke (negative flips).",
  },
];

export function Venn({ cells, region, onRegion }: VennProps) {
  const [common, progress, regress, right] = cells;
  const counts: Record<Region, number> = { progress, common, regress };
  const total = common + progress + regress + right;
  const share = (n: number): string => (total ? percent(n / total) : "–");
  const toggle = (chosen: Region): void => onRegion(region === chosen ? null : chosen);
  const described = REGIONS.map(({ region: r, title }) => `${title}: ${count(counts[r])}`).join("; ");
  return (
    <div class="bc-venn">
      {common + progress + regress === 0 ? (
        <p class="bc-venn-drawing bc-venn-empty">
          {total ? "Neither model makes an error here." : "There are no instances in this comparison."}
        </p>
      ) : (
        <VennDrawing
          regions={REGIONS}
          counts={counts}
          total={total}
          captions={[`Errors of h1: ${count(common + progress)}`, `Errors of h2: ${count(common + regress)}`]}
          label={`Errors of h1 and h2 as two circles. ${described}; both right: ${count(right)}.`}
          selected={region}
          onToggle={toggle}
        />
      )}
      <table class="bc-table bc-venn-legend">
        <thead>
          <tr>
            <th scope="col">Region</th>
            <th scope="col" class="bc-number">
              Count
            </th>
            <th scope="col" class="bc-number" title="Share of all instances of the data set">
              Share
            </th>
          </tr>
        </thead>
        <tbody>
          {REGIONS.map((info) => (
            <tr key={info.region} class={region === info.region ? "bc-selected" : ""}>
              <th scope="row">
                <button
                  type="button"
                  class="bc-row-button"
                  aria-pressed={region === info.region}
                  title={region === info.region ? "Show all errors again" : "Show only these instances"}
                  onClick={() => toggle(info.region)}
                >
                  <span class={`bc-swatch bc-swatch-${info.region}`} aria-hidden="true" />
                  {info.title}
                </button>
                <div class="bc-note">{info.explanation}</div>
              </th>
              <td class="bc-number">{count(counts[info.region])}</td>
              <td class="bc-number">{share(counts[info.region])}</td>
            </tr>
          ))}
          <tr>
            <th scope="row">
              <span class="bc-row-plain">
                <span class="bc-swatch" aria-hidden="true" />
                Both right
              </span>
              <div class="bc-note">Outside both circles, and not drawn to scale.</div>
            </th>
            <td class="bc-number">{count(right)}</td>
            <td class="bc-number">{share(right)}</td>
          </tr>
        </tbody>
        <tfoot>
          <tr>
            <th scope="row">Data set</th>
            <td class="bc-number">{count(total)}</td>
            <td class="bc-number">{total ? percent(1) : "–"}</td>
          </tr>
        </tfoot>
      </table>
    </div>
  );
}
