/** Texts that go on after what a table shows of them: the whole of one, and a search in all. */

import { useEffect, useState } from "preact/hooks";
import type { DataSource, InstanceId, Media } from "../model";
import { type Loaded, useLoaded } from "./loading";

/** Longer than between two letters of somebody who types: each search reads all the texts. */
const SEARCH_MS = 250;

export interface FoundElsewhere {
  /** Ids, as texts, of instances in the rest of whose text it was found; null where there is nothing to search. */
  readonly ids: ReadonlySet<string> | null;
  readonly busy: boolean;
  readonly error: Error | null;
}

const NOTHING: FoundElsewhere = { ids: null, busy: false, error: null };

/** Search what the excerpts leave out, in the texts of the given runs. */
export function useFoundElsewhere(
  source: DataSource,
  runs: readonly string[],
  dataset: string,
  media: Media | null,
  text: string,
): FoundElsewhere {
  const wanted = text.trim();
  const key =
    wanted === "" || media === null || media.longer.size === 0
      ? null
      : JSON.stringify([runs, dataset, wanted, media.longer.size]);
  const [asked, setAsked] = useState<string | null>(null);
  useEffect(() => {
    const timer = setTimeout(() => setAsked(key), SEARCH_MS);
    return () => clearTimeout(timer);
  }, [key]);
  const isDue = key !== null && asked === key;
  const found = useLoaded(isDue ? key : null, async () => {
    const ids = new Set<string>();
    for (const run of runs) for (const id of await source.search(run, dataset, wanted)) ids.add(id);
    return ids;
  });
  if (key === null) return NOTHING;
  const isThere = found.key === key;
  return { ids: isThere ? found.value : null, busy: !isThere && found.error === null, error: found.error };
}

/** The whole text of an instance; its beginning until that is there. */
export function useFullText(
  source: DataSource,
  run: string,
  dataset: string,
  id: InstanceId,
  isLonger: boolean,
): Loaded<string | null> {
  const key = isLonger ? JSON.stringify([run, dataset, id]) : null;
  const loaded = useLoaded(key, () => source.text(run, dataset, id));
  return loaded.key === key ? loaded : { ...loaded, value: null };
}
