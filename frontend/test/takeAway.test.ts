import { expect, test } from "vitest";
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
