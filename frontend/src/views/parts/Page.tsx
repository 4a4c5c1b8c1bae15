import type { ComponentChildren } from "preact";

/** The frame of the view: its main part and its title, where what surrounds it has none. */
export function Page({ isWhole, children }: { isWhole: boolean; children: ComponentChildren }) {
  if (!isWhole) return <div class="bc-page">{children}</div>;
  return (
    <main class="bc-page">
      <h1 class="bc-hidden">What an update breaks: backward compatibility</h1>
      {children}
    </main>
  );
}

/** Shown when it has the focus: past the toolbar and the panels to where most look. The address holds the state. */
export function Skip() {
  const to = (panel: string) => (event: Event) => {
    const root = (event.currentTarget as HTMLElement).closest(".bc-app");
    const card = root?.querySelector<HTMLElement>(`[data-testid="${panel}"]`);
    card?.scrollIntoView({ block: "start" });
    card?.focus({ preventScroll: true });
  };
  return (
    <nav class="bc-skip" aria-label="Skip">
      <button type="button" class="bc-button" onClick={to("scores")}>
        Skip to the scores
      </button>
      <button type="button" class="bc-button" onClick={to("instances")}>
        Skip to the error instances
      </button>
    </nav>
  );
}

/** Name of the panel that is read just now; null at the top of the page. */
export function panelOnScreen(page: HTMLElement | null): string | null {
  const cards = [...(page?.querySelectorAll(".bc-card") ?? [])];
  const middle = window.innerHeight / 2;
  const seen = cards.find((card) => card.getBoundingClientRect().bottom > middle);
  return seen === undefined || seen === cards[0] ? null : seen.getAttribute("data-testid");
}
