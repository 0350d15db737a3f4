// The console in Debian's Firefox, which is driven by WebDriver BiDi: the stock
// browser, no build of its own. A smoke test; console.mjs has the details.
//   node firefox.mjs URL OUT < {"dayfly": "BINARY", "environment": "shop-dev", "run": "shop-r1"}
import { execFileSync } from "node:child_process";
import { readFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import assert from "node:assert/strict";
import puppeteer from "puppeteer-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const [base, out] = process.argv.slice(2);
const given = JSON.parse(readFileSync(0, "utf8"));
mkdirSync(out, { recursive: true });

const browser = await puppeteer.launch({ browser: "firefox", executablePath: process.env.FIREFOX ?? "/usr/bin/firefox-esr", headless: true, timeout: 60000 });
const trouble = [];
const say = (s) => console.log(s);

try {
  say(await browser.version());
  const page = await browser.newPage();
  page.setDefaultTimeout(30000);
  await page.setViewport({ width: 1280, height: 860 });
  page.on("pageerror", (e) => trouble.push(`page: ${e.message}`));
  page.on("request", (r) => !r.url().startsWith(base) && !r.url().startsWith("data:") && trouble.push(`asks ${r.url()}`));
  const text = (selector, words) => page.waitForFunction((s, w) => [...document.querySelectorAll(s)].some((e) => e.textContent.includes(w)), {}, selector, words);
  const one = () => page.evaluate((n) => fetch(`/v1/environments?name=${n}`).then((r) => r.json()).then((l) => l.items[0]), given.environment);

  // The link is made when the browser is up: its code works for a minute.
  const link = execFileSync(given.dayfly, ["console"], { encoding: "utf8" }).trim();
  const code = new URL(link).hash.slice("#code=".length);
  assert.match(code, /^dfc_/);
  // The fragment of an address is not sent; Firefox tells of it all the same.
  page.on("request", (r) => (r.url().split("#")[0].includes(code) || (r.headers().referer ?? "").includes("code")) && trouble.push(`the code is in an address: ${r.url()}`));
  await page.goto(link);
  await text("h1", "Environments");
  await text(".card h2", given.environment);
  assert.ok(!page.url().includes("#"), page.url());
  assert.equal(await page.evaluate(() => document.cookie + localStorage.length + sessionStorage.length), "00", "scripts see the session");
  say("signed in by a link");
  const late = await (await browser.createBrowserContext()).newPage();
  await late.goto(link);
  await late.waitForFunction(() => [...document.querySelectorAll("[role=alert]")].some((e) => e.textContent.includes("dayfly console makes a new one")));
  assert.equal(await late.evaluate(() => fetch("/v1/environments").then((r) => r.status)), 401);
  await late.browserContext().close();
  say("a link works once");

  const before = await one();
  await page.evaluate(() => {
    window.clicks = 0;
    addEventListener("click", () => window.clicks++, true);
  });
  const button = await page.evaluateHandle((n) => [...document.querySelectorAll(".card")].find((c) => c.querySelector("h2 a").textContent === n).querySelector(".deploy button"), given.environment);
  await button.click();
  await text(".card", "of 3 healthy");
  let e;
  for (const end = Date.now() + 60000; ; await new Promise((r) => setTimeout(r, 250))) {
    e = await one();
    if (e.serving > before.serving && e.phase === "serving") break;
    assert.ok(Date.now() < end, `generation ${before.serving + 1} never served: ${JSON.stringify(e)}`);
  }
  await page.waitForFunction((n) => [...document.querySelectorAll(".card")].find((c) => c.querySelector("h2 a").textContent === n).textContent.includes("3 serving"), {}, given.environment);
  assert.equal(await page.evaluate(() => window.clicks), 1);
  say("deployed by one click, seen live");

  const instance = (await page.evaluate((n) => fetch(`/v1/instances?prefix=${n}/&limit=500`).then((r) => r.json()), given.environment)).items.find((i) => i.state === "serving");
  const pages = {
    environments: "/", environment: `/environments/${given.environment}`, runs: "/runs", run: `/runs/${given.run}`, images: "/images", image: `/images/${e.image}`,
    instance: `/instances/${instance.environment}/${instance.generation}/${instance.id}`, events: "/events", report: "/report",
  };
  for (const [name, path] of Object.entries(pages)) {
    await page.goto(base + path);
    await page.waitForSelector("main h1");
    await page.waitForFunction(() => !document.querySelector("main").textContent.includes("Loading…"));
    await page.screenshot({ path: `${out}/${name}-firefox.png`, fullPage: true });
    await page.evaluate(axe);
    const bad = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }).then((r) => r.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).slice(0, 2).join(" ")}`)));
    assert.deepEqual(bad, [], `${name} is not accessible`);
  }
  say(`${Object.keys(pages).length} pages, accessible`);

  // Colours of light and dark, which an older browser would drop as unknown.
  assert.notEqual(await page.evaluate(() => getComputedStyle(document.querySelector("nav a[aria-current]")).boxShadow), "none");
  assert.notEqual(await page.evaluate(() => getComputedStyle(document.querySelector(":root")).backgroundColor), "rgba(0, 0, 0, 0)", "light-dark() is not understood");
  assert.deepEqual(trouble, []);
} catch (e) {
  console.error(e.stack ?? e);
  if (trouble.length) console.error(trouble.join("\n"));
  process.exitCode = 1;
} finally {
  await browser.close();
}
