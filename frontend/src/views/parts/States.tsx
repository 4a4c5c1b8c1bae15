import type { ComponentChildren } from "preact";
import type { Host } from "../../hosts/host";
import type { Missing } from "../../state/selection";
import { DataError } from "../../model";

export function Loading({ what }: { what: string }) {
  return (
    <div class="bc-loading" role="status">
      <span class="bc-spinner" aria-hidden="true" />
      {what}
    </div>
  );
}

/** Stands where a panel will be, so that nothing jumps when it comes. */
export function Skeleton({ what }: { what: string }) {
  return (
    <div class="bc-skeleton" role="status">
      <Loading what={what} />
    </div>
  );
}

export interface FailedProps {
  readonly what: string;
  readonly error: Error;
  readonly onRetry?: () => void;
}

export function Failed({ what, error, onRetry }: FailedProps) {
  const advice = error instanceof DataError ? error.advice : null;
  return (
    <div class="bc-failed" role="alert">
      <p>
        <strong>{what}.</strong> {error.message}
      </p>
      {advice !== null && <p>{advice}</p>}
      {onRetry && (
        <button type="button" class="bc-button" onClick={onRetry}>
          Try again
        </button>
      )}
    </div>
  );
}

const SAMPLE = `from bc_core import compare
from bc_tensorboard import summary

# labels of one data set: the true ones, what h1 says, what h2 says
comparison = compare(target, h1_pred, h2_pred)
summary.comparison("runs/update", comparison, step=0, dataset="test")`;

/** No comparison yet: how to make one, and why it may not be seen. */
export function Nothing({ kind, onReload }: { kind: Host["kind"]; onReload: () => void }) {
  return (
    <div class="bc-nothing" data-testid="nothing">
      <h2>No comparison yet</h2>
      <p>
        This page shows what an update of a classifier breaks. It needs the predictions of h1, the model in use, and of
        h2, its update:
      </p>
      <pre class="bc-code">
        <code>{SAMPLE}</code>
      </pre>
      {kind === "tensorboard" && (
        <>
          <p>
            The compatibility callbacks for Lightning and Keras write the same after each validation. This page looks
            again every few seconds.
          </p>
          <h3>You did log one?</h3>
          <ul>
            <li>
              Start TensorBoard on the folder that was written to, or one above it:{" "}
              <code>tensorboard --logdir runs</code>.
            </li>
            <li>
              Training may run in another environment; the plugin has to be installed in the one that runs TensorBoard:{" "}
              <code>python -m pip install "backward-compat-ml[tensorboard]"</code>, then{" "}
              <code>python -m tensorboard.main --logdir runs</code>.
            </li>
            <li>
              A writer keeps events back for a while: call <code>writer.flush()</code> or <code>writer.close()</code>.
            </li>
          </ul>
          <button type="button" class="bc-button" onClick={onReload}>
            Look again
          </button>
        </>
      )}
      {kind === "notebook" && <p>Pass the comparison to the view, and run the cell again.</p>}
      {kind === "page" && <p>Write this page again with at least one comparison in it.</p>}
    </div>
  );
}

export function Gone({ missing, children }: { missing: Missing; children?: ComponentChildren }) {
  return (
    <div class="bc-failed bc-gone" role="alert" data-testid="missing">
      <p>
        <strong>{missing.message}.</strong> {missing.advice}
      </p>
      {children}
    </div>
  );
}

export function Warnings({ warnings }: { warnings: readonly string[] }) {
  if (warnings.length === 0) return null;
  return (
    <details class="bc-banner bc-warnings" data-testid="warnings">
      <summary>
        {warnings.length === 1 ? "One thing could not be read" : `${warnings.length} things could not be read`}; the
        rest is shown
      </summary>
      <ul>
        {warnings.map((warning, i) => (
          <li key={i}>{warning}</li>
        ))}
      </ul>
    </details>
  );
}

export function Progress({ share, children }: { share: number; children?: ComponentChildren }) {
  const done = Math.floor(100 * Math.min(1, Math.max(0, share)));
  return (
    <div class="bc-banner" data-testid="progress">
      <span role="status">A sweep is running: {done}% done. Points appear as they finish.</span>
      <progress max={100} value={done} aria-label="Share of the sweep that is done" />
      {children}
    </div>
  );
}
