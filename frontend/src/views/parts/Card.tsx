import { Component, type ComponentChildren, type Ref, type RefObject } from "preact";
import { useRef } from "preact/hooks";
import { Failed } from "./States";
import { pictureOf, pixels } from "./picture";
import { fileName, save } from "./takeAway";

interface GuardProps {
  /** A new value gives the card another try. */
  readonly attempt: unknown;
  readonly children: ComponentChildren;
}

/** What fails to draw says so in its own place; everything around it stays. */
export class Guard extends Component<GuardProps, { error: Error | null }> {
  override state = { error: null as Error | null };

  static override getDerivedStateFromError(error: unknown) {
    return { error: error instanceof Error ? error : new Error(String(error)) };
  }

  override componentDidUpdate(before: GuardProps) {
    if (this.state.error !== null && before.attempt !== this.props.attempt) this.setState({ error: null });
  }

  override render() {
    const { error } = this.state;
    if (error === null) return this.props.children;
    return <Failed what="This panel could not be drawn" error={error} onRetry={() => this.setState({ error: null })} />;
  }
}

export interface CardProps {
  readonly name: string;
  readonly title: string;
  /** Beside the title: what the card is about just now. */
  readonly aside?: ComponentChildren;
  readonly stale?: boolean;
  readonly attempt: unknown;
  readonly frame?: Ref<HTMLElement>;
  /** Whether its charts can be saved as a picture. */
  readonly drawn?: boolean;
  readonly children: ComponentChildren;
}

export function Card({ name, title, aside, stale = false, attempt, frame, drawn = false, children }: CardProps) {
  const body = useRef<HTMLDivElement>(null);
  return (
    <section ref={frame ?? null} class={`bc-card bc-card-${name}`} data-testid={name} aria-label={title} aria-busy={stale} tabIndex={-1}>
      <header class="bc-card-head">
        <h2>{title}</h2>
        {aside !== undefined && <div class="bc-card-aside">{aside}</div>}
        {drawn && <SavePicture title={title} body={body} />}
      </header>
      <div ref={body} class={`bc-card-body${stale ? " bc-stale" : ""}`}>
        <Guard attempt={attempt}>{children}</Guard>
      </div>
    </section>
  );
}

function SavePicture({ title, body }: { title: string; body: RefObject<HTMLElement | null> }) {
  const as = (kind: "svg" | "png") => async () => {
    const picture = body.current && pictureOf(body.current);
    if (picture === null) return;
    const name = `${fileName(title)}.${kind}`;
    save(name, kind === "svg" ? new Blob([picture.svg], { type: "image/svg+xml" }) : await pixels(picture));
  };
  return (
    <span class="bc-card-save" role="group" aria-label={`Save the picture of ${title}`}>
      <button type="button" class="bc-link-button" title="Save this picture as SVG" onClick={as("svg")}>
        SVG
      </button>
      <button type="button" class="bc-link-button" title="Save this picture as PNG" onClick={as("png")}>
        PNG
      </button>
    </span>
  );
}
