// Gates by command in the console: what decided them, where it ran, how it ended
// and what it said. On a real server, as console.mjs.
//   node gate.mjs URL OUT < {"viewer": "TOKEN", "run": "gated-r1", "environment": "gated-dev"}
import { readFileSync, mkdirSync } from "node:fs";
import assert from "node:assert/strict";
import { accessible, records, say, signIn, start, until } from "./browser.mjs";

const [base, out] = process.argv.slice(2);
const given = JSON.parse(readFileSync(0, "utf8"));
mkdirSync(out, { recursive: true });
const { browser, trouble, open, forgive } = await start(base);

try {
  const page = await open();
  await signIn(page, base, given.viewer);
  await page.goto(`${base}/runs/${given.run}`);
  const run = async () => (await records(page, `/v1/runs?name=${given.run}`)).items[0];
  const region = (name) => page.getByRole("region", { name: `Stage ${name}` });
  const ended = await until(page, "the run ends", async () => {
    const r = await run();
    return r.phase === "done" && r;
  }, 120);
  const stage = (name) => ended.stages.find((s) => s.name === name);
  const facts = (name, exit) => {
    const c = stage(name).gate.command;
    assert.equal(c.exit, exit);
    assert.equal(c.environment, given.environment);
    assert.match(c.output, /machine-id/);
    return [c, `decided by ${c.run} on ${c.instance} of ${c.environment} · exit code ${exit}`];
  };

  // One that opened: who asks why finds the output, and it is in nobody's way.
  let [c, line] = facts("ready", 0);
  await region("ready").getByRole("heading", { name: "ready passed" }).waitFor();
  await region("ready").getByText(line).waitFor();
  const said = region("ready").getByLabel(`Output of ${c.run}`);
  assert.equal(await said.isVisible(), false, "the output of a gate that is open is in the way");
  await region("ready").getByText("Output", { exact: true }).click();
  await said.waitFor();
  assert.equal((await said.textContent()).trim(), c.output.trim());
  say("a gate that a command opened, with what it said");

  // One that closed: the exit code and the output are there without a click, and
  // what the run ended of is said where it begins.
  [c, line] = facts("closed", 3);
  await region("closed").getByRole("heading", { name: "closed failed" }).waitFor();
  await region("closed").getByText(line).waitFor();
  await region("closed").locator(".bad").getByText(stage("closed").why).waitFor();
  const why = region("closed").getByLabel(`Output of ${c.run}`);
  await why.waitFor();
  assert.equal((await why.textContent()).trim(), c.output.trim());
  await page.locator(".lead > :first-child", { hasText: "failed" }).waitFor();
  await page.screenshot({ path: `${out}/command-gate.png`, fullPage: true });
  await accessible(page, "a run with gates by command");
  say("a gate that a command closed, with its exit code and what it said");

  // Narrow, too: an output does not make the page wider.
  await page.setViewportSize({ width: 360, height: 740 });
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth + 1), "the run is wider than the window");
  forgive(401);
  assert.deepEqual(trouble, []);
} catch (e) {
  console.error(e.stack ?? e);
  if (trouble.length) console.error(trouble.join("\n"));
  process.exitCode = 1;
} finally {
  await browser.close();
}
