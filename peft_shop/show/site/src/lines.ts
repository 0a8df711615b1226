// The equal question on the command line and in Python.
import type { Parameters } from "./question";
import { type Facts, type Method, type Row } from "./table";

const LISTS: Record<string, string> = {
  objectives: "objective", quantization: "quantization", layer_types: "layer-type",
  category: "category", family: "family", task_types: "task-type", options: "option",
  serve: "serve", methods: "method", exclude: "exclude",
};

export function quote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
}

/** The question's own parameters, without those that say how it is shown. */
export function asked(facts: Facts, parameters: Parameters): [string, string][] {
  return [...parameters].filter(([name]) => !facts.table.view.includes(name));
}

export function commandLine(facts: Facts, parameters: Parameters): string {
  const words = ["peft-shop", "recommend"];
  const singles = facts.table.features.filter((one) => one.group === null).map((one) => one.id);
  let version = "any";
  for (const [name, text] of asked(facts, parameters)) {
    const flag = name.replaceAll("_", "-");
    const bound = /^(max|min)_(.+)$/.exec(name);
    if (name === "peft_version") version = text;
    else if (name === "benchmark") words.push("-b", quote(text));
    else if (name === "include_flagged") words.push("--include-flagged");
    else if (LISTS[name]) words.push(`--${LISTS[name]}`, quote(text));
    else if (singles.includes(name)) {
      if (text === "partial") words.push("--accept-partial", name);
      else words.push(`--${["0", "no", "false"].includes(text) ? "no-" : ""}${flag}`);
    } else if (name === "evidence") words.push(...(text === "pooled" ? ["--pooled"] : []));
    else if (name === "adapt" || name === "training")
      for (const part of text.split(";")) words.push(`--${name}`, quote(part));
    else if (bound && !["max_memory", "min_evidence"].includes(name))
      words.push(`--${bound[1]}`, quote(`${bound[2]}=${text}`));
    else words.push(`--${flag}`, quote(text));
  }
  return [...words, "--peft-version", quote(version)].join(" ");
}

export function pythonLine(facts: Facts, parameters: Parameters): string {
  const singles = facts.table.features.filter((one) => one.group === null).map((one) => one.id);
  const words: string[] = [];
  let version = "any";
  let any = false;
  for (const [name, text] of asked(facts, parameters)) {
    if (name === "peft_version") version = text;
    else if (name === "benchmark") words.unshift(JSON.stringify(text));
    else if (name === "include_flagged") words.push("include_flagged=True");
    else if (name === "confidence") words.push(`confidence=${Number(text)}`);
    else if (LISTS[name]) {
      const several = text.includes("|");
      any ||= several;
      const parts = text.split(several ? "|" : /[,\s]+/).filter(Boolean).map((one) => JSON.stringify(one));
      words.push(`${name}=${several ? `any_of(${parts.join(", ")})` : parts.length === 1 ? parts[0] : `[${parts.join(", ")}]`}`);
    } else if (singles.includes(name)) {
      const value = text === "partial" ? '"partial"' : ["0", "no", "false"].includes(text) ? "False" : "True";
      words.push(`${name}=${value}`);
    } else if (name === "rank_by" && text.includes("=")) {
      const parts = text.split(",").map((one) => one.split("="));
      words.push(`rank_by={${parts.map(([id, weight]) => `${JSON.stringify(id)}: ${Number(weight)}`).join(", ")}}`);
    } else if (name === "training" || name === "adapt") {
      const parts = text.split(";").filter(Boolean).map((one) => one.split("="));
      words.push(`${name}={${parts.map(([key = "", value = ""]) => `${JSON.stringify(key.trim())}: ${JSON.stringify(value.trim())}`).join(", ")}}`);
    } else words.push(`${name}=${JSON.stringify(text)}`);
  }
  words.push(`peft_version=${JSON.stringify(version)}`);
  const names = any ? "any_of, recommend" : "recommend";
  return `from peft_shop import ${names}\n\nanswer = recommend(${words.join(", ")})`;
}

/** A JSON value as Python writes it. */
export function literal(value: unknown): string {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object")
    return `{${Object.entries(value).map(([key, one]) => `${literal(key)}: ${literal(one)}`).join(", ")}}`;
  // JSON's escapes are Python's, but for the two halves of a sign beyond the basic plane
  if (typeof value === "string") return JSON.stringify(value);
  return String(value);
}

/** Python that makes the configuration with peft alone. */
export function configCode(method: Method, config: Record<string, unknown>): string {
  const name = /^[A-Za-z_]\w*$/.test(method.class) ? method.class : "PeftConfig";
  const fields = Object.entries(config)
    .filter(([key]) => key !== "peft_type" && /^[A-Za-z_]\w*$/.test(key))
    .map(([key, value]) => `    ${key}=${literal(value)},\n`);
  return `from peft import ${name}, get_peft_model\n\nconfig = ${name}(\n${fields.join("")})\n`
    + "# model = get_peft_model(model, config)\n";
}

/** Serving in one word: the best way to any engine, or to all that are demanded together. */
export function servingWord(facts: Facts, row: Row, benchmark: { id: string }, engines: number[], all: boolean): string {
  const order = ["native", "convert", "merge", "none", "unknown"];
  const place = facts.benchmark(benchmark.id);
  const kinds = engines.map((one) => facts.route(place, row, one)?.[0] ?? "unknown");
  if (!kinds.length) return "unknown";
  kinds.sort((a, b) => order.indexOf(a) - order.indexOf(b));
  const first = kinds[0]!;
  const kind = all ? kinds.at(-1)!
    : first === "none" || first === "unknown" ? (kinds.includes("unknown") ? "unknown" : "none") : first;
  return kind === "native" ? "direct" : kind;
}
