import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { labelsOf } from "../data/engine";
import { usable } from "../data/narrowing";
import { joined } from "../data/twoUpdates";
import type { Host, Theme } from "../hosts/host";
import { stepText } from "../layout/format";
import type { DataSource, Filter, Index, Invariance as Update, Series, Step, Table, TableRef, ViewState } from "../model";
import {
  type Loaded,
  tableKey,
  type TableRequest,
  useIndex,
  useInvariance,
  useMedia,
  usePressing,
  useTables,
} from "../state/loading";
import { hasInvarianceOnly, latestRun, moveTo, select, type Selection } from "../state/selection";
import { encodeState } from "../state/url";
import { type Patch, useViewState } from "../state/viewState";
import { Actions, isOffering } from "./parts/Actions";
import { Card, Guard } from "./parts/Card";
import { Chips, NO_FILTER } from "./instances/Chips";
import { Classes } from "./classes/Classes";
import { Compared, compared } from "./overview/Compared";
import { Curves } from "./curves/Curves";
import { FlipMatrix } from "./classes/FlipMatrix";
import { InsightCards } from "./confidence/InsightCards";
import { Instances } from "./instances/Instances";
import { Invariance, type InvarianceProps } from "./invariance/Invariance";
import { InvarianceAlone } from "./invariance/InvarianceAlone";
import { type InvariancePlace, placeOf } from "./invariance/invariancePoints";
import { MountId } from "./parts/mountId";
import { Page, panelOnScreen, Skip } from "./parts/Page";
import { Performance } from "./overview/Performance";
import { NewClasses } from "./overview/NewClasses";
import { Scores } from "./overview/Scores";
import { Failed, Gone, Loading, Nothing, Skeleton, Warnings } from "./parts/States";
import { Subject } from "./overview/Subject";
import { Sweep } from "./sweep/Sweep";
import { Toolbar } from "./toolbar/Toolbar";
import { Venn } from "./overview/Venn";

export interface AppProps {
  readonly source: DataSource;
  readonly host: Host;
  readonly mountId: string;
}

function requestOf(series: Series | null, step: Step | null): TableRequest | null {
  return series && step && { run: series.run, dataset: series.dataset, step: step.step, wallTime: step.wallTime };
}

/** A link may come from data with other classes; a class that does not exist is no condition. */
function usableFilter(state: ViewState, numClasses: number, table: Table | null): Filter {
  const known = (index: number | null) => (index !== null && index < numClasses ? index : null);
  const { region, target, h1, h2, b, text, sure1, sure2, slices } = state;
  const flips = state.other === null ? null : state.flips;
  return usable(table, {
    region,
    target: known(target),
    h1: known(h1),
    h2: known(h2),
    text,
    flips,
    b: flips && known(b),
    sure1,
    sure2,
    slices,
  });
}

function useTheme(host: Host) {
  const [theme, setTheme] = useState(host.theme.current);
  useEffect(() => host.theme.subscribe(() => setTheme(host.theme.current())), [host]);
  return theme;
}

