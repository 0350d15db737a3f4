import { memo, useEffect, useMemo, useState } from "react";
import { ask, encode, type Environment, type Foreseen, type Generation } from "./api";
import { CurrencyOf } from "./currency";
import { may } from "./app";
import { Grid, hue } from "./grid";
import { Action, Badge, Blocked } from "./parts";
import { useKind, useMembers } from "./records";
import { Link } from "./route";
import { ago, counts, countsText, moment, plural, short, span, stateWords, useNow, usual } from "./words";

/** What has an environment now: the people's own first, those of test runs after them, what is gone last. */
const order = (e: Environment) => (e.phase === "gone" ? 2 : e.run ? 1 : 0);

export function Environments() {
  const all = useKind("environment");
  const [search, setSearch] = useState("");
  const [gone, setGone] = useState(false);
  const list = useMemo(
    () => [...all.values()].filter((e) => (gone || e.phase !== "gone" || !e.run) && e.name.includes(search.trim())).sort((a, b) => order(a) - order(b) || a.name.localeCompare(b.name)),
    [all, search, gone],
  );
  if (all.size === 0)
    return (
      <div className="empty">
        <p>There is no environment yet. The first deploy sends the blueprint; from then on it is one click here.</p>
        <pre><code>dayfly init shop{"\n"}dayfly deploy shop dev</code></pre>
      </div>
    );
  return (
    <>
      <div className="filters">
        <label>Search <input type="search" value={search} onChange={(e) => setSearch(e.target.value)} /></label>
        <label className="check"><input type="checkbox" checked={gone} onChange={(e) => setGone(e.target.checked)} /> those of past runs too</label>
        <Legend />
      </div>
      <ul className="cards">
        {list.map((e) => <Card key={e.name} environment={e} />)}
      </ul>
      {list.length === 0 && <p className="quiet">None is like that.</p>}
    </>
  );
}

function Legend() {
  return (
    <p className="legend quiet" aria-hidden="true">
      <span className="key full" /> serves <span className="key frame" /> launching <span className="key small" /> leaving <span className="key cross">×</span> failing <span className="key ring" /> kept · <span className="key rule" /> age against the deadline · a colour per generation · a block of rows per zone
    </p>
  );
}

/** A release by the name of its artifact, which is what people call it. */
function ReleaseName({ name }: { name: string }) {
  const r = useKind("release").get(name);
  return <span title={name}>{r?.artifact ?? short(name)}</span>;
}

