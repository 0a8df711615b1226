// Asks the built page the questions of a file and prints what it answers, as JSON.
// node parity.mjs SITE CASES
import { readFileSync } from "node:fs";
import { runInThisContext } from "node:vm";

const [site, cases] = process.argv.slice(2);
const load = (name) => runInThisContext(readFileSync(`${site}/${name}`, "utf8"), { filename: name });
["data/table.js", "data/texts.js", "data/words.js", "assets/app.js"].forEach(load);

const { Facts, answerOf, parametersOf, planned, questionOf } = globalThis.peftShop;
const facts = new Facts(globalThis.peftShopData.table);
facts.texts = globalThis.peftShopData.texts;
facts.describe(globalThis.peftShopData.words);
const answers = JSON.parse(readFileSync(cases, "utf8")).map((link) => {
  const [parameters, doubled] = parametersOf(link, "");
  const [question, troubles] = questionOf(facts, parameters);
  if (question.plan) {
    const name = `model-${question.plan.place}`;
    if (!globalThis.peftShopData[name]) load(`data/${name}.js`);
    question.benchmark = planned(question.benchmark, question.plan, globalThis.peftShopData[name]);
  }
  const answer = answerOf(facts, question);
  const chances = {};
  for (const one of [...answer.front, ...answer.ties, ...answer.beaten])
    chances[one.row.name] = one.chance;
  return {
    troubles: [...doubled, ...troubles],
    front: answer.front.map((one) => one.row.name),
    ties: answer.ties.map((one) => one.row.name),
    beaten: answer.beaten.map((one) => one.row.name),
    above: Object.fromEntries([...answer.ties, ...answer.beaten].map((one) => [one.row.name, one.above.name])),
    unmeasured: answer.unmeasured.map((row) => facts.methodOf(row).id),
    dropped: answer.dropped.map(({ row, failures }) => [
      row.name,
      failures.map((one) => [one.constraint, one.reason]),
    ]),
    relaxations: answer.relaxations.map((one) => [one.constraints.join(" + "), one.admits, one.example, one.suggestion]),
    chances,
    forecasts: question.plan && Object.fromEntries(question.benchmark.rows.map((row) => [row.name, row.forecast ?? null])),
    figures: question.plan && Object.fromEntries(question.benchmark.rows.filter((row) => row.values).map((row) =>
      [row.name, Object.fromEntries(question.benchmark.metrics.map((metric, k) => [metric, row.values[k]]))])),
  };
});
process.stdout.write(JSON.stringify(answers));
