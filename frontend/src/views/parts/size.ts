import type { RefObject } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";

/** Width of a chart's frame and size of its text, both in pixels; width 0 before the first measurement. */
export interface Size {
  readonly width: number;
  readonly em: number;
}

const MIN_WIDTH = 280;

/** Measure a frame now and whenever it changes, so that a chart can lay itself out in pixels. */
export function useSize(): [RefObject<HTMLDivElement | null>, Size] {
  const frame = useRef<HTMLDivElement>(null);
  const [size, setSize] = useState<Size>({ width: 0, em: 13 });
  useLayoutEffect(() => {
    const element = frame.current;
    if (!element) return;
    const measure = (): void => {
      const inner = Math.floor(element.clientWidth);
      if (!inner) return; // hidden, as in a closed tab: keep the last layout
      const width = Math.max(MIN_WIDTH, inner);
      const em = parseFloat(getComputedStyle(element).fontSize) || 13;
      setSize((old) => (old.width === width && old.em === em ? old : { width, em }));
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return [frame, size];
}

/** Width of a text in pixels, near enough to place labels without asking the browser to lay them out. */
export function textWidth(text: string, fontSize: number): number {
  return text.length * fontSize * 0.56;
}

/** Move labels as little as possible so that neighbours are `gap` apart and all stay within [low, high]. */
export function spread(wanted: readonly number[], gap: number, low: number, high: number): number[] {
  const order = wanted.map((_, i) => i).sort((a, b) => wanted[a]! - wanted[b]!);
  const step = Math.min(gap, order.length > 1 ? (high - low) / (order.length - 1) : gap);
  const placed = order.map((i) => Math.min(Math.max(wanted[i]!, low), high));
  for (let k = 1; k < placed.length; k++) placed[k] = Math.max(placed[k]!, placed[k - 1]! + step);
  for (let k = placed.length - 1, limit = high; k >= 0; k--, limit = placed[k + 1]! - step) {
    placed[k] = Math.min(placed[k]!, limit);
  }
  const result = new Array<number>(wanted.length);
  order.forEach((i, k) => (result[i] = placed[k]!));
  return result;
}
