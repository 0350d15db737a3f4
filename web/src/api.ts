// What the server answers, typed from its OpenAPI document.
import type { components } from "./openapi";

type S = components["schemas"];
export type Environment = S["Environment"];
export type Generation = S["EnvironmentGeneration"];
export type Instance = S["Instance"];
export type Fleet = S["InstanceFleet"];
export type Image = S["Image"];
export type Channel = S["ImageChannel"];
export type Release = S["Release"];
export type Run = S["PipelineRun"];
export type Suite = S["PipelineSuite"];
export type Bake = S["Bake"];
export type Foreseen = S["Foreseen"];
export type Blocker = S["Blocker"];
export type Who = S["Who"];
export type Status = S["Status"];
export type Currency = S["CurrencyStatus"];
export type Report = S["Report"];
export type ReportRow = S["ReportRow"];
export type Difference = S["ImageDiff"];

export class Problem extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly hint = "",
    readonly after = 0, // seconds until it is worth another try
  ) {
    super(message);
  }
}

export async function ask<T>(path: string, method = "GET", body?: unknown): Promise<T> {
  let res: Response;
  try {
    res = await fetch(path, {
      method,
      credentials: "same-origin",
      headers: {
        "X-Dayfly-Console": "1",
        ...(body === undefined ? {} : { "Content-Type": body instanceof Blob ? "application/octet-stream" : "application/json" }),
        // A click that is repeated because its answer was lost does nothing twice.
        ...(method === "POST" && path !== "/session" ? { "Idempotency-Key": crypto.randomUUID() } : {}),
      },
      body: body === undefined ? undefined : body instanceof Blob ? body : JSON.stringify(body),
    });
  } catch {
    throw new Problem(0, "The server does not answer.", "It may be restarting; what it runs goes on.");
  }
  const kind = res.headers.get("Content-Type") ?? "";
  if (!res.ok) {
    const p = kind.includes("json") ? await res.json().catch(() => ({})) : {};
    throw new Problem(res.status, p.detail ?? p.title ?? `The server answered ${res.status}.`, p.hint ?? "", Number(res.headers.get("Retry-After") ?? 0));
  }
  if (res.status === 204) return undefined as T;
  return kind.includes("json") ? res.json() : ((await res.text()) as T);
}

interface Page<T> {
  items: T[] | null;
  next?: string;
  revision: number;
}

/** All pages of a list, and the revision from which a watch misses nothing. */
export async function list<T>(path: string): Promise<{ items: T[]; revision: number }> {
  const items: T[] = [];
  let revision = -1;
  for (let cursor = ""; ; ) {
    const p = await ask<Page<T>>(`/v1/${path}?limit=500${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
    items.push(...(p.items ?? []));
    if (revision < 0) revision = p.revision;
    if (!p.next) return { items, revision };
    cursor = p.next;
  }
}

export const encode = (name: string) => name.split("/").map(encodeURIComponent).join("/");
