// Prints the code of every configuration and the lines of every question that the page shows.
// node lines.mjs SITE CASES
import { readFileSync } from "node:fs";
import { runInThisContext } from "node:vm";

const [site, cases] = process.argv.slice(2);
const load = (name) => runInThisContext(readFileSync(`${site}/${name}`, "utf8"), { filename: name });
for (const name of ["data/table.js", "data/words.js", "assets/app.js"]) load(name);
const { Facts, commandLine, configCode, parametersOf, pythonLine } = globalThis.peftShop;
const facts = new Facts(globalThis.peftShopData.table);
const codes = [];
facts.table.benchmarks.forEach((benchmark, place) => {
  load(`data/runs-${place}.js`);
  for (const row of benchmark.rows) {
    const details = row.values && globalThis.peftShopData[`runs-${place}`][row.name];
    if (details) codes.push([row.name, configCode(facts.methodOf(row), details.config), details.config]);
  }
});
const lines = JSON.parse(readFileSync(cases, "utf8")).map((link) => {
  const [parameters] = parametersOf(link, "");
  return [commandLine(facts, parameters), pythonLine(facts, parameters)];
});
process.stdout.write(JSON.stringify({ codes, lines }));
