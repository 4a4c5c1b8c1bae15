import { useContext, useEffect, useId, useMemo, useRef, useState } from "preact/hooks";
import { count, percent } from "../../layout/format";
import { venn, type VennLayout } from "../../layout/venn";
import type { Region } from "../../model";
import { MountId } from "../parts/mountId";
import { spread, textWidth, useSize } from "../parts/size";
import { Tooltip } from "../parts/Tooltip";

export interface RegionInfo {
  readonly region: Region;
  readonly title: string;
  readonly explanation: string;
}

export interface VennDrawingProps {
  /** The regions from left to right: of the left circle alone, of both, of the right circle alone. */
  readonly regions: readonly RegionInfo[];
  readonly counts: Readonly<Record<Region, number>>;
  /** Instances of the data set. */
  readonly total: number;
  /** What stands above the circles. */
  readonly captions: readonly [string, string];
  readonly label: string;
  readonly selected: Region | null;
  readonly onToggle: (region: Region) => void;
  /** Height of the circles at most, in the size of the text. */
  readonly most?: number;
}

/** How wide a region is on the line through both centres, around the place of its number. */
export function widthAt(region: Region, { r1, r2, x1, x2, spots }: VennLayout): number {
  const edges = [...(r1 > 0 ? [x1 - r1, x1 + r1] : []), ...(r2 > 0 ? [x2 - r2, x2 + r2] : [])];
  return 2 * Math.min(...edges.map((edge) => Math.abs(edge - spots[region].x)));
}

