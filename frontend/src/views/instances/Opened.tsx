import { Fragment } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Answer, answerIn, findInstance, someSteps, story } from "../../data/answers";
import { count, lambdaText, stepText } from "../../layout/format";
import type { DataSource, Index, InstanceId, Media, Series, Table, TableRef } from "../../model";
import { type Asked, useAnswers } from "../../state/answers";
import { useFullText } from "../../state/fullTexts";
import type { TableRequest } from "../../state/loading";
import { Badge, Prediction, sureness } from "./Prediction";

export interface OpenedProps {
  readonly source: DataSource;
  readonly index: Index;
  readonly series: Series;
  /** The step that is looked at. */
  readonly step: number | null;
  /** As it is written in the address. */
  readonly instance: string;
  readonly table: Table;
  readonly media: Media | null;
  readonly labels: readonly string[];
  readonly text: string;
  /** The run that has its image and its text. */
  readonly mediaRun: string;
  /** What run B says, where one is set beside this one. */
  readonly second: { readonly label: string; readonly right: boolean } | null;
  /** Place among the instances that are listed, from 0; -1 where it is none of them. */
  readonly at: number;
  readonly listed: number;
  readonly onStep: (by: number) => void;
  readonly onPlace: (ref: TableRef) => void;
  readonly onClose: () => void;
}

const STEPS_SHOWN = 48;
const RUNS_SHOWN = 40;

function requestAt(series: Series, step: Series["steps"][number]): TableRequest {
  return { run: series.run, dataset: series.dataset, step: step.step, wallTime: step.wallTime };
}

/** One instance: its picture and text in full, and what every run and step says of it. */
export function Opened(props: OpenedProps) {
  const { source, series, instance, table, media, labels, at, listed, onStep, onClose } = props;
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (!dialog.current?.open) dialog.current?.showModal();
  }, []);
  const { id } = findInstance(table, instance);
  const answer = answerIn(table, instance);
  const hasImage = media?.images.has(id) ?? false;
  const isLonger = media?.longer.has(id) ?? false;
  const whole = useFullText(source, props.mediaRun, series.dataset, id, isLonger);
  const text = whole.value ?? props.text;
  const label = (index: number) => labels[index] ?? String(index);
  const turn = (by: number, sign: string, name: string) => (
    // Not "disabled": a button that loses the focus would take the arrow keys away from the dialog.
    <button
      type="button"
      class="bc-button"
      aria-disabled={at < 0 || at + by < 0 || at + by >= listed}
      aria-label={`${name} instance`}
      title={`${name} of the instances that are listed`}
      onClick={() => onStep(by)}
    >
      {sign}
    </button>
  );
  return (
    <dialog
      ref={dialog}
      class="bc-dialog bc-opened"
      aria-label={`Instance ${instance}`}
      data-testid="opened"
      onClose={onClose}
      onClick={(event) => event.target === event.currentTarget && dialog.current?.close()}
      onKeyDown={(event) => {
        if (event.key === "ArrowLeft") onStep(-1);
        if (event.key === "ArrowRight") onStep(1);
      }}
    >
      <div class="bc-dialog-body">
        <header class="bc-dialog-head">
          <h2>Instance {instance}</h2>
          {answer !== null && <Badge region={answer.region} flips={null} />}
          {at >= 0 && (
            <span class="bc-note">
              {count(at + 1)} of {count(listed)} listed
            </span>
          )}
          <span class="bc-dialog-buttons">
            {turn(-1, "‹", "Previous")}
            {turn(1, "›", "Next")}
            <button type="button" class="bc-button" autofocus onClick={() => dialog.current?.close()}>
              Close
            </button>
          </span>
        </header>
        <div class={hasImage ? "bc-opened-two" : "bc-opened-one"}>
          {hasImage && (
            <Picture
              key={`${props.mediaRun} ${instance}`}
              {...{ source, id }}
              run={props.mediaRun}
              dataset={series.dataset}
              isReduced={media?.reduced.has(id) ?? false}
            />
          )}
          <div class="bc-opened-said">
            <Facts answer={answer} table={table} second={props.second} instance={instance} label={label} />
            {text !== "" && (
              <p class="bc-dialog-text" tabIndex={0} role="group" aria-label="Text">
                {text}
                {isLonger && whole.value === null && "…"}
              </p>
            )}
            {isLonger && whole.error !== null && (
              <p class="bc-note" role="alert">
                Only the beginning is shown: {whole.error.message}
              </p>
            )}
          </div>
        </div>
        <Steps {...props} label={label} />
        <Runs {...props} label={label} />
      </div>
    </dialog>
  );
}

interface PictureProps {
  readonly source: DataSource;
  readonly run: string;
  readonly dataset: string;
  readonly id: InstanceId;
  readonly isReduced: boolean;
}

