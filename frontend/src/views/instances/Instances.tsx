import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { labelsOf, regionOf, select, sortRows, textsOf } from "../../data/engine";
import { count, percent } from "../../layout/format";
import type { DataSource, Filter, Flips, InstanceId, InstanceSort, Media, Region, Table, ViewState } from "../../model";
import { narrowed } from "../../data/narrowing";
import { flipsOf, joined, mergedMedia } from "../../data/twoUpdates";
import { BROKEN_BY, conditions, NO_FILTER } from "./Chips";
import { ClassPicker } from "./ClassPicker";
import { MoreConditions } from "./MoreConditions";
import { TakeInstances } from "./TakeInstances";
import { Pager } from "../parts/Pager";
import { Thumbnail } from "./Thumbnail";
import { REGIONS } from "../overview/Venn";

export interface InstancesProps {
  readonly source: DataSource;
  readonly run: string;
  readonly dataset: string;
  readonly table: Table;
  readonly media: Media | null;
  /** Another update, set beside this one. */
  readonly beside: { readonly run: string; readonly table: Table } | null;
  readonly otherMedia: Media | null;
  readonly mediaBusy: boolean;
  readonly mediaError: Error | null;
  readonly filter: Filter;
  readonly sort: InstanceSort;
  readonly descending: boolean;
  readonly page: number;
  readonly onChange: (change: Partial<ViewState>) => void;
}

const PAGE_SIZE = 25;
const TYPING_MS = 60;
const SURE = "Probability that X gives to its answer.";

const TITLES: Record<Region, string> = { regress: "only h2 wrong", common: "both wrong", progress: "only h1 wrong" };

/** A model that never errs on 1 in 1,000 is not certain. */
const sureness = (share: number) => percent(share, share > 0.995 ? 1 : 0);

/** One instance, ready to be shown. */
interface Instance {
  readonly row: number;
  readonly id: InstanceId;
  readonly text: string;
  readonly target: string;
  readonly h1: string;
  readonly h2: string;
  readonly h1Right: boolean;
  readonly h2Right: boolean;
  readonly region: Region;
  /** What run B says, and which of the runs break it. */
  readonly b: { readonly label: string; readonly right: boolean; readonly flips: Flips | null } | null;
  /** The run that has its image. */
  readonly imageRun: string;
  readonly hasImage: boolean;
  readonly isLeftOut: boolean;
  /** How sure h1 and h2 are of their answers; null without scores. */
  readonly sure: readonly [number, number] | null;
}

function Prediction({ label, right }: { label: string; right: boolean }) {
  return (
    <span class={`bc-prediction ${right ? "bc-right" : "bc-wrong"}`}>
      <span aria-hidden="true">{right ? "✓" : "✗"}</span>
      <span class="bc-hidden">{right ? "right: " : "wrong: "}</span>
      {label}
    </span>
  );
}

function Badge({ region, flips }: { region: Region; flips: Flips | null }) {
  if (flips !== null)
    return (
      <span class="bc-badge bc-badge-regress" title="h1 gets it right, and these runs do not">
        broken by {BROKEN_BY[flips]}
      </span>
    );
  const { explanation } = REGIONS.find((info) => info.region === region)!;
  return (
    <span class={`bc-badge bc-badge-${region}`} title={explanation}>
      {TITLES[region]}
    </span>
  );
}

interface SearchProps {
  readonly value: string;
  readonly onChange: (text: string) => void;
}

