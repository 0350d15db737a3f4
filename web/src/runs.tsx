import { useEffect, useMemo, useState } from "react";
import { ask, encode, Problem, type Run, type Suite } from "./api";
import { may } from "./app";
import { Action, Badge, Blocked } from "./parts";
import { useKind } from "./records";
import { Link } from "./route";
import { ago, moment, plural, span, useNow } from "./words";

const over = (t: string | undefined) => Boolean(t) && !t!.startsWith("0001");
const suites = (r: Run) => r.suites ?? [];
const ok = (s: Suite) => over(s.ended) && (s.result ? s.result === "passed" : !s.error && s.failed === 0 && s.passed > 0);
const state = (s: Suite) => (over(s.ended) ? s.result || (ok(s) ? "passed" : "failed") : s.phase);
const runState = (r: Run) => (r.phase === "done" ? (r.passed ? "passed" : "failed") : r.phase);

/** What failed first, what is under way next, what passed last. */
const rank: Record<string, number> = { failed: 0, waiting: 1, retrying: 2, running: 2, launching: 3, queued: 4, pending: 4, ending: 5, passed: 6, skipped: 7 };
const first = (a: Suite, b: Suite) => (rank[state(a)] ?? 2) - (rank[state(b)] ?? 2) || a.name.localeCompare(b.name);

