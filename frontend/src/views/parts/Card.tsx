import { Component, type ComponentChildren, type Ref } from "preact";
import { Failed } from "./States";

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
  readonly children: ComponentChildren;
}

export function Card({ name, title, aside, stale = false, attempt, frame, children }: CardProps) {
  return (
    <section ref={frame ?? null} class={`bc-card bc-card-${name}`} data-testid={name} aria-label={title} aria-busy={stale}>
      <header class="bc-card-head">
        <h2>{title}</h2>
        {aside !== undefined && <div class="bc-card-aside">{aside}</div>}
      </header>
      <div class={`bc-card-body${stale ? " bc-stale" : ""}`}>
        <Guard attempt={attempt}>{children}</Guard>
      </div>
    </section>
  );
}
