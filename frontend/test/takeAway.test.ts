import { expect, test } from "vitest";
import { plainColour } from "../src/views/parts/picture";
import { csv, fileName } from "../src/views/parts/takeAway";

test("a table becomes lines of RFC 4180", () => {
  const rows = [
    [1, 'a "quoted", one', "x"],
    [-2, "two\nlines", null],
  ];
  expect(csv(["id", "text", "more"], rows)).toBe('id,text,more\r\n1,"a ""quoted"", one",x\r\n-2,"two\nlines",\r\n');
});

test("what a spreadsheet would run stays text", () => {
  expect(csv(["id"], [["=1+1"], ["@x"], ["-5"], ["-x"]])).toBe("id\r\n'=1+1\r\n'@x\r\n-5\r\n'-x\r\n");
});

test("the name of a file holds no path", () => {
  expect(fileName("../a b/c", "käfer", "val")).toBe("a-b-c-käfer-val");
});

test("mixed colours are written as older programs read them", () => {
  expect(plainColour("color(srgb 0 0.5 1)")).toBe("rgba(0, 128, 255, 1)");
  expect(plainColour("color(srgb 1.02 -0.1 1e-3 / 0.4)")).toBe("rgba(255, 0, 0, 0.4)");
  expect(["none", "rgb(1, 2, 3)", "4px"].map(plainColour)).toEqual(["none", "rgb(1, 2, 3)", "4px"]);
});
