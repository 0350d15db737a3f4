// What people decide in the console: manual suites, gates, going back, keeping
// and extending. On a real server, as console.mjs.
//   node decide.mjs URL OUT < {"ann": "TOKEN", "ben": "TOKEN", "olga": "TOKEN", "run": "shop-r2", "environment": "shop-dev", "artifacts": ["shop-1.0.0.tar.gz", "shop-1.1.0.tar.gz"]}
import { readFileSync, mkdirSync } from "node:fs";
import assert from "node:assert/strict";
import { accessible, records, say, signIn, start, until } from "./browser.mjs";

const [base, out] = process.argv.slice(2);
const given = JSON.parse(readFileSync(0, "utf8"));
mkdirSync(out, { recursive: true });
const { browser, trouble, open, forgive } = await start(base);

const one = async (page, list, name) => (await records(page, `/v1/${list}?name=${name}`)).items[0];
const suite = async (page, name) => (await one(page, "runs", given.run)).suites.find((s) => s.name === name);
const stage = async (page, name) => (await one(page, "runs", given.run)).stages.find((s) => s.name === name);

try {
  // ann is whom the gates name; ben may deploy, and is nobody to them.
  const ann = await open();
  await signIn(ann, base, given.ann);
  await ann.goto(`${base}/runs/${given.run}`);
  const row = (name) => ann.getByRole("listitem").filter({ has: ann.getByRole("heading", { name: new RegExp(`^${name} `) }) });

  // A manual suite: an address, steps, a checklist, files, a verdict.
  const orders = row("orders");
  await until(ann, "the manual suites wait", async () => (await suite(ann, "orders")).phase === "waiting" && (await suite(ann, "mail")).phase === "waiting");
  const address = (await suite(ann, "orders")).address;
  await orders.getByRole("link", { name: address }).waitFor();
  await orders.getByText("log in").waitFor();
  ann.refusals = true;
  await orders.getByRole("button", { name: "Pass orders" }).click();
  await orders.getByText(/the order is listed.*is not checked/).waitFor();
  ann.refusals = false;
  await orders.getByLabel("Attach files to orders").setInputFiles({ name: "shot one.png", mimeType: "image/png", buffer: Buffer.from("a picture") });
  const link = orders.getByRole("link", { name: "shot one.png" });
  await link.waitFor();
  const got = await ann.evaluate((a) => fetch(a).then(async (r) => [r.headers.get("Content-Disposition"), await r.text()]), await link.getAttribute("href"));
  assert.equal(got[1], "a picture");
  assert.match(got[0], /^attachment/, "a file of a tester is shown as a page of ours");
  await orders.getByLabel("the order is listed").check();
  await orders.getByLabel("a mail came").check();
  await orders.getByLabel("Comment").fill("all is well");
  await ann.screenshot({ path: `${out}/manual.png`, fullPage: true });
  await accessible(ann, "a run with manual suites");
  await orders.getByRole("button", { name: "Pass orders" }).click();
  await orders.getByText(/passed by ann.*all is well/).waitFor();
  const passed = (await suite(ann, "orders")).manual;
  assert.deepEqual([passed.verdict.passed, passed.verdict.by, passed.verdict.checked, passed.attachments.map((a) => a.name)], [true, "ann", ["the order is listed", "a mail came"], ["shot one.png"]]);
  say("a manual suite passed, with its checklist and a file");

  const mail = row("mail");
  ann.refusals = true;
  await mail.getByRole("button", { name: "Fail mail" }).click();
  await mail.getByRole("alert").getByText(/needs a comment/).waitFor();
  ann.refusals = false;
  await mail.getByLabel("Comment").fill("no mail came");
  await mail.getByRole("button", { name: "Fail mail" }).click();
  await mail.getByText("no mail came").first().waitFor();
  assert.equal((await suite(ann, "mail")).result, "failed");
  const names = await ann.getByRole("region", { name: "Stage look" }).getByRole("heading", { level: 3 }).allTextContents();
  assert.match(names[0], /^mail /, `what failed comes first: ${names}`);
  say("a manual suite failed, with a reason");

  // Gates. They wait where people look: the run's page says for whom.
  const gate = (page, name) => page.getByRole("region", { name: `Stage ${name}` });
  await until(ann, "the gate is open", async () => (await stage(ann, "approve")).phase === "running");
  const ben = await open();
  await signIn(ben, base, given.ben);
  await ben.goto(`${base}/runs/${given.run}`);
  await gate(ben, "approve").getByText("decided by ann").waitFor();
  await ben.getByText(/the gate approve waits for ann/).waitFor();
  ben.refusals = true;
  await gate(ben, "approve").getByRole("button", { name: "Approve approve" }).click();
  await gate(ben, "approve").getByText(/ben is none of them/).waitFor();
  assert.equal((await stage(ben, "approve")).phase, "running");
  await gate(ann, "approve").getByLabel("Comment").fill("looks good");
  await ann.screenshot({ path: `${out}/gate.png`, fullPage: true });
  await accessible(ann, "a run at a gate");
  await gate(ann, "approve").getByRole("button", { name: "Approve approve" }).click();
  await gate(ann, "approve").getByText(/approved by ann.*looks good/).first().waitFor();
  await gate(ben, "approve").getByText(/approved by ann.*looks good/).first().waitFor(); // who else looks sees it, too
  say("a gate approved with a comment; another person refused");

  await until(ann, "the second gate is open", async () => (await stage(ann, "last")).phase === "running");
  await gate(ann, "last").getByLabel("Comment").fill("not today");
  await gate(ann, "last").getByRole("button", { name: "Reject" }).click();
  await gate(ann, "last").getByRole("button", { name: "No" }).click();
  assert.equal((await stage(ann, "last")).gate.verdict, undefined);
  await gate(ann, "last").getByRole("button", { name: "Reject" }).click();
  await gate(ann, "last").getByRole("group").getByRole("button", { name: "Reject" }).click();
  await gate(ann, "last").getByText(/rejected by ann.*not today/).first().waitFor();
  await ann.getByText("Nothing of this run is left in the cloud.").waitFor({ timeout: 60000 });
  assert.equal((await one(ann, "runs", given.run)).passed, false);
  say("a gate rejected; the run ends and leaves nothing");

  // Back to what served before.
  await ann.goto(`${base}/environments/${given.environment}`);
  await ann.getByText(given.artifacts[1]).first().waitFor();
  const before = await one(ann, "environments", given.environment);
  await ann.getByRole("button", { name: "Roll back" }).click();
  await ann.getByRole("group").getByRole("button", { name: "Roll back" }).click();
  const back = await until(ann, "it serves what served before", async () => {
    const e = await one(ann, "environments", given.environment);
    return e.serving > before.serving && e.phase === "serving" && !e.next && e;
  });
  assert.notEqual(back.release, before.release);
  const release = (await records(ann, "/v1/releases")).items.find((r) => r.name === back.release);
  assert.equal(release.artifact, given.artifacts[0]);
  await ann.locator("dl.pairs").getByText(given.artifacts[0]).waitFor();
  say("rolled back");

  // A longer lease.
  await ann.getByRole("button", { name: "Extend by 4 h" }).click();
  await until(ann, "the lease is four hours longer", async () => {
    const e = await one(ann, "environments", given.environment);
    return Math.abs(Date.parse(e.deadline) - Date.parse(back.deadline) - 4 * 3600e3) < 120e3;
  });
  say("extended");

  // The grid: a block of rows per zone, and the same in words.
  // Their records follow what the balancer says, a moment after the traffic.
  const members = await until(ann, "three members serve", async () => {
    const all = (await records(ann, `/v1/instances?prefix=${given.environment}/&limit=500`)).items.filter((i) => i.state === "serving" && i.generation === back.serving);
    return all.length === 3 && all;
  });
  const zones = [...new Set(members.map((i) => i.zone))].sort();
  assert.equal(zones.length, 3, `zones ${zones}`);
  const words = await until(ann, "the grid has them", async () => {
    const label = await ann.getByRole("img", { name: `Instances of ${given.environment}` }).getAttribute("aria-label");
    return label.includes(`in generation ${back.serving}`) && label;
  });
  const grid = ann.getByRole("img", { name: `Instances of ${given.environment}` });
  for (const z of zones) assert.ok(words.includes(`in ${z}`), words);
  for (const [n, z] of zones.entries()) {
    await grid.hover({ position: { x: 20, y: n * 18 + 7 } });
    await ann.locator(".tip").getByText(z).waitFor();
  }
  say("zones are in the grid, and in words");

  // Kept for a look: an operator may, a deployer has no such button.
  const path = `/instances/${given.environment}/${members[0].generation}/${members[0].id}`;
  await ann.goto(base + path);
  await ann.getByRole("button", { name: "Replace" }).waitFor();
  assert.equal(await ann.getByRole("button", { name: /Keep/ }).count(), 0, "a deployer keeps instances");
  const olga = await open();
  await signIn(olga, base, given.olga);
  await olga.goto(base + path);
  await olga.getByLabel("Why").fill("answers slowly");
  await olga.getByRole("button", { name: "Keep for an hour" }).click();
  await olga.getByRole("group").getByRole("button", { name: "Keep for an hour" }).click();
  await olga.locator("dl.pairs").getByText(/by olga: answers slowly/).waitFor();
  const mine = async () => (await records(olga, `/v1/instances?prefix=${given.environment}/&limit=500`)).items.find((i) => i.id === members[0].id);
  await until(olga, "it is kept", async () => (await mine()).state === "kept");
  await olga.getByText(/now: kept for a look/).waitFor();
  await olga.screenshot({ path: `${out}/kept.png`, fullPage: true });
  await accessible(olga, "an instance that is kept");
  await olga.getByRole("button", { name: "End keeping" }).click();
  await until(olga, "it is gone", async () => (await mine()).state === "gone");
  await olga.locator(".lead").getByText(/lived/).waitFor();
  say("kept for a look, and released");

  // Replaced because somebody asked; the reason stays.
  const other = members[1];
  await ann.goto(`${base}/instances/${given.environment}/${other.generation}/${other.id}`);
  await ann.getByLabel("Why").fill("I broke it");
  await ann.getByRole("button", { name: "Replace" }).click();
  await ann.getByRole("group").getByRole("button", { name: "Replace" }).click();
  await until(ann, "it is gone", async () => (await records(ann, `/v1/instances?prefix=${given.environment}/&limit=500`)).items.find((i) => i.id === other.id).state === "gone");
  await ann.locator(".timeline").getByText(/gone:.*I broke it/).waitFor();
  say("replaced because somebody asked");
  forgive(401, 403, 409, 422);
  assert.deepEqual(trouble, []);
} catch (e) {
  console.error(e.stack ?? e);
  if (trouble.length) console.error(trouble.join("\n"));
  process.exitCode = 1;
} finally {
  await browser.close();
}
