// Uses the page as people do, in Debian's Chromium, and prints what was seen as JSON.
// node browser.mjs SOURCES SITE CASES SHOTS
import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import { filterTimes } from "./filter_times.mjs";

const [sources, site, cases, shots] = process.argv.slice(2);
const require = createRequire(`${sources}/package.json`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const asked = JSON.parse(readFileSync(cases, "utf8"));
mkdirSync(shots, { recursive: true });

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const seen = { errors: [], requests: [], axe: [], states: [], parity: [] };
const start = `file://${site}/index.html`;

async function open(hash = "", { width = 1280, height = 800, scheme = "light", base = start } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, reducedMotion: "reduce" });
  const page = await context.newPage();
  page.on("pageerror", (error) => seen.errors.push(error.message));
  page.on("console", (message) => { if (message.type() === "error") seen.errors.push(message.text()); });
  page.on("request", (request) => seen.requests.push(request.url()));
  await page.goto(base + hash);
  await page.waitForSelector(".counts, .page h1");
  await page.waitForFunction(() => globalThis.peftShopData.texts && globalThis.peftShopData.words);
  await page.waitForFunction(() => !document.querySelector("main p[role=status]")?.textContent.startsWith("Loading"));
  await page.waitForTimeout(60);
  return page;
}
const choose = async (page, card) => page.selectOption("select[name=card]", { label: await page.$$eval(
  "select[name=card] option", (list, name) => list.map((one) => one.textContent).find((text) => text.includes(name)), card) });
const close = (page) => page.context().close();
const rows = (page) => page.$$eval(".results tbody tr[data-name]", (list) => list.map((one) => [one.dataset.name, one.className.split(" ")[0]]));

// --- what people come for, in three choices ---
{
  const page = await open();
  seen.first = {
    rows: await page.$$eval(".results tbody tr[data-name]", (list) => list.filter((one) => one.getBoundingClientRect().bottom <= innerHeight).length),
    plot: await page.$eval(".plot svg", (one) => one.getBoundingClientRect().bottom <= innerHeight),
    sentence: await page.$eval("h1", (one) => one.textContent),
    counts: await page.$eval(".counts", (one) => one.textContent),
    status: await page.$$eval(".counts[role=status]", (list) => list.length),
  };
  await choose(page, "RTX 4090");
  await page.selectOption("select[name=engine]", "vllm");
  await page.evaluate(() => { globalThis.copied = ""; navigator.clipboard.writeText = async (text) => { globalThis.copied = text; }; });
  await page.click(".copy");
  seen.taken = { config: await page.evaluate(() => globalThis.copied), best: (await rows(page))[0], url: page.url() };
  await page.screenshot({ path: `${shots}/three-choices.png` });
  await close(page);
}

// --- marks are where the data say, and as large as fingers need ---
seen.marks = [];
for (const hash of ["", "#benchmark=image_gen", "#objectives=test_accuracy,train_time&serve=vllm", "#x=checkpoint_size&y=train_loss"]) {
  const page = await open(hash);
  seen.marks.push(await page.evaluate(() => {
    const number = (text) => Number(text);
    const ticks = [...document.querySelectorAll(".axes > g")].map((one) => {
      const text = one.querySelector("text");
      return { across: text.getAttribute("text-anchor") === "middle", value: number(text.textContent), x: number(one.querySelector("line").getAttribute("x1")), y: number(one.querySelector("line").getAttribute("y1")) };
    });
    const fit = (list, key) => { const [a, b] = [list[0], list.at(-1)]; const slope = (b[key] - a[key]) / (b.value - a.value); return { slope, start: a[key] - slope * a.value }; };
    return {
      across: fit(ticks.filter((one) => one.across), "x"), up: fit(ticks.filter((one) => !one.across), "y"),
      axes: [...document.querySelectorAll("select[name=x], select[name=y]")].map((one) => one.value),
      marks: [...document.querySelectorAll(".mark")].map((one) => {
        const [x, y] = one.getAttribute("transform").match(/[\d.-]+/g).map(number);
        const box = one.querySelector(".hit").getBoundingClientRect();
        return { name: one.dataset.name, kind: one.classList[1], x, y, hit: Math.min(box.width, box.height), number: one.querySelector("text")?.textContent ?? null };
      }),
      numbers: [...document.querySelectorAll(".results tr.front")].map((one) => [one.dataset.name, one.querySelector(".badge").textContent]),
    };
  }));
  await close(page);
}

