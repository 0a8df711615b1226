// Question -> answer: who is kept, the front in its order, ties, chances, what else would be admitted.
import { compare, dominates, front, frontProbabilities, leadSpread, tieSet } from "./noise";
import { factor } from "./quantiles";
import { type Failure, failuresOf } from "./judge";
import { justMet, parsed } from "./quantity";
import type { Question } from "./question";
import { type Benchmark, type Facts, type Metric, type Row, deviationOf, valueOf } from "./table";

export interface Standing {
  row: Row;
  place: "front" | "tie" | "beaten";
  costs: number[];
  /** Probability of being on the front; `null` where the page does not tell. */
  chance: number | null;
  /** The front member that stands above it. */
  above: Row | null;
}
export interface Relaxation {
  constraints: string[]; admits: number; example: string; suggestion: string;
  /** Parameters to set, or to take away (`null`); `null` as a whole where the page cannot. */
  change: [string, string | null][] | null;
}
export interface Answer {
  question: Question;
  front: Standing[];
  ties: Standing[];
  beaten: Standing[];
  unmeasured: Row[];
  dropped: { row: Row; failures: Failure[] }[];
  relaxations: Relaxation[];
  warnings: string[];
}

export function answerOf(facts: Facts, question: Question): Answer {
  const { benchmark, objectives } = question;
  const kept: Row[] = [];
  const unmeasured: Row[] = [];
  const dropped: Answer["dropped"] = [];
  for (const row of benchmark.rows) {
    const failures = failuresOf(facts, question, row);
    if (failures.length) dropped.push({ row, failures });
    else (row.values ? kept : unmeasured).push(row);
  }
  const costs = kept.map((row) => objectives.map((one) => costOf(benchmark, row, one)));
  const deviations = kept.map((row) => objectives.map((one) => deviationOf(benchmark, row, one.id)));
  const paired = (i: number, j: number, k: number): number | undefined =>
    pairedOf(question, kept[i]!, kept[j]!, objectives[k]!);
  const order = ranked(facts, question, kept, front(costs));
  const tied = new Set(tieSet(costs, deviations, Number(question.confidence), slacks(question, kept), paired));
  const chances = frontProbabilities(costs, deviations);
  const standings: Standing[] = kept.map((row, i) => {
    const above = order.find((j) => dominates(costs[j]!, costs[i]!));
    const place = above === undefined ? "front" : tied.has(i) ? "tie" : "beaten";
    const over = above === undefined ? null : kept[above]!;
    return { row, place, costs: costs[i]!, chance: chances && chances[i]!, above: over };
  });
  const plain = facts.table.methods.findIndex((one) => one.id === "lora");
  return {
    question,
    front: order.map((i) => standings[i]!),
    ties: standings
      .filter((one) => one.place === "tie")
      .sort((a, b) => compare([-(a.chance ?? 0), a.row.name], [-(b.chance ?? 0), b.row.name])),
    beaten: standings.filter((one) => one.place === "beaten"),
    unmeasured: unmeasured.sort((a, b) => +(a.method !== plain) - +(b.method !== plain)),
    dropped,
    relaxations: kept.length ? [] : relaxations(facts, question, dropped),
    warnings: warnings(facts, question, kept, dropped),
  };
}

/** What the choice of questions adds to the difference of two rows, where that is on file. */
function pairedOf(question: Question, one: Row, other: Row, metric: Metric): number | undefined {
  return one.paired?.[question.benchmark.metrics.indexOf(metric.id)]?.[other.name];
}

export function costOf(benchmark: Benchmark, row: Row, metric: Metric): number {
  const value = valueOf(benchmark, row, metric.id);
  if (value === undefined) return Infinity;
  return metric.better === "lower" ? value : -value;
}

/** Per objective the difference below which exact figures count as equal. */
function slacks(question: Question, kept: Row[]): number[] {
  return question.objectives.map((metric) => {
    const known = kept.map((row) => Math.abs(valueOf(question.benchmark, row, metric.id)!));
    const relative = metric.tie_relative && known.length ? metric.tie_relative * Math.min(...known) : 0;
    return Math.max(metric.tie ?? 0, relative);
  });
}

