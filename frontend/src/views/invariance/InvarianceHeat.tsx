import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Theme } from "../../hosts/host";
import type { InvarianceDepth } from "../../model";
import { cellColour, cellFeatures, cellText, DEAD, nvText } from "./invariancePoints";
import { Tooltip } from "../parts/Tooltip";

interface RowProps {
  readonly bytes: Uint8Array;
  readonly kind: "nv" | "change";
  readonly theme: Theme;
  readonly label: string;
  readonly onCell: (cell: number | null, event: PointerEvent | null) => void;
}

/** A row of one pixel for each cell, which the browser stretches. */
function Row({ bytes, kind, theme, label, onCell }: RowProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context || bytes.length === 0) return;
    const image = context.createImageData(bytes.length, 1);
    bytes.forEach((byte, i) => image.data.set([...cellColour(byte, kind, theme), 255], 4 * i));
    context.putImageData(image, 0, 0);
  }, [bytes, kind, theme]);
  return (
    <canvas
      ref={canvas}
      class="bc-heat-row"
      width={bytes.length}
      height={1}
      role="img"
      aria-label={label}
      onPointerMove={(event) => {
        const box = event.currentTarget.getBoundingClientRect();
        const cell = Math.floor(((event.clientX - box.left) / box.width) * bytes.length);
        onCell(Math.min(bytes.length - 1, Math.max(0, cell)), event);
      }}
      onPointerLeave={() => onCell(null, null)}
    />
  );
}

function Scale({ kind, theme, ends }: { kind: "nv" | "change"; theme: Theme; ends: readonly string[] }) {
  const bytes = Uint8Array.from({ length: 255 }, (_, i) => i);
  return (
    <div class="bc-heat-scale">
      <Row bytes={bytes} kind={kind} theme={theme} label={`Scale from ${ends[0]} to ${ends.at(-1)}`} onCell={() => {}} />
      <div class="bc-heat-ends">
        {ends.map((end) => (
          <span key={end}>{end}</span>
        ))}
      </div>
    </div>
  );
}

/** NV of the features of each layer: of h1, of h2, and the difference. */
export function InvarianceHeat({ depth, theme }: { depth: InvarianceDepth; theme: Theme }) {
  const frame = useRef<HTMLDivElement>(null);
  const [tip, setTip] = useState<{ x: number; y: number; lines: readonly string[] } | null>(null);
  const { layers, end, beyond, reach, farther, order } = depth;
  const sorted = order === "sorted";
  const hasDead = layers.some(({ heat }) => heat.some((row) => row?.includes(DEAD)));
  const hasChange = layers.some(({ change }) => change !== null);

  const pointed =
    (layer: (typeof layers)[number], bytes: Uint8Array, column: string, features: number, low: number, high: number, more: boolean) =>
    (cell: number | null, event: PointerEvent | null) => {
      const box = frame.current?.getBoundingClientRect();
      if (cell === null || event === null || !box) return setTip(null);
      const where = cellFeatures(cell, bytes.length, features, sorted);
      setTip({
        x: event.clientX - box.left,
        y: event.clientY - box.top,
        lines: [layer.name, `${column}, ${where} of ${features}: ${cellText(bytes[cell]!, low, high, more)}`],
      });
    };

  return (
    <div>
      <p class="bc-note">
        {sorted
          ? "Features of each layer from invariant to sensitive, dead ones last; the difference is that of equal ranks."
          : "Features of each layer in their own order."}{" "}
        Wide layers share a cell among neighbours.
      </p>
      <div class="bc-heat-frame" ref={frame}>
        <div class="bc-heat-scroll">
          <table class={`bc-heat${layers.length <= 8 ? " bc-heat-few" : ""}`}>
            <thead>
              <tr>
                <th scope="col">
                  <span class="bc-hidden">Layer</span>
                </th>
                <th scope="col" class="bc-heat-h1">
                  h1
                </th>
                <th scope="col" class="bc-heat-h2">
                  h2
                </th>
                {hasChange && <th scope="col">h2 − h1</th>}
              </tr>
            </thead>
            <tbody>
              {layers.map((layer) => (
                <tr key={layer.name}>
                  <th scope="row" title={layer.name}>
                    <span>{layer.name}</span>
                  </th>
                  {(["h1", "h2"] as const).map((name, which) => {
                    const bytes = layer.heat[which];
                    const found = layer.nv[which];
                    return (
                      <td key={name}>
                        {bytes ? (
                          <Row
                            bytes={bytes}
                            kind="nv"
                            theme={theme}
                            label={`${layer.name} of ${name}: NV ${nvText(found?.value ?? NaN)}`}
                            onCell={pointed(layer, bytes, `NV of ${name}`, layer.features[which] ?? 0, 0, end, beyond)}
                          />
                        ) : (
                          <span class="bc-heat-none">not in {name}</span>
                        )}
                      </td>
                    );
                  })}
                  {hasChange && (
                    <td>
                      {layer.change ? (
                        <Row
                          bytes={layer.change}
                          kind="change"
                          theme={theme}
                          label={`${layer.name}, difference ${nvText(layer.difference?.value ?? NaN)}`}
                          onCell={pointed(
                            layer,
                            layer.change,
                            "Difference",
                            Math.min(...layer.features.map((each) => each ?? Infinity)),
                            -reach,
                            reach,
                            farther,
                          )}
                        />
                      ) : (
                        layer.heat.every((row) => row !== null) && (
                          <span class="bc-heat-none">cannot be compared</span>
                        )
                      )}
                    </td>
                  )}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
        {tip !== null && (
          <Tooltip x={tip.x} y={tip.y}>
            <strong>{tip.lines[0]}</strong>
            <div>{tip.lines[1]}</div>
          </Tooltip>
        )}
      </div>
      <div class="bc-heat-key">
        <div>
          <span class="bc-note">NV of h1 and h2</span>
          <Scale kind="nv" theme={theme} ends={["0", nvText(end / 2), `${beyond ? "≥ " : ""}${nvText(end)}`]} />
        </div>
        {hasChange && (
          <div>
            <span class="bc-note">Difference: above 0 less invariant</span>
            <Scale kind="change" theme={theme} ends={[`${farther ? "≤ " : ""}${nvText(-reach)}`, "0", `${farther ? "≥ " : ""}${nvText(reach)}`]} />
          </div>
        )}
        {hasDead && (
          <span class="bc-key-item bc-note">
            <span class="bc-swatch bc-swatch-dead" aria-hidden="true" /> dead: no sample moves it
          </span>
        )}
      </div>
    </div>
  );
}