// --- accessible: four screens, two schemes, two widths; nothing scrolls sideways ---
seen.phone = [];
const screens = ["", "#view=method", "#view=method&name=lora", "#view=about", "#max_peak_memory=1GiB", asked.plan, `#view=compare&compare=${asked.compare.join(",")}`];
for (const hash of screens)
  for (const scheme of ["light", "dark"])
    for (const width of [390, 1280]) {
      const page = await open(hash, { width, height: width === 390 ? 844 : 800, scheme });
      await page.evaluate(axe);
      const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"], preload: false }));
      for (const one of found.violations) seen.axe.push([hash, scheme, width, one.id, one.nodes.slice(0, 2).map((node) => node.html.slice(0, 160))]);
      if (width === 390)
        seen.phone.push(await page.evaluate(() => ({
          hash: location.hash,
          sideways: document.documentElement.scrollWidth - innerWidth,
          first: document.querySelector(".results tbody tr[data-name]")?.getBoundingClientRect().top ?? null,
          small: [...document.querySelectorAll("button, select, input, summary, nav a")].filter((one) => {
            const box = (one.closest("label.check, label.pick, .modes label") ?? one).getBoundingClientRect();
            return box.width && box.height && (box.height < 39.5 || box.width < 39.5);
          }).map((one) => one.outerHTML.slice(0, 100)),
        })));
      await page.screenshot({ path: `${shots}/${(hash.replace(/[^a-z]+/g, "-") || "shop").slice(0, 40)}-${scheme}-${width}.png` });
      await close(page);
    }

// --- a model of one's own, by the controls: what the link says then, and back ---
{
  const page = await open("#serve=vllm");
  await choose(page, "RTX 4090");
  await page.selectOption("select[name=model]", asked.model);
  await page.waitForSelector(".plan-note");
  await page.waitForSelector(".counts");
  await page.fill("input[name=length]", "1024");
  await page.keyboard.press("Enter");
  await page.check("input[name=checkpointing]");
  await page.check("input[name=quantized]");
  await page.waitForFunction(() => location.hash.includes("quantization"));
  seen.plan = { url: page.url(), rows: await rows(page), elsewhere: await page.$$eval("details.warnings pre", (list) => list.at(-1).textContent) };
  await page.screenshot({ path: `${shots}/model.png` });
  await page.selectOption("select[name=model]", "");
  await page.waitForFunction(() => !location.hash.includes("model="));
  seen.plan.back = page.url();
  await close(page);
}

// --- one whole way by keyboard; the focus stays where it was ---
{
  const page = await open();
  const focus = () => page.evaluate(() => { const one = document.activeElement; return `${one.tagName}.${one.getAttribute("name") ?? one.className?.baseVal ?? one.className}`; });
  const way = [];
  for (let step = 0; step < 12; step++) { await page.keyboard.press("Tab"); way.push(await focus()); }
  await page.focus("select[name=engine]");
  await page.keyboard.press("v");
  const kept = await focus();
  const engine = await page.$eval("select[name=engine]", (one) => one.value);
  await page.focus(".mark.front");
  const before = await page.evaluate(() => document.activeElement.dataset.name);
  await page.keyboard.press("Enter");
  await page.waitForTimeout(50);
  const after = await page.evaluate(() => document.activeElement.dataset?.name ?? document.activeElement.tagName);
  const chosen = await page.evaluate(() => new URLSearchParams(location.hash.slice(1)).get("run"));
  await page.focus("#tab-config");
  await page.keyboard.press("ArrowRight");
  await page.waitForTimeout(50);
  const tab = await page.evaluate(() => document.activeElement.id);
  await page.fill("input[name=find]", "dora");
  const typing = await focus();
  seen.keyboard = { way, kept, engine, before, after, chosen, tab, typing };
  await close(page);
}

// --- a state is its link: fresh tab, same state; back and forward; nothing is dropped in silence ---
const look = (page) => page.evaluate(() => ({
  text: document.querySelector("main").innerText,
  controls: [...document.querySelectorAll("select, input")].map((one) => [one.name, one.type === "checkbox" || one.type === "radio" ? one.checked : one.value]),
}));
{
  const page = await open();
  for (const hash of asked.states) {
    await page.evaluate((text) => { location.hash = text; }, hash);
    await page.waitForTimeout(25);
    seen.states.push([hash, JSON.stringify(await look(page))]);
  }
  const other = await open();
  let at = 0;
  for (const [hash, state] of seen.states) {
    await other.goto("about:blank");
    await other.goto(start + hash);
    await other.waitForFunction(() => globalThis.peftShopData?.texts && globalThis.peftShopData.words && document.querySelector("main h1"));
    await other.waitForTimeout(40);
    seen.states[at++] = JSON.stringify(await look(other)) === state ? true : hash;
  }
  await page.goBack(); await page.goBack(); await page.waitForTimeout(60);
  const back = await page.evaluate(() => location.hash);
  const same = JSON.stringify(await look(page));
  await page.goForward(); await page.goBack(); await page.waitForTimeout(60);
  seen.history = { back, expected: asked.states.at(-3), same: same === JSON.stringify(await look(page)) };
  await page.evaluate(() => { location.hash = "#serv=vllm&max_peak_memory=24&device=L40S"; });
  await page.waitForSelector("div.trouble");
  seen.named = await page.$eval("div.trouble", (one) => one.innerText);
  await close(page); await close(other);
}

