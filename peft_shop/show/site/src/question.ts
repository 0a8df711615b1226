// A question in the words of a link: parameters -> what is asked, as peft_shop/ask/links.py reads them.
import { EXAMPLE, readQuantity } from "./quantity";
import { type Plan, planOf } from "./planning";
import type { Benchmark, Facts, Metric } from "./table";

export interface Requirement { name: string; values: string[]; any: boolean }
export interface Bound { metric: string; kind: "min" | "max"; value: number; text: string }
export interface Question {
  benchmark: Benchmark;
  objectives: Metric[];
  requirements: Requirement[];
  bounds: Bound[];
  methods: string[];
  variants: string[];
  exclude: string[];
  excludedVariants: string[];
  minEvidence: number;
  minEvidenceName: string;
  floor: number;
  rankBy: string;
  weights: [string, number][];
  includeFlagged: boolean;
  confidence: string;
  peftVersion: string | null;
  /** The training step that costs are forecast for; `null` where they are those that were measured. */
  plan: Plan | null;
}
/** What cannot be read, or what only the command line answers; by parameter. */
export interface Trouble { name: string; text: string; elsewhere: boolean }
export type Parameters = Map<string, string>;

const GROUPS = ["quantization", "layer_types"];
const ATTRIBUTES = ["category", "family", "task_types", "options"];
/** Keywords of `recommend` that the page leaves to the command line. */
export const ELSEWHERE = [
  "snapshot", "era", "evidence", "accelerator", "adapt", "within", "trainer", "certainty",
];

