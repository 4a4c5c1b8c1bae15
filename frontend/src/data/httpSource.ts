import { type DataSource, DataError, type Index, type Invariance, type Media, type Table } from "../model";
import { decodeComparison, decodeMedia } from "./format";
import { indexFromJson } from "./indexFromJson";
import { invarianceFromJson } from "./invarianceFromJson";
import { Recent } from "./recent";

export interface HttpOptions {
  /**
   * Where `./index` and the other routes are. By default the base of the document: TensorBoard shows a plugin in a
   * frame whose <base> is the plugin's own folder, whatever the path prefix.
   */
  readonly base?: string;
  readonly fetch?: typeof fetch;
}

/** How many tables stay in memory: two updates side by side, and a few steps back and forth. */
const TABLES = 6;
const MEDIA = 4;

/** Data from TensorBoard's server. */
export function httpSource(options: HttpOptions = {}): DataSource {
  const base = options.base ?? document.baseURI;
  const load = options.fetch ?? ((...request: Parameters<typeof fetch>) => fetch(...request));
  const tables = new Recent<Table>(TABLES);
  const media = new Recent<Media | null>(MEDIA);
  const updates = new Recent<Invariance>(TABLES);
  let index: Index | null = null;

  const address = (route: string, query: Readonly<Record<string, string>>) => {
    const url = new URL(`./${route}`, base);
    url.search = new URLSearchParams(query).toString();
    return url.toString();
  };
  const get = async (url: string) => {
    try {
      return await load(url);
    } catch {
      throw new DataError("The server does not answer.", "Is TensorBoard still running? Start it again, then reload.");
    }
  };
  const json = async (response: Response, what: string): Promise<unknown> => {
    try {
      return await response.json();
    } catch {
      throw new DataError(
        `The server answered something else than ${what}.`,
        "A proxy or a login page may have answered in its place; reload the whole page.",
      );
    }
  };
  const bytes = async (response: Response) => {
    try {
      return new Uint8Array(await response.arrayBuffer());
    } catch {
      throw new DataError("The connection to the server broke off.", "Reload.");
    }
  };
  // A step that was logged again, or a run that went on, has another stamp, and is loaded anew.
  const stamp = (run: string, dataset: string, step?: number) => {
    const steps = index?.series.find((series) => series.run === run && series.dataset === dataset)?.steps ?? [];
    const last = step === undefined ? steps.at(-1) : steps.find((entry) => entry.step === step);
    return `${step === undefined ? steps.length : step}@${last?.wallTime ?? ""}`;
  };

  return {
    async index() {
      const response = await get(address("index", {}));
      if (!response.ok) {
        throw await refusal(response);
      }
      index = indexFromJson(await json(response, "the list of comparisons"));
      return index;
    },

    table({ run, dataset, step }) {
      return tables.get(JSON.stringify([run, dataset, stamp(run, dataset, step)]), async () => {
        const response = await get(address("table", { run, dataset, step: String(step) }));
        if (!response.ok) {
          throw await refusal(response);
        }
        return decodeComparison(await bytes(response));
      });
    },

    media(run, dataset) {
      return media.get(JSON.stringify([run, dataset, stamp(run, dataset)]), async () => {
        const response = await get(address("media", { run, dataset }));
        if (response.status === 404) {
          return null;
        }
        if (!response.ok) {
          throw await refusal(response);
        }
        return decodeMedia(await bytes(response));
      });
    },

    invariance({ run, dataset, step }) {
      const series = index?.invariance.find((each) => each.run === run && each.dataset === dataset);
      const time = series?.steps.find((each) => each.step === step)?.wallTime ?? "";
      return updates.get(JSON.stringify([run, dataset, step, time]), async () => {
        const response = await get(address("invariance", { run, dataset, step: String(step) }));
        if (!response.ok) {
          throw await refusal(response);
        }
        return invarianceFromJson(await json(response, "an invariance update"));
      });
    },

    async image(run, dataset, id, full = false) {
      return address("image", { run, dataset, id: String(id), ...(full ? { full: "1" } : {}) });
    },

    async text(run, dataset, id) {
      const response = await get(address("text", { run, dataset, id: String(id) }));
      if (response.status === 404) {
        return null;
      }
      if (!response.ok) {
        throw await refusal(response);
      }
      const { text } = (await json(response, "a text")) as { readonly text: unknown };
      return String(text);
    },

    async search(run, dataset, text) {
      const response = await get(address("search", { run, dataset, text }));
      if (!response.ok) {
        throw await refusal(response);
      }
      const { ids } = (await json(response, "the instances that were found")) as { readonly ids: unknown };
      return new Set(Array.isArray(ids) ? ids.map(String) : []);
    },
  };
}

async function refusal(response: Response): Promise<DataError> {
  try {
    const { error, advice } = (await response.json()) as Record<string, unknown>;
    if (typeof error === "string") {
      return new DataError(error, typeof advice === "string" ? advice : null);
    }
  } catch {
    // Not from our routes: a proxy, or TensorBoard itself.
  }
  return new DataError(
    `The server answered ${[response.status, response.statusText].join(" ").trim()}.`,
    "Look at the terminal that runs TensorBoard for the reason.",
  );
}
