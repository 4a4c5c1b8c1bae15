import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { labelsOf } from "../data/engine";
import type { Host, Theme } from "../hosts/host";
import type { DataSource, Index, Series, Step } from "../model";
import { tableKey, type TableRequest, useInvariance, useMedia, useTables } from "../state/loading";
import { opened, select } from "../state/selection";
import { encodeState } from "../state/url";
import { type Patch, useViewState } from "../state/viewState";
import { Chips } from "./instances/Chips";
import { bestRun } from "./sweep/PromiseBar";
import { placeOf } from "./invariance/invariancePoints";
import { panelOnScreen } from "./parts/Page";
import { belongsTo, Cards, usableFilter } from "./Cards";
import { MissingPlace } from "./MissingPlace";
import { Toolbar } from "./toolbar/Toolbar";

function requestOf(series: Series | null, step: Step | null): TableRequest | null {
  return series && step && { run: series.run, dataset: series.dataset, step: step.step, wallTime: step.wallTime };
}

export interface DashboardProps {
  readonly source: DataSource;
  readonly host: Host;
  readonly index: Index;
  readonly theme: Theme;
  readonly reload: () => void;
  readonly reloading: boolean;
  readonly onBusy: (busy: boolean) => void;
}

/** The pin of the address, else the one that the browser kept; a change goes to both. */
function usePin(host: Host, said: string | null, patch: Patch): [string | null, (run: string | null) => void] {
  const [kept, setKept] = useState(() => host.pin?.read() ?? null);
  const pinRun = (run: string | null) => {
    // To take a link's pin away leaves one's own.
    if (run !== null || said === null || said === kept) {
      host.pin?.write(run);
      setKept(run);
    }
    patch({ pin: run });
  };
  return [said ?? kept, pinRun];
}

export function Dashboard({ source, host, index, theme, reload, reloading, onBusy }: DashboardProps) {
  const [given, patch] = useViewState(host);
  const [pin, onPin] = usePin(host, given.pin, patch);
  const state = useMemo(() => {
    const best = given.run === null ? bestRun(index, given) : null;
    return opened(index, given, pin, best);
  }, [index, given, pin]);
  useEffect(() => {
    if (state !== given) patch({ run: state.run, dataset: state.dataset, page: given.page });
  }, [state, given, patch]);

  const [attempt, setAttempt] = useState(0);
  const selection = useMemo(() => select(index, state), [index, state.run, state.dataset, state.step, state.other]);
  const { series, step, other, otherStep, missing } = selection;
  const first = requestOf(series, step);
  const second = requestOf(other, otherStep);
  const [loaded, loadedOther] = useTables(source, first, second, attempt);
  const media = useMedia(source, series, attempt);
  const otherMedia = useMedia(source, other, attempt);

  const place = useMemo(
    () => placeOf(index, state.run, state.dataset, state.step),
    [index, state.run, state.dataset, state.step],
  );
  const invariance = useInvariance(source, place.request, attempt);
  const otherRun = other?.run ?? null;
  const otherPlace = useMemo(
    () => placeOf(index, otherRun, state.dataset, state.step === null ? null : (otherStep?.step ?? null)),
    [index, otherRun, state.dataset, state.step, otherStep?.step],
  );
  const otherInvariance = useInvariance(source, otherPlace.request, attempt);

  const shown = loaded.value !== null && belongsTo(loaded.key, series) ? loaded.value : null;
  const busy = [loaded, loadedOther, media, invariance, otherInvariance].some((each) => each.busy);
  useEffect(() => onBusy(busy), [busy, onBusy]);

  const retry = () => setAttempt(attempt + 1);
  const page = useRef<HTMLDivElement>(null);
  const link = () => host.link(encodeState({ ...state, pin, panel: panelOnScreen(page.current) }));
  useEffect(() => {
    if (busy || state.panel === null) return;
    const panel = [...(page.current?.querySelectorAll("[data-testid]") ?? [])].find(
      (each) => each.getAttribute("data-testid") === state.panel,
    );
    panel?.scrollIntoView({ block: "start" });
    patch({ panel: null });
  }, [busy, state.panel, patch]);

  return (
    <div ref={page}>
      <div class="bc-top">
        <Toolbar
          index={index}
          state={state}
          selection={selection}
          host={host}
          pin={pin}
          onPin={onPin}
          busy={busy || reloading}
          patch={patch}
          onReload={() => {
            retry();
            reload();
          }}
          link={link}
        />
        {series !== null && (
          <Chips
            filter={usableFilter(state, series.numClasses, shown)}
            labels={shown === null ? [] : labelsOf(shown)}
            onChange={(change) => patch(change, true)}
          />
        )}
      </div>
      {missing !== null && <MissingPlace selection={selection} state={state} index={index} patch={patch} />}
      <Cards
        {...{ source, index, state, selection, patch, attempt, retry, loaded, loadedOther, media, otherMedia, theme, place, invariance }}
        second={otherRun === null ? null : { run: otherRun, place: otherPlace, loaded: otherInvariance }}
        firstKey={tableKey(first, attempt)}
        secondKey={tableKey(second, attempt)}
      />
    </div>
  );
}
