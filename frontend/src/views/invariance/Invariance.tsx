import { count, intervalText, percent, stepText } from "../../layout/format";
import type { Theme } from "../../hosts/host";
import type { Estimate, Invariance as Update, InvarianceDepth as Depth, TableRef } from "../../model";
import { type Loaded, tableKey } from "../../state/loading";
import { Card } from "../parts/Card";
import { InvarianceCurves } from "./InvarianceCurves";
import { InvarianceDepth } from "./InvarianceDepth";
import { InvarianceHeat } from "./InvarianceHeat";
import { type InvariancePlace, type Named, sameMeasure } from "./invariancePoints";
import { Failed, Loading, Skeleton } from "../parts/States";

interface TotalProps {
  readonly name: string;
  readonly title: string;
  readonly estimate: Estimate;
  readonly beside: Estimate | undefined;
}

function Total({ name, title, estimate, beside }: TotalProps) {
  return (
    <div class="bc-score" title={title} data-score={name}>
      <dt>{name}</dt>
      <dd>
        <div class="bc-score-value">{percent(estimate.value)}</div>
        <div class="bc-score-interval">{intervalText(estimate.low, estimate.high)}</div>
        {beside && (
          <div class="bc-score-other">
            <span class="bc-tag">B</span> {percent(beside.value)} ({intervalText(beside.low, beside.high)})
          </div>
        )}
      </dd>
    </div>
  );
}

interface PartsProps {
  readonly first: Named<Update>;
  readonly second: Named<Update> | null;
  readonly theme: Theme;
}

/** What an update does under transformations: in sum, by size, by layer, by feature. */
function Parts({ first, second, theme }: PartsProps) {
  const { overall, depth } = first.value;
  const beside = second?.value.overall;
  const pairs = "Share of pairs of an instance and a transformation";
  return (
    <>
      <dl class="bc-scores bc-invariance-totals">
        <Total
          name="Consistency of h1"
          title={`${pairs} for which h1 predicts what it predicts for the instance itself`}
          estimate={overall.h1}
          beside={beside?.h1}
        />
        <Total
          name="Consistency of h2"
          title={`${pairs} for which h2 predicts what it predicts for the instance itself`}
          estimate={overall.h2}
          beside={beside?.h2}
        />
        <Total
          name="Invariance negative flips"
          title={`${pairs} for which h1 is consistent and h2 is not`}
          estimate={overall.flips}
          beside={beside?.flips}
        />
      </dl>
      <h3>By transformation</h3>
      <InvarianceCurves first={first} second={second} />
      {depth === null ? (
        <p class="bc-note">Only predictions were compared; compare_invariance measures the layers too.</p>
      ) : (
        <Layers depth={depth} second={second} theme={theme} />
      )}
    </>
  );
}

/** What was measured in the layers; a second run that has others is drawn apart. */
function Layers({ depth, second, theme }: Pick<PartsProps, "second" | "theme"> & { depth: Depth }) {
  const other = second?.value.depth ?? null;
  const named = second && other && { run: second.run, value: other };
  const fits = other !== null && sameMeasure(depth, other);
  return (
    <>
      <h3>By layer{named && !fits && ", run A"}</h3>
      <InvarianceDepth depth={depth} second={fits ? named : null} />
      {second !== null && other === null && (
        <p class="bc-note">Of run B, “{second.run}”, only predictions were compared.</p>
      )}
      {named && !fits && (
        <>
          <h3>
            By layer, run B <span class="bc-name">{named.run}</span>
          </h3>
          <p class="bc-note">It has other layers, or was measured in another way, and is drawn apart.</p>
          <InvarianceDepth depth={named.value} second={null} />
        </>
      )}
      <h3>By feature{second && ", run A"}</h3>
      <InvarianceHeat depth={depth} theme={theme} />
    </>
  );
}

