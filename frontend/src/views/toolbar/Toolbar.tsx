import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { value } from "../../data/scores";
import type { Host } from "../../hosts/host";
import { count, lambdaText, stepText } from "../../layout/format";
import type { Index, Series, ViewState } from "../../model";
import { moveTo, type Selection } from "../../state/selection";
import { useSinceLastStep } from "../../state/running";
import type { Patch } from "../../state/viewState";
import { type RunOption, RunPicker } from "./RunPicker";

export interface ToolbarProps {
  readonly index: Index;
  readonly state: ViewState;
  readonly selection: Selection;
  readonly host: Host;
  readonly busy: boolean;
  readonly patch: Patch;
  readonly onReload: () => void;
  /** Address of what is on show, or null where there is none to share. */
  readonly link: () => string | null;
}

function optionOf(run: string, series: Series | undefined, dataset: string | null): RunOption {
  const last = series?.steps.at(-1);
  return {
    run,
    dissonance: series?.dissonance ?? null,
    lambda: last?.lambda ?? null,
    nfr: last && series?.dataset === dataset ? value("nfr", last.cells) : null,
  };
}

/** Every run once, with its figures on this data set where it has any. */
export function runOptions(index: Index, dataset: string | null): RunOption[] {
  const runs = new Map<string, Series>();
  for (const series of index.series) {
    if (series.dataset === dataset || !runs.has(series.run)) runs.set(series.run, series);
  }
  const others = new Set(index.invariance.map(({ run }) => run).filter((run) => !runs.has(run)));
  return [
    ...[...runs].map(([run, series]) => optionOf(run, series, dataset)),
    ...[...others].map((run) => ({ ...optionOf(run, undefined, dataset), dissonance: "invariance only" })),
  ];
}

/** "12 s", "3 min". */
export function secondsText(seconds: number): string {
  return seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

const COPIED_MS = 2000;

/** Copies the address; where a browser does not allow that, the address is shown to be copied by hand. */
function CopyLink({ link }: { link: () => string | null }) {
  const [address, setAddress] = useState<string | null>(null);
  const [copied, setCopied] = useState(false);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = async () => {
    const text = link();
    if (text === null) return;
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
      setAddress(null);
      clearTimeout(timer.current);
      timer.current = setTimeout(() => setCopied(false), COPIED_MS);
    } catch {
      setAddress(address === null ? text : null);
    }
  };
  return (
    <div class="bc-copy">
      <button
        type="button"
        class="bc-button"
        title="Copy an address that opens this view again, with all its conditions"
        onClick={() => void copy()}
      >
        {copied ? "Link copied" : "Copy link"}
      </button>
      {address !== null && (
        <input
          class="bc-copy-address"
          type="text"
          readOnly
          value={address}
          aria-label="Address of this view"
          ref={(field) => field?.select()}
        />
      )}
    </div>
  );
}

function Steps({
  series,
  state,
  selection,
  patch,
}: Pick<ToolbarProps, "state" | "selection" | "patch"> & { series: Series }) {
  const { steps } = series;
  const { stepIndex, step } = selection;
  const last = steps.length - 1;
  const go = (to: number) => {
    const target = steps[Math.min(last, Math.max(0, to))];
    if (target !== undefined) patch({ step: target.step });
  };
  if (steps.length < 2) {
    return (
      <div class="bc-tool bc-steps">
        <span class="bc-tool-label">Step</span>
        <span class="bc-steps-one">{step ? stepText(step.step) : "–"}, the only one</span>
      </div>
    );
  }
  const shown = stepIndex < 0 ? last : stepIndex;
  const name = step ? stepText(step.step) : `step ${state.step ?? "–"} is missing`;
  return (
    <div class="bc-tool bc-steps" role="group" aria-label="Step of the training of h2">
      <span class="bc-tool-label">
        Step <span class="bc-note">{step ? `${count(stepIndex + 1)} of ${count(steps.length)}` : ""}</span>
      </span>
      <div class="bc-steps-row">
        <button
          type="button"
          class="bc-button"
          title="Previous step"
          aria-label="Previous step"
          disabled={shown <= 0}
          onClick={() => go(shown - 1)}
        >
          ‹
        </button>
        <input
          type="range"
          min={0}
          max={last}
          step={1}
          value={shown}
          aria-label="Step"
          aria-valuetext={name}
          onInput={(event) => go(Number(event.currentTarget.value))}
        />
        <button
          type="button"
          class="bc-button"
          title="Next step"
          aria-label="Next step"
          disabled={shown >= last}
          onClick={() => go(shown + 1)}
        >
          ›
        </button>
        <output class="bc-steps-number" title={step?.lambda == null ? undefined : `lambda ${lambdaText(step.lambda)}`}>
          {step ? stepText(step.step) : name}
        </output>
        <button
          type="button"
          class="bc-button"
          title="Follow the latest step"
          aria-pressed={state.step === null}
          onClick={() => patch({ step: state.step === null ? (steps[last]?.step ?? null) : null })}
        >
          latest
        </button>
      </div>
    </div>
  );
}

export function Toolbar({ index, state, selection, host, busy, patch, onReload, link }: ToolbarProps) {
  const options = useMemo(() => runOptions(index, state.dataset), [index, state.dataset]);
  const others = useMemo(
    () => selection.comparable.map((series) => optionOf(series.run, series, series.dataset)),
    [selection.comparable],
  );
  const { series, datasets } = selection;
  const age = useSinceLastStep(series, host.live);
  return (
    <div class="bc-toolbar" role="group" aria-label="What is shown" data-testid="toolbar">
      <RunPicker
        label="Run"
        title="The update that is looked at"
        options={options}
        value={state.run}
        placeholder="Choose a run"
        onPick={(run) => patch(moveTo(index, state, run, state.dataset), true)}
      />
      <label class="bc-tool">
        <span class="bc-tool-label">Data set</span>
        <select
          value={state.dataset ?? ""}
          title="What the two models were compared on"
          onChange={(event) =>
            state.run !== null && patch(moveTo(index, state, state.run, event.currentTarget.value), true)
          }
        >
          {state.dataset !== null && !datasets.includes(state.dataset) && (
            <option value={state.dataset}>{state.dataset} (missing)</option>
          )}
          {datasets.map((dataset) => (
            <option key={dataset} value={dataset}>
              {dataset}
            </option>
          ))}
        </select>
      </label>
      <RunPicker
        label="Compare with"
        title="A second update of the same h1, on the same data set (run B)"
        options={others}
        value={state.other}
        placeholder={others.length === 0 ? "No other run fits" : "Choose a second run"}
        onPick={(other) => patch({ other }, true)}
        onClear={() => patch({ other: null }, true)}
      />
      {series !== null && <Steps series={series} state={state} selection={selection} patch={patch} />}
      <div class="bc-tool-end">
        {age !== null && (
          <span class="bc-running" role="status" title="Its last step is recent; this view follows it by itself">
            running <span class="bc-note">last step {secondsText(age)} ago</span>
          </span>
        )}
        <span class={`bc-spinner${busy ? "" : " bc-idle"}`} role="status" aria-label={busy ? "Loading" : ""} />
        {host.live && (
          <button type="button" class="bc-button" title="Look for new runs and steps" onClick={onReload}>
            Reload
          </button>
        )}
        {host.kind !== "notebook" && <CopyLink link={link} />}
      </div>
    </div>
  );
}
