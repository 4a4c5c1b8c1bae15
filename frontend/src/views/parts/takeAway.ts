/** What leaves the dashboard: tables as CSV, texts to the clipboard, charts as pictures. */

const QUOTED = /[",\r\n]/;
/** A spreadsheet would run what begins so; a quote before it is what spreadsheets themselves write. */
const FORMULA = /^[=+\-@\t\r]/;

function cell(value: string | number | null): string {
  if (value === null) return "";
  if (typeof value === "number") return String(value);
  const safe = FORMULA.test(value) && !/^-?\d+(\.\d+)?$/.test(value) ? `'${value}` : value;
  return QUOTED.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Lines of RFC 4180. */
export function csv(header: readonly string[], rows: Iterable<readonly (string | number | null)[]>): string {
  const lines = [header.map(cell).join(",")];
  for (const row of rows) lines.push(row.map(cell).join(","));
  return `${lines.join("\r\n")}\r\n`;
}

/** A name that every file system takes. */
export function fileName(...parts: readonly string[]): string {
  const name = parts.map((part) => part.replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^[-.]+|-+$/g, "")).join("-");
  return name.slice(0, 120);
}

export function save(name: string, content: Blob): void {
  const address = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  // The browser has begun to read it by then.
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** False where the browser refuses, as on a page that is not served over HTTPS. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Properties that a chart takes from the style sheet, and which its copy has to carry itself. */
const DRAWN = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "stroke-opacity",
  "opacity",
  "font-family",
  "font-size",
  "font-weight",
  "text-anchor",
  "visibility",
  "display",
] as const;

export interface Picture {
  readonly svg: string;
  readonly width: number;
  readonly height: number;
}

/** The charts of an element as one document of its own, looking as they do now; null where there is none. */
export function pictureOf(element: Element): Picture | null {
  const charts = [...element.querySelectorAll<SVGSVGElement>("svg:not(.bc-mark-icon)")];
  const places = charts.map((chart) => chart.getBoundingClientRect());
  if (charts.length === 0) return null;
  const [left, top] = [Math.min(...places.map((each) => each.left)), Math.min(...places.map((each) => each.top))];
  const width = Math.ceil(Math.max(...places.map((each) => each.right)) - left);
  const height = Math.ceil(Math.max(...places.map((each) => each.bottom)) - top);
  const whole = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  whole.setAttribute("width", String(width));
  whole.setAttribute("height", String(height));
  const ground = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  ground.setAttribute("width", "100%");
  ground.setAttribute("height", "100%");
  ground.setAttribute("fill", groundOf(element));
  whole.append(ground);
  charts.forEach((chart, i) => {
    const copied = styled(chart);
    copied.setAttribute("x", String(places[i]!.left - left));
    copied.setAttribute("y", String(places[i]!.top - top));
    copied.setAttribute("width", String(places[i]!.width));
    copied.setAttribute("height", String(places[i]!.height));
    whole.append(copied);
  });
  return { svg: new XMLSerializer().serializeToString(whole), width, height };
}

/** A copy of a chart that carries its own style. */
function styled(chart: SVGSVGElement): SVGSVGElement {
  const copied = chart.cloneNode(true) as SVGSVGElement;
  const originals = [chart, ...chart.querySelectorAll<SVGElement>("*")];
  const copies = [copied, ...copied.querySelectorAll<SVGElement>("*")];
  originals.forEach((original, i) => {
    const style = getComputedStyle(original);
    const target = copies[i]!;
    for (const name of DRAWN) target.style.setProperty(name, style.getPropertyValue(name));
    for (const name of ["class", "tabindex", "role"]) target.removeAttribute(name);
  });
  return copied;
}

/** The colour that a chart stands on. */
function groundOf(chart: Element): string {
  for (let element: Element | null = chart; element !== null; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)" && colour !== "transparent") return colour;
  }
  return "white";
}

/** The same as pixels, twice as many as on the screen. */
export async function pixels({ svg, width, height }: Picture): Promise<Blob> {
  const picture = new Image();
  picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await picture.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * width, 2 * height];
  canvas.getContext("2d")!.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob === null ? reject(new Error("The picture is too large.")) : resolve(blob)), "image/png");
  });
}
