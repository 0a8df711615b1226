// The question: what may be demanded, with how many of the kept candidates would remain.
import { useState } from "preact/hooks";
import { failuresOf } from "./judge";
import { EXAMPLE, format, readQuantity } from "./quantity";
import { questionOf } from "./question";
import { type Shop, listOf } from "./state";
import type { Benchmark, Metric, Row } from "./table";

const verdicts = new WeakMap<Benchmark, Map<string, Row[]>>();

/** Rows of the benchmark that meet a demand, whatever else is asked. */
function meeting({ facts, question }: Shop, name: string, value: string): Row[] {
  const { benchmark } = question;
  const known = verdicts.get(benchmark) ?? new Map<string, Row[]>();
  verdicts.set(benchmark, known);
  const key = `${name} ${value} ${question.minEvidence}`;
  if (!known.has(key)) {
    const [alone] = questionOf(facts, new Map([["benchmark", benchmark.id], [name, value]]));
    const demand = { ...question, requirements: alone.requirements, bounds: [], methods: alone.methods,
      variants: [], exclude: [], excludedVariants: [], peftVersion: null, floor: -Infinity,
      includeFlagged: true, objectives: [], benchmark: { ...benchmark, era: null } };
    known.set(key, benchmark.rows.filter((row) => !failuresOf(facts, demand, row).some((one) => one.constraint === name)));
  }
  return known.get(key)!;
}

/** Kept candidates that also meet one more demand. */
function remaining(shop: Shop, name: string, value: string): number {
  const { front, ties, beaten } = shop.answer;
  const rows = new Set(meeting(shop, name, value));
  return [...front, ...ties, ...beaten].filter((one) => rows.has(one.row)).length;
}

interface GroupProps {
  shop: Shop; name: string; legend: string; options(): [string, string][];
  usual?: "all" | "any"; modes?: boolean;
}

/** Names of which all or one must hold. */
export function Group({ shop, name, legend, options, usual = "all", modes = true }: GroupProps) {
  const text = shop.parameters.get(name) ?? "";
  const chosen = listOf(shop, name);
  const [kept, setMode] = useState(usual);
  const mode = text.includes("|") ? "any" : text.includes(",") ? "all" : kept;
  const write = (values: string[], how: string): void =>
    shop.go({ [name]: values.length ? values.join(how === "any" ? "|" : ",") : null });
  const base = (value: string): string => value.split(":")[0]!;
  const [own, setOwn] = useState<boolean | null>(null);
  const shown = own ?? chosen.length > 0;
  return (
    <details class="group" open={shown}>
      <summary onClick={(event) => { event.preventDefault(); setOwn(!shown); }}>{legend}{chosen.length > 0 && <b class="count">{chosen.length}</b>}</summary>
      {shown && <fieldset>
        <legend class="hidden">{legend}</legend>
        {modes && (
          <div class="modes">
            {(["all", "any"] as const).map((how) => (
              <label key={how}>
                <input type="radio" name={`mode-${name}`} checked={mode === how}
                  onChange={() => { setMode(how); write(chosen, how); }} />
                {how === "all" ? "all of" : "any of"}
              </label>
            ))}
          </div>
        )}
        {options().map(([value, label]) => {
          const on = chosen.find((one) => base(one) === value);
          return (
            <label key={value} class="check">
              <input type="checkbox" checked={on !== undefined} name={`${name}-${value}`}
                onChange={() => write(on === undefined ? [...chosen, value] : chosen.filter((one) => one !== on), mode)} />
              <span>{label}{on?.includes(":") && ` (${on.split(":")[1]})`}</span>
              <Count shop={shop} name={name} value={value} />
            </label>
          );
        })}
      </fieldset>}
    </details>
  );
}

function Count({ shop, name, value }: { shop: Shop; name: string; value: string }) {
  return <span class="left" title="kept candidates that meet it">{remaining(shop, name, value)}</span>;
}

/** A limit on a metric, checked as it is typed. */
export function Limit({ shop, metric, kind }: { shop: Shop; metric: Metric; kind: "min" | "max" }) {
  const name = `${kind}_${metric.id}`;
  const text = shop.parameters.get(name) ?? "";
  const [typed, setTyped] = useState<string | null>(null);
  const value = typed ?? text;
  const wrong = value.trim() && typeof readQuantity(value, metric.unit) === "string"
    ? (readQuantity(value, metric.unit) as string) : "";
  const settle = (): void => {
    if (typed === null || wrong) return;
    shop.go({ [name]: typed.trim() || null });
    setTyped(null);
  };
  return (
    <label class="limit">
      <span>{metric.title} {kind === "max" ? "at most" : "at least"}</span>
      <input name={name} value={value} placeholder={`such as ${EXAMPLE[metric.unit]}`} autocomplete="off"
        aria-invalid={wrong ? "true" : undefined} aria-describedby={wrong ? `wrong-${name}` : undefined}
        onInput={(event) => setTyped(event.currentTarget.value)} onBlur={settle}
        onKeyDown={(event) => { if (event.key === "Enter") settle(); }} />
      {wrong && <span class="wrong" id={`wrong-${name}`}>{wrong}</span>}
    </label>
  );
}

const WORDS: Record<string, string> = {
  convertible_to_lora: "peft converts it to LoRA", extractable_to_lora: "can be written as a LoRA",
  multiple_adapters: "several adapters at once", mixed_batches: "mixed batches",
};