export function App({ source, host, mountId }: AppProps) {
  const theme = useTheme(host);
  const { index, error, busy, reload } = useIndex(source, host);
  /** Null until the dashboard says whether it is waiting for something. */
  const [waiting, setWaiting] = useState<boolean | null>(null);
  const empty = index !== null && index.series.length === 0 && index.invariance.length === 0;
  const pressing = usePressing(source);
  const waits = index === null ? busy : !empty && waiting !== false;
  useEffect(() => {
    if (!waits) document.documentElement.dataset["bcReady"] = "true";
  }, [waits]);

  return (
    <MountId.Provider value={mountId}>
      <div class="bc-app" lang="en" data-theme={theme} data-host={host.kind} data-bc-busy={waits}>
        {/* A notebook has a main part and a title of its own. */}
        <Page isWhole={host.kind !== "notebook"}>
          {index !== null && !empty && <Skip />}
          {index === null ? (
            error !== null ? (
              <Failed what="The comparisons could not be loaded" error={error} onRetry={reload} />
            ) : (
              <Loading what="Loading the comparisons" />
            )
          ) : (
            <>
              {error !== null && (
                <Failed
                  what="This view could not be brought up to date, and shows what was loaded before"
                  error={error}
                  onRetry={reload}
                />
              )}
              <Actions actions={index.actions} progress={index.progress} {...{ pressing, empty }} />
              <Warnings warnings={index.warnings} />
              {empty ? (
                <Empty {...{ index, host, reload }} isOffered={pressing !== null && isOffering(index.actions)} />
              ) : (
                <Guard attempt={index}>
                  {index.series.length === 0 ? (
                    <InvarianceAlone {...{ source, host, index, reload, theme }} reloading={busy} onBusy={setWaiting} />
                  ) : (
                    <Dashboard {...{ source, host, index, reload, theme }} reloading={busy} onBusy={setWaiting} />
                  )}
                </Guard>
              )}
            </>
          )}
        </Page>
      </div>
    </MountId.Provider>
  );
}

function Empty({ index, host, reload, isOffered }: EmptyProps) {
  if (index.progress !== null) return <Skeleton what="Waiting for the first point" />;
  // How to begin is said beside the button.
  return isOffered ? null : <Nothing kind={host.kind} onReload={reload} />;
}

