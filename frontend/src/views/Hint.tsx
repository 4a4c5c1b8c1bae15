import type { ComponentChildren } from "preact";
import { useContext, useId } from "preact/hooks";
import { MountId } from "./mountId";

/** A word that explains itself: on hover, on focus, and to a screen reader. Escape puts the explanation away. */
export function Hint({ label, children }: { label: ComponentChildren; children: ComponentChildren }) {
  const id = `${useContext(MountId)}${useId()}`;
  return (
    <span class="bc-hint">
      <button
        type="button"
        class="bc-hint-word"
        aria-describedby={id}
        onKeyDown={(event) => event.key === "Escape" && event.currentTarget.blur()}
      >
        {label}
      </button>
      <span class="bc-hint-text" role="tooltip" id={id}>
        {children}
      </span>
    </span>
  );
}