/** Two circles by areas, whose regions are buttons. */
export function VennDrawing(props: VennDrawingProps) {
  const { regions, counts, total, captions, label, selected: region, onToggle: toggle, most = 16 } = props;
  const [frame, { width, em }] = useSize();
  const [hovered, setHovered] = useState<Region | null>(null);
  const clip = `${useContext(MountId)}${useId()}`;
  // Another step moves the circles; another width only lays them out anew.
  const lastWidth = useRef(width);
  const move = lastWidth.current === width ? " bc-venn-move" : "";
  useEffect(() => {
    lastWidth.current = width;
  }, [width]);
  const { progress, common, regress } = counts;
  const share = (n: number): string => (total ? percent(n / total) : "–");
  const pressed = (event: KeyboardEvent, chosen: Region): void => {
    if (event.key === "Escape") setHovered(null);
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    toggle(chosen);
  };

  const top = 2 * em;
  const body = Math.min(most * em, width * 0.55);
  const layout = useMemo(
    () => venn(common + progress, common + regress, common, Math.max(1, width), body),
    [common, progress, regress, width, body],
  );
  const y = layout.y;

  const small = em * 0.92;
  const marks = regions.filter(({ region: r }) => counts[r] > 0).map((info) => {
    const x = layout.spots[info.region].x;
    const room = widthAt(info.region, layout);
    const n = count(counts[info.region]);
    const needed = Math.max(textWidth(n, em * 1.1), textWidth(share(counts[info.region]), small)) + 0.6 * em;
    return { ...info, x, n, fits: room >= Math.max(needed, 2.2 * em), thin: room < 8 };
  });
  const outside = marks.filter((mark) => !mark.fits);
  const bottom = outside.length ? 2.6 * em : 0.4 * em;
  const height = top + body + bottom;
  const spoken = (mark: (typeof marks)[number]) =>
    `${mark.title}: ${mark.n}, ${share(counts[mark.region])} of the data set. ${mark.explanation}`;
  const leaderText = (mark: (typeof marks)[number]) => `${mark.n} (${share(counts[mark.region])})`;
  const widest = Math.max(0, ...outside.map((mark) => textWidth(leaderText(mark), small)));
  const placed = spread(
    outside.map((mark) => mark.x),
    widest + em,
    widest / 2 + 2,
    width - widest / 2 - 2,
  );

  const captionWidth = Math.max(textWidth(captions[0], small), textWidth(captions[1], small));
  const middle = width / 2;
  const captionLeft = Math.max(2, Math.min(layout.x1 - layout.r1 * 0.8, middle - captionWidth - em));
  const captionRight = Math.min(width - 2, Math.max(layout.x2 + layout.r2 * 0.8, middle + captionWidth + em));
  const dim = (r: Region): string => (region && region !== r ? " bc-dimmed" : "");
  const tip = marks.find((mark) => mark.region === hovered);

  return (
    <div ref={frame} class="bc-chart bc-venn-drawing">
      {width > 0 && (
        <svg
          width={width}
          height={height}
          viewBox={`0 0 ${width} ${height}`}
          role="group"
          aria-label={label}
        >
          <text class="bc-svg-strong" x={captionLeft} y={em}>
            {captions[0]}
          </text>
          <text class="bc-svg-strong" x={captionRight} y={em} text-anchor="end">
            {captions[1]}
          </text>
          <g aria-hidden="true" transform={`translate(0,${top})`}>
            <clipPath id={clip}>
              <circle class={move} cx={layout.x1} cy={y} r={Math.max(0, layout.r1)} />
            </clipPath>
            <circle
              class={`bc-fill-progress${move}${dim("progress")}`}
              cx={layout.x1}
              cy={y}
              r={Math.max(0, layout.r1)}
            />
            <circle
              class={`bc-fill-regress${move}${dim("regress")}`}
              cx={layout.x2}
              cy={y}
              r={Math.max(0, layout.r2)}
            />
            <g clip-path={`url(#${clip})`}>
              <circle
                class={`bc-fill-common${move}${dim("common")}`}
                cx={layout.x2}
                cy={y}
                r={common ? Math.max(0, layout.r2) : 0}
              />
            </g>
            <circle class={`bc-venn-ring${move}`} cx={layout.x1} cy={y} r={Math.max(0, layout.r1)} />
            <circle class={`bc-venn-ring${move}`} cx={layout.x2} cy={y} r={Math.max(0, layout.r2)} />
          </g>
          {marks.map((mark) => {
            const k = outside.indexOf(mark);
            return (
              <g
                key={mark.region}
                transform={`translate(0,${top})`}
                class={`bc-venn-region${region === mark.region ? " bc-selected" : ""}${dim(mark.region)}`}
                role="button"
                tabIndex={0}
                aria-pressed={region === mark.region}
                aria-label={spoken(mark)}
                onClick={() => toggle(mark.region)}
                onKeyDown={(event) => pressed(event, mark.region)}
                onPointerEnter={() => setHovered(mark.region)}
                onPointerLeave={() => setHovered(null)}
                onFocus={() => setHovered(mark.region)}
                onBlur={() => setHovered(null)}
              >
                <path class="bc-venn-hit" d={layout.paths[mark.region]} fill-rule="evenodd" />
                {mark.fits ? (
                  <text class={`bc-venn-count${move}`} style={`transform:translate(${mark.x}px,${y}px)`}>
                    <tspan x="0" dy="-0.1em">
                      {mark.n}{" "}
                    </tspan>
                    <tspan class="bc-venn-share" x="0" dy="1.25em">
                      {share(counts[mark.region])}
                    </tspan>
                  </text>
                ) : (
                  <>
                    <path
                      class="bc-leader"
                      d={`M${mark.x} ${y}L${mark.x} ${body + 0.3 * em}L${placed[k]} ${body + bottom - 1.3 * em}`}
                    />
                    <circle
                      class={`bc-mark-${mark.region}`}
                      cx={mark.x}
                      cy={y}
                      r={mark.thin ? 0.32 * em : 0.2 * em}
                    />
                    <text class="bc-venn-outside" x={placed[k]} y={body + bottom - 0.3 * em} text-anchor="middle">
                      {leaderText(mark)}
                    </text>
                  </>
                )}
              </g>
            );
          })}
        </svg>
      )}
      {tip && (
        <Tooltip x={tip.x} y={top + y + Math.max(layout.r1, layout.r2)} below>
          <strong>
            {tip.title}: {tip.n}
          </strong>
          <div>{share(counts[tip.region])} of the data set</div>
          <div class="bc-tooltip-note">{tip.explanation}</div>
        </Tooltip>
      )}
    </div>
  );
}
