// The console in a real browser on a real server. It prints one line per step,
// and ends with 1 at the first thing that is not as it should be.
//   node console.mjs URL OUT < {"link": "LINK", "viewer": "TOKEN", "environment": "shop-dev"}
import { readFileSync, mkdirSync, writeFileSync } from "node:fs";
import assert from "node:assert/strict";
import { accessible, records, say, signIn, start, until } from "./browser.mjs";

const [base, out] = process.argv.slice(2);
const given = JSON.parse(readFileSync(0, "utf8"));
mkdirSync(out, { recursive: true });
const { browser, trouble, open, forgive } = await start(base);
const generation = async (page) => (await records(page, `/v1/environments?name=${given.environment}`)).items[0];

try {
  // Signed in by a link, without anything typed; its code was never sent in an
  // address, and is nowhere to be seen afterwards.
  let page = await open();
  const link = given.link;
  const code = new URL(link).hash.slice("#code=".length);
  assert.match(code, /^dfc_/);
  page.on("request", (r) => (r.url().includes(code) || (r.headers().referer ?? "").includes("code")) && trouble.push(`the code is in an address: ${r.url()}`));
  await page.goto(link);
  await page.getByRole("heading", { name: "Environments" }).waitFor();
  await page.getByRole("link", { name: given.environment, exact: true }).waitFor();
  assert.ok(!page.url().includes("#"), page.url());
  assert.equal(await page.evaluate(() => document.cookie), "", "scripts see the cookie");
  assert.equal(await page.evaluate(() => localStorage.length + sessionStorage.length), 0);
  say("signed in by a link");

  // Once: whoever opens it again is told what to do.
  const late = await open();
  late.refusals = true;
  await late.goto(link);
  await late.getByRole("alert").getByText("dayfly console makes a new one").waitFor();
  assert.equal(await late.evaluate(() => fetch("/v1/environments").then((r) => r.status)), 401);
  await late.context().close();
  forgive(401);
  say("a link works once");

  // One click, and it is counted. The line below tells how it goes, by itself.
  const before = await generation(page);
  await page.evaluate(() => {
    window.clicks = 0;
    window.reloaded = false;
    addEventListener("click", () => window.clicks++, true);
  });
  const card = page.getByRole("listitem").filter({ has: page.getByRole("link", { name: given.environment, exact: true }) });
  await card.getByText(/new instances? with the newest release/).waitFor();
  await card.getByRole("button", { name: "Deploy" }).click();
  await card.getByText(/of \d+ healthy|release is being resolved|is being baked/).first().waitFor();
  await page.screenshot({ path: `${out}/deploying.png` });
  for (let n = 0; ; n++) {
    const e = await generation(page);
    if (e.serving > before.serving && e.phase === "serving") break;
    assert.ok(n < 240, `generation ${before.serving + 1} never served: ${JSON.stringify(e)}`);
    await page.waitForTimeout(250);
  }
  await card.getByText("serving", { exact: false }).first().waitFor();
  assert.equal(await page.evaluate(() => window.clicks), 1, "clicks from an open console to a running environment");
  assert.equal(await page.evaluate(() => window.reloaded), false, "the page was loaded again");
  say("deployed by one click, seen live");

  // Before a click it says what the click would do: the release that the box has,
  // the image, how many and how long. Saying so begins nothing.
  await page.getByRole("link", { name: given.environment, exact: true }).click();
  const next = await records(page, `/v1/environments/${given.environment}/deploy`);
  assert.ok(next.release.artifact && next.image.there && next.launches > 0, JSON.stringify(next));
  const will = page.locator(`[id="will-${given.environment}"]`);
  await will.getByText(next.release.artifact).waitFor();
  const text = await will.textContent();
  for (const part of [next.image.name, `${next.size} new instance`, "which serves already", `by the last ${next.launches} launches`]) assert.ok(text.includes(part), `${text}: ${part}`);
  assert.equal((await generation(page)).next, undefined);
  await page.goBack();
  say("says before what a deploy would do");

  // Every page, in light and dark and narrow.
  const environment = await generation(page);
  // Instances' records follow what the balancer says, a moment after the traffic.
  const instance = await until(page, "an instance serves", async () => (await records(page, `/v1/instances?prefix=${given.environment}/&limit=500`)).items.find((i) => i.state === "serving"));
  const pages = {
    environments: "/", environment: `/environments/${given.environment}`, runs: "/runs", images: "/images", image: `/images/${environment.image}`,
    instance: `/instances/${instance.environment}/${instance.generation}/${instance.id}`, events: "/events", report: "/report", missing: "/runs/nothing",
  };
  const run = (await records(page, "/v1/runs")).items[0];
  if (run) pages.run = `/runs/${run.name}`;
  for (const [look, options] of Object.entries({ light: {}, dark: { colorScheme: "dark" }, narrow: { viewport: { width: 360, height: 740 }, isMobile: true } })) {
    const p = await open(options);
    await p.context().addCookies(await page.context().cookies());
    await p.goto(base);
    await p.getByRole("heading", { level: 1 }).waitFor();
    for (const [name, path] of Object.entries(pages)) {
      await p.goto(base + path); // an address that can be shared
      await p.locator("main h1").waitFor();
      await p.getByText("Loading…").waitFor({ state: "detached" });
      await p.waitForTimeout(150);
      await p.screenshot({ path: `${out}/${name}-${look}.png`, fullPage: true });
      await accessible(p, `${name}, ${look}`);
      assert.ok(await p.evaluate(() => document.documentElement.scrollWidth <= innerWidth + 1), `${name} is wider than the window, ${look}`);
    }
    await p.context().close();
  }

  // A promotion, and who runs which image.
  await page.goto(base + pages.image);
  await page.getByLabel("Why").first().fill("it serves well");
  await page.getByRole("button", { name: "Promote" }).click();
  await page.getByText("/stable").first().waitFor();
  await page.goto(`${base}/images`);
  await page.getByRole("region", { name: "Who runs which image" }).getByRole("link", { name: given.environment }).waitFor();
  say("promoted an image");

  // The report: what was launched, whose it is, for a period that is in the address.
  await page.goto(`${base}/report`);
  const mine = page.getByRole("region", { name: "By environment" }).getByRole("row").filter({ has: page.getByRole("link", { name: given.environment }) });
  await mine.waitFor();
  assert.ok(Number(await mine.getByRole("cell").nth(2).textContent()) >= 3, "instances launched");
  await page.getByText("0 of ").first().waitFor();
  await page.getByRole("button", { name: "30 days" }).click();
  await page.waitForURL(/report\?from=\d{4}-\d\d-\d\d$/);
  await page.getByLabel("To", { exact: true }).fill("2001-01-01");
  await page.getByRole("alert").waitFor();
  forgive(422);
  forgive(400);
  say("reported");
  say(`${Object.keys(pages).length} pages are accessible in light, dark and narrow`);

  // By keyboard alone, to an environment and its instance.
  await page.goto(base + "/");
  await card.waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await card.getByRole("link", { name: given.environment, exact: true }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: given.environment }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.tagName), "H1", "who reads by ear is told of the new page");
  say("works by keyboard");

  // A viewer looks and changes nothing; the server says so as well.
  const viewer = await open();
  await signIn(viewer, base, given.viewer);
  await viewer.getByRole("link", { name: given.environment, exact: true }).waitFor();
  await viewer.waitForTimeout(300);
  assert.equal(await viewer.getByRole("button", { name: "Deploy" }).count(), 0, "a viewer has a Deploy button");
  viewer.refusals = true;
  const refused = await viewer.evaluate((e) => fetch(`/v1/environments/${e}`, { method: "DELETE", headers: { "X-Dayfly-Console": "1" } }).then((r) => r.status), given.environment);
  assert.equal(refused, 403);
  const forged = await page.evaluate((e) => fetch(`/v1/environments/${e}`, { method: "DELETE" }).then((r) => r.status), given.environment).catch(() => 403);
  assert.equal(forged, 403, "a request without the console's header changes something");
  forgive(403);
  say("a viewer changes nothing");

  // Out, and not in again with a wrong token.
  page.refusals = true;
  const session = await page.context().cookies();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Token").waitFor();
  await page.context().addCookies(session);
  assert.equal(await page.evaluate(() => fetch("/v1/environments").then((r) => r.status)), 401, "a session goes on after its end");
  await page.getByLabel("Token").fill("wrong");
  await accessible(page, "signing in");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").waitFor();
  assert.equal((await page.evaluate(() => fetch("/v1/environments").then((r) => r.status))), 401);
  await page.screenshot({ path: `${out}/sign-in.png` });
  say("signed out");
  forgive(401);
  assert.deepEqual(trouble, []);

  const figures = await estate();
  writeFileSync(`${out}/console-paint.json`, JSON.stringify(figures, null, 1));
  say(`100 environments x 45: painted in ${figures.paint_ms.toFixed(0)} ms; 5,000 changes in a second: slowest frame ${figures.slowest_frame_ms.toFixed(0)} ms`);
} catch (e) {
  console.error(e.message ?? e);
  if (trouble.length) console.error(trouble.join("\n"));
  process.exitCode = 1;
} finally {
  await browser.close();
}

