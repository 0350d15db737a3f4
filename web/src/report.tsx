// How a period went: the server's report, and the times of deploys as a chart.
// What is not known is said, and not shown.
import { useEffect, useMemo, useRef, useState } from "react";
import uPlot from "uplot";
import { ask, encode, type Generation, type Report as Figures, type ReportRow } from "./api";
import { useKind } from "./records";
import { go, Link } from "./route";
import { moment, plural, span } from "./words";

const took = (g: Generation) => (g.ready && !g.ready.startsWith("0001") ? (Date.parse(g.ready) - Date.parse(g.created)) / 1000 : undefined);
const percent = (x: number | undefined) => (x === undefined ? "–" : `${Number((100 * x).toPrecision(3))} %`);
const time = (seconds: number | undefined) => (seconds === undefined ? "–" : span(seconds * 1000));
const day = (t: number) => new Date(t).toISOString().slice(0, 10);

const periods: [string, number][] = [["today", 1], ["7 days", 7], ["30 days", 30], ["90 days", 90]];

/** The period is in the address, so that it can be shared. */
function asked(): { from: string; to: string } {
  const q = new URLSearchParams(location.search);
  return { from: q.get("from") ?? "", to: q.get("to") ?? "" };
}

export function Report() {
  const [period, setPeriod] = useState(asked);
  const [figures, setFigures] = useState<Figures>();
  const [error, setError] = useState("");
  useEffect(() => {
    let over = false;
    setError("");
    const q = new URLSearchParams();
    if (period.from) q.set("from", `${period.from}T00:00:00Z`);
    // The server's period ends before a midnight: the day that is named belongs to it.
    if (period.to) q.set("to", new Date(Date.parse(`${period.to}T00:00:00Z`) + 86_400_000).toISOString());
    ask<Figures>(`/v1/report?${q}`).then(
      (f) => !over && setFigures(f),
      (e) => !over && setError(`${e.message} ${e.hint ?? ""}`),
    );
    return () => {
      over = true;
    };
  }, [period]);
  const choose = (p: { from: string; to: string }) => {
    const q = new URLSearchParams(Object.entries(p).filter(([, v]) => v));
    go(`/report${q.size ? `?${q}` : ""}`);
    setPeriod(p);
  };
  return (
    <>
      <div className="bar" role="group" aria-label="Period">
        {periods.map(([label, days]) => <button key={label} onClick={() => choose({ from: day(Date.now() - (days - 1) * 86_400_000), to: "" })}>{label}</button>)}
        <label>From <input type="date" value={period.from} max={day(Date.now())} onChange={(e) => choose({ ...period, from: e.target.value })} /></label>
        <label>To <input type="date" value={period.to} max={day(Date.now())} onChange={(e) => choose({ ...period, to: e.target.value })} /></label>
      </div>
      {error && <p className="bad" role="alert">{error}</p>}
      {!figures && !error && <p className="quiet" role="status">Loading…</p>}
      {figures && <Shown of={figures} />}
      <Deploys />
    </>
  );
}

