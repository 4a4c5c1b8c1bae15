import type { ComponentChildren } from "preact";
import { useMemo, useRef } from "preact/hooks";
import { usable } from "../data/narrowing";
import { joined } from "../data/twoUpdates";
import type { Theme } from "../hosts/host";
import type { DataSource, Filter, Index, Invariance as Update, Series, Table, TableRef, ViewState } from "../model";
import { type Loaded, useMedia } from "../state/loading";
import { hasInvarianceOnly, moveTo, type Selection } from "../state/selection";
import { type Patch } from "../state/viewState";
import { Card } from "./parts/Card";
import { NO_FILTER } from "../state/url";
import { Classes } from "./classes/Classes";
import { Compared, compared } from "./overview/Compared";
import { Curves } from "./curves/Curves";
import { FlipMatrix } from "./classes/FlipMatrix";
import { InsightCards } from "./confidence/InsightCards";
import { Instances } from "./instances/Instances";
import { Invariance, type InvarianceProps } from "./invariance/Invariance";
import { type InvariancePlace } from "./invariance/invariancePoints";
import { Performance } from "./overview/Performance";
import { NewClasses } from "./overview/NewClasses";
import { Scores } from "./overview/Scores";
import { Failed, Skeleton } from "./parts/States";
import { Subject } from "./overview/Subject";
import { Sweep } from "./sweep/Sweep";
import { Venn } from "./overview/Venn";

/** A link may come from data with other classes; a class that does not exist is no condition. */
export function usableFilter(state: ViewState, numClasses: number, table: Table | null): Filter {
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

export interface CardsProps {
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

export function Cards(props: CardsProps) {
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
          <Card name="matrix" title="Negative flips by class" drawn {...tableCard}>
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
          <Card name="classes" title="Classes" drawn {...tableCard}>
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

export function belongsTo(key: string | null, series: Series | null): boolean {
  if (key === null || series === null) return false;
  const [run, dataset] = JSON.parse(key) as [string, string];
  return run === series.run && dataset === series.dataset;
}
