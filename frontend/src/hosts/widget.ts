import { type Host, systemTheme, type Theme } from "./host";
import { type KernelSource, kernelSource, type WidgetModel } from "./kernelSource";
import { mount } from "./mount";

/** Notebooks say their theme in places of their own; a browser's preference is the last resort. */
function notebookTheme(): Host["theme"] {
  const system = systemTheme();
  const current = (): Theme => {
    const { body, documentElement } = document;
    const jupyter = body.dataset["jpThemeLight"];
    if (jupyter !== undefined) return jupyter === "false" ? "dark" : "light";
    const code = body.dataset["vscodeThemeKind"];
    if (code !== undefined) return /dark|(?<!light.*)high-contrast$/.test(code) ? "dark" : "light";
    const colab = documentElement.getAttribute("theme");
    if (colab !== null) return colab === "dark" ? "dark" : "light";
    return system.current();
  };
  return {
    current,
    subscribe(callback) {
      const stop = system.subscribe(callback);
      const observer = new MutationObserver(callback);
      const attributes = ["data-jp-theme-light", "data-vscode-theme-kind", "theme"];
      observer.observe(document.body, { attributes: true, attributeFilter: attributes });
      observer.observe(document.documentElement, { attributes: true, attributeFilter: attributes });
      return () => {
        stop();
        observer.disconnect();
      };
    },
  };
}

function on(model: WidgetModel, event: string, callback: () => void): () => void {
  model.on(event, callback);
  return () => model.off(event, callback);
}

function notebookHost(model: WidgetModel): Host {
  return {
    kind: "notebook",
    readState: () => String(model.get("state") ?? ""),
    writeState(text) {
      if (text === model.get("state")) return;
      model.set("state", text);
      model.save_changes();
    },
    onExternalState: (callback) => on(model, "change:state", callback),
    theme: notebookTheme(),
    onData: (callback) => on(model, "change:index", callback),
    // The state of the widget keeps it.
    pin: null,
    link: () => null,
    live: false,
  };
}

/** anywidget calls this for every output that shows the widget, and the result when that output goes away. */
function render({ model, el }: { model: WidgetModel; el: HTMLElement }): () => void {
  const frame = document.createElement("div");
  // Notebooks style all lists and tables of an output; they do not reach into a shadow root.
  const root = document.createElement("div");
  frame.attachShadow({ mode: "open" }).append(root);
  // Keys that work the view would otherwise reach JupyterLab, where "d d" deletes a cell.
  frame.setAttribute("data-lm-suppress-shortcuts", "true");
  el.replaceChildren(frame);
  const source: KernelSource = kernelSource(model);
  const unmount = mount(root, source, notebookHost(model));
  return () => {
    unmount();
    source.dispose();
    frame.remove();
  };
}

export default { render };