function Shown({ of: f }: { of: Figures }) {
  const money = (x: number | undefined) => (x === undefined ? "–" : `${x.toFixed(2)} ${f.currency ?? ""}`);
  const { launches: l, deploys: d, tests: t, orphans: o, images: i, saved: s } = f;
  return (
    <>
      <p className="quiet">From {moment(f.from)} to {moment(f.to)}, in whole days of UTC.</p>
      <dl className="figures">
        <Figure name="Instances that failed to start" value={percent(l.rate)} note={`${l.failed} of ${l.in_service + l.failed}${l.bound !== undefined ? `, at most ${percent(l.bound)} with 95 % certainty` : ""}`} />
        <Figure name="Deploys, from the click to all healthy" value={time(d.took.median_seconds)} note={`${d.ready} ready, ${d.failed} failed, ${plural(d.rollbacks, "rollback")}; nine of ten within ${time(d.took.p90_seconds)}`} />
        <Figure name="From a push to tested" value={time(f.push_to_tested.median_seconds)} note={`${plural(f.push_to_tested.count, "run")} by a hook; ${f.start_to_tested.count} started otherwise took ${time(f.start_to_tested.median_seconds)}`} />
        <Figure name="Runs that passed" value={t.runs ? `${t.passed} of ${t.runs}` : "–"} note={`${plural(t.suites, "suite")}: ${t.suites_passed} passed, ${t.suites_failed} failed, ${t.flaky} flaky`} />
        <Figure name="Environments on the image that they shall run" value={i.environments ? `${i.current} of ${i.environments}` : "–"} note={`${i.late} late; ${plural(f.bakes.made, "image")} made, ${f.bakes.failed} failed`} />
        <Figure name="Orphans left" value={`${o.left}`} note={`${o.removed} removed; the target is zero`} />
        <Figure name="Instance hours" value={f.instance_hours.toFixed(1)} note={f.cost === undefined ? "no cost: the server has no price list" : `cost ${money(f.cost)}${f.unpriced?.length ? `, without ${f.unpriced.join(", ")}` : ""}`} />
        {s && <Figure name="Saved against the former process" value={`${span(s.seconds * 1000)}, ${plural(s.clicks, "click")}`} note={`${s.share !== undefined ? `${percent(s.share)} of the time; ` : ""}${plural(s.deploys, "deploy")} and ${plural(s.tests, "run")} compared; ${s.source}`} />}
      </dl>
      <Rows name="By environment" rows={f.environments ?? []} money={f.cost === undefined ? undefined : money} linked />
      <Rows name="By team" rows={f.teams ?? []} money={f.cost === undefined ? undefined : money} />
      {(f.notes ?? []).length > 0 && (
        <>
          <h2>What is not known</h2>
          <ul>{(f.notes ?? []).map((n) => <li key={n}>{n}</li>)}</ul>
        </>
      )}
    </>
  );
}

const Figure = ({ name, value, note }: { name: string; value: string; note: string }) => <div><dt>{name}</dt><dd>{value}</dd><dd className="quiet">{note}</dd></div>;

function Rows({ name, rows, money, linked = false }: { name: string; rows: ReportRow[]; money?: (x: number | undefined) => string; linked?: boolean }) {
  if (rows.length === 0) return null;
  return (
    <>
      <h2>{name}</h2>
      <div className="scroll" tabIndex={0} role="region" aria-label={name}>
        <table>
          <thead>
            <tr><th>Name</th>{linked && <th>Team</th>}<th className="num">Launched</th><th className="num">Failed</th><th className="num">Deploys</th>{linked && <th className="num">Up</th>}<th className="num">Hours</th>{money && <th className="num">Cost</th>}</tr>
          </thead>
          <tbody>
            {rows.map((r) => (
              <tr key={`${r.name} ${r.tests}`}>
                <td>{linked && !r.tests ? <Link to={`/environments/${encode(r.name)}`}>{r.name}</Link> : r.tests ? `${r.name}, its test runs` : r.name}</td>
                {linked && <td>{r.team}</td>}
                <td className="num">{r.launched}</td>
                <td className="num">{r.failed}</td>
                <td className="num">{r.deploys}</td>
                {linked && <td className="num">{percent(r.uptime?.share)}</td>}
                <td className="num">{r.instance_hours.toFixed(2)}</td>
                {money && <td className="num">{money(r.cost)}</td>}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

function Deploys() {
  const generations = useKind("generation");
  const list = useMemo(() => [...generations.values()].filter((g) => took(g) !== undefined).sort((a, b) => a.created.localeCompare(b.created)), [generations]);
  if (list.length < 2) return null;
  return (
    <>
      <h2>Time of deploys</h2>
      <Chart x={list.map((g) => Date.parse(g.created) / 1000)} y={list.map((g) => took(g)!)} label="seconds from launch to all healthy" />
    </>
  );
}

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
