// The instances of an environment as a grid: colour is the image's generation,
// form is the state, the bar below is the age against the deadline.
import { memo, useEffect, useRef, useState } from "react";
import type { Instance } from "./api";
import { encode } from "./api";
import { go } from "./route";
import { counts, countsText, stateWords } from "./words";

const cell = 15, gap = 3, step = cell + gap;

/** Colours that differ for people who see colours differently, too. */
const hues = ["--g0", "--g1", "--g2", "--g3", "--g4", "--g5"];
export const hue = (generation: number) => hues[generation % hues.length]!;

function draw(canvas: HTMLCanvasElement, is: readonly Instance[], columns: number) {
  const c = canvas.getContext("2d");
  if (!c) return;
  const ratio = window.devicePixelRatio || 1;
  const rows = Math.max(1, Math.ceil(is.length / columns));
  const width = columns * step - gap, height = rows * step - gap;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  c.scale(ratio, ratio);
  const css = getComputedStyle(canvas);
  const bad = css.getPropertyValue("--bad"), quiet = css.getPropertyValue("--quiet"), ink = css.getPropertyValue("--on-cell");
  const now = Date.now();
  is.forEach((i, n) => {
    const x = (n % columns) * step, y = Math.floor(n / columns) * step;
    const colour = css.getPropertyValue(hue(i.generation));
    c.fillStyle = c.strokeStyle = i.state === "failing" ? bad : colour;
    c.lineWidth = 1.5;
    switch (i.state) {
      case "launching": // a frame: not there yet
        c.setLineDash([3, 2]);
        c.strokeRect(x + 1, y + 1, cell - 2, cell - 2);
        c.setLineDash([]);
        break;
      case "leaving": // a small square: on its way out
        c.fillRect(x + 4, y + 4, cell - 8, cell - 8);
        break;
      case "kept": // a ring: set aside
        c.beginPath();
        c.arc(x + cell / 2, y + cell / 2, cell / 2 - 1.5, 0, 7);
        c.stroke();
        break;
      default:
        c.fillRect(x, y, cell, cell);
        if (i.state === "failing") {
          c.strokeStyle = ink;
          c.beginPath();
          c.moveTo(x + 4, y + 4);
          c.lineTo(x + cell - 4, y + cell - 4);
          c.moveTo(x + cell - 4, y + 4);
          c.lineTo(x + 4, y + cell - 4);
          c.stroke();
        } else {
          // The zone's letter would be too small: zones stand in the table.
          const end = Date.parse(i.deadline || "") || 0, begin = Date.parse(i.launched);
          if (end > begin) {
            c.fillStyle = quiet;
            c.fillRect(x + 2, y + cell - 4, cell - 4, 2);
            c.fillStyle = ink;
            c.fillRect(x + 2, y + cell - 4, (cell - 4) * Math.min(1, Math.max(0, (now - begin) / (end - begin))), 2);
          }
        }
    }
  });
}

export const Grid = memo(function Grid({ environment, instances, columns = 15 }: { environment: string; instances: readonly Instance[]; columns?: number }) {
  const ref = useRef<HTMLCanvasElement>(null);
  const [theme, repaint] = useState(0);
  const [over, setOver] = useState<Instance>();
  const shown = instances.filter((i) => i.state !== "gone");
  useEffect(() => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const again = () => repaint((n) => n + 1);
    dark.addEventListener("change", again);
    return () => dark.removeEventListener("change", again);
  }, []);
  useEffect(() => {
    if (ref.current) draw(ref.current, shown, columns);
  }, [instances, columns, theme]);
  if (shown.length === 0) return <p className="quiet">no instances</p>;
  const at = (e: React.MouseEvent) => {
    const r = ref.current!.getBoundingClientRect();
    const x = Math.floor((e.clientX - r.left) / step), y = Math.floor((e.clientY - r.top) / step);
    return x < columns ? shown[y * columns + x] : undefined;
  };
  return (
    <div className="grid">
      <canvas
        ref={ref}
        role="img"
        aria-label={`Instances of ${environment}: ${countsText(counts(shown))}`}
        onMouseMove={(e) => setOver(at(e))}
        onMouseLeave={() => setOver(undefined)}
        onClick={(e) => {
          const i = at(e);
          if (i) go(`/instances/${encode(`${i.environment}/${i.generation}/${i.id}`)}`);
        }}
      />
      {over && (
        <span className="tip" aria-hidden="true">
          {over.id} · {stateWords[over.state] ?? over.state} · {over.zone} · generation {over.generation}
        </span>
      )}
    </div>
  );
});