function Picture({ source, run, dataset, id, isReduced }: PictureProps) {
  const [address, setAddress] = useState<string | null | undefined>(undefined);
  const [size, setSize] = useState<{ readonly width: number; readonly height: number; readonly isSmall: boolean } | null>(
    null,
  );
  useEffect(() => {
    let isWanted = true;
    source.image(run, dataset, id, true).then(
      (found) => isWanted && setAddress(found),
      () => isWanted && setAddress(null),
    );
    return () => {
      isWanted = false;
    };
  }, [source, run, dataset, id]);
  return (
    <figure class="bc-opened-picture">
      {address === null ? (
        <span class="bc-note">The image could not be had.</span>
      ) : (
        address !== undefined && (
          <img
            // Pixels of a small one say more than a blur.
            class={size?.isSmall ? "bc-pixelated" : undefined}
            src={address}
            alt={`Instance ${id}`}
            onLoad={({ currentTarget: image }) =>
              setSize({
                width: image.naturalWidth,
                height: image.naturalHeight,
                isSmall: image.naturalWidth < image.clientWidth,
              })
            }
            onError={() => setAddress(null)}
          />
        )
      )}
      <figcaption class="bc-note">
        {size !== null && `${size.width} × ${size.height} pixels`}
        {isReduced && ", a thumbnail: the larger picture was left out by a limit (max_full_bytes)"}
      </figcaption>
    </figure>
  );
}

interface FactsProps extends Pick<OpenedProps, "table" | "second" | "instance"> {
  readonly answer: Answer | null;
  readonly label: (index: number) => string;
}

function Facts({ answer, table, second, instance, label }: FactsProps) {
  if (answer === null) return <p>Neither model errs on it at this step.</p>;
  const { target, h1, h2 } = answer;
  const { row } = findInstance(table, instance);
  /** How sure a model is of its answer, and where that is wrong, of the truth. */
  const sure = (answered: number, ofAnswer: Float32Array, ofTruth: Float32Array) => {
    if (Number.isNaN(ofAnswer[row])) return null;
    const truth = answered === target ? "" : `, ${sureness(ofTruth[row]!)} of the truth`;
    return <span class="bc-note"> {`${sureness(ofAnswer[row]!)} sure${truth}`}</span>;
  };
  return (
    <dl class="bc-dialog-facts">
      <dt>Ground truth</dt>
      <dd>{label(target)}</dd>
      <dt>h1 says</dt>
      <dd>
        <Prediction label={label(h1)} right={h1 === target} />
        {table.sure && sure(h1, table.sure.h1, table.sure.h1Truth)}
      </dd>
      <dt>h2 says</dt>
      <dd>
        <Prediction label={label(h2)} right={h2 === target} />
        {table.sure && sure(h2, table.sure.h2, table.sure.h2Truth)}
      </dd>
      {second !== null && (
        <>
          <dt>Run B says</dt>
          <dd>
            <Prediction {...second} />
          </dd>
        </>
      )}
      {table.slices.map(({ column, values, codes }) => (
        <Fragment key={column}>
          <dt>{column}</dt>
          <dd>{values[codes[row]!]}</dd>
        </Fragment>
      ))}
    </dl>
  );
}

type Labelled = OpenedProps & { readonly label: (index: number) => string };

const isAnswer = (asked: Asked): asked is Answer => typeof asked === "object" && asked !== null;

const isRight = (asked: Answer | null): boolean => asked === null || asked.h2 === asked.target;

function saysOf(asked: Asked, label: (index: number) => string): string {
  if (asked === undefined) return "still loading";
  if (asked === "failed") return "could not be loaded";
  if (asked === "unsure") return "no error there, or not in that data";
  if (asked === null) return "both models right";
  const { region } = asked;
  const who = region === "regress" ? "broken" : region === "common" ? "both wrong" : "h1 wrong, h2 right";
  return `h2 says ${label(asked.h2)}: ${who}`;
}

function signOf(asked: Asked): string {
  if (asked === undefined) return "";
  if (asked === "failed" || asked === "unsure") return "?";
  return isRight(asked) ? "✓" : "✗";
}

function kindOf(asked: Asked): string {
  return asked === null ? "right" : isAnswer(asked) ? asked.region : "none";
}

