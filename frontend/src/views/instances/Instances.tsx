import { useCallback, useEffect, useMemo, useRef } from "preact/hooks";
import { findInstance } from "../../data/answers";
import { labelsOf, regionOf, select, sortRows, textsOf } from "../../data/engine";
import { count } from "../../layout/format";
import type {
  DataSource,
  Filter,
  Flips,
  Index,
  InstanceId,
  InstanceSort,
  Media,
  Region,
  Series,
  Table,
  TableRef,
  ViewState,
} from "../../model";
import { useFoundElsewhere } from "../../state/fullTexts";
import { narrowed } from "../../data/narrowing";
import { flipsOf, joined, mergedMedia } from "../../data/twoUpdates";
import { conditions } from "./Chips";
import { NO_FILTER } from "../../state/url";
import { ClassPicker } from "./ClassPicker";
import { MoreConditions } from "./MoreConditions";
import { Gallery } from "./Gallery";
import { Opened } from "./Opened";
import { Badge, Prediction, sureness } from "./Prediction";
import { TakeInstances } from "./TakeInstances";
import { Pager } from "../parts/Pager";
import { useTyped } from "../parts/typed";
import { Thumbnail } from "./Thumbnail";
import { REGIONS } from "../overview/Venn";

export interface InstancesProps {
  readonly source: DataSource;
  readonly index: Index;
  readonly series: Series;
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
  /** As a table, or as pictures by pair of classes. */
  readonly listed: ViewState["listed"];
  /** The instance that is looked at closely, as text. */
  readonly instance: string | null;
  /** The step that is looked at; null follows the latest. */
  readonly step: number | null;
  readonly onChange: (change: Partial<ViewState>) => void;
  /** Look at another step or run. */
  readonly onPlace: (ref: TableRef) => void;
}

const PAGE_SIZE = 25;
const TYPING_MS = 60;
const SURE = "Probability that X gives to its answer.";

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
  /** Whether the text goes on. */
  readonly isLonger: boolean;
  /** How sure h1 and h2 are of their answers; null without scores. */
  readonly sure: readonly [number, number] | null;
}

interface SearchProps {
  readonly value: string;
  readonly onChange: (text: string) => void;
}

