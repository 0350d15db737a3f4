import { useEffect, useState } from "react";
import { ask, encode, Problem } from "./api";
import { useSnapshot } from "./records";
import { go, Link } from "./route";
import { ago, moment, useNow } from "./words";

interface Event {
  id?: string;
  kind?: string;
  object?: string;
  name?: string;
  at?: string;
  last?: string;
  reason?: string;
  message?: string;
  severity?: string;
  count?: number;
}

const pages: Record<string, string> = { environment: "environments", instance: "instances", image: "images", run: "runs" };

/** An object as a link to its page, where it has one. */
function link(object: string) {
  const cut = object.indexOf("/");
  const kind = object.slice(0, cut), name = object.slice(cut + 1);
  return pages[kind] ? <Link to={`/${pages[kind]}/${encode(name)}`}><code>{object}</code></Link> : <code>{object}</code>;
}

/** What happened, the newest first. */
export function Events({ query }: { query: URLSearchParams }) {
  const [events, setEvents] = useState<Event[]>();
  const [error, setError] = useState<Problem>();
  const [search, setSearch] = useState(query.get("search") ?? "");
  const [object, setObject] = useState(query.get("object") ?? "");
  const live = useSnapshot();
  const now = useNow();
  const params = query.toString();
  // What the watch brings says that something happened: look again, but not often.
  const [beat, setBeat] = useState(0);
  useEffect(() => {
    const t = setTimeout(() => setBeat((n) => n + 1), 1500);
    return () => clearTimeout(t);
  }, [live]);
  useEffect(() => {
    let here = true;
    ask<{ items: Event[] | null }>(`/v1/events?limit=200${params && `&${params}`}`).then(
      (p) => here && (setEvents(p.items ?? []), setError(undefined)),
      (e) => here && setError(e),
    );
    return () => void (here = false);
  }, [params, beat]);
  return (
    <>
      <form
        className="filters"
        onSubmit={(e) => {
          e.preventDefault();
          const q = new URLSearchParams();
          if (search) q.set("search", search);
          if (object) q.set("object", object);
          go(`/events${q.size ? `?${q}` : ""}`);
        }}
      >
        <label>Search <input type="search" value={search} onChange={(e) => setSearch(e.target.value)} /></label>
        <label>Of <input value={object} placeholder="environment/shop-dev" onChange={(e) => setObject(e.target.value)} /></label>
        <button>Show</button>
      </form>
      {error && <p className="bad" role="alert">{error.message} {error.hint}</p>}
      {events && (
        <div className="scroll" tabIndex={0} role="region" aria-label="Events">
          <table>
            <thead><tr><th>When</th><th>What of</th><th>Reason</th><th>What happened</th></tr></thead>
            <tbody>
              {events.map((e, n) => (
                <tr key={e.id ?? n} className={e.severity === "error" || e.severity === "warning" ? "warn" : undefined}>
                  <td><time dateTime={e.last ?? e.at} title={moment(e.last ?? e.at)}>{ago(e.last ?? e.at, now)}</time></td>
                  <td>{link(e.object ?? "")}</td>
                  <td>{e.reason}</td>
                  <td>{e.message}{(e.count ?? 1) > 1 ? ` (${e.count} times)` : ""}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {events.length === 0 && <p className="quiet">Nothing like that happened.</p>}
        </div>
      )}
    </>
  );
}
