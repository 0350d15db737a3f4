// How times, numbers and states are said.
import { useSyncExternalStore } from "react";
import type { Generation, Instance } from "./api";

let clock = Date.now();
const ticks = new Set<() => void>();
setInterval(() => {
  clock = Date.now();
  ticks.forEach((t) => t());
}, 1000);

/** The time in milliseconds, once a second. */
export const useNow = () =>
  useSyncExternalStore(
    (t) => {
      ticks.add(t);
      return () => ticks.delete(t);
    },
    () => clock,
  );

export function span(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 100) return `${s} s`;
  if (s < 100 * 60) return `${Math.round(s / 60)} min`;
  const m = Math.round(s / 60);
  if (s < 48 * 3600) return `${Math.floor(m / 60)} h ${m % 60} min`;
  return `${Math.round(s / 86400)} days`;
}

export const ago = (iso: string | undefined, now: number) => (iso ? `${span(now - Date.parse(iso))} ago` : "");
export const moment = (iso: string | undefined) => (iso ? new Date(iso).toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" }) : "");
export const plural = (n: number, one: string, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

/** What is short for a release or an image: its last part. */
export const short = (name: string) => name.slice(name.lastIndexOf("/") + 1);

export function median(ns: number[]): number | undefined {
  const s = [...ns].sort((a, b) => a - b);
  return s.length ? s[Math.floor(s.length / 2)] : undefined;
}

/** How long generations of this size took from launch to healthy, in milliseconds. */
export function usual(generations: Iterable<Generation>, environment: string): { ms: number; runs: number } | undefined {
  const took: number[] = [];
  for (const g of generations) {
    if (g.environment === environment && g.ready && !g.ready.startsWith("0001")) took.push(Date.parse(g.ready) - Date.parse(g.created));
  }
  const last = took.slice(-10);
  const ms = median(last);
  return ms === undefined ? undefined : { ms, runs: last.length };
}

export const stateWords: Record<string, string> = {
  launching: "launching", serving: "serving", failing: "failing its health check", leaving: "leaving", kept: "kept for a look", gone: "gone",
};

export function counts(is: readonly Instance[]): Record<string, number> {
  const c: Record<string, number> = {};
  for (const i of is) c[i.state] = (c[i.state] ?? 0) + 1;
  return c;
}

export const countsText = (c: Record<string, number>) =>
  ["serving", "launching", "failing", "leaving", "kept"].filter((s) => c[s]).map((s) => `${c[s]} ${s}`).join(", ") || "no instances";
