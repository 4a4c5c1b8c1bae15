/** Numbers as people read them. Signs are those of printed text, and unknown numbers are a dash. */

export const UNKNOWN = "–";

const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** 0.123 as "12.3%". What is neither nothing nor all never looks like it: "<0.1%", ">99.9%". */
export function percent(value: number, digits = 1): string {
  if (!Number.isFinite(value)) {
    return UNKNOWN;
  }
  const size = Math.abs(value);
  const text = (100 * size).toFixed(digits);
  const sign = value < 0 ? "−" : "";
  if (size > 0 && Number(text) === 0) {
    return value < 0 ? `>−${(10 ** -digits).toFixed(digits)}%` : `<${(10 ** -digits).toFixed(digits)}%`;
  }
  if (size < 1 && Number(text) === 100) {
    const most = (100 - 10 ** -digits).toFixed(digits);
    return value < 0 ? `<−${most}%` : `>${most}%`;
  }
  return `${sign}${text}%`;
}

/** A difference of two shares: the same as `percent` with the sign always shown. */
export function signedPercent(value: number, digits = 1): string {
  const rounded = Number((100 * value).toFixed(digits));
  if (!Number.isFinite(value) || rounded === 0) {
    return Number.isFinite(value) ? `±${(0).toFixed(digits)}%` : UNKNOWN;
  }
  return `${rounded < 0 ? "−" : "+"}${Math.abs(rounded).toFixed(digits)}%`;
}

/** "4.1% to 6.3%". */
export function intervalText(low: number, high: number, digits = 1): string {
  return `${percent(low, digits)} to ${percent(high, digits)}`;
}

/** 12345 as "12,345". */
export function count(value: number): string {
  return Number.isFinite(value) ? GROUPED.format(value).replace("-", "−") : UNKNOWN;
}

/** Up to four significant digits, no trailing zeros. */
export function lambdaText(lambda: number | null): string {
  return lambda === null || !Number.isFinite(lambda) ? UNKNOWN : String(Number(lambda.toPrecision(4)));
}

export function stepText(step: number | null): string {
  return step === null ? "no step" : `step ${count(step)}`;
}

/** Cut at `max` characters, the ellipsis counted; never within a character. */
export function shorten(text: string, max: number): string {
  if (text.length <= max) {
    return text;
  }
  let kept = "";
  let characters = 0;
  let cut = "";
  for (const character of text) {
    characters += 1;
    if (characters > max) {
      return `${cut.trimEnd()}…`;
    }
    if (characters < max) {
      cut += character;
    }
    kept += character;
  }
  return kept;
}
