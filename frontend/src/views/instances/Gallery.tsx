import { useMemo, useState } from "preact/hooks";
import { classPairs, type ClassPair } from "../../data/classPairs";
import { regionOf, type TextOf } from "../../data/engine";
import { count, shorten } from "../../layout/format";
import type { DataSource, InstanceId, Media, Table } from "../../model";
import { Pager } from "../parts/Pager";
import { TITLES } from "./Prediction";
import { Thumbnail } from "./Thumbnail";

export interface GalleryProps {
  readonly source: DataSource;
  readonly dataset: string;
  readonly table: Table;
  /** Numbers of the rows that meet the conditions, in their order. */
  readonly rows: Uint32Array;
  readonly labels: readonly string[];
  readonly textOf: TextOf | null;
  readonly media: Media | null;
  /** The run that has the image of an instance. */
  readonly imageRun: (id: InstanceId) => string;
  readonly page: number;
  readonly onPage: (page: number) => void;
  readonly onOpen: (id: InstanceId, opener: HTMLElement) => void;
}

const PAIRS_SHOWN = 8;
const PICTURES_SHOWN = 24;

/** Pictures of the instances, by their true class and what h2 says. */
export function Gallery(props: GalleryProps) {
  const { table, rows, page, onPage } = props;
  const pairs = useMemo(() => classPairs(table, rows), [table, rows]);
  const pages = Math.max(1, Math.ceil(pairs.length / PAIRS_SHOWN));
  const current = Math.min(page, pages - 1);
  return (
    <div class="bc-gallery" data-testid="gallery">
      <p class="bc-note bc-gallery-legend">
        True class → what h2 says. <span class="bc-picture-key bc-picture-regress">negative flip</span>{" "}
        <span class="bc-picture-key bc-picture-common">both wrong</span>{" "}
        <span class="bc-picture-key bc-picture-progress">repaired</span>
      </p>
      {pairs.slice(current * PAIRS_SHOWN, (current + 1) * PAIRS_SHOWN).map((pair) => (
        <Pair key={`${pair.target} ${pair.says}`} pair={pair} {...props} />
      ))}
      {pairs.length > PAIRS_SHOWN && (
        <Pager page={current} pages={pages} total={pairs.length} label="pairs of classes" onPage={onPage} />
      )}
    </div>
  );
}

function wrongText(size: number, broken: number): string {
  const flips = `${count(broken)} negative ${broken === 1 ? "flip" : "flips"}`;
  if (broken === size) return flips;
  return broken === 0 ? `${count(size)} both wrong` : `${flips}, ${count(size - broken)} both wrong`;
}

function Pair({ pair, ...props }: GalleryProps & { readonly pair: ClassPair }) {
  const { table, labels, media, textOf, imageRun } = props;
  const [isWhole, setWhole] = useState(false);
  const { target, says, rows, broken } = pair;
  const [truth, answer] = [labels[target] ?? String(target), labels[says] ?? String(says)];
  const shown = isWhole ? rows : rows.subarray(0, PICTURES_SHOWN);
  return (
    <section class="bc-pair" aria-label={`True class ${truth}, h2 says ${answer}`}>
      <h3>
        <span class="bc-pair-class">{truth}</span> <span aria-hidden="true">→</span>
        <span class="bc-hidden">, h2 says</span> <span class="bc-pair-class">{answer}</span>
        <span class="bc-note">
          {" "}
          {target === says ? `${count(rows.length)} repaired` : wrongText(rows.length, broken)}
        </span>
      </h3>
      <ul class="bc-pictures">
        {Array.from(shown, (row) => {
          const id = table.ids[row]!;
          const region = regionOf(table, row);
          const says1 = labels[table.h1[row]!] ?? String(table.h1[row]!);
          const text = textOf?.(row) ?? "";
          const name = `Instance ${id}: ${TITLES[region]}, h1 says ${says1}`;
          return (
            <li key={row}>
              <button
                type="button"
                class={`bc-picture bc-picture-${region}`}
                title={text === "" ? name : `${name}\n${shorten(text, 200)}`}
                aria-label={`Open instance ${id}: ${TITLES[region]}, h1 says ${says1}`}
                onClick={({ currentTarget }) => props.onOpen(id, currentTarget)}
              >
                {media?.images.has(id) ? (
                  <Thumbnail source={props.source} run={imageRun(id)} dataset={props.dataset} id={id} alt="" />
                ) : (
                  <span class="bc-picture-text">{text === "" ? String(id) : shorten(text, 60)}</span>
                )}
              </button>
            </li>
          );
        })}
      </ul>
      {rows.length > PICTURES_SHOWN && (
        <button type="button" class="bc-link-button" onClick={() => setWhole(!isWhole)}>
          {isWhole ? "show fewer" : `show all ${count(rows.length)}`}
        </button>
      )}
    </section>
  );
}
