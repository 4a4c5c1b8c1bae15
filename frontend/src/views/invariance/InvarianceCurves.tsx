import { scaleLinear } from "d3-scale";
import { useMemo, useState } from "preact/hooks";
import { intervalText, percent, shorten } from "../../layout/format";
import type { Invariance, TransformGroup } from "../../model";
import { shareDomain } from "../parts/Axis";
import {
  axisOf,
  curvesBeside,
  curvesOf,
  groupLike,
  isRepeated,
  MARK_TITLES,
  type Named,
  PANELS,
  places,
  placeText,
  type ScorePanel,
  type SizeCurve,
  type SizePoint,
} from "./invariancePoints";
import { SizePanel } from "./SizePanel";
import { useSize } from "../parts/size";
import { Tooltip } from "../parts/Tooltip";

interface Panel extends ScorePanel {
  readonly curves: readonly SizeCurve[];
  /** The same of the run that is set beside the first. */
  readonly beside: readonly SizeCurve[];
}

/** What is drawn: a line of the second run only where it is another. */
const drawnOf = ({ curves, beside }: Panel) => [...curves, ...beside.filter((curve) => !isRepeated(curve, curves))];

/** So many transformations of one size are told apart in a tooltip. */
const TOLD = 4;

const groupName = (group: TransformGroup) => group.kind || "other";

function boundsText({ value, low, high }: SizePoint): string {
  return Number.isNaN(value) ? "–" : intervalText(low, high);
}

/** "12.0%", or "10.0% to 14.0%" where several transformations have one size. */
function rangeText(points: readonly SizePoint[]): string {
  const values = points.map(({ value }) => value).filter((value) => !Number.isNaN(value));
  if (values.length === 0) return "–";
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return low === high ? percent(low) : intervalText(low, high);
}

interface ByTransformationProps {
  readonly label: string;
  readonly update: Invariance;
  readonly group: TransformGroup;
  readonly marks: readonly SizeCurve[];
}