/** Waits for a pause in typing: a hundred thousand rows are searched once for a word, and not for each letter. */
function Search({ value, onChange }: SearchProps) {
  const [typed, setTyped] = useState(value);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const sent = useRef(value);
  // What comes back after it was sent from here must not replace letters typed since. A layout effect, because a later
  // one could run when the next text is sent already.
  useLayoutEffect(() => {
    if (value === sent.current) return;
    sent.current = value;
    clearTimeout(timer.current);
    setTyped(value);
  }, [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  return (
    <label class="bc-tool">
      <span class="bc-tool-label">Text or id</span>
      <input
        type="search"
        value={typed}
        placeholder="contains …"
        onInput={({ currentTarget: { value: text } }) => {
          setTyped(text);
          clearTimeout(timer.current);
          timer.current = setTimeout(() => {
            sent.current = text;
            onChange(text);
          }, TYPING_MS);
        }}
      />
    </label>
  );
}

interface EnlargedProps extends Pick<InstancesProps, "source" | "dataset"> {
  readonly instance: Instance;
  readonly isFirst: boolean;
  readonly isLast: boolean;
  readonly onClose: () => void;
  readonly onStep: (by: number) => void;
}

function Enlarged({ source, dataset, instance, isFirst, isLast, onClose, onStep }: EnlargedProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  return (
    <dialog
      ref={dialog}
      class="bc-dialog"
      aria-label={`Instance ${instance.id}`}
      onClose={onClose}
      onClick={(event) => event.target === event.currentTarget && dialog.current?.close()}
      onKeyDown={(event) => {
        if (event.key === "ArrowLeft") onStep(-1);
        if (event.key === "ArrowRight") onStep(1);
      }}
    >
      <div class="bc-dialog-body">
        <header class="bc-dialog-head">
          <h2>Instance {String(instance.id)}</h2>
          <Badge region={instance.region} flips={instance.b?.flips ?? null} />
          {/* Not "disabled": a button that loses the focus would take the arrow keys away from the dialog. */}
          <span class="bc-dialog-buttons">
            <button
              type="button"
              class="bc-button"
              aria-disabled={isFirst}
              title="Previous instance of this page (arrow left)"
              onClick={() => onStep(-1)}
            >
              ‹
            </button>
            <button
              type="button"
              class="bc-button"
              aria-disabled={isLast}
              title="Next instance of this page (arrow right)"
              onClick={() => onStep(1)}
            >
              ›
            </button>
            <button type="button" class="bc-button" onClick={() => dialog.current?.close()}>
              Close
            </button>
          </span>
        </header>
        {instance.hasImage && (
          <div class="bc-dialog-image">
            <Thumbnail
              source={source}
              run={instance.imageRun}
              dataset={dataset}
              id={instance.id}
              alt={`Instance ${instance.id}`}
            />
          </div>
        )}
        {instance.text !== "" && <p class="bc-dialog-text">{instance.text}</p>}
        <dl class="bc-dialog-facts">
          <dt>h1 says</dt>
          <dd>
            <Prediction label={instance.h1} right={instance.h1Right} />
            {instance.sure && <span class="bc-note"> {sureness(instance.sure[0])} sure</span>}
          </dd>
          <dt>h2 says</dt>
          <dd>
            <Prediction label={instance.h2} right={instance.h2Right} />
            {instance.sure && <span class="bc-note"> {sureness(instance.sure[1])} sure</span>}
          </dd>
          {instance.b !== null && (
            <>
              <dt>run B says</dt>
              <dd>
                <Prediction {...instance.b} />
              </dd>
            </>
          )}
          <dt>Ground truth</dt>
          <dd>{instance.target}</dd>
        </dl>
      </div>
    </dialog>
  );
}

interface HeadingProps {
  readonly title: string;
  readonly explanation: string;
  readonly name: InstanceSort;
  readonly sort: InstanceSort;
  readonly descending: boolean;
  readonly onSort: (name: InstanceSort) => void;
}

function Heading({ title, explanation, name, sort, descending, onSort }: HeadingProps) {
  const chosen = name === sort;
  return (
    <th scope="col" aria-sort={chosen ? (descending ? "descending" : "ascending") : "none"}>
      <button type="button" class="bc-sort" title={`${explanation} Click to sort.`} onClick={() => onSort(name)}>
        {title} <span aria-hidden="true">{chosen ? (descending ? "▼" : "▲") : "↕"}</span>
      </button>
    </th>
  );
}

/** The instances that h1 or h2 gets wrong, narrowed down by the filter, a page at a time. */
export function Instances(props: InstancesProps) {
  const { source, run, dataset, mediaBusy, mediaError, filter, sort, descending, page, onChange, beside } = props;
  const { region, target, h1, h2, text, flips, b, sure1, sure2, slices } = filter;
  const both = beside && joined(props.table, beside.table);
  // What only run B breaks is no error of run A, and stands in the joined table alone.
  const table = flips !== null && both !== null ? both.table : props.table;
  const media = useMemo(
    () => (table === props.table ? props.media : mergedMedia(props.media, props.otherMedia)),
    [table, props.table, props.media, props.otherMedia],
  );
  const labels = labelsOf(table);
  const textOf = textsOf(table, media);
  const rows = useMemo(() => {
    return narrowed(table, select(table, filter, textOf), filter, both);
  }, [table, both, region, target, h1, h2, text, flips, b, sure1, sure2, slices, textOf]);
  const sorted = useMemo(
    () => sortRows(table, rows, sort, descending, labels, textOf),
    [table, rows, sort, descending, labels, textOf],
  );
  const [enlarged, setEnlarged] = useState<{ readonly table: Table; readonly row: number } | null>(null);
  const opener = useRef<HTMLElement | null>(null);
  const list = useRef<HTMLTableElement>(null);
  const pages = Math.max(1, Math.ceil(sorted.length / PAGE_SIZE));
  const current = Math.min(page, pages - 1);
  const shown = useMemo(() => {
    const label = (index: number) => labels[index] ?? String(index);
    return Array.from(sorted.subarray(current * PAGE_SIZE, (current + 1) * PAGE_SIZE), (row): Instance => {
      const [truth, first, second] = [table.target[row]!, table.h1[row]!, table.h2[row]!];
      const id = table.ids[row]!;
      return {
        row,
        id,
        text: textOf?.(row) ?? "",
        target: label(truth),
        h1: label(first),
        h2: label(second),
        h1Right: first === truth,
        h2Right: second === truth,
        region: regionOf(table, row),
        b: both && {
          label: label(both.b[row]!),
          right: both.b[row] === truth,
          flips: flips === null ? null : flipsOf(both, row),
        },
        imageRun: props.media?.images.has(id) || beside === null ? run : beside.run,
        hasImage: media?.images.has(id) ?? false,
        isLeftOut: media?.leftOut.has(id) ?? false,
        sure: table.sure && [table.sure.h1[row]!, table.sure.h2[row]!],
      };
    });
  }, [table, both, flips, sorted, current, labels, textOf, media, run, beside?.run]);

  const hasImages = (media?.images.size ?? 0) + (media?.leftOut.size ?? 0) > 0;
  const hasTexts = textOf !== null;
  const hasSure = table.sure !== null;
  const openedAt = enlarged?.table === table ? shown.findIndex(({ row }) => row === enlarged.row) : -1;
  const opened = shown[openedAt] ?? null;
  const isOpen = opened !== null;
  useEffect(() => {
    if (isOpen) return;
    // Or it would open by itself when the instance comes back into the list.
    setEnlarged(null);
    if (opener.current === null) return;
    const target = opener.current.isConnected ? opener.current : list.current;
    opener.current = null;
    target?.focus();
  }, [isOpen, enlarged]);
  const enlarge = (row: number, button: HTMLElement) => {
    opener.current = button;
    setEnlarged({ table, row });
  };
  const onSort = (name: InstanceSort) => onChange({ sort: name, descending: name === sort ? !descending : name.startsWith("sure") });
  const heading = { sort, descending, onSort };
  const step = (by: number) => {
    const next = shown[openedAt + by];
    if (next) setEnlarged({ table, row: next.row });
  };

  if (table.size === 0) return <p class="bc-empty">Neither h1 nor h2 gets any instance wrong here.</p>;
  return (
    <div class="bc-instances">
      <div class="bc-tools" role="group" aria-label="Conditions on the instances">
        <label class="bc-tool">
          <span class="bc-tool-label">Region</span>
          <select
            value={region ?? ""}
            onChange={({ currentTarget: { value } }) => onChange({ region: value === "" ? null : (value as Region) })}
          >
            <option value="">any error</option>
            {REGIONS.map((info) => (
              <option key={info.region} value={info.region}>
                {info.title}
              </option>
            ))}
          </select>
        </label>
        <ClassPicker
          label="True class"
          labels={labels}
          value={target}
          onPick={(index) => onChange({ target: index })}
        />
        <ClassPicker label="h1 says" labels={labels} value={h1} onPick={(index) => onChange({ h1: index })} />
        <ClassPicker label="h2 says" labels={labels} value={h2} onPick={(index) => onChange({ h2: index })} />
        <MoreConditions table={table} filter={filter} onChange={onChange} />
        <Search value={text} onChange={(changed) => onChange({ text: changed })} />
        <p class="bc-instances-count" role="status" data-testid="instances-count">
          <strong>{count(sorted.length)}</strong> of {count(table.size)} error instances
        </p>
        <TakeInstances {...{ run, dataset, table, rows: sorted, labels, textOf }} b={both?.b ?? null} />
      </div>
      {mediaBusy && <p class="bc-note">Texts and images are still loading.</p>}
      {mediaError !== null && (
        <p class="bc-note" role="alert">
          Texts and images could not be read, so ids are shown alone: {mediaError.message}
        </p>
      )}
      {sorted.length === 0 ? (
        <p class="bc-empty">
          No error instance meets all conditions (
          {conditions(filter, labels)
            .map(({ name, value }) => `${name}: ${value}`)
            .join(", ")}
          ).{" "}
          <button type="button" class="bc-link" onClick={() => onChange(NO_FILTER)}>
            Clear all
          </button>
        </p>
      ) : (
        <div class="bc-scroll">
          <table ref={list} class="bc-table bc-instances-table" tabIndex={-1}>
            <thead>
              <tr>
                {hasImages && <th scope="col">Image</th>}
                <Heading title="Instance" name="id" explanation="Id in the data set." {...heading} />
                {hasTexts && (
                  <Heading title="Text" name="text" explanation="What was logged about the instance." {...heading} />
                )}
                <Heading title="h1 says" name="h1" explanation="Prediction of the model in use." {...heading} />
                {hasSure && <Heading title="sure" name="sure1" explanation={SURE.replace("X", "h1")} {...heading} />}
                <Heading title="h2 says" name="h2" explanation="Prediction of the update." {...heading} />
                {hasSure && <Heading title="sure" name="sure2" explanation={SURE.replace("X", "h2")} {...heading} />}
                {both !== null && <th scope="col">Run B says</th>}
                <Heading title="Ground truth" name="target" explanation="The true class." {...heading} />
                <Heading title="Region" name="region" explanation="Who is wrong." {...heading} />
              </tr>
            </thead>
            <tbody>
              {shown.map((instance) => (
                <tr key={instance.row}>
                  {hasImages && (
                    <td class="bc-instances-image">
                      {instance.hasImage ? (
                        <button
                          type="button"
                          class="bc-enlarge"
                          title="Enlarge"
                          aria-label={`Enlarge the image of instance ${instance.id}`}
                          onClick={({ currentTarget }) => enlarge(instance.row, currentTarget)}
                        >
                          <Thumbnail source={source} run={instance.imageRun} dataset={dataset} id={instance.id} alt="" />
                        </button>
                      ) : (
                        <span class={`bc-thumbnail bc-note${instance.isLeftOut ? " bc-left-out" : ""}`}>
                          {instance.isLeftOut ? (
                            <span>
                              left out by max_
                              <wbr />
                              images
                            </span>
                          ) : (
                            "no image"
                          )}
                        </span>
                      )}
                    </td>
                  )}
                  <th scope="row" class="bc-instances-id">
                    {String(instance.id)}
                  </th>
                  {hasTexts && (
                    <td class="bc-instances-text">
                      {instance.text !== "" && (
                        <button
                          type="button"
                          class="bc-text-button"
                          title={instance.text}
                          onClick={({ currentTarget }) => enlarge(instance.row, currentTarget)}
                        >
                          {instance.text}
                        </button>
                      )}
                    </td>
                  )}
                  <td>
                    <Prediction label={instance.h1} right={instance.h1Right} />
                  </td>
                  {hasSure && <td class="bc-number">{sureness(instance.sure![0])}</td>}
                  <td>
                    <Prediction label={instance.h2} right={instance.h2Right} />
                  </td>
                  {hasSure && <td class="bc-number">{sureness(instance.sure![1])}</td>}
                  {instance.b !== null && (
                    <td>
                      <Prediction {...instance.b} />
                    </td>
                  )}
                  <td>{instance.target}</td>
                  <td>
                    <Badge region={instance.region} flips={instance.b?.flips ?? null} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {sorted.length > PAGE_SIZE && (
        <Pager
          page={current}
          pages={pages}
          total={sorted.length}
          label="instances"
          onPage={(to) => onChange({ page: to })}
        />
      )}
      {opened !== null && (
        <Enlarged
          source={source}
          dataset={dataset}
          instance={opened}
          isFirst={openedAt === 0}
          isLast={openedAt === shown.length - 1}
          onClose={() => setEnlarged(null)}
          onStep={step}
        />
      )}
    </div>
  );
}
