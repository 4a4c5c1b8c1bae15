/** Whether a run is still at work, as far as the times of its steps can tell. */

import { useEffect, useState } from "preact/hooks";
import type { Series } from "../model";

/** Between two looks at the clock. */
const TICK_MS = 5_000;
/** A run whose steps come fast is taken to be at work for so long after one, in seconds. */
const LEAST = 60;
/** A step may take so many times as long as those before it. */
const PATIENCE = 3;
const RECENT = 5;

/** Seconds since the last step of a run that is at work; null for one that is over, or of which nothing can be told. */
export function sinceLastStep(series: Pick<Series, "steps">, now: number): number | null {
  const times = series.steps.slice(-RECENT - 1).flatMap(({ wallTime }) => wallTime ?? []);
  const last = Math.max(...times);
  // What was logged once, as after a training, says nothing of a next step.
  if (times.length < 2) return null;
  const gaps = times.slice(1).map((time, i) => Math.abs(time - times[i]!));
  const typical = gaps.sort((a, b) => a - b)[Math.floor(gaps.length / 2)]!;
  const age = now - last;
  // Clocks of two machines differ a little.
  return age > -LEAST && age <= Math.max(LEAST, PATIENCE * typical) ? Math.max(0, age) : null;
}

export const isAnyRunning = (series: readonly Series[]): boolean =>
  series.some((each) => sinceLastStep(each, Date.now() / 1000) !== null);

/** The same for one series, which changes as time goes by. */
export function useSinceLastStep(series: Series | null, isLive: boolean): number | null {
  const [, tick] = useState(0);
  const age = series === null || !isLive ? null : sinceLastStep(series, Date.now() / 1000);
  const isRunning = age !== null;
  useEffect(() => {
    if (!isRunning) return;
    const timer = setInterval(() => tick((count) => count + 1), TICK_MS);
    return () => clearInterval(timer);
  }, [isRunning]);
  return age;
}
