import { describe, expect, it } from "vitest";
import { venn } from "../../src/layout/venn";
import { shareDomain, tickDigits } from "../../src/views/parts/Axis";
import { pointsText, shareAxis } from "../../src/views/classes/ClassBars";
import { heat, toggled } from "../../src/views/classes/FlipMatrix";
import { markPath, setClass } from "../../src/views/parts/marks";
import { spread } from "../../src/views/parts/size";
import { placeTooltip } from "../../src/views/parts/Tooltip";
import { widthAt } from "../../src/views/overview/VennDrawing";

describe("labels that are spread", () => {
  it("keep their distance, their order and the bounds", () => {
    const wanted = [10, 11, 12, 95, 96];
    const placed = spread(wanted, 10, 0, 100);
    for (let i = 1; i < placed.length; i++) expect(placed[i]! - placed[i - 1]!).toBeGreaterThanOrEqual(10 - 1e-9);
    expect(Math.min(...placed)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...placed)).toBeLessThanOrEqual(100);
  });

  it("stay where they are when there is room, whatever their order", () => {
    expect(spread([50, 10, 90], 10, 0, 100)).toEqual([50, 10, 90]);
    expect(spread([], 10, 0, 100)).toEqual([]);
  });

  it("close up rather than leave the bounds", () => {
    expect(spread([5, 5, 5], 100, 0, 10)).toEqual([0, 5, 10]);
  });
});

describe("a tooltip", () => {
  const box = { width: 100, height: 50 };

  it("stands right of and above its point, or on the other side", () => {
    expect(placeTooltip(20, 200, box, { width: 400, roomAbove: 0 })).toEqual({ left: 32, top: 138 });
    expect(placeTooltip(390, 200, box, { width: 400, roomAbove: 0 }).left).toBe(278);
    expect(placeTooltip(20, 30, box, { width: 400, roomAbove: 0 }).top).toBe(42);
    expect(placeTooltip(20, 30, box, { width: 400, roomAbove: 500 }).top).toBe(-32);
  });

  it("never leaves its frame at the left", () => {
    expect(placeTooltip(60, 200, { width: 500, height: 50 }, { width: 300, roomAbove: 0 }).left).toBe(0);
    expect(placeTooltip(290, 0, box, { width: 300, roomAbove: 0 }, true)).toEqual({ left: 200, top: 12 });
  });
});

describe("a change of accuracy", () => {
  it("is in points, without a percent sign", () => {
    expect([0.012, -0.4, 0].map(pointsText)).toEqual(["+1.2 pp", "−40.0 pp", "±0.0 pp"]);
    expect(pointsText(NaN)).toBe("–");
  });
});

describe("axes of shares", () => {
  it("write every tick exactly", () => {
    expect(tickDigits([0, 0.1, 0.2])).toBe(0);
    expect(tickDigits([0.95, 0.955])).toBe(1);
    expect(tickDigits([0, 0.0025])).toBe(2);
    expect(tickDigits([0.5])).toBe(0);
  });

  it("are never so narrow that noise fills them, and stay within 0 and 1", () => {
    const [low, high] = shareDomain([0.9]);
    expect(high - low).toBeCloseTo(0.004, 12);
    expect(shareDomain([1])[1]).toBe(1);
    expect(shareDomain([1])[0]).toBeCloseTo(0.996, 12);
    expect(shareDomain([0, 1])).toEqual([0, 1]);
    expect(shareDomain([])).toEqual([0, 1]);
    expect(shareDomain([0, 1], 0.02, 0.08, true)[0]).toBeLessThan(0);
  });

  it("of negative flips end just beyond the largest class", () => {
    const row = (share: number) => ({
      index: 0,
      label: "",
      total: 1,
      accuracyH1: 1,
      accuracyH2: 0,
      regress: 1,
      common: 0,
      progress: 0,
      share,
      uncertain: false,
    });
    const { top, ticks } = shareAxis([row(0.03), row(0.187)]);
    expect(top).toBeGreaterThanOrEqual(0.187);
    expect(top).toBeLessThanOrEqual(0.25);
    expect(ticks[0]).toBe(0);
    expect(shareAxis([row(1)]).top).toBe(1);
    expect(shareAxis([row(0)]).top).toBe(1);
  });
});

describe("the flip matrix", () => {
  it("takes a condition back on the second click", () => {
    const none = { target: null, h2: null };
    expect(toggled(none, { target: 1, h2: 2 })).toEqual({ target: 1, h2: 2 });
    expect(toggled({ target: 1, h2: 2 }, { target: 1, h2: 2 })).toEqual(none);
    expect(toggled({ target: 1, h2: 2 }, { target: 1, h2: null })).toEqual({ target: 1, h2: null });
  });

  it("colours nothing where there is nothing", () => {
    expect([heat(0, 9), heat(9, 9), heat(0, 0)]).toEqual([0, 1, 0]);
  });
});

describe("marks", () => {
  it("differ for the first six dissonances and begin again", () => {
    const paths = [0, 1, 2, 3, 4, 5].map((shape) => markPath(shape, 5));
    expect(new Set(paths).size).toBe(6);
    expect(markPath(6, 5)).toBe(paths[0]);
  });

  it("differ for the first four data sets in colour, for neighbours in filling", () => {
    expect(new Set([0, 1, 2, 3].map((set) => setClass(set).split(" ")[0])).size).toBe(4);
    expect(new Set([0, 1, 2].map((set) => setClass(set).split(" ")[1])).size).toBe(3);
  });
});

describe("room for a number in the Venn", () => {
  it("is the stretch of the region on the axis", () => {
    const layout = venn(730, 600, 420, 400, 200);
    expect(widthAt("progress", layout)).toBeCloseTo(layout.x2 - layout.r2 - (layout.x1 - layout.r1), 9);
    expect(widthAt("common", layout)).toBeCloseTo(layout.x1 + layout.r1 - (layout.x2 - layout.r2), 9);
    expect(widthAt("regress", layout)).toBeCloseTo(layout.x2 + layout.r2 - (layout.x1 + layout.r1), 9);
  });

  it("is the whole circle where only one model errs", () => {
    const layout = venn(44, 0, 0, 400, 200);
    expect(widthAt("progress", layout)).toBeCloseTo(2 * layout.r1, 9);
  });
});
