// The facts that Python compiled (peft_shop/show/site/table.py), and how they are reached.

export type Support = "y" | "p" | "n" | "u";
/** Place of a text in the table, or the text itself. */
export type Place = number | string;
/** Support as a demand sees it, level, place of the note, support on file where it differs. */
export type Capability = [Support, number, Place, Support?];
/** Best kind, kinds that work, places of the obstacles (all kinds, then each), silently wrong. */
export type Route = [string, number[], Place, Place, Place, Place, number];
export type Flag = [string, string[], number, boolean];
export type Unit = "bytes" | "seconds" | "fraction" | "count" | "score";

export interface Metric {
  id: string; field: string; title: string; label: string; unit: Unit;
  better: "lower" | "higher"; scope: string; description: string;
  tie?: number; tie_relative?: number; retired?: string;
}
export interface Feature { id: string; group: string | null; title: string; question: string }
export interface Engine { id: string; title: string; version: string; models: string[] }
export interface Paper { title: string; year: number; url: string }
export interface Variant {
  id: string; title: string; summary: string; paper: Paper | null; since: string | null;
}
export interface Method {
  id: string; title: string; class: string; summary: string; family: string; category: string;
  task_types: string[]; options: string[]; aliases: string[]; paper: Paper | null;
  since: string | null; notes: string[]; requires: string[];
  capabilities: Capability[]; variants: Variant[];
}
export interface Row {
  name: string; title: string; method: number; late: [string | null, number][];
  routes?: Record<string, Route>;
  short?: string; variants?: string[]; era?: string | null;
  values?: (number | null)[]; noise?: Record<string, [number, number, number | null]>;
  paired?: Record<string, Record<string, number>>; unusable?: Place[];
  flags?: Flag[]; capabilities?: Record<string, Capability>;
  /** On a model that the question names: why it cannot work there, or train on its base; forecast peak with its range. */
  problem?: string; refused?: string; config?: Record<string, unknown> | undefined; forecast?: readonly [number, number, number];
}
export interface Model { id: string; positions: number; benchmark: string }
export interface Benchmark {
  id: string; aliases: string[]; title: string; model: string; modality: string;
  description: string; headline: string; metrics: string[]; objectives: string[];
  floor: number; floorBecause: string; certainty: string; snapshot: string | null; era: string | null;
  eras: Record<string, string>; warnings: string[]; engines: number[];
  foreign: Record<string, Route>;
  baselines: Record<string, string>; rows: Row[]; whole: Row[];
}
export interface Table {
  format: number; catalogVersion: string; peftVersion: string; licence: string;
  packageVersion: string;
  view: string[]; levels: string[]; rankings: string[]; confidences: number[];
  features: Feature[]; metrics: Metric[]; engines: Engine[]; kinds: string[];
  cards: { names: string[]; usable: number }[];
  methods: Method[]; benchmarks: Benchmark[]; models: Model[];
  sources: { id: string; project: string; licence: string; url: string | null }[];
}

/** Descriptions, in the order of the table. */
export interface Words {
  methods: object[]; variants: object[][]; metrics: object[]; features: object[]; benchmarks: object[]; limits: string[];
}

export class Facts {
  readonly metric: Map<string, Metric>;
  readonly feature: Map<string, number>;
  texts: string[] = [];
  /** What the page cannot tell, in sentences. */
  limits: string[] = [];

  constructor(readonly table: Table) {
    // what describes comes later, and is not there yet
    for (const one of table.methods) {
      one.summary ??= "";
      one.paper ??= null;
      one.notes ??= [];
      one.requires ??= [];
      one.aliases ??= [];
      for (const variant of one.variants) variant.summary ??= "";
    }
    for (const one of table.metrics) one.description ??= "";
    for (const one of table.features) one.question ??= "";
    this.metric = new Map(table.metrics.map((one) => [one.id, one]));
    this.feature = new Map(table.features.map((one, place) => [one.id, place]));
  }

  /** Adds the descriptions. */
  describe(words: Words): void {
    this.limits = words.limits;
    const { methods, metrics, features, benchmarks } = this.table;
    methods.forEach((one, place) => {
      Object.assign(one, words.methods[place]);
      one.variants.forEach((variant, other) => Object.assign(variant, words.variants[place]?.[other]));
    });
    metrics.forEach((one, place) => Object.assign(one, words.metrics[place]));
    features.forEach((one, place) => Object.assign(one, words.features[place]));
    benchmarks.forEach((one, place) => Object.assign(one, words.benchmarks[place]));
  }

  text(place: Place | undefined): string {
    return (typeof place === "string" ? place : place && this.texts[place]) || "";
  }

  benchmark(id: string): Benchmark {
    return this.table.benchmarks.find((one) => one.id === id) ?? this.table.benchmarks[0]!;
  }

  metricOf(id: string): Metric {
    return this.metric.get(id)!;
  }

  /** Metrics that may be ranked. */
  rankable(benchmark: Benchmark): Metric[] {
    return benchmark.metrics.map((id) => this.metricOf(id)).filter((one) => !one.retired);
  }

  methodOf(row: Row): Method | undefined {
    return this.table.methods[row.method];
  }

  capability(row: Row, feature: number): Capability {
    return row.capabilities?.[feature] ?? this.methodOf(row)!.capabilities[feature]!;
  }

  route(benchmark: Benchmark, row: Row, engine: number): Route | undefined {
    return row.routes?.[engine] ?? benchmark.foreign[engine];
  }
}

export const SUPPORT: Record<Support, string> = { y: "yes", p: "partial", n: "no", u: "unknown" };

export function valueOf(benchmark: Benchmark, row: Row, metric: string): number | undefined {
  return row.values?.[benchmark.metrics.indexOf(metric)] ?? undefined;
}

/** Standard deviation, the estimated part of it, degrees of freedom. */
export function deviationOf(benchmark: Benchmark, row: Row, metric: string): [number, number, number] {
  const [sd, part, degrees] = row.noise?.[benchmark.metrics.indexOf(metric)] ?? [0, 0, null];
  return [sd, part, degrees ?? Infinity];
}

export function sdOf(benchmark: Benchmark, row: Row, metric: string): number {
  return row.noise?.[benchmark.metrics.indexOf(metric)]?.[0] ?? 0;
}
