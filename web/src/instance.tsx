import { useEffect, useState } from "react";
import type { components } from "./openapi";
import { ask, encode } from "./api";
import { may } from "./app";
import { Action, Badge } from "./parts";
import { useKind } from "./records";
import { Link } from "./route";
import { moment, span, stateWords, useNow } from "./words";

const at = (t: string | undefined) => (t && !t.startsWith("0001") ? t : undefined);

type InstanceLogs = components["schemas"]["InstanceLogs"];
const titles: Record<string, string> = { boot: "Boot, by the agent", console: "Console of the machine", puppet: "Puppet", deploy: "Deploy script", service: "Service" };

/** The ends of its logs, as it sent them, read again when its state changes. */
function Logs({ id, image, state }: { id: string; image: string; state: string }) {
  const [logs, setLogs] = useState<InstanceLogs>();
  const [error, setError] = useState("");
  const [beat, setBeat] = useState(0);
  useEffect(() => {
    let here = true;
    ask<InstanceLogs>(`/v1/instances/${encodeURIComponent(id)}/logs`).then((l) => here && (setLogs(l), setError("")), (e) => here && setError(`${e.message} ${e.hint ?? ""}`));
    return () => void (here = false);
  }, [id, state, beat]);
  const h = logs?.hand_off;
  return (
    <>
      <h2>Logs</h2>
      {error && <p className="bad" role="alert">{error}</p>}
      {h && <p className={h.ok ? "facts" : "bad"}>{h.ok ? "Its hand-off went well" : `Its hand-off failed: ${h.reason}`}{h.source ? `, the release came from the ${h.source}` : ""}: {(h.phases ?? []).map((p) => `${p.name} ${p.seconds.toFixed(2)} s`).join(", ")}.</p>}
      {(logs?.logs ?? []).map((l) => (
        <details key={l.name} open={l.name === "deploy" && h?.ok === false}>
          <summary>{titles[l.name] ?? l.name}{l.text ? "" : <span className="quiet">: {l.note}</span>}</summary>
          {l.text && <><p className="quiet">{at(l.at) ? `as of ${moment(l.at)}` : ""}</p><pre tabIndex={0} aria-label={`Log: ${titles[l.name] ?? l.name}`}>{l.text}</pre></>}
          {l.name === "puppet" && !l.text && <p><a href={`/v1/images/${encode(image)}/report`}>Puppet’s report of {image}</a></p>}
        </details>
      ))}
      <p><button className="plain" onClick={() => setBeat((n) => n + 1)}>Read the logs again</button></p>
    </>
  );
}

export function InstancePage({ name }: { name: string }) {
  const i = useKind("instance").get(name);
  const now = useNow();
  const [why, setWhy] = useState("");
  if (!i) return <p className="quiet">There is no instance {name} any more. <Link to="/">All environments</Link></p>;
  const end = at(i.ended), born = Date.parse(i.launched);
  const known = i.steps ?? [];
  const has = (word: string) => known.some((s) => s.what.startsWith(word));
  const steps = [
    ...(has("launched") ? [] : [{ at: i.launched, what: "launched" }]),
    ...known,
    ...(at(i.in_service) && !has("in service") ? [{ at: i.in_service!, what: "in service" }] : []),
    ...(i.touch && !has("touched") ? [{ at: i.touch.at, what: `touched${i.touch.by ? ` by ${i.touch.by}` : ""}: ${(i.touch.what ?? []).join(", ")}` }] : []),
    ...(end && !has("gone") ? [{ at: end, what: `gone${i.why ? `: ${i.why}` : ""}` }] : []),
  ].sort((a, b) => a.at.localeCompare(b.at));
  return (
    <>
      <p className="lead"><Badge>{i.state}</Badge> {end ? `lived ${span(Date.parse(end) - born)}` : `is ${span(now - born)} old`}{i.trouble ? ` · ${i.trouble}` : ""}</p>
      <dl className="pairs">
        <div><dt>Environment</dt><dd><Link to={`/environments/${encode(i.environment)}`}>{i.environment}</Link>, generation {i.generation}</dd></div>
        <div><dt>Image</dt><dd><Link to={`/images/${encode(i.image)}`}>{i.image}</Link></dd></div>
        <div><dt>Release</dt><dd>{i.release}</dd></div>
        <div><dt>Zone, type</dt><dd>{i.zone}{i.type ? `, ${i.type}` : ""}</dd></div>
        {i.address && <div><dt>Private address</dt><dd><code>{i.address}</code></dd></div>}
        {at(i.due) && !end && <div><dt>Replaced in</dt><dd>{span(Date.parse(i.due!) - now)} <span className="quiet">({moment(i.due)})</span></dd></div>}
        {i.parent && <div><dt>Replaces</dt><dd><Link to={`/instances/${encode(`${i.environment}/${i.generation}/${i.parent}`)}`}><code>{i.parent}</code></Link></dd></div>}
        {i.keep && !end && <div><dt>Kept</dt><dd>until {moment(i.keep.until)} by {i.keep.by}{i.keep.why ? `: ${i.keep.why}` : ""}</dd></div>}
      </dl>
      <h2>Its life</h2>
      <ol className="timeline">
        {steps.map((s, n) => (
          <li key={n}><time dateTime={s.at} title={moment(s.at)}>+{span(Date.parse(s.at) - born)}</time> {s.what}</li>
        ))}
        {!end && <li className="now">now: {stateWords[i.state] ?? i.state}{i.leave ? `, ${i.leave.why}` : ""}</li>}
      </ol>
      {!end && may("deployer") && (
        <>
          <h2>Do something</h2>
          <div className="bar">
            <label>Why <input value={why} maxLength={300} onChange={(e) => setWhy(e.target.value)} /></label>
            <Action label="Replace" confirm="Replace it after another one serves?" does={() => ask("/v1/instances/replace", "POST", { name, why })} />
            {may("operator") && (i.keep
              ? <Action label="End keeping" does={() => ask("/v1/instances/release", "POST", { name })} />
              : <Action label="Keep for an hour" confirm="Take it out of service and keep it for a look?" does={() => ask("/v1/instances/keep", "POST", { name, minutes: 60, why })} />)}
          </div>
        </>
      )}
      <Logs id={i.id} image={i.image} state={i.state} />
      <p><Link to={`/events?object=${encodeURIComponent(`instance/${name}`)}`}>Events of {i.id}</Link></p>
    </>
  );
}
