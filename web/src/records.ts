// The records that the console shows, kept equal to the server's by its watch.
import { useSyncExternalStore } from "react";
import { ask, type Bake, type Channel, type Environment, type Fleet, type Generation, type Image, type Instance, list, Problem, type Release, type Run } from "./api";

interface Kinds {
  environment: Environment;
  generation: Generation;
  instance: Instance;
  fleet: Fleet;
  image: Image;
  channel: Channel;
  release: Release;
  run: Run;
  bake: Bake;
}
export type Kind = keyof Kinds;

const lists: Record<Kind, string> = {
  environment: "environments", generation: "generations", instance: "instances", fleet: "fleets", image: "images",
  channel: "channels", release: "releases", run: "runs", bake: "bakes",
};

const names: { [K in Kind]: (r: Kinds[K]) => string } = {
  environment: (e) => e.name,
  generation: (g) => `${g.environment}/${g.number}`,
  instance: (i) => `${i.environment}/${i.generation}/${i.id}`,
  fleet: (f) => f.name,
  image: (i) => i.name,
  channel: (c) => c.name,
  release: (r) => r.name,
  run: (r) => r.name,
  bake: (b) => b.name,
};

/** Everything, at one moment. Maps are replaced, never changed, when what they hold changes. */
export interface Snapshot {
  kinds: { [K in Kind]: ReadonlyMap<string, Kinds[K]> };
  /** Instances by environment: only those of environments that changed are new arrays. */
  members: ReadonlyMap<string, readonly Instance[]>;
  state: "loading" | "live" | "lost" | "signed-out";
  problem?: Problem;
}

const empty = (): Snapshot => ({
  kinds: Object.fromEntries(Object.keys(lists).map((k) => [k, new Map()])) as unknown as Snapshot["kinds"],
  members: new Map(),
  state: "loading",
});

let now = empty();
const listeners = new Set<() => void>();
let pending: { kind: Kind; name: string; deleted?: boolean; record?: unknown }[] = [];
let scheduled = false;
let source: EventSource | undefined;
let begun = 0; // of the connection: what an older one still says is not heard

function publish(next: Snapshot) {
  now = next;
  listeners.forEach((l) => l());
}

/** Changes that come together are shown together, at most once a frame. */
function flush() {
  scheduled = false;
  const changes = pending;
  pending = [];
  if (changes.length === 0) return;
  const kinds = { ...now.kinds } as Record<Kind, Map<string, unknown>>;
  const fresh = new Set<Kind>();
  const touched = new Map<string, Map<string, Instance>>();
  for (const c of changes) {
    if (!(c.kind in lists)) continue;
    if (!fresh.has(c.kind)) {
      kinds[c.kind] = new Map(kinds[c.kind]);
      fresh.add(c.kind);
    }
    if (c.deleted) kinds[c.kind].delete(c.name);
    else kinds[c.kind].set(c.name, c.record);
    if (c.kind === "instance") {
      const environment = c.name.slice(0, c.name.indexOf("/"));
      let m = touched.get(environment);
      if (!m) touched.set(environment, (m = new Map((now.members.get(environment) ?? []).map((i) => [names.instance(i), i]))));
      if (c.deleted) m.delete(c.name);
      else m.set(c.name, c.record as Instance);
    }
  }
  let members = now.members;
  if (touched.size > 0) {
    const next = new Map(members);
    for (const [environment, m] of touched) next.set(environment, sorted([...m.values()]));
    members = next;
  }
  publish({ ...now, kinds: kinds as unknown as Snapshot["kinds"], members });
}

const sorted = (is: Instance[]) => is.sort((a, b) => a.generation - b.generation || a.launched.localeCompare(b.launched) || a.id.localeCompare(b.id));

async function load() {
  const mine = ++begun;
  source?.close();
  try {
    // One question first: without a session, ten would be ten failures to sign in.
    await ask("/v1/whoami");
    const next = empty();
    let since = Number.MAX_SAFE_INTEGER;
    await Promise.all(
      (Object.keys(lists) as Kind[]).map(async (k) => {
        const { items, revision } = await list<never>(lists[k]);
        since = Math.min(since, revision);
        const m = new Map(items.map((r) => [names[k](r), r]));
        (next.kinds as Record<Kind, unknown>)[k] = m;
      }),
    );
    if (mine !== begun) return;
    const by = new Map<string, Instance[]>();
    for (const i of next.kinds.instance.values()) {
      const l = by.get(i.environment);
      if (l) l.push(i);
      else by.set(i.environment, [i]);
    }
    for (const l of by.values()) sorted(l);
    publish({ ...next, members: by, state: "live" });
    watch(since, mine);
  } catch (e) {
    if (mine !== begun) return;
    const p = e instanceof Problem ? e : new Problem(0, String(e));
    if (p.status === 401) {
      publish({ ...empty(), state: "signed-out" });
      return;
    }
    publish({ ...now, state: "lost", problem: p });
    setTimeout(() => mine === begun && load(), Math.max(2000, p.after * 1000));
  }
}

function watch(since: number, mine: number) {
  const s = (source = new EventSource(`/v1/watch?since=${since}`));
  s.addEventListener("change", (e) => {
    if (mine !== begun) return;
    pending.push(JSON.parse(e.data));
    if (!scheduled) {
      scheduled = true;
      // Frames stop in a tab that nobody sees; what changes there must not pile up.
      if (document.hidden) setTimeout(flush, 500);
      else requestAnimationFrame(flush);
    }
  });
  s.addEventListener("reset", () => mine === begun && load());
  s.onopen = () => mine === begun && now.state !== "live" && publish({ ...now, state: "live", problem: undefined });
  s.onerror = () => {
    if (mine !== begun) return;
    publish({ ...now, state: "lost" });
    // A browser comes again by itself after a line that broke, and not after a refusal.
    if (s.readyState === EventSource.CLOSED) setTimeout(() => mine === begun && load(), 2000);
  };
}

export function connect() {
  publish(empty());
  void load();
}

export function disconnect() {
  begun++;
  source?.close();
  publish({ ...empty(), state: "signed-out" });
}

const subscribe = (l: () => void) => {
  listeners.add(l);
  return () => listeners.delete(l);
};

export const useSnapshot = () => useSyncExternalStore(subscribe, () => now);
export const useKind = <K extends Kind>(k: K): ReadonlyMap<string, Kinds[K]> => useSyncExternalStore(subscribe, () => now.kinds[k]);
const none: readonly Instance[] = [];
export const useMembers = (environment: string) => useSyncExternalStore(subscribe, () => now.members.get(environment) ?? none);