/** When it broke: h2's answer at every step of the run. */
function Steps(props: Labelled) {
  const { source, series, step, instance, table, label, onPlace } = props;
  const [isWhole, setWhole] = useState(false);
  const steps = useMemo(
    () => (isWhole ? series.steps : someSteps(series.steps, STEPS_SHOWN, step)),
    [series.steps, step, isWhole],
  );
  const places = useMemo(() => steps.map((each) => requestAt(series, each)), [series, steps]);
  const answers = useAnswers(source, places, instance, table);
  if (series.steps.length < 2) return null;
  const known = answers.flatMap((asked, i) =>
    typeof asked === "object" ? [{ step: steps[i]!.step, right: isRight(asked) }] : [],
  );
  const isDone = !answers.includes(undefined);
  const current = step ?? series.steps.at(-1)!.step;
  return (
    <section class="bc-opened-part" aria-label="Over the steps of this run">
      <h3>{known.every((each) => each.right) ? "Over the steps" : "When it broke"}</h3>
      <p role="status" data-testid="story">
        {isDone
          ? story(
              known.map((each) => each.step),
              known.map((each) => each.right),
              stepText,
            )
          : `Looking at ${count(steps.length)} steps: ${count(known.length)} so far.`}
        {steps.length < series.steps.length && (
          <span class="bc-note">
            {" "}
            {count(steps.length)} of {count(series.steps.length)} steps are looked at.{" "}
            <button type="button" class="bc-link-button" onClick={() => setWhole(true)}>
              look at all
            </button>
          </span>
        )}
      </p>
      <ol class="bc-strip" aria-label="h2's answer, step by step">
        {steps.map((each, i) => (
          <li key={each.step}>
            <button
              type="button"
              class={`bc-strip-step bc-strip-${kindOf(answers[i])}`}
              aria-current={each.step === current ? "step" : undefined}
              title={`${stepText(each.step)}: ${saysOf(answers[i], label)}`}
              aria-label={`${stepText(each.step)}: ${saysOf(answers[i], label)}`}
              onClick={() => onPlace({ run: series.run, dataset: series.dataset, step: each.step })}
            >
              {signOf(answers[i])}
            </button>
          </li>
        ))}
      </ol>
      <p class="bc-note bc-strip-ends">
        <span>{stepText(steps[0]!.step)}</span>
        <span>{stepText(steps.at(-1)!.step)}</span>
      </p>
    </section>
  );
}

/** What the other updates say of it, each at its latest step. */
function Runs(props: Labelled) {
  const { source, index, series, instance, table, label, onPlace } = props;
  const [isWhole, setWhole] = useState(false);
  const all = useMemo(
    () =>
      index.series.filter(
        ({ dataset, numClasses, steps }) =>
          dataset === series.dataset && numClasses === series.numClasses && steps.length > 0,
      ),
    [index, series.dataset, series.numClasses],
  );
  const several = useMemo(() => (isWhole ? all : all.slice(0, RUNS_SHOWN)), [all, isWhole]);
  const places = useMemo(() => several.map((each) => requestAt(each, each.steps.at(-1)!)), [several]);
  const answers = useAnswers(source, places, instance, table);
  if (all.length < 2) return null;
  const broken = answers.filter((asked) => isAnswer(asked) && asked.region === "regress").length;
  return (
    <section class="bc-opened-part" aria-label="What every run says">
      <h3>
        Every run{" "}
        <span class="bc-note">
          at its latest step; {count(broken)} of {count(several.length)} break it
        </span>
      </h3>
      <div class="bc-opened-runs" tabIndex={0} role="group" aria-label="Table of the runs">
        <table class="bc-table bc-instances-table">
          <thead>
            <tr>
              <th scope="col">Run</th>
              <th scope="col">Dissonance</th>
              <th scope="col">λ</th>
              <th scope="col">h2 says</th>
              <th scope="col">Region</th>
            </tr>
          </thead>
          <tbody>
            {several.map((each, i) => {
              const asked = answers[i];
              const last = each.steps.at(-1)!;
              return (
                <tr key={each.run} aria-current={each.run === series.run ? "true" : undefined}>
                  <th scope="row">
                    <button
                      type="button"
                      class="bc-row-button bc-name"
                      title="Look at this run"
                      onClick={() => onPlace({ run: each.run, dataset: each.dataset, step: last.step })}
                    >
                      {each.run}
                    </button>
                  </th>
                  <td>{each.dissonance ?? "–"}</td>
                  <td>{lambdaText(last.lambda)}</td>
                  <td>
                    {isAnswer(asked) ? (
                      <Prediction label={label(asked.h2)} right={asked.h2 === asked.target} />
                    ) : asked === null ? (
                      <span class="bc-prediction bc-right">
                        <span aria-hidden="true">✓</span> right
                      </span>
                    ) : (
                      <span class="bc-note">{saysOf(asked, label)}</span>
                    )}
                  </td>
                  <td>
                    {isAnswer(asked) ? (
                      <Badge region={asked.region} flips={null} />
                    ) : (
                      asked === null && <span class="bc-note">both right</span>
                    )}
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
      {several.length < all.length && (
        <button type="button" class="bc-link-button" onClick={() => setWhole(true)}>
          ask all {count(all.length)} runs
        </button>
      )}
    </section>
  );
}