interface EmptyProps {
  readonly index: Index;
  readonly host: Host;
  readonly reload: () => void;
  readonly isOffered: boolean;
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

/** State with a run and a data set, whatever was said about them: the address names what is on show from the start. */
function pinned(index: Index, state: ViewState): ViewState {
  if (state.run !== null && state.dataset !== null) return state;
  const run = state.run ?? latestRun(index);
  if (run === null) return state;
  const { dataset } = moveTo(index, state, run, state.dataset);
  return { ...state, run, dataset: state.dataset ?? dataset ?? null };
}

function Dashboard({ source, host, index, theme, reload, reloading, onBusy }: DashboardProps) {
  const [given, patch] = useViewState(host);
  const state = useMemo(() => pinned(index, given), [index, given]);
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
  const link = () => host.link(encodeState({ ...state, panel: panelOnScreen(page.current) }));
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

function MissingPlace({ selection, state, index, patch }: Pick<CardsProps, "selection" | "state" | "index" | "patch">) {
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

interface CardsProps {
  readonly source: DataSource;
  readonly index: Index;
  readonly state: ViewState;
  readonly selection: Selection;
  readonly patch: Patch;
  readonly attempt: number;
  readonly retry: () => void;
  readonly loaded: Loaded<Table>;
  readonly loadedOther: Loaded<Table>;
  readonly media: ReturnType<typeof useMedia>;
  readonly otherMedia: ReturnType<typeof useMedia>;
  readonly firstKey: string | null;
  readonly secondKey: string | null;
  readonly theme: Theme;
  readonly place: InvariancePlace;
  readonly invariance: Loaded<Update>;
  readonly second: InvarianceProps["second"];
}

function Cards(props: CardsProps) {
  const { source, index, state, selection, patch, attempt, retry, loaded, loadedOther, media, firstKey, secondKey } =
    props;
  const { series, step, other, otherStep } = selection;
  // While the next step loads, the tables of the one before stay; those of another run or data set would mislead.
  const table = loaded.value !== null && belongsTo(loaded.key, series) ? loaded.value : null;
  const ownMedia = belongsTo(media.key, series);
  const otherTable = loadedOther.key === secondKey ? loadedOther.value : null;
  const stale = loaded.key !== firstKey;
  const filter = usableFilter(state, series?.numClasses ?? 0, table);
  const current = useMemo(
    () => series && step && { run: series.run, dataset: series.dataset, step: step.step },
    [series, step],
  );
  const curves = useMemo(() => [series, other].filter((item) => item !== null), [series, other]);
  const points = useMemo(() => index.series.reduce((sum, { steps }) => sum + steps.length, 0), [index]);
  const hasCurves = curves.some(({ steps }) => steps.length > 1);
  const hasSweep = points > 1;

  /** The body of a card that needs the table. One table serves several cards, and its failure is told once. */
  const withTable = (what: string, draw: (table: Table) => ComponentChildren, tells = false) => {
    if (loaded.error !== null) {
      return tells ? (
        <Failed what="The comparison of this step could not be loaded" error={loaded.error} onRetry={retry} />
      ) : (
        <p class="bc-note">{what} could not be loaded, like the rest of this step.</p>
      );
    }
    return table === null ? <Skeleton what={`Loading ${what.toLowerCase()}`} /> : draw(table);
  };
  const card = { attempt: `${attempt} ${firstKey} ${secondKey}` };
  const instances = useRef<HTMLElement>(null);
  const comparison = useMemo(() => compared(stale ? null : table, otherTable), [stale, table, otherTable]);
  const isComparable = comparison !== null && !(comparison instanceof Error);
  const beside = useMemo(
    () => (isComparable && otherTable !== null && other !== null ? { run: other.run, table: otherTable } : null),
    [isComparable, otherTable, other],
  );
  const both = table !== null && beside !== null ? joined(table, beside.table) : null;
  /** What was chosen in a picture is listed in the table, which may be below the screen. */
  const choose = (change: Partial<ViewState>, isChosen: boolean) => {
    patch(change, true);
    const top = instances.current?.getBoundingClientRect().top ?? 0;
    if (isChosen && (top < 0 || top > window.innerHeight / 2)) instances.current?.scrollIntoView({ block: "start" });
  };
  const tableCard = { ...card, stale: table !== null && stale && loaded.error === null };

  const showPlace = (ref: TableRef) => {
    const found = index.series.find(({ run, dataset }) => run === ref.run && dataset === ref.dataset);
    const isLatest = found?.steps.at(-1)?.step === ref.step;
    patch({ ...moveTo(index, state, ref.run, ref.dataset), step: isLatest ? null : ref.step }, true);
  };

  // Among several updates the first question is which.
  const leads = hasSweep && selection.runs.length > 2;
  const sweep = hasSweep && (
    <Card name="sweep" drawn title={leads ? "Which update to take" : "Sweep: accuracy against compatibility"} {...card}>
      <Sweep
        index={index}
        state={state}
        current={current}
        onPoint={showPlace}
        onState={(change) => patch(change)}
      />
    </Card>
  );

  return (
    <div class={`bc-cards${hasCurves ? "" : " bc-no-curves"}${hasSweep && !leads ? "" : " bc-no-sweep"}`}>
      {series !== null && step !== null && (
        <>
          <Card
            name="scores"
            title="Scores"
            aside={<Subject series={series} step={step} other={other} otherStep={otherStep} />}
            {...card}
          >
            <Scores
              cells={step.cells}
              other={other && otherStep && { name: `Run B, ${other.run}`, cells: otherStep.cells }}
            />
            {series.performance !== undefined && <Performance of={series.performance} />}
            {table !== null && !stale && <NewClasses table={table} />}
            {other === null && state.other !== null && (
              <p class="bc-note" role="alert">
                “{state.other}” has no comparison on “{series.dataset}” with the same classes, so it is not set beside
                this run.
              </p>
            )}
            {other !== null && otherStep !== null && loaded.error !== null && (
              <p class="bc-note">The two runs could not be compared, as run A was not loaded.</p>
            )}
            {other !== null && otherStep !== null && loaded.error === null && (
              <Compared
                result={comparison}
                steps={[step.step, otherStep.step]}
                error={loadedOther.error}
                onRetry={retry}
                flips={filter.flips}
                onFlips={(flips) => choose({ flips, region: null }, flips !== null)}
              />
            )}
          </Card>
          {leads && sweep}
          <Card name="venn" title="Errors of h1 and h2" drawn {...card}>
            <Venn cells={step.cells} region={state.region} onRegion={(region) => choose({ region, flips: null }, region !== null)} />
          </Card>
          <Card name="matrix" title="Negative flips by class" {...tableCard}>
            {withTable(
              "The flip matrix",
              (shown) => (
                <FlipMatrix
                  table={shown}
                  both={both}
                  flips={filter.flips}
                  onFlips={(flips) => choose({ flips, b: null, region: null }, false)}
                  selected={
                    filter.flips !== null
                      ? { target: filter.target, h2: filter.flips === "b" ? filter.b : filter.h2 }
                      : filter.region === "regress"
                        ? { target: filter.target, h2: filter.h2 }
                        : { target: null, h2: null }
                  }
                  // The cells count negative flips, so a click has to show these and not every error of the classes.
                  onSelect={(target, wrong) => {
                    const none = target === null && wrong === null;
                    const ofB = filter.flips === "b";
                    const said = { h2: ofB ? null : wrong, b: ofB ? wrong : null };
                    choose({ target, ...said, h1: null, region: none || filter.flips ? null : "regress" }, !none);
                  }}
                />
              ),
              true,
            )}
          </Card>
          <Card name="classes" title="Classes" {...tableCard}>
            {withTable("Classes", (shown) => (
              <Classes
                table={shown}
                both={both}
                flips={filter.flips}
                state={state}
                selected={filter.target}
                patch={patch}
                onFlips={(target, flips) => choose({ target, flips, b: null, region: null }, flips !== null)}
              />
            ))}
          </Card>
          {hasCurves && (
            <Card name="curves" title="Scores over steps" drawn {...card}>
              <Curves
                series={curves}
                step={state.step}
                onStep={(to) => patch({ step: to })}
                curves={state.curves}
                onCurves={(names) => patch({ curves: names })}
              />
            </Card>
          )}
          {table !== null && <InsightCards {...{ table, filter, choose }} card={tableCard} />}
          <Card name="instances" title="Error instances" frame={instances} {...tableCard}>
            {withTable("Error instances", (shown) => (
              <Instances
                beside={beside}
                otherMedia={other !== null && belongsTo(props.otherMedia.key, other) ? props.otherMedia.value : null}
                source={source}
                index={index}
                series={series}
                table={shown}
                step={step.step}
                listed={state.listed}
                instance={state.instance}
                onPlace={showPlace}
                media={ownMedia ? media.value : null}
                mediaBusy={series.hasMedia && !ownMedia && media.error === null}
                mediaError={media.error}
                filter={filter}
                sort={state.sort}
                descending={state.descending}
                page={state.page}
                onChange={(change) =>
                  patch(
                    change,
                    Object.keys(NO_FILTER).some((name) => name in change) ||
                      "listed" in change ||
                      (change.instance != null && state.instance === null),
                  )
                }
              />
            ))}
          </Card>
        </>
      )}
      {series === null && hasInvarianceOnly(index, state.run) && (
        <p class="bc-note">
          Of “{state.run}” only its invariance was logged: there is no comparison of the two models’ answers.
        </p>
      )}
      {!leads && sweep}
      {index.invariance.length > 0 && (
        <Invariance
          place={props.place}
          loaded={props.invariance}
          epoch={attempt}
          theme={props.theme}
          step={state.step}
          second={props.second}
          retry={retry}
          onPick={({ run, dataset }) => patch({ ...moveTo(index, state, run, dataset), run, dataset, step: null }, true)}
        />
      )}
    </div>
  );
}

function belongsTo(key: string | null, series: Series | null): boolean {
  if (key === null || series === null) return false;
  const [run, dataset] = JSON.parse(key) as [string, string];
  return run === series.run && dataset === series.dataset;
}
