export interface Point {
  readonly x: number;
  readonly y: number;
}

/**
 * The points that no other point beats in both directions, as indices by ascending x.
 * Of equal points all are kept; points without a number are never on the front.
 */
export function paretoFront(points: readonly Point[], xHigher: boolean, yHigher: boolean): number[] {
  const goodness = (point: Point) => [xHigher ? point.x : -point.x, yHigher ? point.y : -point.y] as const;
  const order = points
    .map((_, index) => index)
    .filter((index) => !Number.isNaN(points[index]!.x) && !Number.isNaN(points[index]!.y))
    .sort((a, b) => {
      const [[ax, ay], [bx, by]] = [goodness(points[a]!), goodness(points[b]!)];
      return bx - ax || by - ay || a - b;
    });
  const front: number[] = [];
  let [bestX, bestY] = [Number.NaN, Number.NEGATIVE_INFINITY];
  for (const index of order) {
    const [x, y] = goodness(points[index]!);
    if (y > bestY || (y === bestY && x === bestX)) {
      front.push(index);
      [bestX, bestY] = [x, y];
    }
  }
  return xHigher ? front.reverse() : front;
}
