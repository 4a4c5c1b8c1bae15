import { count, lambdaText, stepText } from "../../layout/format";
import type { Series, Step } from "../../model";

/** What is compared just now. */
export function Subject({
  series,
  step,
  other,
  otherStep,
}: {
  series: Series;
  step: Step;
  other: Series | null;
  otherStep: Step | null;
}) {
  const size = step.cells.reduce((sum, cell) => sum + cell, 0);
  const details = (item: Series, at: Step) =>
    [stepText(at.step), at.lambda === null ? null : `λ ${lambdaText(at.lambda)}`, item.dissonance]
      .filter(Boolean)
      .join(", ");
  return (
    <>
      <span>
        <b>h1</b> is the model in use, <b>h2</b> its update: <b class="bc-name">{series.run}</b> (
        {details(series, step)}). {count(size)} instances of <b class="bc-name">{series.dataset}</b>.
      </span>
      {other !== null && otherStep !== null && (
        <span>
          {" "}
          <span class="bc-tag">B</span> <b class="bc-name">{other.run}</b> ({details(other, otherStep)}); run A is the
          one above.
        </span>
      )}
    </>
  );
}
