/** The hash of TensorBoard's own page, where the state of the view is kept among what others keep there. */

const PLUGIN = "backward_compatibility";
/** TensorBoard's plugin library keeps the data of a plugin in the address of the outer page under this prefix. */
const PREFIX = `p.${PLUGIN}.`;

/** The parts of TensorBoard's hash: "scalars&tagFilter=x&p.other.key=y". */
function parts(hash: string): string[] {
  return hash
    .replace(/^#/, "")
    .split("&")
    .filter((part) => part !== "");
}

/** Whether the hash is about this tab; without a name TensorBoard opens the first tab that has data. */
export function isOurs(hash: string): boolean {
  const tab = parts(hash).find((part) => !part.includes("="));
  return tab === undefined || tab === PLUGIN;
}

export function stateFromHash(hash: string): string {
  return parts(hash)
    .filter((part) => part.startsWith(PREFIX))
    .map((part) => part.slice(PREFIX.length))
    .join("&");
}

/** The same hash with our state replaced; whatever else TensorBoard and other plugins keep there stays. */
export function hashWithState(hash: string, state: string): string {
  const kept = parts(hash).filter((part) => !part.startsWith(PREFIX));
  const tab = kept.find((part) => !part.includes("=")) ?? PLUGIN;
  const others = kept.filter((part) => part.includes("="));
  return `#${[tab, ...others, ...parts(state).map((part) => PREFIX + part)].join("&")}`;
}