/** How fast a large estate is painted, and how smooth it stays while all of it changes. The records are made up: it is the page that is measured. */
async function estate() {
  const now = new Date().toISOString();
  const names = Array.from({ length: 100 }, (_, n) => `shop-${String(n).padStart(3, "0")}`);
  const lists = {
    environments: names.map((name) => ({ name, blueprint: "shop", purpose: "dev", files: "sha256:0", image: "shop-1", release: "shop/1", want: 1, serving: 1, size: 45, created: now, deadline: now, phase: "serving" })),
    generations: names.map((environment) => ({ environment, number: 1, stack: "s", image: "shop-1", release: "shop/1", files: "", size: 45, phase: "serving", created: now, ready: now, deadline: now, expires: now, healthy: 45, launched: 45, lost: 0 })),
    instances: names.flatMap((environment) => Array.from({ length: 45 }, (_, i) => ({ id: `i-${environment}-${i}`, environment, generation: 1, group: "g", image: "shop-1", release: "shop/1", zone: `local-1${"abc"[i % 3]}`, state: "serving", launched: now, failures: 0 }))),
  };
  const page = await open();
  await page.addInitScript(() => {
    window.EventSource = class extends EventTarget {
      constructor() {
        super();
        window.feed = this;
        setTimeout(() => this.onopen?.(), 0);
      }
      close() {}
    };
  });
  await page.route("**/v1/**", (r) => {
    const path = new URL(r.request().url()).pathname.slice("/v1/".length);
    if (path === "whoami") return r.fulfill({ json: { principal: "token:x", name: "x", role: "deployer", from: "" } });
    if (path === "status") return r.fulfill({ json: { version: "x", pid: 1, account: "1", region: "r", owner: "o", active: true } });
    return r.fulfill({ json: { items: lists[path] ?? [], revision: 1 } });
  });
  await page.goto(base + "/runs");
  await page.getByText("There was no run yet").waitFor();
  const paint = () =>
    page.evaluate(
      () =>
        new Promise((done) => {
          const begin = performance.now();
          document.querySelector('nav a[href="/"]').click();
          requestAnimationFrame(() => setTimeout(() => done(performance.now() - begin), 0));
        }),
    );
  const times = [];
  for (let n = 0; n < 5; n++) {
    times.push(await paint());
    assert.equal(await page.locator(".card").count(), 100);
    await page.getByRole("link", { name: "Runs" }).click();
    await page.getByText("There was no run yet").waitFor();
  }
  await paint();
  const slowest = await page.evaluate(
    (instances) =>
      new Promise((done) => {
        const states = ["serving", "launching", "failing", "leaving"];
        let n = 0, worst = 0, last = performance.now();
        const end = last + 2000;
        const tick = () => {
          const t = performance.now();
          worst = Math.max(worst, t - last);
          last = t;
          if (t > end) return done(worst);
          // 5,000 changes a second, spread over the frames.
          for (let k = 0; k < 84; k++, n++) {
            const i = { ...instances[(n * 37) % instances.length], state: states[n % 4] };
            window.feed.dispatchEvent(new MessageEvent("change", { data: JSON.stringify({ kind: "instance", name: `${i.environment}/1/${i.id}`, revision: n, record: i }) }));
          }
          requestAnimationFrame(tick);
        };
        requestAnimationFrame(tick);
      }),
    lists.instances,
  );
  times.sort((a, b) => a - b);
  return { paint_ms: times[2], slowest_frame_ms: slowest, environments: 100, instances: 4500 };
}
