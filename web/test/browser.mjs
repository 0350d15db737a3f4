// What the tests of the console share: a browser, its pages, and what must hold on each.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Debian's Chromium. What a page says on its console, and whatever it asks elsewhere, is trouble. */
export async function start(base) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-dev-shm-usage"] });
  const trouble = [];
  const open = async (options = {}) => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, colorScheme: "light", ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(20000);
    // Whoever makes network interfaces on this machine meanwhile, such as a local
    // region, has the browser ask again; that is no fault of the page.
    page.on("console", (m) => m.type() === "error" && !page.refusals && !m.text().includes("ERR_NETWORK_CHANGED") && trouble.push(`console: ${m.text()}`));
    page.on("pageerror", (e) => trouble.push(`page: ${e.message}`));
    page.on("request", (r) => new URL(r.url()).origin !== base && !r.url().startsWith("data:") && trouble.push(`asks ${r.url()}`));
    return page;
  };
  /** Refusals that a test provoked are no trouble. */
  const forgive = (...statuses) => trouble.splice(0, trouble.length, ...trouble.filter((t) => !statuses.some((s) => t.includes(String(s)))));
  return { browser, trouble, open, forgive };
}

export async function accessible(page, name) {
  // By the browser's own evaluation: the page's policy allows no foreign script.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }));
  assert.deepEqual(violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.html).slice(0, 2).join(" ")}`), [], `${name} is not accessible`);
}

export const say = (s) => console.log(s);
export const records = (page, path) => page.evaluate((p) => fetch(p).then((r) => r.json()), path);

/** Looks again and again until there is something. */
export async function until(page, what, look, seconds = 60) {
  let last;
  for (const end = Date.now() + seconds * 1000; Date.now() < end; await page.waitForTimeout(200)) {
    last = await look();
    if (last) return last;
  }
  throw new Error(`it never came to this: ${what}`);
}

export async function signIn(page, base, token) {
  await page.goto(`${base}/`);
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Environments" }).waitFor();
}
