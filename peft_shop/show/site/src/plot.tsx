// The plot: staircase, numbered discs, rings for ties, dots for beaten; every mark is a button.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Standing } from "./answer";
import { uncertain } from "./quantity";
import { type Shop, kept, percent } from "./state";
import { type Metric, type Row, sdOf, valueOf } from "./table";

const LEFT = 58;
const RIGHT = 16;
const TOP = 14;
const BOTTOM = 42;

const UNITS: Record<string, [number, string]> = {
  bytes: [2 ** 30, "GiB"], seconds: [60, "min"], fraction: [0.01, "%"], count: [1e6, "M"], score: [1, ""],
};

/** Metrics of the axes: what the link says, else the first two objectives. */
export function axesOf(shop: Shop): [Metric, Metric] {
  const { facts, question, parameters } = shop;
  const rankable = facts.rankable(question.benchmark);
  const named = (name: string): Metric | undefined => rankable.find((one) => one.id === parameters.get(name));
  const [first, second] = question.objectives;
  const other = rankable.find((one) => one.id === "peak_memory" && one !== first) ?? rankable.find((one) => one !== first);
  return [named("x") ?? second ?? other ?? first!, named("y") ?? first!];
}

export function useWidth(): [{ current: HTMLDivElement | null }, number] {
  const holder = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const node = holder.current;
    if (!node) return;
    setWidth(node.clientWidth);
    const watcher = new ResizeObserver(() => setWidth(node.clientWidth));
    watcher.observe(node);
    return () => watcher.disconnect();
  }, []);
  return [holder, width];
}

