/** What a card shows, as a picture that stands by itself. */

import { shorten } from "../../layout/format";

/** Properties that a chart takes from the style sheet, and which its copy has to carry itself. */
const DRAWN = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "stroke-opacity",
  "stroke-linejoin",
  "paint-order",
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

const SVG = "http://www.w3.org/2000/svg";
/** What is there to be worked, not to be looked at. */
const WORKED =
  "select, input, textarea, datalist, details, .bc-button, .bc-hidden, .bc-pager, .bc-zoom, .bc-toggle, .bc-tooltip, " +
  ".bc-sweep .bc-controls, .bc-field, .bc-options:has(select), .bc-check:has(:not(:checked):is(input)), " +
  ".bc-note .bc-link-button, [hidden]";
/** Letters that a name may have and a document of XML may not. */
const NO_XML = /[^\t\n\r\x20-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu;
/** Empty space around a picture, in pixels. */
const MARGIN = 8;

interface Part {
  readonly drawn: SVGElement;
  readonly box: DOMRect;
}

function made(name: string, attributes: Readonly<Record<string, string | number>>): SVGElement {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}

const isClear = (colour: string): boolean => colour === "transparent" || /^rgba\(.*, 0\)$/.test(colour);

/** A mixed colour in the older words, which every program that reads SVG knows. */
export function plainColour(value: string): string {
  const found = /^color\(srgb (\S+) (\S+) (\S+?)(?: \/ (\S+))?\)$/.exec(value);
  if (found === null) return value;
  const parts = found.slice(1, 4).map((part) => Math.round(255 * Math.min(1, Math.max(0, Number(part)))));
  return `rgba(${[...parts, found[4] ?? 1].join(", ")})`;
}

/** What an element shows as one document of its own, looking as it does now; null where it has nothing drawn. */
export function pictureOf(element: Element): Picture | null {
  const parts = partsOf(element);
  if (parts.length === 0) return null;
  const ends = (side: "left" | "top" | "right" | "bottom") => parts.map(({ box }) => box[side]);
  const [left, top] = [Math.min(...ends("left")) - MARGIN, Math.min(...ends("top")) - MARGIN];
  const width = Math.ceil(Math.max(...ends("right")) - left + MARGIN);
  const height = Math.ceil(Math.max(...ends("bottom")) - top + MARGIN);
  const whole = made("svg", { width, height });
  whole.append(made("rect", { width: "100%", height: "100%", fill: groundOf(element) }));
  const moved = made("g", { transform: `translate(${-left},${-top})` });
  moved.append(...parts.map(({ drawn }) => drawn));
  whole.append(moved);
  return { svg: new XMLSerializer().serializeToString(whole).replace(NO_XML, "\ufffd"), width, height };
}

function partsOf(element: Element): Part[] {
  const parts: Part[] = [];
  for (const child of element.childNodes) {
    if (child instanceof Text) parts.push(...linesOf(child, element));
    if (!(child instanceof Element) || child.matches(WORKED)) continue;
    const box = child.getBoundingClientRect();
    const style = getComputedStyle(child);
    if (style.visibility === "hidden" || style.display === "none") continue;
    const place = { x: box.left, y: box.top, width: box.width, height: box.height };
    if (child instanceof SVGSVGElement || child instanceof HTMLCanvasElement) {
      if (box.width === 0) continue;
      const drawn =
        child instanceof SVGSVGElement
          ? styled(child)
          : made("image", { href: child.toDataURL(), preserveAspectRatio: "none", style: "image-rendering: pixelated" });
      for (const [key, value] of Object.entries({ ...place, overflow: "visible" })) drawn.setAttribute(key, String(value));
      parts.push({ drawn, box });
      continue;
    }
    const ground = plainColour(style.backgroundColor);
    if (box.width > 0 && !isClear(ground)) {
      const round = Math.min(parseFloat(style.borderTopLeftRadius) || 0, box.height / 2);
      parts.push({ drawn: made("rect", { ...place, rx: round, fill: ground }), box });
    }
    parts.push(...edgesOf(style, box));
    parts.push(...partsOf(child));
  }
  return parts;
}

/** How an edge of an element is drawn; null where it is not. */
function edgeOf(style: CSSStyleDeclaration, side: "top" | "bottom" | "left") {
  const read = (what: string): string => style.getPropertyValue(`border-${side}-${what}`);
  const [width, kind, stroke] = [parseFloat(read("width")), read("style"), plainColour(read("color"))];
  if (!(width > 0) || kind === "none" || isClear(stroke)) return null;
  const dashes = kind === "dashed" ? { "stroke-dasharray": `${2 * width} ${width}` } : {};
  return { width, look: { fill: "none", stroke, "stroke-width": width, ...dashes } };
}

/** Lines at the upper and the lower edge of an element, or all around it. */
function edgesOf(style: CSSStyleDeclaration, box: DOMRect): Part[] {
  const [above, below, aside] = [edgeOf(style, "top"), edgeOf(style, "bottom"), edgeOf(style, "left")];
  if (above !== null && below !== null && aside !== null) {
    const inset = above.width / 2;
    const rx = Math.min(parseFloat(style.borderTopLeftRadius) || 0, box.height / 2);
    const [width, height] = [Math.max(0, box.width - above.width), Math.max(0, box.height - above.width)];
    const place = { x: box.left + inset, y: box.top + inset, width, height, rx };
    return [{ drawn: made("rect", { ...place, ...above.look }), box }];
  }
  const line = (edge: typeof above, y: number): Part[] =>
    edge === null ? [] : [{ drawn: made("line", { x1: box.left, x2: box.right, y1: y, y2: y, ...edge.look }), box }];
  return [...line(above, box.top + (above?.width ?? 0) / 2), ...line(below, box.bottom - (below?.width ?? 0) / 2)];
}

/** A text by the lines it is broken into, each cut where it is cut on the screen. */
function linesOf(text: Text, parent: Element): Part[] {
  const lines: { words: string; box: DOMRect }[] = [];
  const range = document.createRange();
  for (const { 0: word, index } of text.data.matchAll(/\S+/g)) {
    range.setStart(text, index);
    range.setEnd(text, index + word.length);
    const box = range.getBoundingClientRect();
    const last = lines.at(-1);
    if (last !== undefined && Math.abs(last.box.top - box.top) < 2) {
      const width = Math.max(last.box.right, box.right) - last.box.left;
      last.words += ` ${word}`;
      last.box = new DOMRect(last.box.left, last.box.top, width, last.box.height);
    } else if (box.width > 0) lines.push({ words: word, box });
  }
  const style = getComputedStyle(parent);
  const size = parseFloat(style.fontSize);
  const isUpright = style.writingMode !== "horizontal-tb";
  const cutting = [parent, parent.parentElement].find((each) => each && getComputedStyle(each).overflow === "hidden");
  const room = cutting?.getBoundingClientRect() ?? null;
  return lines.map(({ words, box }) => {
    const [length, most] = isUpright ? [box.height, room?.height] : [box.width, room?.width];
    const isCut = most !== undefined && length > most + 1;
    const letters = isCut ? Math.max(2, Math.floor((words.length * most) / length)) : words.length;
    const said = style.direction === "rtl" && isCut ? `…${words.slice(1 - letters)}` : shorten(words, letters);
    const seen = isCut ? room! : box;
    // The letters stand about the middle of their line.
    const down = 0.35 * size;
    const x = isUpright ? seen.left + seen.width / 2 + down : seen.left;
    const y = isUpright ? seen.bottom : seen.top + seen.height / 2 + down;
    const drawn = made("text", {
      x,
      y,
      fill: plainColour(style.color),
      "font-family": style.fontFamily,
      "font-size": style.fontSize,
      "font-weight": style.fontWeight,
      ...(isUpright ? { transform: `rotate(-90 ${x} ${y})` } : {}),
    });
    drawn.textContent = said;
    return { drawn, box: seen };
  });
}

/** A copy of a chart that carries its own style. */
function styled(chart: SVGSVGElement): SVGSVGElement {
  const copied = chart.cloneNode(true) as SVGSVGElement;
  const originals = [chart, ...chart.querySelectorAll<SVGElement>("*")];
  const copies = [copied, ...copied.querySelectorAll<SVGElement>("*")];
  originals.forEach((original, i) => {
    const style = getComputedStyle(original);
    const target = copies[i]!;
    for (const name of DRAWN) target.style.setProperty(name, plainColour(style.getPropertyValue(name)));
    for (const name of ["class", "tabindex", "role"]) target.removeAttribute(name);
  });
  return copied;
}

/** The colour that a chart stands on. */
function groundOf(chart: Element): string {
  for (let element: Element | null = chart; element !== null; element = element.parentElement) {
    const colour = plainColour(getComputedStyle(element).backgroundColor);
    if (!isClear(colour)) return colour;
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
