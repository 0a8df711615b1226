// How sure a front is, as in peft_shop/ask/noise.py and ties.py: costs are minimised, sds are 0 where exact.

import { type Nodes, factor, scaleNodes, tail, threshold } from "./quantiles";

export type Matrix = number[][];
/** Standard deviation of a figure, the part of it that was estimated, and degrees of freedom. */
export type Deviation = [number, number, number];
const SPAN = 6;
const STEP = 0.6;
const CUT = 0.5;
const SURE = 6.5;
const KNOWN_FROM = 200;
const NEGLIGIBLE = 1e-7;

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

/** Spread of the difference of two figures: deviation and degrees of freedom. */
export function leadSpread(one: Deviation, other: Deviation, questions?: number): [number, number] {
  const [first, second] = [one[1] ** 2, other[1] ** 2];
  const estimated = first + second;
  const variance = questions === undefined ? one[0] ** 2 + other[0] ** 2 : estimated + questions ** 2;
  if (variance <= 0) return [0, Infinity];
  if (estimated <= 0 || (one[2] === Infinity && other[2] === Infinity)) return [Math.sqrt(variance), Infinity];
  const doubt = one[2] === other[2]
    ? estimated ** 2 / one[2]
    : first ** 2 / one[2] + second ** 2 / other[2];
  return [Math.sqrt(variance), doubt ? variance ** 2 / doubt : Infinity];
}

/** With how many rivals each row is compared: rows that are nowhere worse where costs are exact. */
function rivalCounts(costs: Matrix, exact: number[]): number[] {
  return costs.map((mine) =>
    Math.min(costs.length - 1, ...exact.map((k) => costs.filter((row) => row[k]! <= mine[k]!).length - 1)));
}

/** Places of the rows that no other row significantly dominates, ascending. */
export function tieSet(
  costs: Matrix, deviations: Deviation[][], confidence: number, slack: number[],
  paired: (i: number, j: number, k: number) => number | undefined,
): number[] {
  const noisy = noisyColumns(deviations.map((row) => row.map(([sd]) => sd)));
  const exact = slack.map((_, k) => k).filter((k) => !noisy.includes(k));
  const members = front(costs);
  const places = [...costs.keys()];
  const worse = (j: number, i: number): boolean => exact.some((k) => costs[j]![k]! > costs[i]![k]!);
  if (!noisy.length) {
    const beats = (j: number, i: number): boolean =>
      !worse(j, i) && exact.some((k) => costs[j]![k]! < costs[i]![k]! - slack[k]!);
    return places.filter((i) => !members.some((j) => j !== i && beats(j, i)));
  }
  const counts = rivalCounts(costs, exact);
  const least = factor(confidence, Infinity);
  const worst = Math.min(...deviations.flat().map((one) => one[2]));
  const most = factor(confidence, worst, Math.max(...counts));
  const beats = (j: number, i: number): boolean => !worse(j, i) && noisy.every((k) => {
    const lead = costs[i]![k]! - costs[j]![k]!;
    if (lead <= 0) return false;
    const [sd, degrees] = leadSpread(deviations[i]![k]!, deviations[j]![k]!, paired(i, j, k));
    // bounds settle most pairs
    return lead > least * sd && (lead > most * sd || lead > factor(confidence, degrees, counts[i]!) * sd);
  });
  const left = places.filter((i) => !members.includes(i) && !members.some((j) => j !== i && beats(j, i)));
  return [...members, ...left.filter((i) => !places.some((j) => j !== i && beats(j, i)))].sort((a, b) => a - b);
}

/**
 * Probability that each row is on the front of the true costs; `null` with noise in several
 * columns, which Python takes on a lattice and the page does not.
 */
export function frontProbabilities(costs: Matrix, deviations: Deviation[][]): number[] | null {
  // most changes of a question leave the candidates and their figures as they were
  const key = JSON.stringify([costs, deviations]);
  if (answered.size > 99) answered.clear();
  if (!answered.has(key)) answered.set(key, integrated(costs, deviations));
  return answered.get(key)!;
}

const answered = new Map<string, number[] | null>();

