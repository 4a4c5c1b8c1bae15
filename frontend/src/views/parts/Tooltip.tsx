import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

export interface TooltipProps {
  /** What is explained, in pixels from the corner of the frame (the nearest positioned ancestor). */
  readonly x: number;
  readonly y: number;
  /** Always under the point, where a box beside it would cover what is pointed at. */
  readonly below?: boolean;
  readonly children: ComponentChildren;
}

const GAP = 12;

/** Place a box beside a point: to its right and above it, or on the other side where there is no room. */
export function placeTooltip(
  x: number,
  y: number,
  box: { width: number; height: number },
  frame: { width: number; roomAbove: number },
  below = false,
): { left: number; top: number } {
  if (below) return { left: Math.max(0, Math.min(x - box.width / 2, frame.width - box.width)), top: y + GAP };
  const right = x + GAP;
  const left = right + box.width <= frame.width ? right : Math.max(0, x - GAP - box.width);
  const above = y - GAP - box.height;
  return { left, top: above >= -frame.roomAbove ? above : y + GAP };
}

export function Tooltip({ x, y, below = false, children }: TooltipProps) {
  const box = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const element = box.current;
    const frame = element?.offsetParent;
    if (!element || !frame) return;
    const { left, top } = placeTooltip(
      x,
      y,
      { width: element.offsetWidth, height: element.offsetHeight },
      { width: frame.clientWidth, roomAbove: frame.getBoundingClientRect().top },
      below,
    );
    element.style.left = `${left}px`;
    element.style.top = `${top}px`;
  });
  return (
    <div ref={box} class="bc-tooltip" role="tooltip">
      {children}
    </div>
  );
}
