import { expect, test } from "vitest";
import {
  count,
  intervalText,
  lambdaText,
  percent,
  shorten,
  signedPercent,
  stepText,
} from "../src/layout/format";

test.each([
  [0, "0.0%"],
  [1, "100.0%"],
  [0.1234, "12.3%"],
  [0.00001, "<0.1%"],
  [0.99999, ">99.9%"],
  [-0.25, "−25.0%"],
  [-0.00001, ">−0.1%"],
  [Number.NaN, "–"],
])("percent(%s) is %s", (value, text) => {
  expect(percent(value)).toBe(text);
});

test("no digits, and two", () => {
  expect(percent(0.999, 0)).toBe(">99%");
  expect(percent(0.001, 0)).toBe("<1%");
  expect(percent(0.12345, 2)).toBe("12.35%");
  expect(intervalText(0.01, 0.0256, 2)).toBe("1.00% to 2.56%");
});

test("a difference always has its sign", () => {
  expect(signedPercent(0.0123)).toBe("+1.2%");
  expect(signedPercent(-0.0123)).toBe("−1.2%");
  expect(signedPercent(0)).toBe("±0.0%");
  expect(signedPercent(-0)).toBe("±0.0%");
  expect(signedPercent(Number.NaN)).toBe("–");
});

test("counts are grouped", () => {
  expect(count(1234567)).toBe("1,234,567");
  expect(count(-1234)).toBe("−1,234");
  expect(count(Number.NaN)).toBe("–");
  expect(stepText(12000)).toBe("step 12,000");
  expect(stepText(null)).toBe("no step");
});

test("lambda has four digits at most", () => {
  expect(lambdaText(0.30000000000000004)).toBe("0.3");
  expect(lambdaText(1)).toBe("1");
  expect(lambdaText(0.00001234567)).toBe("0.00001235");
  expect(lambdaText(null)).toBe("–");
});

test("shortening counts characters and never cuts through one", () => {
  expect(shorten("short", 5)).toBe("short");
  expect(shorten("longer", 5)).toBe("long…");
  expect(shorten("🦊🦊🦊", 3)).toBe("🦊🦊🦊");
  expect(shorten("🦊🦊🦊🦊", 3)).toBe("🦊🦊…");
  expect(shorten("two words", 5)).toBe("two…");
});
