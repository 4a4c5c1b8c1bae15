import { describe, expect, it } from "vitest";
import { hashWithState, isOurs, stateFromHash } from "../src/hosts/tensorboardHash";
import { DEFAULT_STATE, decodeState, encodeState } from "../src/state/url";

describe("state in TensorBoard's hash", () => {
  const state = { ...DEFAULT_STATE, run: "a/b&p.x=1#", dataset: "val %", text: "=&" };

  it("comes back as it was", () => {
    const hash = hashWithState("#backward_compatibility", encodeState(state));
    expect(decodeState(stateFromHash(hash))).toEqual(state);
  });

  it("leaves what TensorBoard and other plugins keep there", () => {
    const hash = "#backward_compatibility&tagFilter=loss&p.other.run=1&p.backward_compatibility.step=3";
    expect(hashWithState(hash, "step=4")).toBe(
      "#backward_compatibility&tagFilter=loss&p.other.run=1&p.backward_compatibility.step=4",
    );
    expect(stateFromHash(hash)).toBe("step=3");
  });

  it("names the tab where the hash does not", () => {
    expect(hashWithState("", "step=4")).toBe("#backward_compatibility&p.backward_compatibility.step=4");
    expect(hashWithState("#backward_compatibility&p.backward_compatibility.step=4", "")).toBe(
      "#backward_compatibility",
    );
  });

  it("is left alone while another tab is open", () => {
    expect(isOurs("#scalars&p.backward_compatibility.step=4")).toBe(false);
    expect(isOurs("")).toBe(true);
    expect(isOurs("#backward_compatibility")).toBe(true);
  });
});
