/** Hooks that keep what comes from a data source: the index, and tables and texts by key. */

import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Host } from "../hosts/host";
import type { DataSource, Index, Invariance, Media, Series, Table, TableRef } from "../model";
import { isAnyRunning } from "./running";

const POLL_MS = 30_000;
/** While nothing is there yet, or a sweep is running, somebody is waiting for it. */
const EAGER_POLL_MS = 5_000;
/** Steps that a dragged slider only passes over are not asked for. */
const DRAG_MS = 150;

export interface Loaded<T> {
  /** The last value that arrived; it belongs to `key`, which may be older than what is asked for now. */
  readonly value: T | null;
  readonly key: string | null;
  readonly error: Error | null;
  readonly busy: boolean;
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}

/** Load the value of a key, and keep the one before on show until it is there. */
export function useLoaded<T>(key: string | null, load: () => Promise<T>, delay = 0): Loaded<T> {
  const [arrived, setArrived] = useState<{ key: string | null; value: T | null }>({ key: null, value: null });
  const [failed, setFailed] = useState<{ key: string; error: Error } | null>(null);
  const loader = useRef(load);
  loader.current = load;
  const hasValue = arrived.value !== null;
  useEffect(() => {
    if (key === null) return;
    let wanted = true;
    const timer = setTimeout(
      () => {
        loader.current().then(
          (value) => {
            if (!wanted) return;
            setArrived({ key, value });
            setFailed(null);
          },
          (reason: unknown) => wanted && setFailed({ key, error: asError(reason) }),
        );
      },
      hasValue ? delay : 0,
    );
    return () => {
      wanted = false;
      clearTimeout(timer);
    };
    // Only a new key asks again: whether an older value is on show does not matter once the request is out.
  }, [key]);
  const error = failed !== null && failed.key === key ? failed.error : null;
  return { ...arrived, error, busy: key !== null && arrived.key !== key && error === null };
}

export interface Latest {
  /** Ask now, whatever is under way. */
  load(): void;
  /** Ask, unless an answer is still to come. */
  poll(): void;
}

/** Questions may overlap: only the answer to the last one counts. */
export function latestAnswer<T>(
  ask: () => Promise<T>,
  onAnswer: (answer: T) => void,
  onFailure: (error: Error) => void,
): Latest {
  let asked = 0;
  let waiting = false;
  const load = () => {
    asked += 1;
    const number = asked;
    waiting = true;
    /** Whether this was the last question, which is answered then. */
    const settled = () => {
      if (number !== asked) return false;
      waiting = false;
      return true;
    };
    ask().then(
      (answer) => settled() && onAnswer(answer),
      (reason: unknown) => settled() && onFailure(asError(reason)),
    );
  };
  return { load, poll: () => void (waiting || load()) };
}

export interface LoadedIndex {
  readonly index: Index | null;
  readonly error: Error | null;
  readonly busy: boolean;
  reload(): void;
}

export function useIndex(source: DataSource, host: Host): LoadedIndex {
  const [index, setIndex] = useState<Index | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const [busy, setBusy] = useState(true);
  const shown = useRef("");
  const latest = useMemo(
    () =>
      latestAnswer(
        () => source.index(),
        (next) => {
          const text = JSON.stringify(next);
          // An index that did not change must not make every chart draw again.
          if (text !== shown.current) setIndex(next);
          shown.current = text;
          setError(null);
          setBusy(false);
        },
        (reason) => {
          setError(reason);
          setBusy(false);
        },
      ),
    [source],
  );
  const reload = useCallback(() => {
    setBusy(true);
    latest.load();
  }, [latest]);
  useEffect(() => {
    reload();
    return host.onData?.(latest.load);
  }, [latest, reload, host]);
  const empty = index !== null && index.series.length === 0 && index.invariance.length === 0;
  const eager = index !== null && (empty || index.progress !== null);
  useEffect(() => {
    if (!host.live) return;
    let polled = Date.now();
    const timer = setInterval(() => {
      const isDue = Date.now() - polled >= POLL_MS - EAGER_POLL_MS / 2;
      // As often as TensorBoard itself reads a run that is at work.
      const isWaited = eager || (index !== null && isAnyRunning(index.series));
      if (document.visibilityState !== "visible" || !(isDue || isWaited)) return;
      polled = Date.now();
      latest.poll();
    }, EAGER_POLL_MS);
    return () => clearInterval(timer);
  }, [host, eager, latest, index]);
  return { index, error, busy, reload };
}

export interface Pressing {
  /** Label of the button that was pressed, until that was taken notice of. */
  readonly asked: string | null;
  readonly error: Error | null;
  press(label: string): void;
}

/** Press buttons of the index, one at a time; null where there is nobody to act. */
export function usePressing(source: DataSource): Pressing | null {
  const [asked, setAsked] = useState<string | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const isWaiting = useRef(false);
  const press = useCallback(
    (label: string) => {
      if (isWaiting.current) return;
      isWaiting.current = true;
      setAsked(label);
      setError(null);
      const over = (reason: Error | null) => {
        isWaiting.current = false;
        setAsked(null);
        setError(reason);
      };
      source.act?.(label).then(
        () => over(null),
        (reason: unknown) => over(asError(reason)),
      );
    },
    [source],
  );
  return source.act ? { asked, error, press } : null;
}

export interface TableRequest extends TableRef {
  /** When the step was written: a step that was logged again is another table. */
  readonly wallTime: number | null;
}

export function tableKey(request: TableRequest | null, epoch: number): string | null {
  return request && JSON.stringify([request.run, request.dataset, request.step, request.wallTime, epoch]);
}

/** Tables of the chosen run and of the one beside it. */
export function useTables(
  source: DataSource,
  first: TableRequest | null,
  second: TableRequest | null,
  epoch: number,
): [Loaded<Table>, Loaded<Table>] {
  const firstKey = tableKey(first, epoch);
  const secondKey = tableKey(second, epoch);
  return [
    useLoaded(firstKey, () => source.table(first!), DRAG_MS),
    useLoaded(secondKey, () => source.table(second!), DRAG_MS),
  ];
}

/** The invariance update of a place, as far as there is one. */
export function useInvariance(source: DataSource, place: TableRequest | null, epoch: number): Loaded<Invariance> {
  return useLoaded(tableKey(place, epoch), () => source.invariance(place!), DRAG_MS);
}

/** Texts and images of a series; a run that goes on may bring more of them with each step. */
export function useMedia(source: DataSource, series: Series | null, epoch: number): Loaded<Media | null> {
  const key = series?.hasMedia ? JSON.stringify([series.run, series.dataset, series.steps.length, epoch]) : null;
  return useLoaded(key, () => source.media(series!.run, series!.dataset));
}