function Capabilities({ shop }: { shop: Shop }) {
  const singles = shop.facts.table.features.filter((one) => one.group === null);
  const asked = singles.filter((one) => shop.parameters.has(one.id)).length;
  const [own, setOwn] = useState<boolean | null>(null);
  const shown = own ?? asked > 0;
  return (
    <details class="group" open={shown}>
      <summary onClick={(event) => { event.preventDefault(); setOwn(!shown); }}>What it must be able to do{asked > 0 && <b class="count">{asked}</b>}</summary>
      {shown && singles.map(({ id, title, question }) => (
        <label key={id} class="choice" title={question}>
          <span>{WORDS[id] ?? title}</span>
          <Count shop={shop} name={id} value="1" />
          <select name={id} value={shop.parameters.get(id) ?? ""}
            onChange={(event) => shop.go({ [id]: event.currentTarget.value || null })}>
            <option value="">any</option>
            <option value="1">yes</option>
            <option value="partial">at least partly</option>
            <option value="0">no</option>
          </select>
        </label>
      ))}
    </details>
  );
}

const spaced = (name: string): string => name.replaceAll("_", " ");

export function Filters({ shop }: { shop: Shop }) {
  const { facts, question, parameters, go } = shop;
  const { benchmark } = question;
  const { methods, features } = facts.table;
  const rankable = facts.rankable(benchmark);
  const headline = facts.metricOf(benchmark.headline);
  const first = ["peak_memory", "train_time", "checkpoint_size"];
  const side = (metric: Metric): "min" | "max" => (metric.better === "lower" ? "max" : "min");
  const limits = [headline, ...rankable.filter((one) => first.includes(one.id))];
  const more = rankable.filter((one) => !limits.includes(one));
  const of = (group: string): [string, string][] =>
    features.filter((one) => one.group === group).map((one) => [one.id.slice(group.length + 1), spaced(one.title)]);
  const unique = (values: string[]): [string, string][] => [...new Set(values)].sort().map((one) => [one, spaced(one)]);
  const stated = (name: string): string => parameters.get(name) ?? "";
  return (
    <form class="filters" aria-label="Filters" onSubmit={(event) => event.preventDefault()}>
      <div class="filters-head">
        <h2>Filters</h2>
        <button type="button" class="quiet" onClick={() => go(Object.fromEntries(
          [...parameters.keys()].filter((name) => name !== "benchmark" && !facts.table.view.includes(name)).map((name) => [name, null])))}>
          Clear all
        </button>
      </div>
      <details class="group" open>
        <summary>Limits</summary>
        {limits.map((metric) => <Limit key={benchmark.id + metric.id} shop={shop} metric={metric} kind={side(metric)} />)}
        <details class="group" open={more.some((one) => parameters.has(`${side(one)}_${one.id}`))}>
          <summary>More limits</summary>
          {more.map((metric) => <Limit key={benchmark.id + metric.id} shop={shop} metric={metric} kind={side(metric)} />)}
        </details>
      </details>
      <Group shop={shop} name="serve" legend="Served by" options={() => benchmark.engines.map((place) => [facts.table.engines[place]!.id, facts.table.engines[place]!.title])} />
      <Group shop={shop} name="quantization" legend="Trains on a quantized base" options={() => of("quantization")} />
      <Capabilities shop={shop} />
      <Group shop={shop} name="layer_types" legend="Layers that it adapts" options={() => of("layer_types")} />
      <Group shop={shop} name="objectives" legend="Optimise together" modes={false} options={() => rankable.map((one) => [one.id, one.title])} />
      <Group shop={shop} name="methods" legend="Only these methods" modes={false}
        options={() => methods.map((one) => [one.id, one.title])} />
      <Group shop={shop} name="exclude" legend="None of these methods" modes={false}
        options={() => methods.map((one) => [one.id, one.title])} />
      <Group shop={shop} name="family" legend="Family" usual="any" options={() => unique(methods.map((one) => one.family))} />
      <Group shop={shop} name="category" legend="Category" usual="any" options={() => unique(methods.map((one) => one.category))} />
      <Group shop={shop} name="task_types" legend="Task types" options={() => unique(methods.flatMap((one) => one.task_types))} />
      <Group shop={shop} name="options" legend="Configuration options" options={() => unique(methods.flatMap((one) => one.options))} />
      <details class="group" open={["floor", "min_evidence", "confidence", "peft_version", "include_flagged"].some((name) => parameters.has(name))}>
        <summary>Evidence</summary>
        <label class="choice"><span>Weakest evidence of a capability</span>
          <select name="min_evidence" value={stated("min_evidence")} onChange={(event) => go({ min_evidence: event.currentTarget.value || null })}>
            <option value="">any</option>
            {facts.table.levels.map((one) => <option key={one} value={one}>{one}</option>)}
          </select></label>
        <label class="choice"><span>Confidence of ties</span>
          <select name="confidence" value={question.confidence} onChange={(event) => go({ confidence: event.currentTarget.value === "0.95" ? null : event.currentTarget.value })}>
            {facts.table.confidences.map(String).map((one) => <option key={one} value={one}>{Number(one) * 100} %</option>)}
          </select></label>
        <label class="limit"><span>Least {headline.label}</span>
          <input name="floor" value={stated("floor")} placeholder={format(benchmark.floor, headline.unit)} autocomplete="off"
            onChange={(event) => go({ floor: event.currentTarget.value.trim() || null })} /></label>
        <label class="limit"><span>Works with peft</span>
          <input name="peft_version" value={stated("peft_version")} placeholder="any release" autocomplete="off"
            onChange={(event) => go({ peft_version: event.currentTarget.value.trim() || null })} /></label>
        <label class="check"><input type="checkbox" name="include_flagged" checked={question.includeFlagged}
          onChange={() => go({ include_flagged: question.includeFlagged ? null : "1" })} />
          <span>Rank broken and mismeasured runs too</span></label>
      </details>
    </form>
  );
}