function ByTransformation({ label, update, group, marks }: ByTransformationProps) {
  return (
    <div class="bc-table-scroll" tabIndex={0} role="group" aria-label="Numbers of the chart">
      <table class="bc-table" aria-label={label}>
        <thead>
          <tr>
            <th scope="col">Transformation</th>
            {marks.map(({ mark }) => (
              <th scope="col" key={mark} class="bc-number">
                {MARK_TITLES[mark]}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {group.members.map((member, i) => (
            <tr key={member}>
              <th scope="row">{update.transforms[member]}</th>
              {marks.map(({ mark, points }) => (
                <td key={mark} class="bc-number" title={`95% interval: ${boundsText(points[i]!)}`}>
                  {percent(points[i]!.value, 1)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** Transformations without a size: a row for each, with its points on the axis of each panel. */
function Strips({ update, group, panels }: { update: Invariance; group: TransformGroup; panels: readonly Panel[] }) {
  const domains = panels.map((panel) =>
    shareDomain(
      drawnOf(panel).flatMap(({ points }) =>
        points.flatMap(({ value, low, high }) => (Number.isNaN(value) ? [] : [low, high])),
      ),
    ),
  );
  const name = (member: number) => update.transforms[member]!;
  return (
    <div class="bc-strips-scroll">
      <table class="bc-strips">
        <thead>
          <tr>
            <th scope="col">{group.axis}</th>
            {panels.map(({ title, curves, note }) => (
              <th scope="col" key={title} title={note}>
                {title}
                {curves.length > 1 && (
                  <span class="bc-strip-key">
                    {curves.map(({ mark, label }) => (
                      <span key={mark} class={`bc-of-${mark}`}>
                        <span class="bc-strip-dot" aria-hidden="true" /> {label}
                      </span>
                    ))}
                  </span>
                )}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {group.members.map((member, i) => (
            <tr key={member}>
              <th scope="row" title={name(member)}>
                {shorten(name(member), 40)}
              </th>
              {panels.map((panel, k) => {
                const { title } = panel;
                const x = scaleLinear(domains[k]!, [2, 98]);
                const curves = drawnOf(panel);
                const told = curves
                  .map(
                    ({ mark, points, other }) =>
                      `${other ? "run B: " : ""}${MARK_TITLES[mark]} ${percent(points[i]!.value)} (${boundsText(points[i]!)})`,
                  )
                  .join(", ");
                return (
                  <td key={title} title={told}>
                    <div class="bc-strip" role="img" aria-label={told}>
                      {curves.map(({ mark, points, other }) => {
                        const { value, low, high } = points[i]!;
                        return (
                          !Number.isNaN(value) && (
                            <div key={`${mark} ${other}`} class={`bc-strip-line bc-of-${mark}${other ? " bc-other" : ""}`}>
                              <span class="bc-strip-range" style={{ left: `${x(low)}%`, width: `${x(high) - x(low)}%` }} />
                              <span class="bc-strip-dot" style={{ left: `${x(value)}%` }} />
                            </div>
                          )
                        );
                      })}
                    </div>
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
        <tfoot aria-hidden="true">
          <tr>
            <td />
            {domains.map(([low, high], k) => (
              <td key={panels[k]!.title}>
                <span>{percent(low, 0)}</span>
                <span>{percent(high, 0)}</span>
              </td>
            ))}
          </tr>
        </tfoot>
      </table>
    </div>
  );
}

export interface InvarianceCurvesProps {
  readonly first: Named<Invariance>;
  readonly second: Named<Invariance> | null;
}

/** Accuracy, compatibility and consistency against how far a transformation goes. */
export function InvarianceCurves({ first, second }: InvarianceCurvesProps) {
  const { value: update } = first;
  const [frame, { width, em }] = useSize();
  const [chosen, setChosen] = useState(0);
  const [cursor, setCursor] = useState<{ panel: number; place: number; x: number; byKey: boolean } | null>(null);
  const [tableOpen, setTableOpen] = useState(false);
  const group = update.groups[chosen] ?? update.groups[0];
  const other = second?.value ?? null;
  const panels = useMemo(
    () =>
      group === undefined
        ? []
        : PANELS.map((panel) => ({
            ...panel,
            curves: curvesOf(update, panel, group),
            beside: other === null ? [] : curvesBeside(update, other, panel, group),
          })).filter(({ curves }) => curves.length > 0),
    [update, group, other],
  );
  if (group === undefined) return <p class="bc-empty">There is no transformation besides the identity.</p>;

  const columns = Math.max(1, Math.min(panels.length, Math.floor(width / (28 * em))));
  // Four in two rows rather than three and one.
  const across = panels.length === 4 && columns === 3 ? 2 : columns;
  const each = Math.floor((width - (across - 1) * 1.5 * em) / across);
  const height = Math.round(Math.min(17 * em, Math.max(13 * em, each * 0.5)));
  const at = places(group);
  const members = cursor === null ? [] : at.flatMap((place, i) => (place === cursor.place ? [i] : []));
  const names = members.map((i) => update.transforms[group.members[i]!]!);
  const otherGroup = other && groupLike(other, group);
  const axis = axisOf(group, otherGroup);
  /** Points of a curve where the cursor is. */
  const pointed = ({ points }: SizeCurve) => points.filter(({ x }) => x === cursor?.place);
  const both = cursor !== null && second !== null && otherGroup !== null && (
    <>
      <strong>{names.length === 1 ? names[0] : placeText(group, cursor.place)}</strong>
      <table class="bc-tooltip-table">
        <thead>
          <tr>
            <td />
            <th scope="col">{shorten(first.run, 18)}</th>
            <th scope="col">{shorten(second.run, 18)}</th>
          </tr>
        </thead>
        <tbody>
          {panels.flatMap(({ curves, beside }) =>
            curves.map((curve) => (
              <tr key={curve.mark}>
                <th scope="row">
                  <span class={`bc-line-icon bc-of-${curve.mark}`} aria-hidden="true" /> {MARK_TITLES[curve.mark]}
                </th>
                <td>{rangeText(pointed(curve))}</td>
                <td>{rangeText(beside.filter(({ mark }) => mark === curve.mark).flatMap(pointed))}</td>
              </tr>
            )),
          )}
        </tbody>
      </table>
    </>
  );
  const tooltip = both || (
    <>
      <strong>{members.length > TOLD ? `${members.length} transformations, their range` : names.length === 1 ? names[0] : null}</strong>
      <table class="bc-tooltip-table">
        {members.length > 1 && members.length <= TOLD && (
          <thead>
            <tr>
              <td />
              {names.map((name) => (
                <th key={name} scope="col">
                  {shorten(name, 18)}
                </th>
              ))}
            </tr>
          </thead>
        )}
        <tbody>
          {panels.flatMap(({ curves }) =>
            curves.map(({ mark, points }) => {
              const found = members.map((i) => points[i]!);
              const values = found.map(({ value }) => value);
              return (
                <tr key={mark}>
                  <th scope="row">
                    <span class={`bc-line-icon bc-of-${mark}`} aria-hidden="true" /> {MARK_TITLES[mark]}
                  </th>
                  {members.length > TOLD ? (
                    <td>{intervalText(Math.min(...values), Math.max(...values))}</td>
                  ) : (
                    found.map((point) => <td key={point.member}>{percent(point.value)}</td>)
                  )}
                  {found.length === 1 && <td class="bc-tooltip-note">{boundsText(found[0]!)}</td>}
                </tr>
              );
            }),
          )}
        </tbody>
      </table>
      {members.length === 1 && <div class="bc-tooltip-note">95% intervals in grey.</div>}
    </>
  );
  const spoken =
    cursor?.byKey === true &&
    `${names.join(", ")}: ` +
      panels
        .flatMap((panel) =>
          drawnOf(panel).map((curve) => {
            const whose = curve.other ? "run B: " : "";
            return pointed(curve).map(({ value }) => `${whose}${MARK_TITLES[curve.mark]} ${percent(value)}`).join(", ");
          }),
        )
        .join(", ");

  return (
    <div class="bc-invariance-curves">
      {update.groups.length > 1 && (
        <div class="bc-toggle" role="group" aria-label="Kind of transformation">
          {update.groups.map((one, i) => (
            <button
              key={one.kind}
              type="button"
              aria-pressed={one === group}
              onClick={() => {
                setChosen(i);
                setCursor(null);
              }}
            >
              {groupName(one)}
            </button>
          ))}
        </div>
      )}
      {second !== null && otherGroup === null && (
        <p class="bc-note">Run B, “{second.run}”, was not measured under these transformations.</p>
      )}
      {second !== null && otherGroup !== null && (
        <p class="bc-note bc-key">
          <span class="bc-key-item">
            <span class={group.sizes === null ? "bc-strip-dot" : "bc-line-icon"} aria-hidden="true" />{" "}
            {shorten(first.run, 60)}
          </span>
          <span class="bc-key-item">
            <span class={`${group.sizes === null ? "bc-strip-dot" : "bc-line-icon"} bc-other`} aria-hidden="true" />{" "}
            {shorten(second.run, 60)}
          </span>
        </p>
      )}
      <div ref={frame}>
        {group.sizes === null ? (
          <Strips update={update} group={group} panels={panels} />
        ) : (
          <div class="bc-curve-panels">
            {width > 0 &&
              panels.map((panel, i) => (
                <div key={panel.title} class="bc-chart" style={{ width: `${each}px` }}>
                  <SizePanel
                    title={`${panel.title}, ${panel.note}`}
                    group={axis}
                    curves={drawnOf(panel)}
                    cursor={cursor?.place ?? null}
                    width={each}
                    height={height}
                    em={em}
                    onCursor={(place, x, byKey) => setCursor(place === null ? null : { panel: i, place, x, byKey })}
                  />
                  {cursor?.panel === i && (
                    <Tooltip x={cursor.x} y={height - 2.4 * em} below>
                      {tooltip}
                    </Tooltip>
                  )}
                </div>
              ))}
          </div>
        )}
      </div>
      <div class="bc-hidden" aria-live="polite">
        {spoken}
      </div>
      <details class="bc-as-table" onToggle={(event) => setTableOpen(event.currentTarget.open)}>
        <summary>The same as a table</summary>
        {tableOpen && (
          <ByTransformation
            label="Scores by transformation"
            {...{ update, group }}
            marks={panels.flatMap(({ curves }) => curves)}
          />
        )}
        {tableOpen && second !== null && otherGroup !== null && (
          <>
            <p class="bc-note">Run B, {second.run}:</p>
            <ByTransformation
              label="Scores of run B by transformation"
              update={second.value}
              group={otherGroup}
              marks={PANELS.flatMap((panel) => curvesOf(second.value, panel, otherGroup))}
            />
          </>
        )}
      </details>
    </div>
  );
}