/** Parameters of a link: what follows its `#` wins over what follows its `?`. */
export function parametersOf(hash: string, search: string): [Parameters, Trouble[]] {
  const text = hash.replace(/^#/, "") || search.replace(/^\?/, "");
  const found: Parameters = new Map();
  const troubles: Trouble[] = [];
  for (const [name, value] of new URLSearchParams(text)) {
    const key = name.trim().toLowerCase().replaceAll("-", "_");
    if (found.has(key)) troubles.push(trouble(key, "the link has it twice"));
    else if (!value.trim()) troubles.push(trouble(key, "the link gives it no value"));
    else found.set(key, value.trim());
  }
  return [found, troubles];
}

export function linkOf(parameters: Parameters): string {
  const parts = [...parameters].map(
    ([name, value]) =>
      `${name}=${encodeURIComponent(value).replace(/%(2F|2C|3A|7C|3D|3B)/g, decodeURIComponent)}`,
  );
  return `#${parts.join("&")}`;
}

function trouble(name: string, text: string, elsewhere = false): Trouble {
  return { name, text, elsewhere };
}

export function fold(name: string): string {
  return name.normalize("NFKC").toLowerCase().replaceAll("+", "plus").replace(/[^\p{L}\p{N}]/gu, "");
}

const spelling = (name: string): string => name.trim().toLowerCase().replace(/[- ]/g, "_");

/** What the parameters ask; every trouble with them is told, none is dropped. */
export function questionOf(facts: Facts, parameters: Parameters): [Question, Trouble[]] {
  const reader = new Reader(facts, parameters);
  return [reader.question(), reader.troubles];
}

class Reader {
  troubles: Trouble[] = [];
  private readonly benchmark: Benchmark;

  constructor(private readonly facts: Facts, private readonly given: Parameters) {
    this.benchmark = this.whichBenchmark();
  }

  question(): Question {
    const { facts, benchmark } = this;
    const picks = this.picks("methods");
    const banned = this.picks("exclude");
    const [rankBy, weights] = this.ranking();
    const confidence = this.confidence();
    const level = this.given.get("min_evidence");
    const minEvidence = level === undefined ? -1 : facts.table.levels.indexOf(level);
    if (level !== undefined && minEvidence < 0)
      this.unknown("min_evidence", level, facts.table.levels);
    const question: Question = {
      benchmark,
      objectives: this.objectives(),
      requirements: this.requirements(),
      bounds: this.bounds(),
      methods: picks.methods,
      variants: picks.variants,
      exclude: banned.whole,
      excludedVariants: banned.variants,
      minEvidence,
      minEvidenceName: level ?? "",
      floor: this.floor(),
      rankBy,
      weights,
      includeFlagged: this.flag("include_flagged"),
      confidence,
      peftVersion: this.version(),
      plan: planOf(facts, benchmark, this.given, (name, text, elsewhere) => this.troubles.push(trouble(name, text, elsewhere))),
    };
    this.nameTheRest();
    return question;
  }

  private whichBenchmark(): Benchmark {
    const name = this.given.get("benchmark");
    const all = this.facts.table.benchmarks;
    if (name === undefined) return all[0]!;
    const key = fold(name);
    const found = all.find((one) => [one.id, ...one.aliases].some((other) => fold(other) === key));
    if (!found) this.unknown("benchmark", name, all.map((one) => one.id));
    return found ?? all[0]!;
  }

  private unknown(name: string, value: string, valid: string[]): void {
    const near = valid.filter((one) => fold(one).includes(fold(value).slice(0, 4))).slice(0, 3);
    const told = (near.length ? near : valid.slice(0, 12)).join(", ");
    const ask = near.length ? "did you mean" : "valid are:";
    this.troubles.push(trouble(name, `"${value}" is not known; ${ask} ${told}`));
  }

  private metric(name: string, parameter: string): Metric | undefined {
    const key = fold(name === "headline" ? this.benchmark.headline : name);
    const found = this.facts
      .rankable(this.benchmark)
      .find((one) => [one.id, one.field, one.title].some((other) => fold(other) === key));
    if (!found)
      this.unknown(parameter, name, this.facts.rankable(this.benchmark).map((one) => one.id));
    return found;
  }

  private names(parameter: string): { values: string[]; any: boolean } {
    const text = this.given.get(parameter) ?? "";
    if (text.includes("|")) {
      if (text.includes(","))
        this.troubles.push(
          trouble(parameter, "a comma means all of these and a bar one of these: use one of them"),
        );
      return { values: text.split("|").map((one) => one.trim()).filter(Boolean), any: true };
    }
    return { values: text.split(/[,\s]+/).filter(Boolean), any: false };
  }

  private objectives(): Metric[] {
    const chosen = this.names("objectives").values.map((name) => this.metric(name, "objectives"));
    const known = [...new Set(chosen.filter((one) => one !== undefined))];
    const usual = this.benchmark.objectives.map((id) => this.facts.metricOf(id));
    // the headline is argued with first
    const found = known.length ? known : usual;
    return found.sort(
      (a, b) => +(a.id !== this.benchmark.headline) - +(b.id !== this.benchmark.headline),
    );
  }

  private requirements(): Requirement[] {
    const found: Requirement[] = [];
    const { features } = this.facts.table;
    for (const group of GROUPS)
      this.demand(found, group, features.filter((one) => one.group === group)
        .map((one) => one.id.slice(group.length + 1)));
    for (const { id } of features.filter((one) => one.group === null)) {
      const text = this.given.get(id)?.toLowerCase();
      if (text === undefined) continue;
      const support = { 1: "yes", true: "yes", yes: "yes", partial: "partial", 0: "no", false: "no", no: "no" }[text];
      if (support) found.push({ name: id, values: [support], any: false });
      else this.troubles.push(trouble(id, `expected 1, partial or 0, got "${text}"`));
    }
    for (const name of ATTRIBUTES.filter((one) => this.given.has(one))) {
      const valid = new Set(
        this.facts.table.methods.flatMap((one) => one[name as "options"] as string[] | string),
      );
      this.demand(found, name, [...valid]);
    }
    this.engines(found);
    return found;
  }

  private demand(found: Requirement[], name: string, valid: string[]): void {
    if (!this.given.has(name)) return;
    const { values, any } = this.names(name);
    const byName = new Map(valid.map((one) => [spelling(one), one]));
    const chosen: string[] = [];
    for (const text of values) {
      const [value = "", least, ...rest] = GROUPS.includes(name) ? text.split(":") : [text];
      const known = byName.get(spelling(value));
      if (known === undefined || rest.length || (least && !["yes", "partial"].includes(least)))
        this.unknown(name, text, valid);
      else chosen.push(least === "partial" ? `${known}:partial` : known);
    }
    if (chosen.length) found.push({ name, values: [...new Set(chosen)], any });
  }

  private engines(found: Requirement[]): void {
    if (!this.given.has("serve")) return;
    const { engines, kinds } = this.facts.table;
    const { values, any } = this.names("serve");
    const chosen: string[] = [];
    for (const text of values) {
      const [name = "", kind] = text.split(":");
      const engine = engines.find((one) => [one.id, one.title].some((o) => fold(o) === fold(name)));
      if (!engine || (kind !== undefined && !kinds.includes(kind)))
        this.unknown("serve", text, engines.map((one) => one.id));
      else chosen.push(kind ? `${engine.id}:${kind}` : engine.id);
    }
    if (chosen.length) found.push({ name: "serve", values: [...new Set(chosen)], any });
  }

  private bounds(): Bound[] {
    const found: Bound[] = [];
    for (const [name, text] of this.given) {
      const match = /^(min|max)_(.+)$/.exec(name);
      if (!match || ["max_memory", "min_evidence"].includes(name)) continue;
      const metric = this.metric(match[2]!, name);
      if (!metric) continue;
      const value = readQuantity(text, metric.unit);
      if (typeof value === "string") this.troubles.push(trouble(name, value));
      else found.push({ metric: metric.id, kind: match[1] as "min" | "max", value, text });
    }
    for (const low of found.filter((one) => one.kind === "min"))
      for (const high of found.filter((one) => one.kind === "max" && one.metric === low.metric))
        if (low.value > high.value)
          this.troubles.push(
            trouble(`min_${low.metric}`, `${low.text} is above max_${low.metric}: no run meets both`),
          );
    return found;
  }

  private floor(): number {
    const text = this.given.get("floor");
    if (text === undefined) return this.benchmark.floor;
    const unit = this.facts.metricOf(this.benchmark.headline).unit;
    const value = readQuantity(text, unit);
    if (typeof value === "number") return value;
    this.troubles.push(trouble("floor", `${value} (such as ${EXAMPLE[unit]})`));
    return this.benchmark.floor;
  }

  private picks(parameter: string): { methods: string[]; whole: string[]; variants: string[] } {
    const meant: [string, string | null][] = [];
    for (const name of this.names(parameter).values) {
      const found = this.pick(name);
      if (found) meant.push(found);
      else this.unknown(parameter, name, this.facts.table.methods.map((one) => one.id));
    }
    const whole = [...new Set(meant.filter(([, variant]) => variant === null).map(([id]) => id))];
    const variants = meant
      .filter(([method]) => !whole.includes(method))
      .map(([method, variant]) => `${method}:${variant}`);
    return { methods: [...new Set(meant.map(([id]) => id))], whole, variants: [...new Set(variants)] };
  }

  private pick(name: string): [string, string | null] | undefined {
    const { methods } = this.facts.table;
    const [head = "", tail] = name.split(":");
    for (const one of methods)
      if (tail === undefined
        && [one.id, one.title, one.class, ...one.aliases].some((other) => fold(other) === fold(name)))
        return [one.id, null];
    for (const one of methods)
      for (const variant of one.variants)
        if (tail === undefined
          ? [variant.id, variant.title].some((other) => fold(other) === fold(name))
          : fold(one.id) === fold(head) && fold(variant.id) === fold(tail))
          return [one.id, variant.id];
    return undefined;
  }

  private ranking(): [string, [string, number][]] {
    const text = this.given.get("rank_by");
    if (text === undefined) return ["headline", []];
    if (text.includes("=")) {
      const weights: [string, number][] = [];
      for (const part of text.split(",")) {
        const [name = "", weight] = part.split("=");
        const metric = this.metric(name.trim(), "rank_by");
        const value = Number(weight);
        if (!metric) return ["headline", []];
        if (weight === undefined || !(value >= 0) || weights.some(([id]) => id === metric.id)) {
          this.troubles.push(trouble("rank_by", `cannot read "${part}" as METRIC=WEIGHT`));
          return ["headline", []];
        }
        weights.push([metric.id, value]);
      }
      if (weights.some(([, value]) => value > 0)) return ["weights", weights];
      this.troubles.push(trouble("rank_by", "at least one weight must be above 0"));
      return ["headline", []];
    }
    if (this.facts.table.rankings.includes(text)) return [text, []];
    return [this.metric(text, "rank_by")?.id ?? "headline", []];
  }

  private flag(name: string): boolean {
    const text = this.given.get(name)?.toLowerCase();
    if (text === undefined || ["0", "false", "no"].includes(text)) return false;
    if (!["1", "true", "yes"].includes(text))
      this.troubles.push(trouble(name, `expected 1 or 0, got "${text}"`));
    return true;
  }

  private confidence(): string {
    const text = this.given.get("confidence");
    if (text === undefined) return "0.95";
    const known = this.facts.table.confidences.map(String);
    const found = known.find((one) => Number(one) === Number(text));
    if (!found)
      this.troubles.push(trouble("confidence", `the page offers ${known.join(", ")}`, true));
    return found ?? "0.95";
  }

  private version(): string | null {
    const text = this.given.get("peft_version");
    if (text === undefined || text === "any") return null;
    if (/^\d{1,6}(\.\d{1,6}){0,4}$/.test(text)) return text;
    this.troubles.push(trouble("peft_version", `"${text}" is no release such as 0.21.2`, true));
    return null;
  }

  private nameTheRest(): void {
    const singles = this.facts.table.features.filter((one) => one.group === null);
    const known = [
      ...GROUPS, ...ATTRIBUTES, ...this.facts.table.view, ...singles.map((one) => one.id),
      "benchmark", "objectives", "serve", "methods", "exclude", "min_evidence", "floor", "rank_by",
      "include_flagged", "confidence", "peft_version", "model", "training", "device", "max_memory", "fit",
    ];
    for (const name of this.given.keys())
      if (ELSEWHERE.includes(name))
        this.troubles.push(trouble(name, "only the command line answers this", true));
      else if (!known.includes(name) && !/^(min|max)_./.test(name))
        this.unknown(name, name, known);
  }
}
