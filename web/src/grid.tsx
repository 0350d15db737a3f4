// The instances of an environment as a grid: colour is the image's generation,
// form is the state, the bar below is the age against the deadline, and each
// zone is a block of rows with its letter in front.
import { memo, useEffect, useMemo, useRef, useState } from "react";
import type { Instance } from "./api";
import { encode } from "./api";
import { go } from "./route";
import { counts, countsText, span, stateWords } from "./words";

const cell = 15, gap = 3, step = cell + gap, margin = 14;

interface Place { instance: Instance; x: number; y: number }
interface Plan { places: Place[]; zones: { name: string; y: number }[]; width: number; height: number }

/** Where each instance is drawn: a zone begins a row of its own. */
function plan(is: readonly Instance[], columns: number): Plan {
  const by = new Map<string, Instance[]>();
  for (const i of is) {
    const l = by.get(i.zone);
    if (l) l.push(i);
    else by.set(i.zone, [i]);
  }
  const out: Plan = { places: [], zones: [], width: margin + columns * step - gap, height: 0 };
  let row = 0;
  for (const name of [...by.keys()].sort()) {
    out.zones.push({ name, y: row * step });
    by.get(name)!.forEach((instance, n) => out.places.push({ instance, x: margin + (n % columns) * step, y: (row + Math.floor(n / columns)) * step }));
    row += Math.ceil(by.get(name)!.length / columns);
  }
  out.height = row * step - gap;
  return out;
}

/** A zone is known by its last letter, as its name is the region's with one more. */
const letter = (zone: string) => (/[a-z]$/.test(zone) ? zone.slice(-1) : zone.slice(-2)) || "?";

/** All that the picture says, for who does not see it. */
function gridText(environment: string, is: readonly Instance[]): string {
  const tally = (key: (i: Instance) => string) => {
    const m = new Map<string, number>();
    for (const i of is) m.set(key(i), (m.get(key(i)) ?? 0) + 1);
    return [...m].sort((a, b) => a[0].localeCompare(b[0], undefined, { numeric: true })).map(([k, n]) => `${n} in ${k}`).join(", ");
  };
  const due = Math.min(...is.map((i) => Date.parse(i.deadline || "")).filter((t) => t > 0));
  return `Instances of ${environment}: ${countsText(counts(is))}. By zone: ${tally((i) => i.zone || "none")}. By generation: ${tally((i) => `generation ${i.generation}`)}.${Number.isFinite(due) ? ` The next deadline is in ${span(due - Date.now())}.` : ""}`;
}

/** Colours that differ for people who see colours differently, too. */
const hues = ["--g0", "--g1", "--g2", "--g3", "--g4", "--g5"];
export const hue = (generation: number) => hues[generation % hues.length]!;

function draw(canvas: HTMLCanvasElement, p: Plan) {
  const c = canvas.getContext("2d");
  if (!c) return;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = p.width * ratio;
  canvas.height = p.height * ratio;
  canvas.style.width = `${p.width}px`;
  canvas.style.height = `${p.height}px`;
  c.scale(ratio, ratio);
  const css = getComputedStyle(canvas);
  const bad = css.getPropertyValue("--bad"), quiet = css.getPropertyValue("--quiet"), ink = css.getPropertyValue("--on-cell");
  const now = Date.now();
  c.fillStyle = css.getPropertyValue("--soft");
  c.font = "11px system-ui, sans-serif";
  c.textBaseline = "middle";
  for (const z of p.zones) c.fillText(letter(z.name), 0, z.y + cell / 2 + 0.5);
  p.places.forEach(({ instance: i, x, y }) => {
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
  const shown = useMemo(() => instances.filter((i) => i.state !== "gone"), [instances]);
  const places = useMemo(() => plan(shown, columns), [shown, columns]);
  useEffect(() => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const again = () => repaint((n) => n + 1);
    dark.addEventListener("change", again);
    return () => dark.removeEventListener("change", again);
  }, []);
  useEffect(() => {
    if (ref.current) draw(ref.current, places);
  }, [places, theme]);
  if (shown.length === 0) return <p className="quiet">no instances</p>;
  const at = (e: React.MouseEvent) => {
    const r = ref.current!.getBoundingClientRect();
    const x = e.clientX - r.left, y = e.clientY - r.top;
    return places.places.find((p) => x >= p.x && x < p.x + step && y >= p.y && y < p.y + step)?.instance;
  };
  return (
    <div className="grid">
      <canvas
        ref={ref}
        role="img"
        aria-label={gridText(environment, shown)}
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
