// The candidates on a popular model: what Python compiled of it, peaks worked out at batch and length.
import { readQuantity } from "./quantity";
import type { Parameters } from "./question";
import type { Benchmark, Capability, Facts, Model, Route, Row } from "./table";

export interface Step { batch: number; length: number; checkpointing: boolean; quantized: boolean }
/** A training step on a model, and what it may take. */
export interface Plan extends Step {
  place: number; model: Model;
  limit: number | null; limitText: string;
}
interface Planned {
  problem?: number; unknown?: number; config?: Record<string, unknown>; counts?: [number, number, number | null];
  capabilities?: Record<string, Capability>; routes?: Record<string, Route>;
  /** Of each setup the ends of the interval, then four factors of each branch; 0 where none is exact. */
  setups?: (number[] | 0)[]; refused?: number[];
}
export interface ModelFile { texts: string[]; rows: Record<string, Planned> }
/** Metrics whose measured figures a forecast replaces. */
export const FORECAST = ["peak_memory", "checkpoint_size", "trainable_parameters", "total_parameters"];
const UNTOLD = "no forecast here: ask peft-shop forecast";

/** The largest of the branches, in bytes. */
function peakOf(cell: number[], batch: number, length: number): number {
  let peak = 0;
  for (let k = 2; k < cell.length; k += 4)
    peak = Math.max(peak, cell[k]! + batch * (length * (cell[k + 1]! + length * cell[k + 2]!) + cell[k + 3]!));
  return peak;
}

/** The benchmark with forecasts in place of what its runs took. */
export function planned(benchmark: Benchmark, plan: Plan, file: ModelFile): Benchmark {
  const setup = 2 * +plan.quantized + +plan.checkpointing;
  const text = (place: number | undefined): string => file.texts[place ?? 0]!;
  const blank = (row: Row, figures: (number | null)[], why: string): Row => row.values ? {
    ...row,
    values: row.values.map((value, k) => { const at = FORECAST.indexOf(benchmark.metrics[k]!); return at < 0 ? value : figures[at] ?? null; }),
    noise: Object.fromEntries(Object.entries(row.noise!).filter(([k]) => !FORECAST.includes(benchmark.metrics[+k]!))),
    unusable: row.unusable!.map((place, k) => FORECAST.includes(benchmark.metrics[k]!) ? why : place),
  } : row;
  const rows = benchmark.rows.map((row): Row => {
    const one: Planned = file.rows[row.name] ?? {};
    const cell = one.setups?.[setup];
    const peak = cell ? Math.round(peakOf(cell, plan.batch, plan.length)) : null;
    const [trained = null, total = null, saved = null] = one.counts ?? [];
    const why = one.problem ? "it cannot work on this model" : text(one.unknown) || UNTOLD;
    return {
      ...blank(row, [peak, saved, trained, total], peak === null ? why : "its size cannot be told beforehand"),
      capabilities: { ...row.capabilities, ...mapped(one.capabilities, text, 3) },
      routes: { ...row.routes, ...mapped(one.routes, text, 6) },
      problem: text(one.problem), refused: text(one.refused?.[setup]), config: one.config,
      ...(cell && { forecast: [peak! * (1 + cell[0]!), peak!, peak! * (1 + cell[1]!)] as const }),
    };
  });
  return { ...benchmark, rows, whole: benchmark.whole.map((row) => blank(row, [], UNTOLD)) };
}

/** Records whose entries from the third on are places of texts, with the texts. */
function mapped<T extends unknown[]>(records: Record<string, T> | undefined, text: (place: number) => string, end: number): Record<string, T> {
  return Object.fromEntries(Object.entries(records ?? {}).map(([key, one]) =>
    [key, one.map((value, k) => (k > 1 && k < end ? text(value as number) : value)) as T]));
}

/** What the parameters say of a model; troubles go to `tell`. */
export function planOf(
  facts: Facts, benchmark: Benchmark, given: Parameters, tell: (name: string, text: string, elsewhere?: boolean) => void,
): Plan | null {
  const name = given.get("model");
  const about = ["device", "max_memory", "fit", "training"].filter((one) => given.has(one));
  const place = facts.table.models.findIndex((one) => one.id.toLowerCase() === name?.toLowerCase());
  const model = facts.table.models[place];
  if (name !== undefined && !model) tell("model", "the page does not know this one", true);
  else if (model && model.benchmark !== benchmark.id) tell("model", "the page forecasts it for text alone", true);
  if (!model || model.benchmark !== benchmark.id) {
    for (const one of about) tell(one, "only the command line answers this", true);
    return null;
  }
  const plan: Plan = { place, model, batch: 4, length: Math.min(512, model.positions), checkpointing: false, quantized: false, limit: null, limitText: "" };
  for (const part of (given.get("training") ?? "").split(";").filter(Boolean)) {
    const [key = "", value = ""] = part.split("=").map((one) => one.trim());
    const count = /^\d{1,7}$/.test(value) && Number(value) > 0 ? Number(value) : null;
    const flag = { true: true, false: false, 1: true, 0: false }[value.toLowerCase()];
    if (key === "batch_size" && count) plan.batch = count;
    else if (key === "sequence_length" && count && count <= model.positions) plan.length = count;
    else if (key === "gradient_checkpointing" && flag !== undefined) plan.checkpointing = flag;
    else if (key === "quantization" && ["none", "bnb_4bit"].includes(value)) plan.quantized = value !== "none";
    else tell("training", `the page does not offer ${part}${key === "sequence_length" ? `: the model takes ${model.positions} tokens` : ""}`, true);
  }
  const device = given.get("device") ?? given.get("max_memory");
  if (device !== undefined) {
    const card = facts.table.cards.find((one) => one.names.some((other) => other.toLowerCase() === device.toLowerCase()));
    const size = readQuantity(device, "bytes");
    if (given.has("device") && card) plan.limit = card.usable;
    else if (!given.has("device") && typeof size === "number") plan.limit = Math.floor(size);
    else tell(given.has("device") ? "device" : "max_memory", `the page does not know “${device}”`, true);
    plan.limitText = device;
    if (given.get("fit") !== "off") tell("fit", "the page takes the setup below, the command line looks for one", true);
  } else if (!given.has("training")) tell("training", "without a training step nothing is forecast", true);
  return plan;
}

/** The parameter `training` with some of it changed. */
export function trainingOf(plan: Step, changes: Partial<Record<keyof Step, number | string | boolean>>): string {
  const { batch, length, checkpointing, quantized } = { ...plan, ...changes };
  return `batch_size=${batch};sequence_length=${length};gradient_checkpointing=${checkpointing};quantization=${quantized ? "bnb_4bit" : "none"}`;
}
