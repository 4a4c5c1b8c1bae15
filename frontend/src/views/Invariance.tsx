import { count, intervalText, percent, stepText } from "../layout/format";
import type { Theme } from "../hosts/host";
import type { Estimate, Invariance as Update, TableRef } from "../model";
import { type Loaded, tableKey } from "../state/loading";
import { Card } from "./Card";
import { InvarianceCurves } from "./InvarianceCurves";
import { InvarianceDepth } from "./InvarianceDepth";
import { InvarianceHeat } from "./InvarianceHeat";
import type { InvariancePlace } from "./invariancePoints";
import { Failed, Skeleton } from "./States";

function Total({ name, title, estimate }: { name: string; title: string; estimate: Estimate }) {
  return (
    <div class="bc-score" title={title} data-score={name}>
      <dt>{name}</dt>
      <dd>
        <div class="bc-score-value">{percent(estimate.value)}</div>
        <div class="bc-score-interval">{intervalText(estimate.low, estimate.high)}</div>
      </dd>
    </div>
  );
}

/** What an update does under transformations: in sum, by size, by layer, by feature. */
function Parts({ update, theme }: { update: Update; theme: Theme }) {
  const { overall, depth } = update;
  const pairs = "Share of pairs of an instance and a transformation";
  return (
    <>
      <dl class="bc-scores bc-invariance-totals">
        <Total
          name="Consistency of h1"
          title={`${pairs} for which h1 predicts what it predicts for the instance itself`}
          estimate={overall.h1}
        />
        <Total
          name="Consistency of h2"
          title={`${pairs} for which h2 predicts what it predicts for the instance itself`}
          estimate={overall.h2}
        />
        <Total
          name="Invariance negative flips"
          title={`${pairs} for which h1 is consistent and h2 is not`}
          estimate={overall.flips}
        />
      </dl>
      <h3>By transformation</h3>
      <InvarianceCurves update={update} />
      {depth === null ? (
        <p class="bc-note">Only predictions were compared; compare_invariance measures the layers too.</p>
      ) : (
        <>
          <h3>By layer</h3>
          <InvarianceDepth depth={depth} />
          <h3>By feature</h3>
          <InvarianceHeat depth={depth} theme={theme} />
        </>
      )}
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

export interface InvarianceProps {
  readonly place: InvariancePlace;
  readonly loaded: Loaded<Update>;
  readonly epoch: number;
  readonly theme: Theme;
  /** Step of the comparison that is looked at; null is the latest. */
  readonly step: number | null;
  readonly retry: () => void;
  readonly onPick: (place: TableRef) => void;
}

/** The card of it; what it shows belongs to the run and data set that are looked at. */
export function Invariance({ place, loaded, epoch, theme, step, retry, onPick }: InvarianceProps) {
  const { request, others } = place;
  const key = tableKey(request, epoch);
  const sameSeries = (text: string | null) => {
    if (text === null || request === null) return false;
    const [run, dataset] = JSON.parse(text) as [string, string];
    return run === request.run && dataset === request.dataset;
  };
  const update = sameSeries(loaded.key) ? loaded.value : null;
  const stale = update !== null && loaded.key !== key && loaded.error === null;
  return (
    <Card
      name="invariance"
      title="Invariance under transformations"
      attempt={key}
      stale={stale}
      aside={
        request !== null &&
        update !== null && (
          <span>
            {count(update.samples)} instances of <b class="bc-name">{request.dataset}</b> × {update.transforms.length}{" "}
            transformations
            {step !== null && step !== request.step && `, measured at ${stepText(request.step)}`}
          </span>
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
        <Parts update={update} theme={theme} />
      )}
    </Card>
  );
}
