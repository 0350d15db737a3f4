// Addresses: every page has one, and links that a browser understands.
import { type AnchorHTMLAttributes, useSyncExternalStore } from "react";

const moved = new Set<() => void>();
const tell = () => moved.forEach((m) => m());
window.addEventListener("popstate", tell);

export const go = (to: string) => {
  history.pushState(null, "", to);
  window.scrollTo(0, 0);
  tell();
};

export const usePath = () =>
  useSyncExternalStore(
    (m) => {
      moved.add(m);
      return () => moved.delete(m);
    },
    () => location.pathname + location.search,
  );

export function Link({ to, ...rest }: { to: string } & AnchorHTMLAttributes<HTMLAnchorElement>) {
  return (
    <a
      {...rest}
      href={to}
      onClick={(e) => {
        rest.onClick?.(e);
        if (e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
        e.preventDefault();
        go(to);
      }}
    />
  );
}
