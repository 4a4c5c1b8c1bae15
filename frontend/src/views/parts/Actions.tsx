import type { Actions as Offer } from "../../model";
import type { Pressing } from "../../state/loading";
import { Failed, Progress } from "./States";

export interface ActionsProps {
  readonly actions: Offer;
  readonly pressing: Pressing | null;
  /** Share of what is running that is done. */
  readonly progress: number | null;
  /** Whether there is nothing else to show. */
  readonly empty: boolean;
}

/** Whether there is a button, or was one that is being attended to. */
export const isOffering = ({ offered, doing }: Offer): boolean => offered.length > 0 || doing !== null;

const WAITING =
  "Waiting for the kernel, which answers between two cells. After a restart of it, run the cell of this view again.";

function Buttons({ actions, pressing, isMain = false }: Pick<ActionsProps, "actions" | "pressing"> & { isMain?: boolean }) {
  if (actions.doing !== null || (pressing !== null && pressing.asked !== null)) {
    return (
      <span class="bc-doing" role="status" data-testid="doing">
        <span class="bc-spinner" aria-hidden="true" /> {actions.doing === null ? WAITING : `${actions.doing} …`}
      </span>
    );
  }
  return (
    <>
      {actions.offered.map(({ label }) => (
        <button
          key={label}
          type="button"
          class={`bc-button${isMain ? " bc-main" : ""}`}
          onClick={() => pressing?.press(label)}
        >
          {label}
        </button>
      ))}
    </>
  );
}

function Offered(props: Pick<ActionsProps, "actions" | "pressing" | "empty">) {
  const { actions, pressing, empty } = props;
  const notes = actions.offered.map(({ note }) => note).filter(Boolean);
  if (empty) {
    return (
      <div class="bc-nothing" data-testid="actions">
        <h2>No comparison yet</h2>
        {notes.map((note) => (
          <p key={note}>{note}</p>
        ))}
        <Buttons actions={actions} pressing={pressing} isMain />
      </div>
    );
  }
  return (
    <div class="bc-banner" data-testid="actions">
      {notes.map((note) => (
        <span key={note}>{note}</span>
      ))}
      <Buttons actions={actions} pressing={pressing} />
    </div>
  );
}

/** What is running, what can be done about it, and what came of the last press. */
export function Actions({ actions, pressing, progress, empty }: ActionsProps) {
  const { failed } = actions;
  const hasButtons = pressing !== null && isOffering(actions);
  return (
    <>
      {failed !== null && <Failed what={`“${failed.label}” did not work`} error={new Error(failed.error)} />}
      {pressing?.error && <Failed what="The kernel could not be asked" error={pressing.error} />}
      {progress !== null ? (
        <Progress share={progress}>{hasButtons && <Buttons actions={actions} pressing={pressing} />}</Progress>
      ) : (
        hasButtons && <Offered {...{ actions, pressing, empty }} />
      )}
    </>
  );
}
