// Which constraints a candidate fails, all of them, as in peft_shop/ask/judging.py and demanding.py.
import { FORECAST } from "./planning";
import { format } from "./quantity";
import type { Question, Requirement } from "./question";
import { type Facts, type Row, SUPPORT, valueOf } from "./table";

export interface Failure { constraint: string; reason: string }

const GROUPS = ["quantization", "layer_types"];
const ATTRIBUTES = ["category", "family", "task_types", "options"];
const RANK = { n: 0, u: 0, p: 1, y: 2 };

export function failuresOf(facts: Facts, question: Question, row: Row): Failure[] {
  const found = demands(facts, question, row);
  const { plan } = question;
  if (plan && row.refused) found.push({ constraint: "training", reason: row.refused });
  if (plan && row.problem) found.push({ constraint: "model", reason: row.problem });
  if (plan?.limit != null && row.forecast && row.forecast[0] > plan.limit) {
    const [low, high] = [row.forecast[0], row.forecast[2]].map((size) => format(size, "bytes"));
    found.push({ constraint: "max_memory", reason: `the forecast, ${low} to ${high}, is above ${plan.limitText}` });
  }
  if (row.values) found.push(...figures(facts, question, row));
  return found.map((one) => ({ ...one, reason: one.reason.trim() }));
}

function demands(facts: Facts, question: Question, row: Row): Failure[] {
  const found: Failure[] = [];
  const method = facts.methodOf(row)!;
  if (question.methods.length && !question.methods.includes(method.id))
    found.push({ constraint: "methods", reason: `${method.id} is not among those asked for` });
  if (question.exclude.includes(method.id))
    found.push({ constraint: "exclude", reason: `${method.id} is excluded` });
  if (row.variants) found.push(...variants(question, row, method.id));
  if (question.peftVersion !== null) found.push(...versions(facts, question.peftVersion, row));
  for (const one of question.requirements) {
    const lacking = one.values.map((value) => lack(facts, question, row, one, value));
    const short = lacking.filter((text) => text !== null);
    if (!short.length || (one.any && short.length < lacking.length)) continue;
    const reason = ATTRIBUTES.includes(one.name)
      ? `lacks ${short.join(", ")}`
      : short.join(one.name === "serve" ? ". " : "; ");
    found.push({ constraint: one.name, reason });
  }
  return found;
}

function variants(question: Question, row: Row, method: string): Failure[] {
  const found: Failure[] = [];
  const own = row.variants!.map((variant) => `${method}:${variant}`);
  const tail = (text: string): string => text.slice(text.indexOf(":") + 1);
  const wanted = question.variants.filter((text) => text.startsWith(`${method}:`));
  if (wanted.length && !own.some((text) => wanted.includes(text)))
    found.push({
      constraint: "methods",
      reason: `${row.name} is not ${wanted.map(tail).join(" or ")}`,
    });
  const unwanted = own.filter((text) => question.excludedVariants.includes(text)).map(tail).sort();
  if (unwanted.length)
    found.push({ constraint: "exclude", reason: `${unwanted.join(" and ")} is excluded` });
  return found;
}

/** Whether release `left` is older than `right`. */
export function older(left: string, right: string): boolean {
  const [a, b] = [left, right].map((text) => text.split(".").map(Number));
  for (let k = 0; k < Math.max(a!.length, b!.length); k++) {
    const difference = (a![k] ?? 0) - (b![k] ?? 0);
    if (difference) return difference < 0;
  }
  return false;
}

function versions(facts: Facts, version: string, row: Row): Failure[] {
  const late = row.late.map(([since]) => since === null || older(version, since));
  const told = ([, place]: [string | null, number]): Failure => ({
    constraint: "peft_version",
    reason: `${facts.text(place)}, not ${version}`,
  });
  if (late[0]) return [told(row.late[0]!)];
  return row.late.filter((_, place) => late[place]).map(told);
}