/** Rows in the order of the question; ties by headline, objectives, name. */
export function ranked(
  facts: Facts, question: Question, kept: Row[], members: number[],
): number[] {
  const { benchmark, objectives, rankBy } = question;
  const headline = facts.metricOf(benchmark.headline);
  const at = (i: number, metric: Metric): number => costOf(benchmark, kept[i]!, metric);
  const usual = (i: number): (number | string)[] => [
    at(i, headline), ...objectives.map((one) => at(i, one)), kept[i]!.name,
  ];
  const by = (key: (i: number) => (number | string)[]): number[] =>
    members.map((i) => [i, key(i)] as const).sort((a, b) => compare(a[1], b[1])).map(([i]) => i);
  const chosen = facts.metric.get(rankBy);
  if (chosen) return by((i) => [at(i, chosen), ...usual(i)]);
  if (!members.length || rankBy === "headline") return by(usual);
  if (rankBy === "cheapest-tie") {
    const [top] = by(usual);
    const own = (i: number): [number, number, number] => deviationOf(benchmark, kept[i]!, headline.id);
    const equal = (i: number): boolean => {
      const [sd, degrees] = leadSpread(own(i), own(top!), pairedOf(question, kept[i]!, kept[top!]!, headline));
      // the best of several equal members is ahead by chance
      return at(i, headline) - at(top!, headline) <= factor(Number(question.confidence), degrees, members.length - 1) * sd;
    };
    const others = objectives.filter((one) => one.id !== headline.id);
    const cheapest = by((i) => [...others.map((one) => at(i, one)), kept[i]!.name]).filter(equal);
    return [...cheapest, ...by(usual).filter((i) => !equal(i))];
  }
  const weights: [Metric, number][] = question.weights.length
    ? question.weights.map(([id, weight]) => [facts.metricOf(id), weight])
    : objectives.map((one) => [one, 1]);
  const ranges = weights.map(([metric]) => {
    const known = members.map((i) => at(i, metric)).filter(Number.isFinite);
    return [Math.min(...known), Math.max(...known)] as const;
  });
  const scaled = (i: number, k: number): number => {
    const cost = at(i, weights[k]![0]);
    const [low, high] = ranges[k]!;
    if (!Number.isFinite(cost)) return 1;
    return high > low ? (cost - low) / (high - low) : 0;
  };
  const score = (i: number): number =>
    rankBy === "knee"
      ? Math.hypot(...weights.map((_, k) => scaled(i, k)))
      : weights.reduce((sum, [, weight], k) => sum + weight * scaled(i, k), 0);
  return by((i) => [score(i), ...usual(i)]);
}

// --- what to relax, as in peft_shop/ask/advice.py ---

function relaxations(facts: Facts, question: Question, dropped: Answer["dropped"]): Relaxation[] {
  const { benchmark } = question;
  const headline = facts.metricOf(benchmark.headline);
  const failing = dropped
    .filter(({ row }) => row.values)
    .map(({ row, failures }) => ({ row, names: [...new Set(failures.map((one) => one.constraint))] }));
  const fewest = Math.min(...failing.map((one) => one.names.length));
  const groups = new Map<string, Row[]>();
  for (const { row, names } of failing)
    if (names.length === fewest) {
      const key = names.sort().join(" + ");
      groups.set(key, [...(groups.get(key) ?? []), row]);
    }
  const found = [...groups].map(([key, rows]): Relaxation => {
    rows.sort((a, b) =>
      compare([costOf(benchmark, a, headline), a.name], [costOf(benchmark, b, headline), b.name]));
    return suggestion(facts, question, key.split(" + "), rows);
  });
  const name = (one: Relaxation): string => one.constraints.join(" + ");
  return found.sort((a, b) => compare([-a.admits, name(a)], [-b.admits, name(b)]));
}

function limitOf(
  facts: Facts, question: Question, constraint: string,
): [Metric, "min" | "max"] | null {
  if (constraint === "floor") {
    const headline = facts.metricOf(question.benchmark.headline);
    return [headline, headline.better === "higher" ? "min" : "max"];
  }
  const match = /^(min|max)_(.+)$/.exec(constraint);
  const metric = match && facts.metric.get(match[2]!);
  return metric ? [metric, match[1] as "min" | "max"] : null;
}

