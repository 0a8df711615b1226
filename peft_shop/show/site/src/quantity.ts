// Quantities as people write them, as in peft_shop/units.py.
import type { Metric, Unit } from "./table";

const SCALES: Record<Unit, Record<string, number>> = {
  bytes: {
    b: 1, kb: 1e3, mb: 1e6, gb: 1e9, tb: 1e12,
    kib: 2 ** 10, mib: 2 ** 20, gib: 2 ** 30, tib: 2 ** 40,
  },
  seconds: { ms: 1e-3, s: 1, sec: 1, min: 60, h: 3600, hour: 3600, hours: 3600, d: 86400 },
  fraction: { "%": 0.01 },
  count: { k: 1e3, m: 1e6, b: 1e9 },
  score: {},
};
const STEPS: Partial<Record<Unit, [string, number, number][]>> = {
  bytes: [["GiB", 2 ** 30, 2], ["MiB", 2 ** 20, 1], ["KiB", 2 ** 10, 1]],
  seconds: [["h", 3600, 2], ["min", 60, 1], ["s", 1, 1], ["ms", 1e-3, 1]],
  count: [["B", 1e9, 2], ["M", 1e6, 2], ["k", 1e3, 2]],
};
const BASE: Partial<Record<Unit, string>> = { bytes: "B", seconds: "s" };
export const EXAMPLE: Record<Unit, string> = {
  bytes: "24GiB", seconds: "20min", fraction: "45%", count: "10M", score: "0.25",
};
const PATTERN = /^\s*([+-]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z%]*)\s*$/;

/** Number in base units, or what is wrong with the text. */
export function readQuantity(text: string, unit: Unit): number | string {
  const match = PATTERN.exec(text);
  if (!match) return `cannot read "${text}"; expected ${EXAMPLE[unit]}`;
  const number = Number(match[1]!.replaceAll("_", ""));
  const suffix = match[2]!.toLowerCase();
  const scale = suffix ? SCALES[unit][suffix] : 1;
  if (scale === undefined) return `"${match[2]}" is no unit here; expected ${EXAMPLE[unit]}`;
  const result = scale === 0.01 ? number / 100 : number * scale;
  if (!Number.isFinite(result)) return `"${text}" is not a finite number`;
  if (result < 0 && unit !== "score") return `"${text}" is negative`;
  if (!suffix && result > 0 && ((unit === "bytes" && result < 1e6) || unit === "seconds"))
    return `"${text}" has no unit; expected ${EXAMPLE[unit]}`;
  if (unit === "fraction" && result > 1) return `"${text}" is above 100 %`;
  return result;
}

/** As Python's fixed notation: exact ties go to the even digit. */
export function fixed(value: number, digits: number): string {
  const doubled = value * 2 ** (digits + 1);
  if (Number.isInteger(doubled) && doubled % 2 !== 0) {
    const whole = Math.floor(Math.abs(value) * 10 ** digits);
    const even = (whole % 2 ? whole + 1 : whole) / 10 ** digits;
    return (value < 0 ? -even : even).toFixed(digits);
  }
  return value.toFixed(digits);
}

export function format(value: number, unit: Unit, digits?: number): string {
  if (unit === "fraction") return `${fixed(value * 100, digits ?? 1)} %`;
  if (unit === "score") return fixed(value, digits ?? 3);
  for (const [name, size, usual] of STEPS[unit]!)
    if (Math.abs(value) >= size) return `${fixed(value / size, digits ?? usual)} ${name}`.trimEnd();
  return `${fixed(value, unit === "seconds" ? 1 : 0)} ${BASE[unit] ?? ""}`.trimEnd();
}

/** Figure and standard deviation: "51.3 % ± 0.9". */
export function uncertain(value: number, sd: number, metric: Metric): string {
  const text = format(value, metric.unit);
  if (!(sd > 0)) return text;
  if (metric.unit === "fraction")
    return `${text} ± ${sd >= 0.0005 ? fixed(sd * 100, 1) : (sd * 100).toPrecision(1)}`;
  if (metric.unit === "score")
    return sd >= 0.0005
      ? `${text} ± ${fixed(sd, 3)}`
      : `${format(value, metric.unit, 4)} ± ${sd.toPrecision(1)}`;
  return `${text} ± ${format(sd, metric.unit)}`;
}

/** Size of a difference with its unit: "1.3 points", "2.85 GiB". */
export function amount(difference: number, metric: Metric): string {
  const size = Math.abs(difference);
  if (metric.unit === "fraction") return `${fixed(size * 100, 1)} points`;
  if (metric.scope === "memory" && size >= 0.01 * 2 ** 30) return `${fixed(size / 2 ** 30, 2)} GiB`;
  return format(size, metric.unit);
}

/** Short text of a limit that `value` meets: rounded up for a maximum, down for a minimum. */
export function justMet(value: number, unit: Unit, kind: "max" | "min"): string {
  let text = format(value, unit);
  const parts = (): [string, string] => {
    const at = text.indexOf(" ");
    return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
  };
  const decimalsOf = (number: string): number => (number.split(".")[1] ?? "").length;
  let [number, suffix] = parts();
  let decimals = decimalsOf(number);
  if (suffix && 10 ** -decimals * 100 > Math.abs(Number(number))) {
    text = format(value, unit, decimals + 1);
    [number, suffix] = parts();
    decimals += 1;
  }
  const step = kind === "max" ? 10 ** -decimals : -(10 ** -decimals);
  const limit = parsed(text, unit);
  if (kind === "max" ? limit < value : limit > value)
    text = `${fixed(Number(number) + step, decimals)} ${suffix}`.trimEnd();
  return text;
}

/** Number that one of our own texts stands for. */
export function parsed(text: string, unit: Unit): number {
  const match = PATTERN.exec(text)!;
  const scale = match[2] ? SCALES[unit][match[2].toLowerCase()]! : 1;
  return scale === 0.01 ? Number(match[1]) / 100 : Number(match[1]) * scale;
}
