// Figures that follow from the records which the server still keeps. What it
// cannot know is not shown.
import { useEffect, useMemo, useRef } from "react";
import uPlot from "uplot";
import type { Generation, Instance } from "./api";
import { useKind } from "./records";
import { median, plural, span } from "./words";

const took = (g: Generation) => (g.ready && !g.ready.startsWith("0001") ? (Date.parse(g.ready) - Date.parse(g.created)) / 1000 : undefined);

/** The upper end of the 95 % interval of a rate (Wilson). */
function bound(failed: number, of: number): number {
  if (of === 0) return 1;
  const z = 1.96, p = failed / of;
  return (p + (z * z) / (2 * of) + z * Math.sqrt((p * (1 - p)) / of + (z * z) / (4 * of * of))) / (1 + (z * z) / of);
}

export function Report() {
  const generations = useKind("generation");
  const instances = useKind("instance");
  const runs = useKind("run");
  const f = useMemo(() => {
    const gs = [...generations.values()], is = [...instances.values()];
    const launched = gs.reduce((n, g) => n + g.launched, 0), lost = gs.reduce((n, g) => n + g.lost, 0);
    const hours = is.reduce((h, i) => h + ((i.ended && !i.ended.startsWith("0001") ? Date.parse(i.ended) : Date.now()) - Date.parse(i.launched)) / 3.6e6, 0);
    const byEnvironment = new Map<string, number>();
    for (const i of is) byEnvironment.set(i.environment, (byEnvironment.get(i.environment) ?? 0) + ((i.ended && !i.ended.startsWith("0001") ? Date.parse(i.ended) : Date.now()) - Date.parse(i.launched)) / 3.6e6);
    return { gs, launched, lost, hours, byEnvironment, oldest: oldest(is), deploys: gs.filter((g) => took(g) !== undefined).sort((a, b) => a.created.localeCompare(b.created)), ended: [...runs.values()].filter((r) => r.phase === "done") };
  }, [generations, instances, runs]);
  const percent = (x: number) => `${(100 * x).toPrecision(2)} %`;
  const usually = median(f.deploys.map((g) => took(g)!));
  return (
    <>
      <p className="quiet">Of what the server still has records of: {plural(f.gs.length, "generation")}, {plural(instances.size, "instance")}.</p>
      <dl className="figures">
        <div><dt>Launched and never in service</dt><dd>{f.launched ? percent(f.lost / f.launched) : "–"}</dd><dd className="quiet">{f.lost} of {f.launched}{f.launched ? `, at most ${percent(bound(f.lost, f.launched))} with 95 % certainty` : ""}</dd></div>
        <div><dt>Deploys, usual time to all healthy</dt><dd>{usually !== undefined ? span(usually * 1000) : "–"}</dd><dd className="quiet">{plural(f.deploys.length, "deploy")}</dd></div>
        <div><dt>Runs that passed</dt><dd>{f.ended.length ? `${f.ended.filter((r) => r.passed).length} of ${f.ended.length}` : "–"}</dd></div>
        <div><dt>Oldest instance now</dt><dd>{f.oldest ? span(f.oldest) : "–"}</dd></div>
        <div><dt>Instance hours</dt><dd>{f.hours.toFixed(1)}</dd><dd className="quiet">without a price list there is no cost</dd></div>
      </dl>
      {f.deploys.length > 1 && (
        <>
          <h2>Time of deploys</h2>
          <Chart x={f.deploys.map((g) => Date.parse(g.created) / 1000)} y={f.deploys.map((g) => took(g)!)} label="seconds from launch to all healthy" />
        </>
      )}
      {f.byEnvironment.size > 0 && (
        <>
          <h2>Instance hours by environment</h2>
          <div className="scroll" tabIndex={0} role="region" aria-label="Instance hours by environment">
            <table>
              <thead><tr><th>Environment</th><th className="num">Hours</th></tr></thead>
              <tbody>{[...f.byEnvironment].sort((a, b) => b[1] - a[1]).slice(0, 30).map(([e, h]) => <tr key={e}><td>{e}</td><td className="num">{h.toFixed(2)}</td></tr>)}</tbody>
            </table>
          </div>
        </>
      )}
    </>
  );
}

const oldest = (is: Instance[]) => is.reduce((m, i) => (i.state === "gone" ? m : Math.max(m, Date.now() - Date.parse(i.launched))), 0);

function Chart({ x, y, label }: { x: number[]; y: number[]; label: string }) {
  const ref = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const el = ref.current!;
    const css = getComputedStyle(el);
    const line = css.getPropertyValue("--accent"), grid = css.getPropertyValue("--line"), text = css.getPropertyValue("--soft");
    const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid } };
    const plot = new uPlot({ width: el.clientWidth, height: 220, axes: [axis, axis], series: [{}, { label, stroke: line, width: 2, points: { size: 6, fill: line } }], legend: { show: false } }, [x, y], el);
    const fit = new ResizeObserver(() => plot.setSize({ width: el.clientWidth, height: 220 }));
    fit.observe(el);
    return () => {
      fit.disconnect();
      plot.destroy();
    };
  }, [x.join(), y.join()]);
  return <div className="chart" ref={ref} role="img" aria-label={`${label}: ${y.length} values, from ${Math.min(...y).toFixed(1)} to ${Math.max(...y).toFixed(1)}`} />;
}