/** Invariance was measured, but not of what is looked at. */
function Elsewhere({ others, onPick }: { others: readonly TableRef[]; onPick: (place: TableRef) => void }) {
  return (
    <div class="bc-elsewhere">
      <p class="bc-note">Of this run on this data set it was not measured. It was of:</p>
      {others.slice(0, 12).map((place) => (
        <button
          key={`${place.run}\0${place.dataset}`}
          type="button"
          class="bc-button"
          onClick={() => onPick(place)}
        >
          {place.run} on {place.dataset}, {stepText(place.step)}
        </button>
      ))}
    </div>
  );
}

/** The invariance of a run, as far as it is there. */
export interface InvarianceOf {
  readonly place: InvariancePlace;
  readonly loaded: Loaded<Update>;
}

/** What is loaded, if it is of the run and data set that are asked for; of these an older step stays on show. */
function updateOf({ place: { request }, loaded: { key, value } }: InvarianceOf): Update | null {
  if (key === null || request === null) return null;
  const [run, dataset] = JSON.parse(key) as [string, string];
  return run === request.run && dataset === request.dataset ? value : null;
}

export interface InvarianceProps extends InvarianceOf {
  readonly epoch: number;
  readonly theme: Theme;
  /** Step of the comparison that is looked at; null is the latest. */
  readonly step: number | null;
  /** The run that is set beside this one. */
  readonly second: (InvarianceOf & { readonly run: string }) | null;
  readonly retry: () => void;
  readonly onPick: (place: TableRef) => void;
}

/** Why there is nothing of the second run. */
function NoSecond({ second, dataset, retry }: { second: InvarianceProps["second"]; dataset: string; retry: () => void }) {
  if (second === null) return null;
  const { run, place, loaded } = second;
  if (place.request === null) {
    return (
      <p class="bc-note bc-no-second" data-testid="no-second">
        Of run B, “{run}”, invariance was not measured on “{dataset}”: only run A is shown here.
      </p>
    );
  }
  if (loaded.error !== null) {
    return <Failed what="The invariance of run B could not be loaded" error={loaded.error} onRetry={retry} />;
  }
  return updateOf(second) === null ? <Loading what="Loading the invariance of run B" /> : null;
}

/** The card of it; what it shows belongs to the run and data set that are looked at. */
export function Invariance({ place, loaded, epoch, theme, step, second, retry, onPick }: InvarianceProps) {
  const { request, others } = place;
  const key = tableKey(request, epoch);
  const update = updateOf({ place, loaded });
  const beside = second && updateOf(second);
  const stale = update !== null && loaded.key !== key && loaded.error === null;
  const about = (of: Update, at: number) =>
    `${count(of.samples)} instances × ${of.transforms.length} transformations` +
    (step !== null && step !== at ? `, measured at ${stepText(at)}` : "");
  return (
    <Card
      name="invariance"
      title="Invariance under transformations"
      drawn={update !== null}
      attempt={key}
      stale={stale}
      aside={
        request !== null &&
        update !== null && (
          <>
            <span>
              <b class="bc-name">{request.run}</b> on <b class="bc-name">{request.dataset}</b>: {about(update, request.step)}
            </span>
            {second?.place.request && beside && (
              <span>
                {" "}
                <span class="bc-tag">B</span> <b class="bc-name">{second.run}</b>: {about(beside, second.place.request.step)}
              </span>
            )}
          </>
        )
      }
    >
      {request === null ? (
        <Elsewhere others={others} onPick={onPick} />
      ) : loaded.error !== null ? (
        <Failed what="The invariance of this step could not be loaded" error={loaded.error} onRetry={retry} />
      ) : update === null ? (
        <Skeleton what="Loading invariance" />
      ) : (
        <>
          <NoSecond second={second} dataset={request.dataset} retry={retry} />
          <Parts
            first={{ run: request.run, value: update }}
            second={second && beside && { run: second.run, value: beside }}
            theme={theme}
          />
        </>
      )}
    </Card>
  );
}
