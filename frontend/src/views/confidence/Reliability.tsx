import { scaleLinear } from "d3-scale";
import { expectedError, reliability } from "../../data/confidence";
import { count, intervalText, percent } from "../../layout/format";
import type { Table } from "../../model";
import { Axes, type Plot } from "../parts/Axis";
import { useSize } from "../parts/size";

const MODELS = ["h1", "h2"] as const;

/** How often each model is right where it is so sure, over all instances. */
export function Reliability({ calibration }: { calibration: NonNullable<Table["calibration"]> }) {
  const [frame, { width, em }] = useSize();
  const side = Math.min(width, 30 * em);
  const plot: Plot = { left: 3.6 * em, top: 1.9 * em, width: side - 4.4 * em, height: side - 5.2 * em };
  const curves = MODELS.map((model, i) => ({ model, points: reliability(calibration[i]!), bins: calibration[i]! }));
  const low = Math.min(1, ...curves.flatMap(({ points }) => points.flatMap(({ bin, low: least }) => [bin.low, least])));
  const start = Math.min(0.9, Math.floor(low * 10) / 10);
  const x = scaleLinear([start, 1], [plot.left, plot.left + plot.width]);
  const y = scaleLinear([start, 1], [plot.top + plot.height, plot.top]);
  const known = curves.filter(({ points }) => points.length > 0);
  const said = known.map(({ model, bins }) => `${model} ${percent(expectedError(bins))}`).join(", ");
  return (
    <figure class="bc-sure-figure">
      <div ref={frame} class="bc-chart">
        {width > 0 && (
          <svg
            width={side}
            height={side}
            viewBox={`0 0 ${side} ${side}`}
            role="img"
            aria-label={`Calibration: how often a model is right where it is so sure. Expected error: ${said}.`}
          >
            <Axes x={x} y={y} plot={plot} em={em} xTitle="sure of its answer" yTitle="right" />
            <line class="bc-diagonal" x1={x(start)} y1={y(start)} x2={x(1)} y2={y(1)} />
            {known.map(({ model, points }) => (
              <g key={model} class={`bc-curve bc-of-accuracy_${model}${model === "h1" ? " bc-other" : ""}`}>
                <path d={`M${points.map(({ bin, accuracy }) => `${x(bin.mean)} ${y(accuracy)}`).join("L")}`} />
                {points.map(({ bin, accuracy, total, low: from, high: to }) => (
                  <g key={bin.low}>
                    <line class="bc-whisker" x1={x(bin.mean)} x2={x(bin.mean)} y1={y(from)} y2={y(to)} />
                    <circle cx={x(bin.mean)} cy={y(accuracy)} r={0.28 * em}>
                      <title>
                        {`${model} is ${percent(bin.mean)} sure of ${count(total)} instances, and right on ${percent(accuracy)} (95% interval ${intervalText(from, to)})`}
                      </title>
                    </circle>
                  </g>
                ))}
              </g>
            ))}
          </svg>
        )}
      </div>
      <figcaption class="bc-note">
        <span class="bc-key-item">
          <span class="bc-line-icon bc-line-dashed bc-of-accuracy_h1" aria-hidden="true" /> h1
        </span>{" "}
        <span class="bc-key-item">
          <span class="bc-line-icon bc-of-accuracy_h2" aria-hidden="true" /> h2
        </span>{" "}
        Below the diagonal a model is surer than it is right. Expected calibration error: {said}, over all instances in
        20 bins of 5%.
      </figcaption>
    </figure>
  );
}
