// Small things that several pages show.
import { useState } from "react";
import { type Blocker, Problem } from "./api";
import { span, useNow } from "./words";

const tones: Record<string, string> = {
  serving: "good", done: "good", passed: "good", candidate: "good", verified: "good",
  waiting: "busy", retrying: "busy", queued: "busy", launching: "busy", pending: "busy", running: "busy", ending: "busy", terminating: "busy",
  failed: "bad", failing: "bad", quarantined: "bad",
};

/** A state as a word, with a sign in front that needs no colour to be read. */
export function Badge({ children }: { children: string }) {
  const tone = tones[children] ?? "still";
  return <span className={`badge ${tone}`}><span aria-hidden="true">{{ good: "●", busy: "◔", bad: "▲", still: "○" }[tone]}</span> {children}</span>;
}

export function Blocked({ blocker }: { blocker: Blocker }) {
  const now = useNow();
  return (
    <p className="blocked" role="status">
      <strong>Waits</strong> for {span(now - Date.parse(blocker.since))}: {blocker.message}
      {blocker.on ? <> (<code>{blocker.on}</code>)</> : null}
      {blocker.until && Date.parse(blocker.until) > now ? <>, expected to clear in {span(Date.parse(blocker.until) - now)}</> : null}
      {blocker.action ? <>. {blocker.action}</> : null}
    </p>
  );
}

/** A button for a call to the server: it cannot be pressed twice, and says what went wrong beside it. */
export function Action({ label, does, confirm, className, describedBy }: { label: string; does: () => Promise<unknown>; confirm?: string; className?: string; describedBy?: string }) {
  const [busy, setBusy] = useState(false);
  const [sure, setSure] = useState(false);
  const [error, setError] = useState<Problem>();
  const run = async () => {
    setSure(false);
    setBusy(true);
    setError(undefined);
    try {
      await does();
    } catch (e) {
      setError(e instanceof Problem ? e : new Problem(0, String(e)));
    } finally {
      setBusy(false);
    }
  };
  return (
    <span className="action">
      {sure ? (
        <span role="group" aria-label={confirm}>
          <span>{confirm}</span> <button className="danger" autoFocus onClick={() => void run()}>{label}</button> <button onClick={() => setSure(false)}>No</button>
        </span>
      ) : (
        <button className={className} disabled={busy} aria-busy={busy} aria-describedby={describedBy} onClick={() => (confirm ? setSure(true) : void run())}>{label}</button>
      )}
      {error && <span className="bad" role="alert">{error.message} {error.hint}</span>}
    </span>
  );
}
