// Quantiles that leads are held against, as in peft_shop/ask/quantiles.py and spread.py.

export type Nodes = [number, number][];
const DEGREES = [1, 1.2, 1.5, 1.75, 2, 2.5, ...Array.from({ length: 18 }, (_, k) => k + 3), 24, 30, 40, 60, 120, 240, 1000];
const RIVALS = [...Array.from({ length: 12 }, (_, k) => k + 1), 14, 16, 18, 20, 23, 26, 30, 35, 40, 46, 53, 60, 70, 80, 90, 100,
  120, 145, 175, 210, 250, 300, 360, 430, 500, 600, 750, 1000, 1500, 2500, 5000, 10000];
const NORMAL_FROM = 1e6;

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

const PIECES = 128;
const FAR = 6.5;
const tails = new Float64Array(2 * FAR * PIECES + 2);

/** Half of `erfc`, which chances need by the ten thousand: cubics between exact values, to 1e-10. */
export function tail(x: number): number {
  const size = Math.abs(x);
  if (size >= FAR) return x < 0 ? 1 : 0;
  if (!tails[0])
    for (let k = 0; k <= FAR * PIECES; k++) {
      tails[2 * k] = erfc(k / PIECES) / 2;
      tails[2 * k + 1] = -Math.exp(-((k / PIECES) ** 2)) / Math.sqrt(Math.PI) / PIECES;
    }
  const at = 2 * Math.floor(size * PIECES);
  const t = size * PIECES - at / 2;
  const low = tails[at]!;
  const fall = tails[at + 1]!;
  const slope = tails[at + 3]!;
  const rise = low - tails[at + 2]!;
  const found = low + t * (fall + t * (-3 * rise - 2 * fall - slope + t * (2 * rise + fall + slope)));
  return x < 0 ? 1 - found : found;
}

/** Logarithm of the gamma function: Stirling's series, far enough out. */
function logGamma(x: number): number {
  let shift = 0;
  for (; x < 16; x++) shift += Math.log(x);
  const square = 1 / (x * x);
  const series = (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / x;
  return (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) + series - shift;
}

/** Regularised incomplete beta function, by its continued fraction. */
function incompleteBeta(x: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  const log = logGamma(a + b) - logGamma(a) - logGamma(b);
  const front = Math.exp(log + a * Math.log(x) + b * Math.log1p(-x)) / a;
  const tiny = 1e-300;
  let upper = 1;
  let lower = 1 / (1 - ((a + b) * x) / (a + 1) || tiny);
  let value = lower;
  for (let m = 1; m < 10000; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    for (const term of [even, odd]) {
      lower = 1 / (1 + term * lower || tiny);
      upper = 1 + term / upper || tiny;
      value *= lower * upper;
    }
    if (Math.abs(lower * upper - 1) < 1e-15) break;
  }
  return front * value;
}

function below(t: number, degrees: number): number {
  if (degrees >= NORMAL_FROM) return 0.5 * erfc(-t / Math.SQRT2);
  const tail = 0.5 * incompleteBeta(degrees / (degrees + t * t), degrees / 2, 0.5);
  return t < 0 ? tail : 1 - tail;
}

function density(t: number, degrees: number): number {
  if (degrees >= NORMAL_FROM) return Math.exp(-0.5 * t * t) / Math.sqrt(2 * Math.PI);
  const log = logGamma((degrees + 1) / 2) - logGamma(degrees / 2);
  return Math.exp(log - 0.5 * Math.log(degrees * Math.PI) - ((degrees + 1) / 2) * Math.log1p((t * t) / degrees));
}

/** Quantile of a one-sided confidence: Student's, or the normal one. */
export function threshold(confidence: number, degrees: number): number {
  let x = 0;
  // steps rise to the quantile, since the distribution is concave above 0
  for (let step = 1, count = 0; step > 1e-12 * Math.max(1, x) && count < 200; count++) {
    step = (confidence - below(x, degrees)) / density(x, degrees);
    x += step;
  }
  return x;
}

/** Ratios of an estimated to the true deviation, and their weights. */
export function scaleNodes(degrees: number, step: number): Nodes {
  if (degrees >= NORMAL_FROM) return [[1, 1]];
  const width = step / Math.sqrt(2 * degrees);
  const found: Nodes = [];
  for (const sign of [-1, 1])
    for (let index = sign > 0 ? 0 : -1; ; index += sign) {
      const log = index * width;
      const weight = Math.exp(degrees * (log - 0.5 * Math.expm1(2 * log)));
      if (weight < 1e-10) break;
      found.push([Math.exp(log), weight]);
    }
  const total = found.reduce((sum, [, weight]) => sum + weight, 0);
  return found.sort((a, b) => a[0] - b[0]).map(([ratio, weight]) => [ratio, weight / total]);
}

function allBelow(limit: number, rivals: number, nodes: Nodes): number {
  const shared = Math.SQRT1_2;
  const own = Math.SQRT1_2 * Math.SQRT2;
  const step = Math.min(0.75, 1 / (1 + 0.35 * Math.log(rivals)));
  const half = Math.round(6.5 / step);
  let total = 0;
  for (const [ratio, weight] of nodes)
    for (let k = -half; k <= half; k++) {
      const at = (Math.exp(-0.5 * (k * step) ** 2) * step) / Math.sqrt(2 * Math.PI);
      total += weight * at * tail((k * step * shared - limit * ratio) / own) ** rivals;
    }
  return total;
}

function dunnett(confidence: number, rivals: number, degrees: number): number {
  const nodes = scaleNodes(degrees, degrees >= 10 ? 0.7 : 0.5);
  const miss = (limit: number): number => allBelow(limit, rivals, nodes) - confidence;
  let low = threshold(confidence, degrees);
  let high = threshold(1 - (1 - confidence) / rivals, degrees);
  if (low === 0) {
    while (high - low > 1e-9) {
      const middle = (low + high) / 2;
      if (miss(middle) < 0) low = middle;
      else high = middle;
    }
    return high;
  }
  let under = miss(low);
  let over = miss(high);
  for (let count = 0; count < 60; count++) {
    const middle = high - (over * (high - low)) / (over - under);
    const value = miss(middle);
    if (Math.abs(value) < 1e-9 || high - low < 1e-9) return middle;
    if (value < 0) [low, under, over] = [middle, value, over / 2];
    else [high, over, under] = [middle, value, under / 2];
  }
  return high;
}

const known = new Map<string, number>();

/** Deviations of a lead that must be exceeded before it counts. */
export function factor(confidence: number, degrees: number, rivals = 1): number {
  const at = degrees === Infinity ? Infinity : (DEGREES.findLast((one) => one <= degrees) ?? DEGREES[0]!);
  const many = RIVALS.find((one) => one >= rivals) ?? rivals;
  const key = rivals <= 1 ? `${confidence} ${degrees}` : `${confidence} ${at} ${many}`;
  let found = known.get(key);
  if (found === undefined) {
    found = rivals <= 1 ? threshold(confidence, degrees) : dunnett(confidence, many, at);
    known.set(key, found);
  }
  return found;
}
