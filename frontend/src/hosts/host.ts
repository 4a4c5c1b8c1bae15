export type Theme = "light" | "dark";

/** What surrounds the view: where its state is kept, what its colours follow, and what a person can do there. */
export interface Host {
  readonly kind: "tensorboard" | "notebook" | "page";
  readState(): string;
  /** With `remember`, the state before stays reachable by the back button, where the host has one. */
  writeState(text: string, remember: boolean): void;
  /** Calls back when the state came from outside: the back button, an edited address, the kernel. */
  onExternalState(callback: () => void): () => void;
  readonly theme: {
    current(): Theme;
    subscribe(callback: () => void): () => void;
  };
  /** Calls back when the source has a new index. Null where nobody tells. */
  readonly onData: ((callback: () => void) => () => void) | null;
  /** The run that a person pinned, where something beside the address keeps it. */
  readonly pin: Pin | null;
  /** Address that opens this state, or null where there is none to share. */
  link(text: string): string | null;
  /** Whether to ask for a new index now and then, and to let a person ask. */
  readonly live: boolean;
}

export interface Pin {
  read(): string | null;
  write(run: string | null): void;
}

/** The pin in the browser's storage, one for each page; a browser that keeps nothing forgets it. */
export function keptPin(): Pin {
  const key = () => `backward-compatibility-pin:${location.pathname}`;
  return {
    read() {
      try {
        return localStorage.getItem(key());
      } catch {
        return null;
      }
    },
    write(run) {
      try {
        if (run === null) localStorage.removeItem(key());
        else localStorage.setItem(key(), run);
      } catch {
        // The address keeps it all the same.
      }
    },
  };
}

/** A theme that follows the operating system. */
export function systemTheme(): Host["theme"] {
  const query = window.matchMedia("(prefers-color-scheme: dark)");
  return {
    current: () => (query.matches ? "dark" : "light"),
    subscribe(callback) {
      query.addEventListener("change", callback);
      return () => query.removeEventListener("change", callback);
    },
  };
}
