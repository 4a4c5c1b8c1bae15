/** Shapes of points, told apart without colour, with about the same area as a circle of the given radius. */
const POLYGONS: readonly string[] = [
  "-.89 -.89, .89 -.89, .89 .89, -.89 .89",
  "0 -1.45, 1.25 .8, -1.25 .8",
  "0 -1.35, 1.1 0, 0 1.35, -1.1 0",
  "0 1.45, 1.25 -.8, -1.25 -.8",
  "-.4 -1.3, .4 -1.3, .4 -.4, 1.3 -.4, 1.3 .4, .4 .4, .4 1.3, -.4 1.3, -.4 .4, -1.3 .4, -1.3 -.4, -.4 -.4",
];

const CORNERS = POLYGONS.map((text) => text.split(", ").map((corner) => corner.split(" ").map(Number)));

/** Outline of the shape with this number around (0, 0); numbers beyond the shapes begin again with the circle. */
export function markPath(shape: number, r: number): string {
  const corners = CORNERS[(shape % (CORNERS.length + 1)) - 1];
  if (!corners) return `M${-r} 0A${r} ${r} 0 1 1 ${r} 0A${r} ${r} 0 1 1 ${-r} 0Z`;
  return `M${corners.map((corner) => corner.map((at) => (at * r).toFixed(2)).join(" ")).join("L")}Z`;
}

/** Colour and filling of a data set's marks: filled, hollow, or pale, then the same with the next colours. */
export function setClass(set: number): string {
  return `bc-set-${set % 4} bc-set-${(["filled", "hollow", "pale"] as const)[set % 3]!}`;
}
