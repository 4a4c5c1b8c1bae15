import { useLayoutEffect, useRef, useState } from "preact/hooks";

export interface Typed {
  readonly typed: string;
  readonly setTyped: (text: string) => void;
  /** What was sent last, set by whoever sends it. */
  readonly sent: { current: string };
}

/**
 * The text of a field whose value is kept elsewhere and comes back from there.
 *
 * What comes back after it was sent from here must not replace letters typed since.
 */
export function useTyped(value: string, onReplaced?: () => void): Typed {
  const [typed, setTyped] = useState(value);
  const sent = useRef(value);
  // A layout effect, because a later one could run when the next text is sent already.
  useLayoutEffect(() => {
    if (value === sent.current) return;
    sent.current = value;
    onReplaced?.();
    setTyped(value);
  }, [value]);
  return { typed, setTyped, sent };
}
