import { describe, expect, it } from "vitest";
import { namesOf } from "../src/views/instances/ClassPicker";

describe("the names of classes in a menu", () => {
  it("have the number of the class where several share one name", () => {
    expect(namesOf(["cat", "dog", "cat", "cat"])).toEqual(["cat (0)", "dog", "cat (2)", "cat (3)"]);
  });

  it("are the labels themselves where each is there once", () => {
    const labels = ["cat", "dog"];
    expect(namesOf(labels)).toBe(labels);
  });
});