export function Plot({ shop }: { shop: Shop }) {
  const { facts, question, answer, parameters } = shop;
  const { benchmark } = question;
  const [x, y] = axesOf(shop);
  const [holder, measured] = useWidth();
  const width = Math.max(280, measured || 600);
  const height = width < 480 ? 200 : 250;
  const at = (row: Row, metric: Metric): number | undefined => valueOf(benchmark, row, metric.id);
  const both = (row: Row): boolean => at(row, x) !== undefined && at(row, y) !== undefined;
  const baselines = [
    ...benchmark.rows.filter((row) => row.name === benchmark.baselines["lora"]),
    ...benchmark.whole.filter((row) => row.name === benchmark.baselines["full_finetuning"]),
  ].filter(both);
  const every = [...answer.beaten, ...answer.ties, ...answer.front].filter((one) => both(one.row));
  const near = every.filter((one) => one.place !== "beaten").map((one) => one.row);
  const focus = [...(near.length ? near : every.map((one) => one.row)), ...baselines.slice(0, 1)];
  if (!focus.length)
    return <div ref={holder} class="plot empty"><p>Nothing that is kept has figures for both axes.</p></div>;
  const span = (metric: Metric): [number, number] => {
    const sd = (row: Row): number => sdOf(benchmark, row, metric.id);
    const low = Math.min(...focus.map((row) => at(row, metric)! - sd(row)));
    const high = Math.max(...focus.map((row) => at(row, metric)! + sd(row)));
    const pad = (high - low || Math.abs(high) || 1) * 0.08;
    return [low - pad, high + pad];
  };
  const unit = (metric: Metric): number => UNITS[metric.unit]![0];
  const shown = (metric: Metric): [number, number] => {
    const [low, high] = span(metric);
    return [low / unit(metric), high / unit(metric)];
  };
  const across = scaleLinear(shown(x), [LEFT, width - RIGHT]);
  const up = scaleLinear(shown(y), [height - BOTTOM, TOP]);
  const px = (row: Row): number => across(at(row, x)! / unit(x));
  const py = (row: Row): number => up(at(row, y)! / unit(y));
  const inside = (row: Row): boolean =>
    px(row) >= LEFT - 1 && px(row) <= width - RIGHT + 1 && py(row) >= TOP - 1 && py(row) <= height - BOTTOM + 1;
  const seen = every.filter((one) => inside(one.row));
  const outside = every.length - seen.length + baselines.filter((row) => !inside(row)).length;
  const chosen = parameters.get("run") ?? answer.front[0]?.row.name;
  const highlight = parameters.get("highlight");
  const marked = (row: Row): boolean =>
    highlight !== undefined && (facts.methodOf(row)?.id === highlight || !!row.variants?.includes(highlight));
  const usual = question.objectives.length === 2 && question.objectives.includes(x) && question.objectives.includes(y);
  const limits = question.bounds.filter((one) => one.metric === x.id || one.metric === y.id);
  const choose = (event: MouseEvent | KeyboardEvent): void => {
    const mark = (event.target as Element).closest<SVGElement>(".mark");
    if (!mark || ("key" in event && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    shop.go({ run: mark.dataset["name"]! });
  };
  return (
    <div ref={holder} class="plot">
      <svg width={width} height={height} onClick={choose} onKeyDown={choose} role="group" aria-label={`Plot of ${y.label} against ${x.label}; the table lists the same candidates`}>
        <Axes across={across} up={up} width={width} height={height} x={x} y={y} />
        {usual && <Stairs front={answer.front.filter((one) => both(one.row))} px={px} py={py} x={x} y={y} width={width} height={height} />}
        {limits.map((one) => {
          const value = one.value / unit(one.metric === x.id ? x : y);
          const place = one.metric === x.id ? across(value) : up(value);
          const [low, high] = one.metric === x.id ? [LEFT, width - RIGHT] : [TOP, height - BOTTOM];
          if (place < low || place > high) return null;
          return one.metric === x.id
            ? <line key={`${one.kind}x`} class="limit-line" x1={place} x2={place} y1={TOP} y2={height - BOTTOM} />
            : <line key={`${one.kind}y`} class="limit-line" x1={LEFT} x2={width - RIGHT} y1={place} y2={place} />;
        })}
        {seen.map((one) => (
          <Mark key={one.row.name} row={one.row} place={one.place} chance={one.chance} cx={px(one.row)} cy={py(one.row)} told={label(shop, one.row, x, y)}
            rank={answer.front.indexOf(one) + 1} chosen={one.row.name === chosen} marked={marked(one.row)}
            whisker={Math.abs(up(sdOf(benchmark, one.row, y.id) / unit(y)) - up(0))} />
        ))}
        {baselines.filter(inside).map((row) => (
          <path key={`base-${row.name}`} class="diamond" d={`M${px(row)} ${py(row) - 5}l5 5-5 5-5-5z`}>
            <title>{`${row.title}, for comparison: ${label(shop, row, x, y)}`}</title>
          </path>
        ))}
      </svg>
      <p class="key">
        <span><i class="k-front" /> best</span><span><i class="k-tie" /> as good within noise</span>
        <span><i class="k-beaten" /> beaten</span><span><i class="k-base" /> LoRA, full fine-tuning</span>
        {outside > 0 && <span>{outside} more outside</span>}
      </p>
    </div>
  );
}

function label(shop: Shop, row: Row, x: Metric, y: Metric): string {
  const { benchmark } = shop.question;
  const told = (metric: Metric): string =>
    `${metric.label} ${uncertain(valueOf(benchmark, row, metric.id)!, sdOf(benchmark, row, metric.id), metric)}`;
  return `${told(y)}, ${told(x)}`;
}

interface MarkProps {
  row: Row; place: Standing["place"]; chance: number | null; cx: number; cy: number; told: string;
  rank: number; chosen: boolean; marked: boolean; whisker: number;
}

const Mark = kept(({ row, place, chance, cx, cy, told, rank, chosen, marked, whisker }: MarkProps) => {
  const word = { front: `best, number ${rank}`, tie: "as good within noise", beaten: "beaten" }[place];
  const again = chance === null || place === "beaten" ? "" : `, again ${percent(chance)}`;
  return (
    <g class={`mark ${place}${chosen ? " chosen" : ""}${marked ? " marked" : ""}`} role="button" tabindex={0} transform={`translate(${cx} ${cy})`}
      aria-label={`${row.title}, ${word}: ${told}${again}`} aria-pressed={chosen} data-name={row.name}>
      <title>{`${row.title}: ${told}`}</title>
      {place !== "beaten" && whisker > 0 && <line class="whisker" y1={-whisker} y2={whisker} />}
      <circle class="hit" r={place === "beaten" ? 10 : 13} />
      {place === "front" && <circle class="disc" r={9} style={{ fillOpacity: 0.2 + 0.8 * (chance ?? 1) }} />}
      {place === "front" && <text y={4}>{rank}</text>}
      {place === "tie" && <circle class="ring" r={6} />}
      {place === "beaten" && <circle class="dot" r={3} />}
    </g>
  );
});

/** About `count` round values between two. */
function ticks(low: number, high: number, count: number): number[] {
  const wide = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(wide));
  const step = power * ([10, 5, 2].find((one) => wide / power >= Math.sqrt(one * (one > 2 ? one > 5 ? 5 : 2 : 1))) ?? 1);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, k) => (first + k) * step);
}

