import { useEffect, useRef, useState } from "react";
import { ask, Problem } from "./api";

/** The code of a link is in the address's fragment, leaves the browser but to sign in, once, and is taken out of the address at once. */
function fromAddress(): string {
  const t = new URLSearchParams(location.hash.slice(1)).get("code") ?? "";
  if (t) history.replaceState(null, "", location.pathname + location.search);
  return t;
}

export function SignIn({ onDone }: { onDone: () => void }) {
  const [token, setToken] = useState("");
  const [error, setError] = useState<Problem>();
  const [busy, setBusy] = useState(false);
  const begun = useRef(false);
  const send = async (by: { code: string } | { token: string }) => {
    setBusy(true);
    setError(undefined);
    try {
      await ask("/session", "POST", by);
      onDone();
    } catch (e) {
      setError(e instanceof Problem ? e : new Problem(0, String(e)));
      setBusy(false);
    }
  };
  useEffect(() => {
    if (begun.current) return;
    begun.current = true;
    const t = fromAddress();
    if (t) void send({ code: t });
  }, []);
  return (
    <main className="signin">
      <h1><img src="/icon.svg" alt="" width="36" height="36" />Dayfly</h1>
      <form
        onSubmit={(e) => {
          e.preventDefault();
          void send({ token: token.trim() });
        }}
      >
        <label htmlFor="token">Token</label>
        <input id="token" type="password" autoComplete="off" autoFocus value={token} onChange={(e) => setToken(e.target.value)} aria-describedby="token-help" aria-invalid={error ? true : undefined} />
        <p id="token-help" className="quiet">On the server’s machine, or wherever the command line has a token, <code>dayfly console</code> prints a link that signs in here: nothing is typed. <code>dayfly token create</code> makes a token.</p>
        {error && <p className="bad" role="alert">{error.message} {error.hint}</p>}
        <button className="primary" disabled={busy || !token.trim()}>Sign in</button>
      </form>
    </main>
  );
}
