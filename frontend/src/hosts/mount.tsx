import { render } from "preact";
import type { DataSource } from "../model";
import shellStyle from "../styles.css";
import { App } from "../views/App";
import chartStyle from "../views/parts/charts.css";
import galleryStyle from "../views/instances/gallery.css";
import insightStyle from "../views/confidence/insight.css";
import invarianceStyle from "../views/invariance/invariance.css";
import { newMountId } from "../views/parts/mountId";
import type { Host } from "./host";

/** Draws the view into an element; the result takes it away again. */
export function mount(element: HTMLElement, source: DataSource, host: Host): () => void {
  // A style of its own for each mount: it lives exactly as long as the view, and also works inside a shadow root.
  const style = document.createElement("style");
  style.textContent = shellStyle + chartStyle + galleryStyle + insightStyle + invarianceStyle;
  const root = document.createElement("div");
  element.replaceChildren(style, root);
  render(<App source={source} host={host} mountId={newMountId()} />, root);
  return () => {
    render(null, root);
    element.replaceChildren();
  };
}
