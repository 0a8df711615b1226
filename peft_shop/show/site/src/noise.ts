// How sure a front is, as in peft_shop/ask/noise.py: costs are minimised, sds are 0 where exact.

export type Matrix = number[][];
const SPAN = 6;
const STEP = 0.6;
const CUT = 0.5;
const SURE = 6.5;

/** Complementary error function: a series of positive terms below 2.5, a continued fraction above. */
export function erfc(x: number): number {
  if (x < 0) return 2 - erfc(-x);
  const bell = Math.exp(-x * x);
  if (x < 2.5) {
    let term = x;
    let sum = x;
    for (let n = 1; term > sum * 1e-17; n++) {
      term *= (2 * x * x) / (2 * n + 1);
      sum += term;
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * bell * sum;
  }
  let tail = x;
  for (let n = 60; n > 0; n--) tail = x + n / 2 / tail;
  return bell / (Math.sqrt(Math.PI) * tail);
}

export function noisyColumns(sds: Matrix): number[] {
  const width = sds[0]?.length ?? 0;
  return [...Array(width).keys()].filter((k) => sds.some((row) => row[k]! > 0));
}

export function dominates(left: number[], right: number[]): boolean {
  let better = false;
  for (let k = 0; k < left.length; k++) {
    if (left[k]! > right[k]!) return false;
    if (left[k]! < right[k]!) better = true;
  }
  return better;
}

/** Places of the rows that no row dominates, ascending. */
export function front(costs: Matrix): number[] {
  const order = [...costs.keys()].sort((a, b) => compare(costs[a]!, costs[b]!));
  const kept: number[] = [];
  // in this order whatever dominates a row comes before it
  for (const i of order) if (!kept.some((j) => dominates(costs[j]!, costs[i]!))) kept.push(i);
  return kept.sort((a, b) => a - b);
}

export function compare(
  left: readonly (number | string)[],
  right: readonly (number | string)[],
): number {
  for (let k = 0; k < left.length; k++) {
    if (left[k]! < right[k]!) return -1;
    if (left[k]! > right[k]!) return 1;
  }
  return 0;
}

/** Places of the rows that no other row significantly dominates, ascending. */
export function tieSet(costs: Matrix, sds: Matrix, threshold: number, slack: number[]): number[] {
  const noisy = noisyColumns(sds);
  const exact = slack.map((_, k) => k).filter((k) => !noisy.includes(k));
  const beats = (j: number, i: number): boolean => {
    const mine = costs[i]!;
    const other = costs[j]!;
    if (exact.some((k) => other[k]! > mine[k]!)) return false;
    if (!noisy.length) return exact.some((k) => other[k]! < mine[k]! - slack[k]!);
    return noisy.every(
      (k) => mine[k]! - other[k]! > threshold * Math.hypot(sds[i]![k]!, sds[j]![k]!),
    );
  };
  const places = [...costs.keys()];
  const judges = noisy.length ? places : front(costs);
  return places.filter((i) => !judges.some((j) => j !== i && beats(j, i)));
}

/**
 * Probability that each row is on the front of the true costs; `null` with noise in several
 * columns, which Python samples and the page does not.
 */
export function frontProbabilities(costs: Matrix, sds: Matrix): number[] | null {
  const noisy = noisyColumns(sds);
  if (noisy.length > 1) return null;
  const result = costs.map(() => 0);
  if (!costs.length) return result;
  if (!noisy.length) {
    for (const i of front(costs)) result[i] = 1;
    return result;
  }
  const column = noisy[0]!;
  const exact = costs[0]!.map((_, k) => k).filter((k) => k !== column);
  costs.forEach((row, i) => {
    const mean = row[column]!;
    const sd = sds[i]![column]!;
    const close: [number, number][] = [];
    for (let j = 0; j < costs.length; j++) {
      const other = costs[j]!;
      if (j === i || exact.some((k) => other[k]! > row[k]!)) continue;
      const lead = other[column]! - mean;
      const spread = Math.hypot(sd, sds[j]![column]!);
      if (spread === 0) {
        if (dominates(other, row)) return;
      } else if (lead < -SURE * spread) return;
      else if (lead <= SURE * spread) close.push([other[column]!, sds[j]![column]!]);
    }
    result[i] = survival(mean, sd, close);
  });
  return result;
}

/** Probability that a normal variable is below all rivals, each [mean, deviation]. */
function survival(mean: number, sd: number, rivals: [number, number][]): number {
  if (!rivals.length) return 1;
  const root = Math.SQRT2;
  if (sd === 0) return rivals.reduce((all, [m, s]) => all * 0.5 * erfc((mean - m) / (s * root)), 1);
  const uncertain = rivals.filter(([, s]) => s > 0);
  const sharpest = uncertain.length ? Math.min(...uncertain.map(([, s]) => s)) : sd;
  const step = Math.max(STEP * Math.min(1, sharpest / sd), 0.02);
  const scaled = uncertain
    .sort((a, b) => a[0] - b[0] || a[1] - b[1])
    .map(([m, s]) => [(mean - m) / (s * root), sd / (s * root)] as const);
  const cuts = rivals.filter(([, s]) => s === 0).map(([m]) => (m - mean) / sd);
  const upper = Math.min(SPAN, ...cuts);
  if (upper <= -SPAN) return 0;
  const density = (t: number): number => {
    let value = Math.exp(-0.5 * t * t);
    for (const [offset, slope] of scaled) {
      value *= 0.5 * erfc(offset + slope * t);
      if (value < 1e-14) break;
    }
    return value;
  };
  let total = 0;
  if (upper === SPAN) {
    const half = Math.round(SPAN / step);
    for (let index = -half; index <= half; index++) total += density(index * step);
    total *= step;
  } else {
    const count = 2 * Math.ceil((upper + SPAN) / (CUT * step));
    const width = (upper + SPAN) / count;
    total = density(-SPAN) + density(upper);
    for (let index = 1; index < count; index++)
      total += (index % 2 ? 4 : 2) * density(index * width - SPAN);
    total *= width / 3;
  }
  return Math.min(1, total / Math.sqrt(2 * Math.PI));
}
