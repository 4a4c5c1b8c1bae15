import { memorySource } from "../data/memorySource";
import { type Host, keptPin, systemTheme } from "./host";
import { mount } from "./mount";

/** The single file keeps its state in the address, so that reload, bookmark and the back button work from disk. */
const host: Host = {
  kind: "page",
  readState: () => location.hash.slice(1),
  writeState(text, remember) {
    const address = text === "" ? location.pathname + location.search : `#${text}`;
    if (remember) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
  },
  onExternalState(callback) {
    // A hash edited by hand fires both events; reading the state twice does no harm.
    window.addEventListener("popstate", callback);
    window.addEventListener("hashchange", callback);
    return () => {
      window.removeEventListener("popstate", callback);
      window.removeEventListener("hashchange", callback);
    };
  },
  theme: systemTheme(),
  onData: null,
  pin: keptPin(),
  link: (text) => `${location.href.split("#")[0]}#${text}`,
  live: false,
};

const root = document.getElementById("bc-root");
const data = document.getElementById("bc-data");
if (root && data) mount(root, memorySource(JSON.parse(data.textContent)), host);