/** Value -> pixel, along a line. */
interface Scale { (value: number): number; ticks(count: number): number[] }

function scaleLinear([low, high]: [number, number], [from, to]: [number, number]): Scale {
  const scale = (value: number): number => from + ((value - low) / (high - low)) * (to - from);
  return Object.assign(scale, { ticks: (count: number) => ticks(low, high, count) });
}

function Axes({ across, up, width, height, x, y }: { across: Scale; up: Scale; width: number; height: number; x: Metric; y: Metric }) {
  const name = (metric: Metric): string => {
    const [, unit] = UNITS[metric.unit]!;
    const way = width < 480 ? "" : ` (${metric.better} is better)`;
    return `${metric.title}${unit && `, ${unit}`}${way}`;
  };
  const text = (value: number): string => String(Number(value.toPrecision(5)));
  return (
    <g class="axes" aria-hidden="true">
      {across.ticks(Math.max(3, Math.floor(width / 110))).map((tick) => (
        <g key={`x${tick}`}>
          <line class="grid" x1={across(tick)} x2={across(tick)} y1={TOP} y2={height - BOTTOM} />
          <text class="tick" x={across(tick)} y={height - BOTTOM + 16} text-anchor="middle">{text(tick)}</text>
        </g>
      ))}
      {up.ticks(5).map((tick) => (
        <g key={`y${tick}`}>
          <line class="grid" x1={LEFT} x2={width - RIGHT} y1={up(tick)} y2={up(tick)} />
          <text class="tick" x={LEFT - 8} y={up(tick) + 4} text-anchor="end">{text(tick)}</text>
        </g>
      ))}
      <text class="axis-name" x={(LEFT + width - RIGHT) / 2} y={height - 6} text-anchor="middle">{name(x)}</text>
      <text class="axis-name" x={-(TOP + height - BOTTOM) / 2} y={13} text-anchor="middle" transform="rotate(-90)">{name(y)}</text>
    </g>
  );
}

function Stairs({ front, px, py, x, y, width, height }: {
  front: Standing[]; px: (row: Row) => number; py: (row: Row) => number; x: Metric; y: Metric; width: number; height: number;
}) {
  const points = front.map((one) => [px(one.row), py(one.row)] as const).sort((a, b) => a[0] - b[0]);
  if (!points.length) return null;
  // what a member beats lies on its worse side: right of it where less is better, below it where more is
  const first = points[0]!;
  const bottom = y.better === "higher" ? height - BOTTOM : TOP;
  let path = x.better === "lower" ? `M${first[0]} ${bottom}V${first[1]}` : `M${LEFT} ${first[1]}H${first[0]}`;
  for (const [left, top] of points.slice(1)) path += x.better === "lower" ? `H${left}V${top}` : `V${top}H${left}`;
  path += x.better === "lower" ? `H${width - RIGHT}` : `V${bottom}`;
  return <path class="stairs" d={path} />;
}