const Card = memo(function Card({ environment: e }: { environment: Environment }) {
  const members = useMembers(e.name);
  return (
    <li className={`card${e.phase === "gone" ? " gone" : ""}`}>
      <h2><Link to={`/environments/${encode(e.name)}`}>{e.name}</Link> <Badge>{e.phase}</Badge></h2>
      {e.phase !== "gone" && <Grid environment={e.name} instances={members} />}
      <p className="facts">
        {e.phase === "gone" ? "everything of it is deleted" : countsText(counts(members))}
        {e.release ? <> · <ReleaseName name={e.release} /></> : null}
        {e.address && e.phase !== "gone" ? <> · <a href={e.address} rel="noreferrer noopener" target="_blank">{e.address.replace(/^https?:\/\//, "")}</a></> : null}
      </p>
      <Progress environment={e} />
      <Deploy environment={e} />
    </li>
  );
});

function target(e: Environment, generations: ReadonlyMap<string, Generation>) {
  return e.want > 0 ? generations.get(`${e.name}/${e.want}`) : undefined;
}

/** One line of what is going on: how many, how fast, how much longer; or why it waits. */
function Progress({ environment: e }: { environment: Environment }) {
  const generations = useKind("generation");
  const bakes = useKind("bake");
  const now = useNow();
  const g = target(e, generations);
  const blocker = e.blocker ?? (g && g.phase !== "serving" ? g.blocker : undefined);
  const moving = e.next ?? (g && e.want !== e.serving && g.phase !== "failed" && !e.destroy);
  const line = () => {
    if (e.destroy && e.phase !== "gone") return "is being terminated";
    if (e.next) {
      const b = e.next.bake ? bakes.get(e.next.bake) : undefined;
      if (b && !b.image) return `the image is being baked: ${b.sentence || b.step}, for ${span(now - Date.parse(b.created))}`;
      return `asked by ${e.next.by}; the release is being resolved`;
    }
    if (!g) return "";
    const since = now - Date.parse(g.created);
    const rate = g.healthy > 0 && since > 0 ? g.healthy / (since / 1000) : 0;
    const past = usual(generations.values(), e.name);
    const left = rate > 0 ? ((g.size - g.healthy) / rate) * 1000 : past ? Math.max(0, past.ms - since) : undefined;
    return `${g.healthy} of ${g.size} healthy${rate ? `, ${rate.toFixed(1)} a second` : ""}${left !== undefined ? `, about ${span(left)} more` : ""}`;
  };
  return (
    <>
      {moving || e.destroy ? (
        <div className="progress">
          {g && e.want !== e.serving && <progress max={g.size} value={g.healthy} aria-label={`healthy instances of generation ${g.number}`} />}
          <span role="status">{line()}</span>
        </div>
      ) : null}
      {blocker && e.phase !== "gone" && <Blocked blocker={blocker} />}
      {e.went_back && e.phase !== "gone" && <p className="blocked">Went back from generation {e.went_back.from} to {e.went_back.to || "what served before"}, by {e.went_back.by}: {e.went_back.why}</p>}
      {e.error && <p className="bad">{e.error}</p>}
      {g?.error && g.error !== e.error && e.phase !== "gone" && <p className="bad">Generation {g.number}: {g.error}</p>}
      {e.notice && <p className="blocked">{e.notice}</p>}
    </>
  );
}

/** What a deploy would do now, asked when somebody looks at it: the box is asked as well. */
function useForeseen(e: Environment, wanted: boolean): Foreseen | undefined {
  const [seen, setSeen] = useState<Foreseen>();
  const state = `${e.phase} ${e.serving} ${e.want} ${e.release} ${e.next ? "next" : ""}`;
  useEffect(() => {
    if (!wanted) return;
    let here = true;
    const look = () => void (document.hidden || ask<Foreseen>(`/v1/environments/${encode(e.name)}/deploy`).then((f) => here && setSeen(f), () => here && setSeen(undefined)));
    look();
    const again = setInterval(look, 30_000);
    return () => {
      here = false;
      clearInterval(again);
    };
  }, [e.name, state, wanted]);
  return seen;
}

function willDo(f: Foreseen): string {
  const { release: r, image: i } = f;
  const release = r.artifact ? `${r.artifact}${r.serves ? ", which serves already," : ""}` : "the newest release";
  const image = i.there ? `image ${i.name}` : `image ${i.name ?? ""}, baked first${i.seconds ? ` in about ${span(i.seconds * 1000)}` : ""},`;
  const takes = f.seconds ? `; ready in about ${span(f.seconds * 1000)} by the last ${f.launches === 1 ? "launch" : `${f.launches} launches`}` : "";
  return `${plural(f.size, "new instance")} with ${release} on ${image.replace(/,$/, "")}${takes}`;
}

/** One click. What it will do stands beside it; what goes wrong does not touch what serves. */
function Deploy({ environment: e, closely = false }: { environment: Environment; closely?: boolean }) {
  const generations = useKind("generation");
  const [near, setNear] = useState(false);
  const shown = !e.run && may("deployer") && !(e.destroy && e.phase !== "gone");
  const seen = useForeseen(e, shown && (closely || near));
  if (!shown) return null;
  const past = usual(generations.values(), e.name);
  const id = `will-${e.name}`;
  return (
    <div className="deploy" onPointerEnter={() => setNear(true)} onFocus={() => setNear(true)}>
      <Action
        className="primary"
        label="Deploy"
        describedBy={id}
        does={() => ask(`/v1/environments/${encode(e.name)}/deploy`, "POST", {})}
      />
      <span id={id} className="quiet">
        {e.name}: {seen ? (seen.refused ? `not now: ${seen.refused}${seen.hint ? ` (${seen.hint})` : ""}` : willDo(seen)) : `${plural(e.size, "new instance")} with the newest release${past ? `, about ${span(past.ms)} by the last ${past.runs === 1 ? "one" : past.runs}` : ""}`}
      </span>
    </div>
  );
}

export function EnvironmentPage({ name }: { name: string }) {
  const e = useKind("environment").get(name);
  const generations = useKind("generation");
  const members = useMembers(name);
  const now = useNow();
  if (!e) return <p className="quiet">There is no environment {name}. <Link to="/">All environments</Link></p>;
  const mine = [...generations.values()].filter((g) => g.environment === name).sort((a, b) => b.number - a.number);
  const here = members.filter((i) => i.state !== "gone");
  const left = Date.parse(e.deadline) - now;
  const lease = e.standing ? "stands until somebody ends it" : left > 0 ? <>ends in {span(left)} <span className="quiet">({moment(e.deadline)})</span></> : "over";
  return (
    <>
      <p className="lead"><Badge>{e.phase}</Badge> {countsText(counts(members))}{e.address && e.phase !== "gone" ? <> · <a href={e.address} rel="noreferrer noopener" target="_blank">{e.address}</a></> : null}</p>
      {e.phase !== "gone" && <CurrencyOf name={e.name} />}
      <Progress environment={e} />
      <div className="bar">
        <Deploy environment={e} closely />
        {may("deployer") && e.phase !== "gone" && !e.destroy && (
          <>
            <Action label="Extend by 4 h" does={() => ask(`/v1/environments/${encode(name)}/lease`, "POST", { minutes: Math.round(Math.max(0, left) / 60000) + 240 })} />
            {mine.some((g) => g.number !== e.serving && g.phase === "serving") || (e.good ?? []).length > 1 || e.shift ? (
              <Action label="Roll back" confirm={`Take ${name} back to what served before?`} does={() => ask(`/v1/environments/${encode(name)}/rollback`, "POST", { why: "asked in the console" })} />
            ) : null}
            <Action label="Terminate" confirm={`Terminate ${plural(here.length, "instance")} of ${name}?`} does={() => ask(`/v1/environments/${encode(name)}`, "DELETE")} />
          </>
        )}
      </div>
      <dl className="pairs">
        <div><dt>Image</dt><dd>{e.image ? <Link to={`/images/${encode(e.image)}`}>{e.image}</Link> : "not yet"}</dd></div>
        <div><dt>Release</dt><dd>{e.release ? <><ReleaseName name={e.release} /> <code className="quiet">{e.release}</code></> : "not yet"}</dd></div>
        <div><dt>Size</dt><dd>{e.size}</dd></div>
        <div><dt>Lease</dt><dd>{e.phase === "gone" ? "ended" : lease}</dd></div>
        {e.max_age ? <div><dt>Oldest instance</dt><dd>{span(e.max_age / 1e6)}</dd></div> : null}
        {e.run && <div><dt>Run</dt><dd><Link to={`/runs/${encode(e.run)}`}>{e.run}</Link>{e.suite ? `, suite ${e.suite}` : ""}</dd></div>}
      </dl>
      <h2>Instances</h2>
      <Grid environment={name} instances={members} columns={innerWidth < 600 ? 15 : 30} />
      <div className="scroll" tabIndex={0} role="region" aria-label="Instances">
        <table>
          <thead><tr><th>Instance</th><th>State</th><th>Zone</th><th>Generation</th><th className="num">Age</th><th className="num">Replaced in</th><th>Trouble</th></tr></thead>
          <tbody>
            {here.map((i) => (
              <tr key={i.id}>
                <td><Link to={`/instances/${encode(`${i.environment}/${i.generation}/${i.id}`)}`}><code>{i.id}</code></Link></td>
                <td>{stateWords[i.state] ?? i.state}</td>
                <td>{i.zone}</td>
                <td><span className="key full" style={{ background: `var(${hue(i.generation)})` }} aria-hidden="true" /> {i.generation}</td>
                <td className="num">{span(now - Date.parse(i.launched))}</td>
                <td className="num">{i.due && !i.due.startsWith("0001") ? span(Date.parse(i.due) - now) : "–"}</td>
                <td>{i.touch ? `touched: ${(i.touch.what ?? []).join(", ")}` : i.trouble}</td>
              </tr>
            ))}
          </tbody>
        </table>
        {here.length === 0 && <p className="quiet">There is none.</p>}
      </div>
      <h2>Generations</h2>
      <div className="scroll" tabIndex={0} role="region" aria-label="Generations">
        <table>
          <thead><tr><th>Number</th><th>State</th><th>Image</th><th>Release</th><th className="num">Instances</th><th className="num">Never in service</th><th>Begun</th><th className="num">Took</th></tr></thead>
          <tbody>
            {mine.map((g) => (
              <tr key={g.number}>
                <td><span className="key full" style={{ background: `var(${hue(g.number)})` }} aria-hidden="true" /> {g.number}</td>
                <td><Badge>{g.phase}</Badge></td>
                <td><Link to={`/images/${encode(g.image)}`}>{g.image}</Link></td>
                <td><ReleaseName name={g.release} /></td>
                <td className="num">{g.size}</td>
                <td className="num">{g.lost} of {g.launched}</td>
                <td>{ago(g.created, now)}</td>
                <td className="num">{g.ready && !g.ready.startsWith("0001") ? span(Date.parse(g.ready) - Date.parse(g.created)) : "–"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p><Link to={`/events?object=${encodeURIComponent(`environment/${name}`)}`}>Events of {name}</Link></p>
    </>
  );
}
