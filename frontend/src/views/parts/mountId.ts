import { createContext } from "preact";

/** Prefix for the ids of one mounted view: several views, each with its own copy of this code, may share a document. */
export const MountId = createContext("bc-");

export function newMountId(): string {
  return `bc-${(crypto.getRandomValues(new Uint32Array(1))[0] ?? 0).toString(36)}-`;
}