export function Runs() {
  const all = useKind("run");
  const now = useNow();
  const list = useMemo(() => [...all.values()].sort((a, b) => b.created.localeCompare(a.created)), [all]);
  if (list.length === 0) return <div className="empty"><p>There was no run yet. One command runs all suites of a blueprint side by side, each in an environment of its own.</p><pre><code>dayfly test shop</code></pre></div>;
  return (
    <div className="scroll" tabIndex={0} role="region" aria-label="Runs">
      <table>
        <thead><tr><th>Run</th><th>State</th><th>Suites</th><th>Release</th><th>By</th><th>Begun</th><th className="num">Took</th></tr></thead>
        <tbody>
          {list.map((r) => (
            <tr key={r.name}>
              <td><Link to={`/runs/${encode(r.name)}`}>{r.name}</Link></td>
              <td><Badge>{runState(r)}</Badge></td>
              <td>{suites(r).filter(ok).length} of {suites(r).length} passed</td>
              <td>{r.release ?? ""}</td>
              <td>{r.by}</td>
              <td><time dateTime={r.created} title={moment(r.created)}>{ago(r.created, now)}</time></td>
              <td className="num">{span((over(r.ended) ? Date.parse(r.ended!) : now) - Date.parse(r.created))}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function RunPage({ name }: { name: string }) {
  const r = useKind("run").get(name);
  const now = useNow();
  if (!r) return <p className="quiet">There is no run {name}. <Link to="/runs">All runs</Link></p>;
  const list = [...suites(r)].sort(first);
  const done = list.filter((s) => over(s.ended)).length;
  return (
    <>
      <p className="lead"><Badge>{runState(r)}</Badge> {done} of {plural(list.length, "suite")} ended, {list.filter((s) => over(s.ended) && !ok(s)).length} failed · {over(r.ended) ? `took ${span(Date.parse(r.ended!) - Date.parse(r.created))}` : `for ${span(now - Date.parse(r.created))}`}</p>
      {!over(r.ended) && <progress max={list.length} value={done} aria-label="suites that ended" />}
      {r.blocker && <Blocked blocker={r.blocker} />}
      {r.error && <p className="bad">{r.error}</p>}
      {may("deployer") && !over(r.ended) && <div className="bar"><Action label="Cancel" confirm={`End ${name} and all that it launched?`} does={() => ask(`/v1/runs/${encode(name)}`, "DELETE")} /></div>}
      <dl className="pairs">
        <div><dt>Image</dt><dd>{r.image ? <Link to={`/images/${encode(r.image)}`}>{r.image}</Link> : "not yet"}</dd></div>
        <div><dt>Release</dt><dd>{r.release || "not yet"}</dd></div>
        <div><dt>By</dt><dd>{r.by}</dd></div>
        <div><dt>Begun</dt><dd>{moment(r.created)}</dd></div>
      </dl>
      {r.clean && <p className={r.clean.left ? "bad" : "quiet"}>{r.clean.left ? `${plural(r.clean.left, "thing")} of this run ${r.clean.left === 1 ? "is" : "are"} left: ${(r.clean.names ?? []).join(", ")}` : "Nothing of this run is left in the cloud."}</p>}
      {(r.stages ?? []).map((stage) => (
        <section key={stage.name} aria-label={`Stage ${stage.name}`}>
          <h2>{stage.name} <Badge>{stage.result || stage.phase}</Badge></h2>
          {stage.why && <p className={stage.result === "failed" ? "bad" : "quiet"}>{stage.why}</p>}
          {stage.gate && <GateRow run={name} stage={stage} />}
          {stage.deploy && <p className="facts">deploys to <Link to={`/environments/${encode(stage.deploy.environment || stage.deploy.purpose)}`}>{stage.deploy.environment || stage.deploy.purpose}</Link> what was tested here</p>}
          <ul className="suites">
            {list.filter((s) => s.stage === stage.name).map((s) => <SuiteRow key={s.name} run={name} suite={s} now={now} />)}
          </ul>
        </section>
      ))}
      {(r.stages ?? []).length === 0 && (
        <>
          <h2>Suites</h2>
          <ul className="suites">
            {list.map((s) => <SuiteRow key={s.name} run={name} suite={s} now={now} />)}
          </ul>
        </>
      )}
    </>
  );
}

type Stage = NonNullable<Run["stages"]>[number];

/** A point where a person decides. The server says who may. */
function GateRow({ run, stage }: { run: string; stage: Stage }) {
  const g = stage.gate!;
  const [comment, setComment] = useState("");
  const decide = (passed: boolean) => () => ask(`/v1/runs/${encode(run)}/stages/${encode(stage.name)}/verdict`, "POST", { passed, comment });
  if (g.command) return <CommandRow command={g.command} />;
  if (g.verdict) return <p className="facts">{g.verdict.passed ? "approved" : "rejected"} by {g.verdict.by}, {moment(g.verdict.at)}{g.verdict.comment ? `: ${g.verdict.comment}` : ""}</p>;
  if (over(stage.ended)) return null;
  return (
    <>
      <p className="facts">{(g.by ?? []).length ? `decided by ${(g.by ?? []).join(", ")}` : "decided by results"}{g.measured ? ` · ${g.measured}` : ""}{over(g.until) ? ` · until ${moment(g.until)}` : ""}</p>
      {stage.phase === "running" && (g.by ?? []).length > 0 && (
        <div className="bar">
          <label>Comment <input value={comment} maxLength={4000} onChange={(e) => setComment(e.target.value)} /></label>
          <Action className="primary" label={`Approve ${stage.name}`} does={decide(true)} />
          <Action label="Reject" confirm={`Reject ${stage.name}?`} does={decide(false)} />
        </div>
      )}
    </>
  );
}

/** A gate that the team's own command decides. */
function CommandRow({ command: c }: { command: NonNullable<NonNullable<Stage["gate"]>["command"]> }) {
  return (
    <>
      <p className="facts">decided by <code>{c.run}</code>{c.instance ? ` on ${c.instance} of ${c.environment}` : ""}{c.waits ? `: ${c.waits}` : ""}{c.exit === undefined ? "" : ` · exit code ${c.exit}`}</p>
      {c.output && <details open={c.exit !== 0}><summary>Output</summary><pre tabIndex={0} aria-label={`Output of ${c.run}`}>{c.output}</pre></details>}
    </>
  );
}

/** What a tester does: steps, a checklist, and a verdict. */
function ManualRow({ run, suite: s }: { run: string; suite: Suite }) {
  const m = s.manual!;
  const [checked, setChecked] = useState<string[]>([]);
  const [comment, setComment] = useState("");
  const judge = (passed: boolean) => () => ask(`/v1/runs/${encode(run)}/suites/${encode(s.name)}/verdict`, "POST", { passed, comment, checked });
  return (
    <>
      {(m.steps ?? []).length > 0 && <ol>{(m.steps ?? []).map((step, n) => <li key={n}>{step}</li>)}</ol>}
      {m.notice && <p className="blocked">{m.notice}</p>}
      {(m.attachments ?? []).length > 0 && (
        <p className="facts">
          Attached: {(m.attachments ?? []).map((a, n) => <span key={a.name}>{n > 0 && ", "}<a href={`/v1/runs/${encode(run)}/suites/${encode(s.name)}/file?path=${encodeURIComponent(`attachments/${a.name}`)}`}>{a.name}</a> <span className="quiet">by {a.by}</span></span>)}
        </p>
      )}
      {m.verdict && <p className="facts">{m.verdict.passed ? "passed" : "failed"} by {m.verdict.by}, {moment(m.verdict.at)}{m.verdict.comment ? `: ${m.verdict.comment}` : ""}</p>}
      {s.phase === "waiting" && !m.verdict && (
        <>
          {s.address && <p>Try it at <a href={s.address} rel="noreferrer noopener" target="_blank">{s.address}</a>{over(m.until) ? `, until ${moment(m.until)}` : ""}.</p>}
          {may("deployer") && (
            <>
              {(m.checklist ?? []).map((c) => (
                <label key={c} className="point"><input type="checkbox" checked={checked.includes(c)} onChange={(e) => setChecked(e.target.checked ? [...checked, c] : checked.filter((x) => x !== c))} /> {c}</label>
              ))}
              <Attach run={run} suite={s.name} />
              <div className="bar">
                <label>Comment <input value={comment} maxLength={4000} onChange={(e) => setComment(e.target.value)} /></label>
                <Action className="primary" label={`Pass ${s.name}`} does={judge(true)} />
                <Action label={`Fail ${s.name}`} does={judge(false)} />
              </div>
            </>
          )}
        </>
      )}
    </>
  );
}

/** Files that a tester gives, one after the other; a new one of the same name takes the old one's place. */
function Attach({ run, suite }: { run: string; suite: string }) {
  const [said, setSaid] = useState("");
  const [bad, setBad] = useState("");
  const send = async (files: File[]) => {
    setBad("");
    try {
      for (const f of files) {
        setSaid(`Sending ${f.name}.`);
        await ask(`/v1/runs/${encode(run)}/suites/${encode(suite)}/attachments/${encodeURIComponent(f.name)}`, "PUT", f);
      }
      setSaid(`${plural(files.length, "file")} attached.`);
    } catch (e) {
      setSaid("");
      setBad(e instanceof Problem ? `${e.message} ${e.hint}` : String(e));
    }
  };
  return (
    <p className="bar">
      <label>Attach files to {suite} <input type="file" multiple onChange={(e) => { const t = e.target; void send([...(t.files ?? [])]).finally(() => (t.value = "")); }} /></label>
      <span role="status" className="quiet">{said}</span>
      {bad && <span className="bad" role="alert">{bad}</span>}
    </p>
  );
}

function SuiteRow({ run, suite: s, now }: { run: string; suite: Suite; now: number }) {
  const [open, setOpen] = useState(false);
  const [log, setLog] = useState<string>();
  useEffect(() => {
    if (!open || log !== undefined) return;
    ask<string>(`/v1/runs/${encode(run)}/suites/${encode(s.name)}/log.txt`).then(setLog, (e) => setLog(String(e.message)));
  }, [open]);
  return (
    <li className="suite">
      <h3>{s.name} <Badge>{state(s)}</Badge></h3>
      <p className="facts">
        {over(s.ended) ? `${s.passed} passed, ${s.failed} failed${s.skipped ? `, ${s.skipped} skipped` : ""} · ` : ""}
        {plural(s.size, "instance")} · {over(s.started) ? `took ${span((over(s.ended) ? Date.parse(s.ended!) : now) - Date.parse(s.started!))}` : "not begun"}
        {s.environment ? <> · <Link to={`/environments/${encode(s.environment)}`}>{s.environment}</Link></> : null}
      </p>
      {s.flaky && <p className="blocked">Flaky: it failed before it passed, in {plural((s.tries ?? []).length + 1, "try", "tries")}.</p>}
      {s.waits && !over(s.ended) && <p className="blocked">{s.waits}</p>}
      {s.error && <p className="bad">{s.error}</p>}
      {s.manual && <ManualRow run={run} suite={s} />}
      {(s.failures ?? []).length > 0 && (
        <ul className="failures">
          {(s.failures ?? []).map((f, n) => <li key={n}><strong>{f.case}</strong> {f.message}</li>)}
        </ul>
      )}
      {over(s.ended) && s.results && !s.manual && (
        <details onToggle={(e) => setOpen((e.target as HTMLDetailsElement).open)}>
          <summary>Log of {s.name}</summary>
          {open && <pre tabIndex={0}>{log ?? "It is being read."}</pre>}
        </details>
      )}
    </li>
  );
}
