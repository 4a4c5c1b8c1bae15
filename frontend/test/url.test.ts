import { expect, test } from "vitest";
import { SCORES } from "../src/data/scores";
import type { ViewState } from "../src/model";
import { DEFAULT_STATE, decodeState, encodeState } from "../src/state/url";
import { random } from "./tables";

const next = random(77);
const whole = (below: number) => Math.floor(next() * below);
const pick = <T>(...choices: readonly T[]): T => choices[whole(choices.length)]!;
const ALPHABET = [..."aB &=#%+,-\\/?é漢🦊\n\0\"<"];
const anyText = () => Array.from({ length: pick(0, 1, 1, 2, 5, 30) }, () => pick(...ALPHABET)).join("");
const texts = () => Array.from({ length: whole(4) }, anyText);

function anyState(): ViewState {
  const position = () => pick(null, 0, whole(1000));
  return {
    run: pick(null, anyText()),
    dataset: pick(null, anyText()),
    pin: pick(null, anyText()),
    step: pick(null, 0, whole(1e9), -1, Number.MAX_SAFE_INTEGER),
    other: pick(null, anyText()),
    region: pick(null, "regress", "common", "progress"),
    target: position(),
    h1: position(),
    h2: position(),
    text: anyText(),
    flips: pick(null, "a", "b", "both"),
    b: position(),
    sure1: pick(null, [0, 1] as const, [0.1, 0.2] as const),
    sure2: pick(null, [next() / 2, 0.5 + next() / 2] as const),
    slices: Array.from({ length: whole(3) }, () => [anyText(), anyText()] as const),
    classView: pick("accuracy", "incompatible"),
    classSort: pick("flips", "loss", "count", "name"),
    classSearch: anyText(),
    classPage: whole(50),
    sort: pick("id", "text", "target", "h1", "h2", "region", "sure1", "sure2"),
    descending: pick(true, false),
    page: whole(50),
    listed: pick("table", "pictures"),
    instance: pick(null, anyText()),
    panel: pick(null, anyText()),
    datasets: pick(null, texts()),
    dissonances: pick(null, texts()),
    lambdaMin: pick(null, 0, next(), 1e-9, 1e21),
    lambdaMax: pick(null, 0, next()),
    sameH1: pick(true, false),
    sweepX: [pick("lambda", "btc", "nfr"), pick("lambda", "bec_given_h1_wrong", "pfr")],
    sweepY: pick("accuracy_h2", "btc", "performance", "setting:a, b&c"),
    colourBy: pick("dataset", "loss", "setting:start"),
    shapeBy: pick("loss", anyText()),
    promise: anyText(),
    curves: SCORES.map(({ name }) => name).filter(() => next() < 0.4),
  };
}

test("any state comes back from its link", () => {
  for (let i = 0; i < 3000; i++) {
    const state = anyState();
    const encoded = encodeState(state);
    expect(decodeState(encoded)).toEqual(state);
    expect(decodeState(`#${encoded}`)).toEqual(state);
    expect(encoded).toMatch(/^[!-~]*$/);
  }
});

test("a host may decode and encode every value on the way", () => {
  for (let i = 0; i < 1000; i++) {
    const state = anyState();
    const again = encodeState(state)
      .split("&")
      .filter((part) => part !== "")
      .map((part) => part.split("=").map(decodeURIComponent).map(encodeURIComponent).join("="))
      .join("&");
    expect(decodeState(again)).toEqual(state);
  }
});

test("only what differs from the default is written, and simple things read well", () => {
  expect(encodeState(DEFAULT_STATE)).toBe("");
  expect(encodeState({ ...DEFAULT_STATE, run: "night/3", dataset: "test", page: 2, descending: true })).toBe(
    "run=night%2F3&dataset=test&descending=1&page=2",
  );
  expect(encodeState({ ...DEFAULT_STATE, datasets: ["train", "test"] })).toBe("datasets=train,test");
});

test("a text of a megabyte comes back", () => {
  const text = "a&b=ü ".repeat(200_000);
  expect(decodeState(encodeState({ ...DEFAULT_STATE, text })).text).toBe(text);
});

test("half a surrogate pair does not break the link", () => {
  expect(decodeState(encodeState({ ...DEFAULT_STATE, text: "x\ud83e" })).text).toBe("x\ufffd");
});

test.each([
  "unknown=1",
  "__proto__=1&constructor=2&toString=3",
  "page=-1&page=1.5&page=1e400&page=&page=x",
  "target=-1&h1=abc&step=1.5&step=9007199254740993",
  "region=everything&sort=&descending=yes&classView=ACCURACY",
  "text=%E0%A4%A&run=%",
  "lambdaMin=-1&lambdaMax=Infinity",
  "curves=accuracy",
  "&&&=&=5&run",
  "#?#",
])("what makes no sense is left at its default: %s", (encoded) => {
  expect(decodeState(encoded)).toEqual(DEFAULT_STATE);
});

test("unknown scores are dropped from the curves", () => {
  expect(decodeState("curves=btc,gone,nfr").curves).toEqual(["btc", "nfr"]);
  expect(decodeState("curves=-").curves).toEqual([]);
});

test("the default state names scores that exist", () => {
  const names = SCORES.map(({ name }) => name);
  expect(DEFAULT_STATE.curves.every((name) => names.includes(name))).toBe(true);
});
