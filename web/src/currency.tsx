// How current the images of environments are: who runs what, and shall run.
import { useEffect, useState } from "react";
import { ask, type Currency, encode } from "./api";
import { Blocked } from "./parts";
import { useKind } from "./records";
import { Link } from "./route";
import { moment, span, useNow } from "./words";

/** It is worked out by the server at every question: asked when a record that it is made of changes, and now and then. */
export function useCurrency(): Currency[] | undefined {
  const environments = useKind("environment");
  const channels = useKind("channel");
  const images = useKind("image");
  const [all, setAll] = useState<Currency[]>();
  const [tick, setTick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => setTick((n) => n + 1), 15_000);
    return () => clearInterval(timer);
  }, []);
  useEffect(() => {
    let over = false;
    // Changes come in bursts: one question for all of them.
    const timer = setTimeout(() => {
      ask<Currency[]>("/v1/currency").then((c) => !over && setAll(c ?? []), () => undefined);
    }, 300);
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [environments, channels, images, tick]);
  return all;
}

const words: Record<Currency["state"], string> = { current: "current", moving: "on its way", due: "about to go", waiting: "waits", ending: "ends before", "follows-none": "follows no channel" };

export function State({ of: s }: { of: Currency }) {
  return (
    <>
      {words[s.state] ?? s.state}
      {s.late && <> · <strong className="bad">late</strong></>}
      {s.revoked && <> · <strong className="bad">its image was revoked</strong></>}
    </>
  );
}

export function CurrencyTable() {
  const all = useCurrency();
  const now = useNow();
  if (!all || all.length === 0) return null;
  const from = (iso?: string) => (iso ? <time dateTime={iso} title={moment(iso)}>{Date.parse(iso) > now ? `in ${span(Date.parse(iso) - now)}` : `${span(now - Date.parse(iso))} ago`}</time> : "–");
  return (
    <>
      <h2>Who runs which image</h2>
      <div className="scroll" tabIndex={0} role="region" aria-label="Who runs which image">
        <table>
          <thead><tr><th>Environment</th><th>Follows</th><th>Runs</th><th>Shall run</th><th>State</th><th>Due</th><th>There</th></tr></thead>
          <tbody>
            {all.map((s) => (
              <tr key={s.environment}>
                <td><Link to={`/environments/${encode(s.environment)}`}>{s.environment}</Link></td>
                <td>{s.channel || "–"}</td>
                <td><Link to={`/images/${encode(s.image)}`}>{s.image}</Link></td>
                <td>{!s.target ? "–" : s.target === s.image ? "the same" : <Link to={`/images/${encode(s.target)}`}>{s.target}</Link>}</td>
                <td><State of={s} />{s.blocker ? <span className="quiet"> {s.blocker.message}{s.blocker.action ? `: ${s.blocker.action}` : ""}</span> : null}</td>
                <td>{s.state === "current" ? "–" : from(s.due)}</td>
                <td>{from(s.eta)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

/** One environment's, where there is something to say. */
export function CurrencyOf({ name }: { name: string }) {
  const s = useCurrency()?.find((c) => c.environment === name);
  if (!s || !s.target || s.state === "current") return null;
  return (
    <>
      <p>Image: <State of={s} />; it shall run <Link to={`/images/${encode(s.target)}`}>{s.target}</Link>{s.channel ? ` (${s.channel})` : ""}.</p>
      {s.blocker && <Blocked blocker={s.blocker} />}
    </>
  );
}
