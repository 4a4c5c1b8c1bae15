import type { ComponentChildren } from "preact";
import { useContext, useEffect, useId, useState } from "preact/hooks";
import { MountId } from "./mountId";

/** A word that explains itself: on hover, on focus, and to a screen reader. Escape puts the explanation away. */
export function Hint({ label, children }: { label: ComponentChildren; children: ComponentChildren }) {
  const id = `${useContext(MountId)}${useId()}`;
  const [hovered, setHovered] = useState(false);
  const [closed, setClosed] = useState(false);
  useEffect(() => {
    if (!hovered) return;
    // A word under the pointer has no focus, so the key goes elsewhere.
    const pressed = (event: KeyboardEvent) => event.key === "Escape" && setClosed(true);
    document.addEventListener("keydown", pressed, true);
    return () => document.removeEventListener("keydown", pressed, true);
  }, [hovered]);
  const entered = (inside: boolean) => () => {
    setHovered(inside);
    setClosed(false);
  };
  return (
    <span class="bc-hint">
      <button
        type="button"
        class="bc-hint-word"
        aria-describedby={id}
        onPointerEnter={entered(true)}
        onPointerLeave={entered(false)}
        onFocus={() => setClosed(false)}
        onKeyDown={(event) => event.key === "Escape" && event.currentTarget.blur()}
      >
        {label}
      </button>
      <span class="bc-hint-text" role="tooltip" id={id} style={closed ? { visibility: "hidden" } : {}}>
        {children}
      </span>
    </span>
  );
}