function suggestion(
  facts: Facts, question: Question, constraints: string[], admitted: Row[],
): Relaxation {
  const { benchmark } = question;
  const at = (row: Row, metric: Metric): number => valueOf(benchmark, row, metric.id)!;
  const bounds = new Map<string, [Metric, "min" | "max"]>();
  for (const name of constraints) {
    const limit = limitOf(facts, question, name);
    if (limit && admitted.every((row) => valueOf(benchmark, row, limit[0].id) !== undefined))
      bounds.set(name, limit);
  }
  let target = admitted[0]!;
  if (constraints.length === 1 && bounds.size) {
    const [[metric, kind]] = [...bounds.values()] as [[Metric, "min" | "max"]];
    const sign = kind === "max" ? 1 : -1;
    for (const row of admitted) if (sign * at(row, metric) < sign * at(target, metric)) target = row;
  }
  const words: string[] = [];
  let change: Relaxation["change"] = [];
  let reached = admitted;
  for (const name of constraints) {
    const limit = bounds.get(name);
    if (!limit) {
      words.push(wordsOf(facts, question, name));
      change = change && giveUp(facts, name, change);
      continue;
    }
    const [metric, kind] = limit;
    const text = justMet(at(target, metric), metric.unit, kind);
    const value = parsed(text, metric.unit);
    words.push(`${kind === "max" ? "raise" : "lower"} ${name} to ${text}`);
    change?.push([name, text.replaceAll(" ", "")]);
    reached = reached.filter((row) => (kind === "max" ? at(row, metric) <= value : at(row, metric) >= value));
  }
  let text = `${words.join(" and ")} (admits ${listed(reached)}`;
  if (reached.length < admitted.length) {
    const which = bounds.size === 1 ? "this limit" : "these limits";
    text += `; without ${which} ${listed(admitted)}`;
  }
  return {
    constraints, admits: admitted.length, example: admitted[0]!.name, suggestion: `${text})`, change,
  };
}

function listed(rows: Row[]): string {
  return `${rows.length}: ${rows[0]?.name ?? ""}${rows.length > 1 ? ", ..." : ""}`;
}

function wordsOf(facts: Facts, question: Question, constraint: string): string {
  const words: Record<string, string> = {
    era: "mix the eras (era 'any')",
    flagged: "allow flagged runs",
    objectives: "choose objectives that were measured",
    serve: "serve it on another engine, or accept another kind of way to it",
    peft_version: `upgrade peft from ${question.peftVersion} to ${facts.table.peftVersion}`,
  };
  return words[constraint] ?? `give up ${constraint}`;
}

function giveUp(
  facts: Facts, name: string, change: [string, string | null][],
): [string, string | null][] | null {
  if (name === "era" || name === "model" || name === "training") return null;
  if (name === "max_memory") return [...change, ["device", null], [name, null]];
  if (name === "flagged") return [...change, ["include_flagged", "1"]];
  if (name === "peft_version") return [...change, [name, facts.table.peftVersion]];
  return [...change, [name, null]];
}

// --- what to know ---

function warnings(
  facts: Facts, question: Question, kept: Row[], dropped: Answer["dropped"],
): string[] {
  const { benchmark, objectives } = question;
  const found = [...benchmark.warnings];
  for (const text of question.variants) {
    const [method, variant] = text.split(":");
    const rows = benchmark.rows.filter((row) => facts.methodOf(row)!.id === method);
    if (!rows.some((row) => row.variants?.includes(variant!))) {
      const known = facts.table.methods.find((one) => one.id === method)!.variants;
      const title = known.find((one) => one.id === variant)!.title;
      found.push(`no run of ${title} is on file for ${benchmark.id}`);
    }
  }
  const flagged = dropped.filter(({ failures }) => failures.some((f) => f.constraint === "flagged"));
  if (flagged.length)
    found.push(`left out as flagged: ${flagged.map(({ row }) => row.name).join(", ")} (\`why\` tells the reason)`);
  if (question.includeFlagged) found.push("flagged runs are ranked because you asked for it");
  const demanded = new Set(question.requirements.map((one) => one.name));
  const bounds = question.bounds.filter((one) => facts.metricOf(one.metric).scope !== "count");
  if (demanded.has("quantization") && bounds.length)
    found.push(
      `${bounds.map((one) => `${one.kind}_${one.metric}`).join(" and ")}: held against runs whose base ` +
        "was not quantized; on a quantized one these figures differ",
    );
  if (demanded.has("quantization") && demanded.has("merging"))
    found.push(
      "merging into a quantized base rounds the update away in part: merge into the base loaded in " +
        "bf16 or fp32, then quantize again",
    );
  const unsure = objectives.filter(
    (one) => one.scope === "score" && kept.length && !kept.some((row) => deviationOf(benchmark, row, one.id)[1]),
  );
  if (unsure.length)
    found.push(
      `the re-run noise of ${unsure.map((one) => one.label).join(", ")} is unknown: small leads may ` +
        "mean nothing",
    );
  if (objectives.length > 3 && kept.length)
    found.push(
      `${objectives.length} objectives hardly filter: the more there are, the more runs are on the ` +
        "front; three are plenty",
    );
  return found;
}
