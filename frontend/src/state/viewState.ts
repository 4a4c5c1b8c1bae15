import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import type { Host } from "../hosts/host";
import type { ViewState } from "../model";
import { decodeState, encodeState } from "./url";

/** Browsers refuse addresses that change too often, and a dragged slider changes the state with every pixel. */
const WRITE_MS = 250;

export type Patch = (change: Partial<ViewState>, remember?: boolean) => void;

/** Conditions that change which instances there are, so that a page number means nothing afterwards. */
const REORDERING: readonly (keyof ViewState)[] = [
  "run",
  "dataset",
  "step",
  "region",
  "target",
  "h1",
  "h2",
  "text",
  "flips",
  "b",
  "sure1",
  "sure2",
  "slices",
  "sort",
  "descending", // prettier-ignore
];

/** The one state of the view, kept in step with the host. `remember` makes a change reachable by the back button. */
export function useViewState(host: Host): [ViewState, Patch] {
  const [state, setState] = useState(() => decodeState(host.readState()));
  const written = useRef<string | null>(null);
  const remembered = useRef(false);
  const patch = useCallback<Patch>((change, remember = false) => {
    remembered.current ||= remember;
    const turned = REORDERING.some((name) => name in change) ? { page: 0 } : {};
    setState((old) => ({ ...old, ...turned, ...change }));
  }, []);
  useEffect(() => {
    const text = encodeState(state);
    if (written.current === null) written.current = encodeState(decodeState(host.readState()));
    if (text === written.current) return;
    const timer = setTimeout(() => {
      written.current = text;
      host.writeState(text, remembered.current);
      remembered.current = false;
    }, WRITE_MS);
    return () => clearTimeout(timer);
  }, [state, host]);
  useEffect(
    () =>
      host.onExternalState(() => {
        const outside = decodeState(host.readState());
        const text = encodeState(outside);
        // Some hosts report our own change back.
        if (text === written.current) return;
        written.current = text;
        // What was not written yet is given up with this, and so is its entry in the history.
        remembered.current = false;
        setState(outside);
      }),
    [host],
  );
  return [state, patch];
}
