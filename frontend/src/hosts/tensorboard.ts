import { httpSource } from "../data/httpSource";
import { type Host, keptPin, systemTheme, type Theme } from "./host";
import { mount } from "./mount";
import { hashWithState, isOurs, stateFromHash } from "./tensorboardHash";

/** The outer page, or null where the plugin is open by itself or the outer page is another origin's. */
function outerWindow(): Window | null {
  try {
    if (window.parent === window) return null;
    void window.parent.location.hash;
    return window.parent;
  } catch {
    return null;
  }
}

function tensorboardTheme(outer: Window | null): Host["theme"] {
  const system = systemTheme();
  if (outer === null) return system;
  const current = (): Theme => {
    try {
      return outer.document.body.classList.contains("dark-mode") ? "dark" : "light";
    } catch {
      return system.current();
    }
  };
  return {
    current,
    subscribe(callback) {
      try {
        const observer = new MutationObserver(callback);
        observer.observe(outer.document.body, { attributes: true, attributeFilter: ["class"] });
        return () => observer.disconnect();
      } catch {
        return () => undefined;
      }
    },
  };
}

function tensorboardHost(): Host {
  const outer = outerWindow();
  const holder = outer ?? window;
  return {
    kind: "tensorboard",
    readState() {
      try {
        return stateFromHash(holder.location.hash);
      } catch {
        return "";
      }
    },
    writeState(text, remember) {
      try {
        const { history, location } = holder;
        const hash = hashWithState(location.hash, text);
        if (hash === location.hash || !isOurs(location.hash)) return;
        // TensorBoard keeps state of its own in an entry of the history, and reads its tab from the hash of each.
        if (remember) history.pushState(history.state, "", hash);
        else history.replaceState(history.state, "", hash);
      } catch {
        // The state is lost with the page then, and everything else works.
      }
    },
    onExternalState(callback) {
      const onChange = () => {
        if (isOurs(holder.location.hash)) callback();
      };
      try {
        holder.addEventListener("hashchange", onChange);
        holder.addEventListener("popstate", onChange);
        return () => {
          holder.removeEventListener("hashchange", onChange);
          holder.removeEventListener("popstate", onChange);
        };
      } catch {
        return () => undefined;
      }
    },
    theme: tensorboardTheme(outer),
    onData: null,
    pin: keptPin(),
    link(text) {
      try {
        return holder.location.href.split("#")[0] + hashWithState(holder.location.hash, text);
      } catch {
        return null;
      }
    },
    live: true,
  };
}

/** TensorBoard calls this once the frame of the plugin is open. */
export function render(): void {
  document.body.style.margin = "0";
  // TensorBoard's frame says neither; both are for who reads the page with a screen reader.
  document.documentElement.lang = "en";
  document.title = "Backward compatibility";
  const root = document.createElement("div");
  document.body.append(root);
  const unmount = mount(root, httpSource(), tensorboardHost());
  // The outer page outlives this frame, and would go on calling what listens there. A page that is only put aside for
  // the back button comes back as it was.
  window.addEventListener("pagehide", (event) => {
    if (!event.persisted) unmount();
  });
}