/** Why one value of a demand is not met; `null` when it is. */
function lack(
  facts: Facts, question: Question, row: Row, one: Requirement, value: string,
): string | null {
  if (ATTRIBUTES.includes(one.name)) {
    const mine = facts.methodOf(row)![one.name as "options"] as string[] | string;
    return (Array.isArray(mine) ? mine.includes(value) : mine === value) ? null : value;
  }
  if (one.name === "serve") {
    const [engine = "", kind] = value.split(":");
    const place = facts.table.engines.findIndex((other) => other.id === engine);
    const route = facts.route(question.benchmark, row, place);
    const chosen = kind === undefined ? -1 : facts.table.kinds.indexOf(kind);
    const reached = route && (chosen < 0 ? route[1].length > 0 : route[1].includes(chosen));
    return reached ? null : `${value}: ${facts.text(route?.[3 + chosen] as number | undefined)}`;
  }
  if (GROUPS.includes(one.name)) {
    const [name = "", least] = value.split(":");
    const fault = faultOf(facts, question, row, `${one.name}.${name}`, least ?? "yes");
    return fault && `${value}: ${fault}`;
  }
  return faultOf(facts, question, row, one.name, value);
}

function faultOf(
  facts: Facts, question: Question, row: Row, feature: string, demanded: string,
): string | null {
  const [support, level, note] = facts.capability(row, facts.feature.get(feature)!);
  const { levels } = facts.table;
  const met =
    demanded === "no" ? support === "n" : RANK[support] >= RANK[demanded === "yes" ? "y" : "p"];
  if (!met) {
    const told = note ? ` (${facts.text(note)})` : "";
    return `${SUPPORT[support]}, ${levels[level]}${told}`;
  }
  if (question.minEvidence >= 0 && level < question.minEvidence)
    return `${SUPPORT[support]}, but only ${levels[level]}; ${question.minEvidenceName} is demanded`;
  return null;
}

/** Whether a figure of the metric is a forecast, which where it is missing is never too much. */
function unforecast(question: Question, metric: string): boolean {
  return question.plan !== null && metric !== "total_parameters" && FORECAST.includes(metric);
}

/** Metrics whose figures decide the answer. */
function asked(question: Question): Set<string> {
  return new Set([
    ...question.objectives.map((one) => one.id),
    ...question.bounds.map((one) => one.metric),
    question.rankBy,
    ...question.weights.map(([id]) => id),
  ].filter((id) => !unforecast(question, id)));
}

function figures(facts: Facts, question: Question, row: Row): Failure[] {
  const found: Failure[] = [];
  const { benchmark } = question;
  const names = asked(question);
  const missing = (metric: string): string =>
    facts.text(row.unusable![benchmark.metrics.indexOf(metric)]) || "not measured";
  const scored = [...names].some((name) => facts.metric.get(name)?.scope === "score");
  if (benchmark.era !== null && scored && row.era !== benchmark.era)
    found.push({
      constraint: "era",
      reason: `scored in the '${row.era}' era, not in '${benchmark.era}'`,
    });
  if (!question.includeFlagged)
    for (const [code, metrics, reason, unfit] of row.flags!)
      if (unfit && (!metrics.length || metrics.some((name) => names.has(name))))
        found.push({ constraint: "flagged", reason: `${code}: ${facts.text(reason)}` });
  for (const { id } of question.objectives)
    if (valueOf(benchmark, row, id) === undefined && !unforecast(question, id))
      found.push({ constraint: "objectives", reason: `${id}: ${missing(id)}` });
  for (const bound of question.bounds) {
    const value = valueOf(benchmark, row, bound.metric);
    const constraint = `${bound.kind}_${bound.metric}`;
    if (value === undefined && bound.kind === "max" && unforecast(question, bound.metric)) continue;
    if (value === undefined)
      found.push({ constraint, reason: `${bound.metric}: ${missing(bound.metric)}` });
    else if (bound.kind === "max" ? value > bound.value : value < bound.value) {
      const shown = format(value, facts.metricOf(bound.metric).unit);
      const side = bound.kind === "max" ? "above" : "below";
      found.push({ constraint, reason: `${bound.metric} ${shown} is ${side} ${bound.text}` });
    }
  }
  found.push(...floor(facts, question, row, missing));
  return found;
}

function floor(
  facts: Facts, question: Question, row: Row, missing: (metric: string) => string,
): Failure[] {
  const { headline } = question.benchmark;
  const { unit, better } = facts.metricOf(headline);
  const score = valueOf(question.benchmark, row, headline);
  if (score === undefined)
    return question.floor > 0
      ? [{ constraint: "floor", reason: `${headline}: ${missing(headline)}` }]
      : [];
  if (better === "higher" ? score >= question.floor : score <= question.floor) return [];
  const least = format(question.floor, unit);
  const reason = `${headline} ${format(score, unit)} is below ${least}: it learned nothing`;
  return [{ constraint: "floor", reason }];
}
