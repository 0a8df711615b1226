// Prints how long the page takes to follow a filter, as JSON; the better of two rounds.
// node page.mjs SOURCES SITE
import { createRequire } from "node:module";
import { filterTimes } from "../tests/show/site/filter_times.mjs";

const [sources, site] = process.argv.slice(2);
const { chromium } = createRequire(`${sources}/package.json`)("playwright-core");
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu"],
});
const page = await (await browser.newContext({ viewport: { width: 1280, height: 800 } })).newPage();
await page.goto(`file://${site}/index.html#show=kept`);
await page.waitForFunction(() => globalThis.peftShopData.texts && globalThis.peftShopData.words);
await page.waitForTimeout(300);
const rounds = [await filterTimes(page), await filterTimes(page)];
await browser.close();
process.stdout.write(JSON.stringify(rounds.sort((a, b) => a[50] - b[50])[0]));
