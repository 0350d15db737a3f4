import { useEffect, useRef, useState } from "react";
import { ask, type Status, type Who } from "./api";
import { connect, disconnect, useSnapshot } from "./records";
import { EnvironmentPage, Environments } from "./environments";
import { Events } from "./events";
import { ImageDiffPage, ImagePage, Images } from "./images";
import { InstancePage } from "./instance";
import { Report } from "./report";
import { Link, usePath } from "./route";
import { RunPage, Runs } from "./runs";
import { SignIn } from "./signin";

const tabs = [["/", "Environments"], ["/runs", "Runs"], ["/images", "Images"], ["/events", "Events"], ["/report", "Report"]] as const;

const roles = ["viewer", "deployer", "operator", "admin"];
let me: Who | undefined;
/** Whether who is signed in may do what needs a role. The server decides; this hides what it would refuse. */
export const may = (role: string) => me !== undefined && roles.indexOf(me.role) >= roles.indexOf(role);

function page(path: string) {
  const [p = "", query = ""] = path.split("?");
  const parts = p.split("/").filter(Boolean).map(decodeURIComponent);
  const rest = parts.slice(1).join("/");
  switch (parts[0] ?? "environments") {
    case "environments":
      return rest ? { title: rest, tab: "/", body: <EnvironmentPage key={rest} name={rest} /> } : { title: "Environments", tab: "/", body: <Environments /> };
    case "runs":
      return rest ? { title: rest, tab: "/runs", body: <RunPage key={rest} name={rest} /> } : { title: "Runs", tab: "/runs", body: <Runs /> };
    case "images":
      if (rest === "diff") {
        const q = new URLSearchParams(query);
        return { title: "Difference of images", tab: "/images", body: <ImageDiffPage from={q.get("from") ?? ""} to={q.get("to") ?? ""} /> };
      }
      return rest ? { title: rest, tab: "/images", body: <ImagePage key={rest} name={rest} /> } : { title: "Images", tab: "/images", body: <Images /> };
    case "instances":
      return { title: parts[parts.length - 1] ?? "Instance", tab: "/", body: <InstancePage key={rest} name={rest} /> };
    case "events":
      return { title: "Events", tab: "/events", body: <Events key={query} query={new URLSearchParams(query)} /> };
    case "report":
      return { title: "Report", tab: "/report", body: <Report /> };
  }
  return { title: "Not found", tab: "", body: <p className="quiet">There is no such page. <Link to="/">All environments</Link></p> };
}

export function App() {
  const path = usePath();
  const snapshot = useSnapshot();
  const [who, setWho] = useState<Who>();
  const [status, setStatus] = useState<Status>();
  const heading = useRef<HTMLHeadingElement>(null);
  const first = useRef(true);
  me = who;
  const signedIn = snapshot.state !== "signed-out";
  useEffect(() => {
    if (!signedIn) return setWho(undefined);
    ask<Who>("/v1/whoami").then(setWho, () => undefined);
    ask<Status>("/v1/status").then(setStatus, () => undefined);
  }, [signedIn]);
  const p = page(path);
  useEffect(() => {
    document.title = `${p.title} · Dayfly`;
    // Who reads by ear is told that the page is another one.
    if (first.current) first.current = false;
    else heading.current?.focus();
  }, [p.title]);
  if (!signedIn) return <SignIn onDone={connect} />;
  return (
    <>
      <a className="skip" href="#main">Skip to the content</a>
      <header className="top">
        <Link to="/" className="brand"><img src="/icon.svg" alt="" width="22" height="22" />Dayfly</Link>
        <nav aria-label="Pages">
          {tabs.map(([to, label]) => (
            <Link key={to} to={to} aria-current={p.tab === to ? "page" : undefined}>{label}</Link>
          ))}
        </nav>
        <div className="who">
          {status && <span className="where" title={`account ${status.account}`}>{status.region}</span>}
          {who && <span title={`role ${who.role}`}>{who.name}</span>}
          <button
            className="plain"
            onClick={() => void ask("/session", "DELETE").finally(disconnect)}
          >
            Sign out
          </button>
        </div>
      </header>
      {snapshot.state === "lost" && (
        <p className="banner" role="status">
          {snapshot.problem?.message ?? "The line to the server broke."} {snapshot.problem?.hint ?? ""} What is shown is what was last known; trying again.
        </p>
      )}
      {status && !status.active && <p className="banner" role="status">This server stands by; another one does the work. What it does is shown here.</p>}
      <main id="main">
        <h1 ref={heading} tabIndex={-1}>{p.title}</h1>
        {snapshot.state === "loading" ? <p className="quiet" role="status">Loading…</p> : p.body}
      </main>
    </>
  );
}
