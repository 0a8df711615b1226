// What the page knows and what it is asked; components get it as one object.
import { Component, type ComponentChild, type ComponentChildren, type ComponentType } from "preact";
import type { Answer } from "./answer";
import type { Parameters, Question, Trouble } from "./question";
import type { Facts, Row } from "./table";

/** A component that is drawn again only where a property, or an element of one, differs. */
export function kept<P extends object>(view: (props: P) => ComponentChild): ComponentType<P> {
  const alike = (a: unknown, b: unknown): boolean => a === b
    || (Array.isArray(a) && Array.isArray(b) && a.length === b.length && a.every((one, place) => one === b[place]));
  return class extends Component<P> {
    override shouldComponentUpdate(next: P): boolean {
      return Object.keys(next).some((name) => !alike(next[name as keyof P], this.props[name as keyof P]));
    }

    render(): ComponentChild {
      return view(this.props);
    }
  };
}

/** What is wider than the screen, reached by keyboard too. */
export function Scroll({ label, children }: { label: string; children: ComponentChildren }) {
  return <div class="scroll" tabIndex={0} role="region" aria-label={label}>{children}</div>;
}

export type Changes = Record<string, string | null>;
export interface Details {
  config: Record<string, unknown> | null; targets: unknown; training: Record<string, unknown>;
  created: string; accelerator: string; packages: Record<string, string>;
  source: string; url: string | null;
  /** What is said of images that it generated, the site that has them, and their addresses there. */
  samples?: [string, string, string[]];
}
export interface Shop {
  facts: Facts;
  parameters: Parameters;
  question: Question;
  troubles: Trouble[];
  answer: Answer;
  go(changes: Changes, how?: { replace?: boolean }): void;
  /** How many data came since the page opened: texts and descriptions stand in records that stay. */
  loaded: number;
  /** Data of that name once it is there; asking loads it. */
  data<T>(name: string): T | undefined;
}

export function benchmarkPlace(shop: Shop): number {
  return shop.facts.table.benchmarks.findIndex((one) => one.id === shop.question.benchmark.id);
}

export function detailsOf(shop: Shop, row: Row): Details | undefined {
  return shop.data<Record<string, Details>>(`runs-${benchmarkPlace(shop)}`)?.[row.name];
}

export function listOf(shop: Shop, name: string): string[] {
  return (shop.parameters.get(name) ?? "").split(/[,|\s]+/).filter(Boolean);
}

export function shortName(row: Row): string {
  return row.short ?? row.name;
}

/** Engines that the question names, else all for such models; and whether all of them must do. */
export function enginesOf(shop: Shop): [number[], boolean] {
  const demand = shop.question.requirements.find((one) => one.name === "serve");
  if (!demand) return [shop.question.benchmark.engines, false];
  const names = demand.values.map((value) => value.split(":")[0]);
  const places = names.map((name) => shop.facts.table.engines.findIndex((one) => one.id === name));
  return [places, !demand.any];
}

export function percent(chance: number | null): string {
  if (chance === null) return "–";
  if (chance > 0.995) return "> 99 %";
  return chance < 0.005 ? "< 1 %" : `${Math.round(chance * 100)} %`;
}

export async function copy(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

export function download(name: string, text: string, type = "text/plain"): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

export function safeLink(url: string | null | undefined): string | undefined {
  return url && /^https:\/\//.test(url) ? url : undefined;
}
