import type { Index, ViewState } from "../model";
import { stepText } from "../layout/format";
import { latestRun, moveTo, type Selection } from "../state/selection";
import { Gone } from "./parts/States";
import type { Patch } from "../state/viewState";

export interface MissingPlaceProps {
  readonly index: Index;
  readonly state: ViewState;
  readonly selection: Selection;
  readonly patch: Patch;
}

/** What stands where the place of the address is not there, and the ways on from it. */
export function MissingPlace({ selection, state, index, patch }: MissingPlaceProps) {
  const { missing, series, runs, datasets } = selection;
  if (missing === null) return null;
  const run = latestRun(index);
  return (
    <Gone missing={missing}>
      {missing.what === "run" && run !== null && (
        <button type="button" class="bc-button" onClick={() => patch(moveTo(index, state, run, state.dataset), true)}>
          Show {runs.length === 1 ? "the run" : "the latest run"} “{run}”
        </button>
      )}
      {missing.what === "dataset" &&
        state.run !== null &&
        datasets.map((dataset) => (
          <button
            key={dataset}
            type="button"
            class="bc-button"
            onClick={() => patch(moveTo(index, state, state.run!, dataset), true)}
          >
            Show {dataset}
          </button>
        ))}
      {missing.what === "step" && missing.nearest !== null && (
        <button type="button" class="bc-button" onClick={() => patch({ step: missing.nearest })}>
          Show {stepText(missing.nearest)}
        </button>
      )}
      {series !== null && (
        <button type="button" class="bc-button" onClick={() => patch({ step: null })}>
          Show the latest step
        </button>
      )}
    </Gone>
  );
}
