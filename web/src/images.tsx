import { useEffect, useMemo, useState } from "react";
import { ask, type Difference, encode, type Image } from "./api";
import { may } from "./app";
import { CurrencyTable } from "./currency";
import { Action, Badge } from "./parts";
import { useKind } from "./records";
import { go, Link } from "./route";
import { ago, moment, plural, span, useNow } from "./words";

export function Images() {
  const all = useKind("image");
  const channels = useKind("channel");
  const environments = useKind("environment");
  const now = useNow();
  const list = useMemo(() => [...all.values()].sort((a, b) => b.created.localeCompare(a.created)), [all]);
  const using = useMemo(() => {
    const u = new Map<string, string[]>();
    for (const e of environments.values()) if (e.phase !== "gone" && e.image) u.set(e.image, [...(u.get(e.image) ?? []), e.name]);
    return u;
  }, [environments]);
  if (list.length === 0) return <div className="empty"><p>There is no image yet. A deploy bakes what it needs; this bakes alone:</p><pre><code>dayfly bake shop</code></pre></div>;
  return (
    <>
      {channels.size > 0 && (
        <dl className="pairs">
          {[...channels.values()].map((c) => (
            <div key={c.name}><dt>{c.name}</dt><dd><Link to={`/images/${encode(c.image)}`}>{c.image}</Link> <span className="quiet">since {ago(c.moved, now)}, by {c.by}</span></dd></div>
          ))}
        </dl>
      )}
      <CurrencyTable />
      <h2>All images</h2>
      <div className="scroll" tabIndex={0} role="region" aria-label="Images">
        <table>
          <thead><tr><th>Image</th><th>State</th><th>Blueprint</th><th>Base</th><th>Made</th><th className="num">Took</th><th>Environments on it</th></tr></thead>
          <tbody>
            {list.map((i) => (
              <tr key={i.name}>
                <td><Link to={`/images/${encode(i.name)}`}>{i.name}</Link></td>
                <td><Badge>{i.state}</Badge></td>
                <td>{i.blueprint}</td>
                <td>{i.base || i.parent}</td>
                <td><time dateTime={i.created} title={moment(i.created)}>{ago(i.created, now)}</time></td>
                <td className="num">{span(i.seconds * 1000)}</td>
                <td>{(using.get(i.name) ?? []).map((e, n) => <span key={e}>{n > 0 && ", "}<Link to={`/environments/${encode(e)}`}>{e}</Link></span>)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

export function ImagePage({ name }: { name: string }) {
  const all = useKind("image");
  const i = all.get(name);
  const environments = useKind("environment");
  const channels = useKind("channel");
  const [why, setWhy] = useState("");
  const [channel, setChannel] = useState("stable");
  const [reason, setReason] = useState("");
  const [other, setOther] = useState("");
  if (!i) return <p className="quiet">There is no image {name}. <Link to="/images">All images</Link></p>;
  const others = [...all.values()].filter((o) => o.name !== name && o.blueprint === i.blueprint).sort((a, b) => b.created.localeCompare(a.created));
  const before = others.find((o) => o.created < i.created);
  const on = [...environments.values()].filter((e) => e.image === name && e.phase !== "gone");
  const bad = i.state === "quarantined";
  const named = [...channels.values()].filter((c) => c.name.startsWith(`${i.blueprint}/`) && !c.name.endsWith("/candidate")).map((c) => c.name.slice(i.blueprint.length + 1));
  return (
    <>
      <p className="lead"><Badge>{i.state}</Badge> {i.why}</p>
      <dl className="pairs">
        <div><dt>Machine image</dt><dd><code>{i.ami}</code></dd></div>
        <div><dt>Parent</dt><dd>{i.base ? `${i.base}, ` : ""}<code>{i.parent}</code></dd></div>
        <div><dt>Inputs</dt><dd><code>{i.inputs}</code></dd></div>
        <div><dt>Made</dt><dd>{moment(i.created)} in {span(i.seconds * 1000)}{i.by ? `, by ${i.by}` : ""}</dd></div>
        <div><dt>Channels</dt><dd>{[...channels.values()].filter((c) => c.image === name).map((c) => c.name).join(", ") || "none points here"}</dd></div>
        <div><dt>Environments on it</dt><dd>{on.length ? on.map((e, n) => <span key={e.name}>{n > 0 && ", "}<Link to={`/environments/${encode(e.name)}`}>{e.name}</Link></span>) : "none"}</dd></div>
        {i.resumed && <div><dt>Not from nothing</dt><dd>made on the builder of {i.resumed}, with {plural(i.tries ?? 0, "try", "tries")} and {plural(i.hands ?? 0, "command")} by hand</dd></div>}
      </dl>
      <h2>What is in it</h2>
      <p>
        {before && <><Link to={`/images/diff?from=${encodeURIComponent(before.name)}&to=${encodeURIComponent(name)}`}>What changed since {before.name}</Link> · </>}
        {i.report && <><a href={`/v1/images/${encode(name)}/report`}>Puppet’s report</a> · </>}
        {i.sbom && <a href={`/v1/images/${encode(name)}/sbom`}>bill of materials (CycloneDX)</a>}
      </p>
      {others.length > 0 && (
        <form
          className="bar"
          onSubmit={(e) => {
            e.preventDefault();
            if (other) go(`/images/diff?from=${encodeURIComponent(other)}&to=${encodeURIComponent(name)}`);
          }}
        >
          <label>Compare with <select value={other} onChange={(e) => setOther(e.target.value)}><option value="">another image</option>{others.map((o) => <option key={o.name}>{o.name}</option>)}</select></label>
          <button disabled={!other}>Compare</button>
        </form>
      )}
      <Checks image={i} />
      {may("deployer") && !bad && i.state !== "retired" && (
        <>
          <h2>Promote</h2>
          <p className="quiet">What follows the channel is taken to this image by itself.</p>
          <div className="bar">
            <label>Channel <input value={channel} maxLength={32} list="channels" onChange={(e) => setChannel(e.target.value)} /></label>
            <datalist id="channels">{named.map((c) => <option key={c} value={c} />)}</datalist>
            <label>Why <input value={reason} maxLength={300} onChange={(e) => setReason(e.target.value)} /></label>
            <Action label="Promote" does={() => ask(`/v1/images/${encode(name)}/promote`, "POST", { channel, why: reason })} />
          </div>
        </>
      )}
      {may("operator") && (
        <>
          <h2>{bad ? "Quarantine" : "Put into quarantine"}</h2>
          <p className="quiet">{bad ? "It is never launched again until it is released." : "It is never launched again, anywhere. What runs goes on; revoked, it is replaced at once, and runs that test it end."}</p>
          <div className="bar">
            <label>Why <input value={why} maxLength={300} onChange={(e) => setWhy(e.target.value)} /></label>
            <Action label={bad ? "Release" : "Quarantine"} confirm={bad ? `Release ${name}?` : `Quarantine ${name}?`} does={() => ask(`/v1/images/${encode(name)}/quarantine`, "POST", { quarantined: !bad, why })} />
            {!i.revoked && <Action label="Revoke" className="danger" confirm={`Revoke ${name}, and replace what runs from it?`} does={() => ask(`/v1/images/${encode(name)}/revoke`, "POST", { why })} />}
          </div>
        </>
      )}
    </>
  );
}

function Checks({ image }: { image: Image }) {
  const list = image.checks ?? [];
  if (list.length === 0) return null;
  return (
    <>
      <h2>Checks on fresh instances</h2>
      <ul className="plainlist">
        {list.map((c, n) => (
          <li key={n}><Badge>{c.passed ? "passed" : "failed"}</Badge> {c.name}{c.on ? <span className="quiet"> on {c.on}</span> : null}{c.output ? <details><summary>What {c.name} printed{c.on ? ` on ${c.on}` : ""}</summary><pre tabIndex={0}>{c.output}</pre></details> : null}</li>
        ))}
      </ul>
    </>
  );
}

export function ImageDiffPage({ from, to }: { from: string; to: string }) {
  const [diff, setDiff] = useState<Difference>();
  const [error, setError] = useState("");
  useEffect(() => {
    setDiff(undefined);
    ask<Difference>(`/v1/images/${encode(from)}/diff?to=${encodeURIComponent(to)}`).then(setDiff, (e) => setError(`${e.message} ${e.hint ?? ""}`));
  }, [from, to]);
  return (
    <>
      <p className="lead"><Link to={`/images/${encode(from)}`}>{from}</Link> → <Link to={`/images/${encode(to)}`}>{to}</Link></p>
      {error && <p className="bad" role="alert">{error}</p>}
      {!diff && !error && <p className="quiet" role="status">Loading…</p>}
      {diff && (
        <div className="scroll" tabIndex={0} role="region" aria-label="Differences">
          <table>
            <thead><tr><th>What</th><th>Name</th><th>Change</th><th>From</th><th>To</th></tr></thead>
            <tbody>{(diff.changes ?? []).map((c, n) => <tr key={n}><td>{c.kind}</td><td><code>{c.name}</code></td><td>{c.what}</td><td>{c.from}</td><td>{c.to}</td></tr>)}</tbody>
          </table>
          {(diff.changes ?? []).length === 0 && <p className="quiet">Packages, files and Puppet resources are the same.</p>}
        </div>
      )}
    </>
  );
}