/** Waits for a pause in typing: a hundred thousand rows are searched once for a word, and not for each letter. */
function Search({ value, onChange }: SearchProps) {
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const { typed, setTyped, sent } = useTyped(value, () => clearTimeout(timer.current));
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
  const { source, series, mediaBusy, mediaError, filter, sort, descending, page, onChange, beside, instance } = props;
  const { run, dataset } = series;
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
  const searched = [
    ...((props.media?.longer.size ?? 0) > 0 ? [run] : []),
    ...(media !== props.media && beside !== null && (props.otherMedia?.longer.size ?? 0) > 0 ? [beside.run] : []),
  ];
  const elsewhere = useFoundElsewhere(source, searched, dataset, media, text);
  const rows = useMemo(() => {
    return narrowed(table, select(table, filter, textOf, elsewhere.ids), filter, both);
  }, [table, both, region, target, h1, h2, text, flips, b, sure1, sure2, slices, textOf, elsewhere.ids]);
  const sorted = useMemo(
    () => sortRows(table, rows, sort, descending, labels, textOf),
    [table, rows, sort, descending, labels, textOf],
  );
  const opener = useRef<HTMLElement | null>(null);
  const list = useRef<HTMLTableElement>(null);
  const pages = Math.max(1, Math.ceil(sorted.length / PAGE_SIZE));
  const current = Math.min(page, pages - 1);
  const imageRun = useCallback(
    (id: InstanceId) => (props.media?.images.has(id) || beside === null ? run : beside.run),
    [props.media, beside?.run, run],
  );
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
        imageRun: imageRun(id),
        hasImage: media?.images.has(id) ?? false,
        isLeftOut: media?.leftOut.has(id) ?? false,
        sure: table.sure && [table.sure.h1[row]!, table.sure.h2[row]!],
        isLonger: media?.longer.has(id) ?? false,
      };
    });
  }, [table, both, flips, sorted, current, labels, textOf, media, imageRun]);

  const hasImages = (media?.images.size ?? 0) + (media?.leftOut.size ?? 0) > 0;
  const hasTexts = textOf !== null;
  const hasSure = table.sure !== null;
  const opened = useMemo(() => (instance === null ? null : findInstance(table, instance)), [table, instance]);
  const openedAt = useMemo(() => (opened === null ? -1 : sorted.indexOf(opened.row)), [sorted, opened]);
  useEffect(() => {
    if (instance !== null || opener.current === null) return;
    const target = opener.current.isConnected ? opener.current : list.current;
    opener.current = null;
    target?.focus();
  }, [instance]);
  const enlarge = (id: InstanceId, button: HTMLElement) => {
    opener.current = button;
    onChange({ instance: String(id) });
  };
  const onSort = (name: InstanceSort) => onChange({ sort: name, descending: name === sort ? !descending : name.startsWith("sure") });
  const heading = { sort, descending, onSort };
  const isGallery = props.listed === "pictures";
  const step = (by: number) => {
    const next = openedAt < 0 ? undefined : sorted[openedAt + by];
    if (next === undefined) return;
    const turned = isGallery ? {} : { page: Math.floor((openedAt + by) / PAGE_SIZE) };
    onChange({ instance: String(table.ids[next]), ...turned });
  };
  const dialog = instance !== null && opened !== null && (
    <Opened
      {...{ source, series, table, media, labels, instance }}
      index={props.index}
      step={props.step}
      text={opened.row < 0 ? (media?.texts.get(opened.id) ?? "") : (textOf?.(opened.row) ?? "")}
      mediaRun={imageRun(opened.id)}
      second={
        both === null || opened.row < 0
          ? null
          : {
              label: labels[both.b[opened.row]!] ?? String(both.b[opened.row]!),
              right: both.b[opened.row] === table.target[opened.row],
            }
      }
      at={openedAt}
      listed={sorted.length}
      onStep={step}
      onPlace={props.onPlace}
      onClose={() => onChange({ instance: null })}
    />
  );

  if (table.size === 0) {
    return (
      <>
        <p class="bc-empty">Neither h1 nor h2 gets any instance wrong here.</p>
        {dialog}
      </>
    );
  }
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
        <span class="bc-tool" role="group" aria-label="How they are listed">
          <span class="bc-tool-label">As</span>
          <span class="bc-switch">
            {(["table", "pictures"] as const).map((way) => (
              <button
                key={way}
                type="button"
                class="bc-button"
                aria-pressed={props.listed === way}
                onClick={() => onChange({ listed: way, page: 0 })}
              >
                {way}
              </button>
            ))}
          </span>
        </span>
        <p class="bc-instances-count" role="status" data-testid="instances-count">
          <strong>{count(sorted.length)}</strong> of {count(table.size)} error instances
        </p>
        <TakeInstances {...{ run, dataset, table, rows: sorted, labels, textOf }} isCut={(media?.longer.size ?? 0) > 0} b={both?.b ?? null} />
      </div>
      {mediaBusy && <p class="bc-note">Texts and images are still loading.</p>}
      {elsewhere.busy && (
        <p class="bc-note" role="status">
          The rest of the long texts is being searched; more instances may come.
        </p>
      )}
      {elsewhere.error !== null && (
        <p class="bc-note" role="alert">
          Only the beginnings of long texts were searched: {elsewhere.error.message}
        </p>
      )}
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
      ) : isGallery ? (
        <Gallery
          {...{ source, dataset, table, labels, textOf, media, imageRun }}
          rows={sorted}
          page={page}
          onPage={(to) => onChange({ page: to })}
          onOpen={enlarge}
        />
      ) : (
        <div class="bc-scroll" tabIndex={0} role="group" aria-label="Table of the instances">
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
                          onClick={({ currentTarget }) => enlarge(instance.id, currentTarget)}
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
                    <button
                      type="button"
                      class="bc-row-button"
                      title="Look at it closely: picture, text, every run and every step"
                      onClick={({ currentTarget }) => enlarge(instance.id, currentTarget)}
                    >
                      <span class="bc-clamp">{String(instance.id)}</span>
                    </button>
                  </th>
                  {hasTexts && (
                    <td class="bc-instances-text">
                      {instance.text !== "" && (
                        <button
                          type="button"
                          class="bc-text-button"
                          title={instance.text}
                          onClick={({ currentTarget }) => enlarge(instance.id, currentTarget)}
                        >
                          {instance.text}
                          {instance.isLonger && "…"}
                        </button>
                      )}
                    </td>
                  )}
                  <td class="bc-instances-class">
                    <Prediction label={instance.h1} right={instance.h1Right} />
                  </td>
                  {hasSure && <td class="bc-number">{sureness(instance.sure![0])}</td>}
                  <td class="bc-instances-class">
                    <Prediction label={instance.h2} right={instance.h2Right} />
                  </td>
                  {hasSure && <td class="bc-number">{sureness(instance.sure![1])}</td>}
                  {instance.b !== null && (
                    <td class="bc-instances-class">
                      <Prediction {...instance.b} />
                    </td>
                  )}
                  <td class="bc-instances-class" title={instance.target}>
                    <span class="bc-clamp">{instance.target}</span>
                  </td>
                  <td>
                    <Badge region={instance.region} flips={instance.b?.flips ?? null} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {sorted.length > PAGE_SIZE && !isGallery && (
        <Pager
          page={current}
          pages={pages}
          total={sorted.length}
          label="instances"
          onPage={(to) => onChange({ page: to })}
        />
      )}
      {dialog}
    </div>
  );
}