// --- the same answers through the page ---
{
  const page = await open();
  for (const hash of asked.parity) {
    await page.evaluate((text) => { location.hash = text; }, `${hash}&show=kept`);
    await page.waitForTimeout(25);
    seen.parity.push(await rows(page));
  }
  await close(page);
}

// --- speed: event to DOM done ---
{
  const page = await open("#show=kept");
  seen.times = await filterTimes(page);
  await close(page);
}

// --- nothing fits: one click applies advice; an injected image is blocked ---
{
  const page = await open("#max_peak_memory=12GiB");
  seen.relax = { told: await page.$$eval(".relax li", (list) => list.map((one) => one.firstChild.textContent.trim())) };
  await page.click(".relax .main");
  await page.waitForTimeout(50);
  seen.relax.after = { rows: await rows(page), url: page.url() };
  const errors = seen.errors.length;
  seen.image = await page.evaluate(() => new Promise((resolve) => {
    const image = new Image();
    image.onerror = () => resolve("blocked"); image.onload = () => resolve("loaded");
    addEventListener("securitypolicyviolation", () => resolve("blocked by policy"));
    image.src = "https://example.org/a.png"; document.body.append(image);
  }));
  seen.errors.length = errors;
  await close(page);
}

// --- sample images: on another site, in another tab, and nothing is asked of it before a click ---
{
  const page = await open(asked.images);
  await page.waitForSelector("a[target=_blank]");
  seen.samples = {
    links: await page.$$eval("a[target=_blank]", (list) => list.map((one) => ({ href: one.href, rel: one.rel, text: one.textContent, place: one.closest(".detail") !== null }))),
    told: await page.$eval("p:has(> a[target=_blank])", (one) => one.textContent),
    early: seen.requests.filter((url) => url.includes("huggingface")).length,
  };
  await page.context().route(/huggingface/, (route) => route.fulfill({ status: 200, body: "" }));
  const opened = page.context().waitForEvent("page");
  await page.click("a[target=_blank]");
  const tab = await opened;
  await tab.waitForLoadState();
  seen.samples.opened = { url: tab.url(), opener: await tab.evaluate(() => globalThis.opener !== null), stays: page.url() };
  await page.screenshot({ path: `${shots}/samples.png`, fullPage: true });
  await close(page);
  for (const [name, base] of [["text", start], ["forged", asked.forged]]) {
    const other = await open(name === "forged" ? asked.images : "", { base });
    await other.waitForSelector(".detail p.note");
    seen.samples[name] = await other.$$eval(".detail a", (list) => list.map((one) => one.getAttribute("href")));
    await close(other);
  }
}

// --- from a server, from one file, on paper, embedded, with hostile texts ---
{
  for (const [name, base] of Object.entries(asked.other)) {
    const page = await open("", { base });
    seen[name] = { counts: await page.$eval(".counts", (one) => one.textContent), script: null };
    await page.click("#tab-script");
    await page.waitForFunction(() => document.querySelector("#panel").textContent.includes("import"));
    seen[name].script = (await page.$eval("#panel", (one) => one.textContent)).length;
    seen[name].images = await page.$$eval("main img, aside img, main script", (list) => list.length);
    await close(page);
  }
  const page = await open("#embed=1&highlight=rslora");
  seen.embedded = { nav: await page.$$eval("nav", (list) => list.length), marked: await page.$$eval(".mark.marked", (list) => list.length) };
  await close(page);
  const paper = await open();
  await paper.emulateMedia({ media: "print" });
  seen.paper = await paper.evaluate(() => ({ side: getComputedStyle(document.querySelector(".side")).display, rows: document.querySelectorAll(".results tbody tr").length }));
  await close(paper);
}
await browser.close();
process.stdout.write(JSON.stringify(seen));