function integrated(costs: Matrix, deviations: Deviation[][]): number[] | null {
  const sds = deviations.map((row) => row.map(([sd]) => sd));
  const noisy = noisyColumns(sds);
  if (noisy.length > 1) return null;
  const result = costs.map(() => 0);
  if (!noisy.length) {
    for (const i of front(costs)) result[i] = 1;
    return result;
  }
  const column = noisy[0]!;
  const degrees = usualDegrees(deviations.map((row) => row[column]!));
  const exact = costs[0]!.map((_, k) => k).filter((k) => k !== column);
  const sure = Math.max(SURE, threshold(1 - NEGLIGIBLE, degrees));
  // in the order of their figures, so that the hardest rivals come first
  const close = closeToFront(costs, sds, exact, column, sure).sort((i, j) => costs[i]![column]! - costs[j]![column]!);
  const means = close.map((i) => costs[i]![column]!);
  const rivals = close.map((i) => [...close.keys()].filter((at) =>
    close[at] !== i && exact.every((k) => costs[close[at]!]![k]! <= costs[i]![k]!)));
  let nodes: Nodes = [[1, 1]];
  if (degrees < KNOWN_FROM) {
    const found = scaleNodes(degrees, 1.5).filter(([, weight]) => weight > 1e-3);
    const total = found.reduce((sum, [, weight]) => sum + weight, 0);
    nodes = found.map(([ratio, weight]) => [ratio, weight / total]);
  }
  for (const [ratio, weight] of nodes) {
    const spread = close.map((i) => {
      const [sd, own] = deviations[i]![column]!;
      return ratio === 1 ? sd : Math.sqrt(Math.max(sd * sd - own * own, 0) + (own / ratio) ** 2);
    });
    close.forEach((i, at) => { result[i]! += weight * ahead(at, rivals[at]!, means, spread, (j) => dominates(costs[close[j]!]!, costs[i]!)); });
  }
  return result.map((chance) => Math.min(1, chance));
}

/** The degrees of freedom that most estimates of a column have. */
function usualDegrees(column: Deviation[]): number {
  const counts = new Map<number, number>();
  for (const [, part, degrees] of column) counts.set(degrees, (counts.get(degrees) ?? 0) + (part === 0 ? 0 : 1));
  return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0])[0]![0];
}

/** Places of the rows that no member of the measured front certainly dominates. */
function closeToFront(costs: Matrix, sds: Matrix, exact: number[], column: number, sure: number): number[] {
  const members = front(costs);
  return [...costs.keys()].filter((i) => !members.some((j) =>
    exact.every((k) => costs[j]![k]! <= costs[i]![k]!)
    && costs[i]![column]! - costs[j]![column]! > sure * Math.hypot(sds[i]![column]!, sds[j]![column]!)));
}

/** Probability that the row at a place is below those rivals that may be above it as well. */
function ahead(at: number, rivals: number[], means: number[], sds: number[], beaten: (j: number) => boolean): number {
  const mean = means[at]!;
  const sd = sds[at]!;
  const close: number[] = [];
  for (const j of rivals) {
    const lead = means[j]! - mean;
    const spread = Math.sqrt(sd * sd + sds[j]! ** 2);
    if (spread === 0) {
      if (beaten(j)) return 0;
    } else if (lead < -SURE * spread) return 0;
    else if (lead <= SURE * spread) close.push(j);
  }
  return survival(mean, sd, close.map((j) => means[j]!), close.map((j) => sds[j]!));
}

/** Probability that a normal variable is below all rivals. */
function survival(mean: number, sd: number, means: number[], sds: number[]): number {
  const root = Math.SQRT2;
  const offsets: number[] = [];
  const slopes: number[] = [];
  let sharpest = sd;
  let upper = SPAN;
  let certain = 1;
  for (let j = 0; j < means.length; j++) {
    const s = sds[j]!;
    const lead = mean - means[j]!;
    if (sd === 0) certain *= tail(lead / (s * root));
    else if (s > 0) {
      sharpest = Math.min(sharpest, s);
      offsets.push(lead / (s * root));
      slopes.push(sd / (s * root));
    } else upper = Math.min(upper, -lead / sd);
  }
  if (!means.length || sd === 0) return certain;
  if (upper <= -SPAN) return 0;
  const density = (t: number): number => {
    let value = Math.exp(-0.5 * t * t);
    for (let j = 0; j < offsets.length && value >= 1e-14; j++) value *= tail(offsets[j]! + slopes[j]! * t);
    return value;
  };
  const step = Math.max(STEP * sharpest / sd, 0.02);
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
