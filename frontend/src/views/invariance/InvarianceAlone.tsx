import { useEffect, useMemo, useState } from "preact/hooks";
import { stepText } from "../../layout/format";
import { useInvariance } from "../../state/loading";
import { latestRun, preferredDataset } from "../../state/selection";
import { useViewState } from "../../state/viewState";
import type { DashboardProps } from "../Dashboard";
import { Invariance } from "./Invariance";
import { placeOf } from "./invariancePoints";

interface ChoiceProps {
  readonly label: string;
  readonly value: string;
  readonly options: readonly (readonly [value: string, text: string])[];
  readonly onChoose: (value: string) => void;
}

function Choice({ label, value, options, onChoose }: ChoiceProps) {
  return (
    <label class="bc-tool">
      <span class="bc-tool-label">{label}</span>
      <select value={value} onChange={(event) => onChoose(event.currentTarget.value)}>
        {options.map(([each, text]) => (
          <option key={each} value={each}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

/** The view where invariance was measured, and no comparison was logged. */
export function InvarianceAlone({ source, host, index, theme, reload, reloading, onBusy }: DashboardProps) {
  const [state, patch] = useViewState(host);
  const [attempt, setAttempt] = useState(0);
  const runs = useMemo(() => [...new Set(index.invariance.map(({ run }) => run))], [index]);
  const run = state.run !== null && runs.includes(state.run) ? state.run : latestRun({ series: index.invariance })!;
  const datasets = index.invariance.filter((series) => series.run === run).map(({ dataset }) => dataset);
  const dataset =
    state.dataset !== null && datasets.includes(state.dataset) ? state.dataset : preferredDataset(datasets)!;
  const steps = index.invariance.find((series) => series.run === run && series.dataset === dataset)?.steps ?? [];
  const place = useMemo(() => placeOf(index, run, dataset, state.step), [index, run, dataset, state.step]);
  const loaded = useInvariance(source, place.request, attempt);
  const comparable = index.invariance.filter((series) => series.run !== run && series.dataset === dataset);
  const other = comparable.find((series) => series.run === state.other)?.run ?? null;
  const otherPlace = useMemo(() => placeOf(index, other, dataset, state.step), [index, other, dataset, state.step]);
  const otherLoaded = useInvariance(source, otherPlace.request, attempt);
  const busy = loaded.busy || otherLoaded.busy;
  useEffect(() => onBusy(busy), [busy, onBusy]);
  const retry = () => setAttempt(attempt + 1);

  return (
    <>
      <div class="bc-top">
        <div class="bc-toolbar" role="group" aria-label="What is shown" data-testid="toolbar">
          <Choice
            label="Run"
            value={run}
            options={runs.map((each) => [each, each])}
            onChoose={(chosen) => patch({ run: chosen, step: null }, true)}
          />
          <Choice
            label="Data set"
            value={dataset}
            options={datasets.map((each) => [each, each])}
            onChoose={(chosen) => patch({ run, dataset: chosen, step: null }, true)}
          />
          {comparable.length > 0 && (
            <Choice
              label="Compare with"
              value={other ?? ""}
              options={[["", "no other run"], ...comparable.map((series) => [series.run, series.run] as const)]}
              onChoose={(chosen) => patch({ other: chosen === "" ? null : chosen }, true)}
            />
          )}
          {steps.length > 1 && (
            <Choice
              label="Step"
              value={state.step === null ? "" : String(place.request?.step ?? "")}
              options={[["", "latest"], ...steps.map(({ step }) => [String(step), stepText(step)] as const)]}
              onChoose={(chosen) => patch({ run, dataset, step: chosen === "" ? null : Number(chosen) }, true)}
            />
          )}
          <div class="bc-tool-end">
            {host.live && (
              <button
                type="button"
                class="bc-button"
                title="Look for new runs and steps"
                disabled={reloading}
                onClick={() => {
                  retry();
                  reload();
                }}
              >
                Reload
              </button>
            )}
          </div>
        </div>
      </div>
      <div class="bc-cards">
        <Invariance
          {...{ place, loaded, theme, retry }}
          epoch={attempt}
          step={state.step}
          second={other === null ? null : { run: other, place: otherPlace, loaded: otherLoaded }}
          onPick={(other) => patch({ run: other.run, dataset: other.dataset, step: null }, true)}
        />
      </div>
    </>
  );
}
