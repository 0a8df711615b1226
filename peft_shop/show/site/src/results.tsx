// The table of candidates: sorted, searched, with the columns that were picked.
import type { Standing } from "./answer";
import { servingWord } from "./lines";
import { format, uncertain } from "./quantity";
import { fold } from "./question";
import { Scroll, type Shop, copy, download, enginesOf, kept, listOf, percent, shortName } from "./state";
import { type Metric, type Row, sdOf, valueOf } from "./table";

type Place = "front" | "tie" | "beaten" | "dropped" | "unmeasured" | "yardstick";
export interface Line { row: Row; place: Place; rank: number; standing?: Standing; reasons: string[] }
interface Column { id: string; title: string; key(line: Line): number | string; show(line: Line): string; plain(line: Line): string | number | null }

const SHOWS: [string, string][] = [["best", "best"], ["kept", "all kept"], ["left", "left out"], ["all", "everything"]];
const PLACES: Record<Place, string> = { front: "best", tie: "as good", beaten: "beaten", dropped: "left out", unmeasured: "not measured", yardstick: "for comparison" };

/** What is told of a forecast that reaches beyond the limit, or that there is none. */
function closeness({ facts, question: { plan, benchmark } }: Shop, { forecast, unusable }: Row): string[] {
  if (plan && !forecast) return [facts.text(unusable?.[benchmark.metrics.indexOf("peak_memory")])];
  return plan?.limit != null && forecast && forecast[2] > plan.limit
    ? [`too close to call: the forecast reaches ${format(forecast[2], "bytes")}, the limit is ${plan.limitText}`] : [];
}

export function linesOf(shop: Shop): Line[] {
  const { answer, facts, parameters } = shop;
  const show = parameters.get("show") ?? "best";
  const placed = (list: Standing[]): Line[] =>
    list.map((standing, place) => ({
      row: standing.row, place: standing.place, standing, rank: standing.place === "front" ? place + 1 : 0, reasons: closeness(shop, standing.row),
    }));
  const lines: Line[] = [];
  if (show !== "left") lines.push(...placed(answer.front), ...placed(answer.ties));
  if (show === "kept" || show === "all") {
    lines.push(...placed(answer.beaten));
    lines.push(...answer.unmeasured.map((row): Line => ({ row, place: "unmeasured", rank: 0, reasons: [] })));
  }
  if (show === "left" || show === "all")
    lines.push(...answer.dropped.map(({ row, failures }): Line =>
      ({ row, place: "dropped", rank: 0, reasons: failures.map((one) => one.reason) })));
  const words = (parameters.get("find") ?? "").split(/\s+/).map(fold).filter(Boolean);
  if (!words.length) return lines;
  return lines.filter(({ row }) => {
    const method = facts.methodOf(row);
    const variants = method?.variants.filter((one) => row.variants?.includes(one.id)) ?? [];
    const text = fold([
      row.name, row.title, method?.id, method?.title, method?.class, method?.summary, ...(method?.aliases ?? []),
      ...variants.flatMap((one) => [one.id, one.title, one.summary]),
    ].join(" "));
    return words.every((word) => text.includes(word));
  });
}

function columnsOf(shop: Shop): Column[] {
  const { facts, question, parameters } = shop;
  const { benchmark } = question;
  const rankable = facts.rankable(benchmark);
  const usual = [...question.objectives, ...rankable.filter((one) => one.id === "checkpoint_size" && !question.objectives.includes(one))];
  const named = listOf(shop, "columns");
  const chosen = parameters.has("columns") ? rankable.filter((one) => named.includes(one.id)) : usual;
  const metric = (one: Metric): Column => ({
    id: one.id,
    title: `${one.title} ${one.better === "higher" ? "↑" : "↓"}`,
    key: ({ row }) => { const value = valueOf(benchmark, row, one.id); return value === undefined ? Infinity : one.better === "lower" ? value : -value; },
    show: ({ row }) => { const value = valueOf(benchmark, row, one.id); return value === undefined ? "–" : uncertain(value, sdOf(benchmark, row, one.id), one); },
    plain: ({ row }) => valueOf(benchmark, row, one.id) ?? null,
  });
  const [engines, all] = enginesOf(shop);
  const word = ({ row }: Line): string => servingWord(facts, row, benchmark, engines, all);
  const rank = ["direct", "convert", "merge", "unknown", "none"];
  return [
    ...chosen.map(metric),
    { id: "serving", title: "Serving", key: (line) => rank.indexOf(word(line)), plain: word, show: word },
    { id: "again", title: "Again", key: (line) => -(line.standing?.chance ?? -1),
      show: (line) => (line.standing ? percent(line.standing.chance) : "–"), plain: (line) => line.standing?.chance ?? null },
  ];
}

function sorted(lines: Line[], columns: Column[], sort: string | undefined): Line[] {
  const down = sort?.startsWith("-");
  const column = columns.find((one) => one.id === sort?.replace(/^-/, ""));
  if (!column) return lines;
  const order = (a: Line, b: Line): number => {
    const [left, right] = [column.key(a), column.key(b)];
    return left < right ? -1 : left > right ? 1 : 0;
  };
  const result = [...lines].sort(order);
  return down ? result.reverse() : result;
}

const SIGNS: Record<Place, string> = { front: "", tie: "≈", beaten: "·", dropped: "✕", unmeasured: "?", yardstick: "◆" };

interface WhoProps { row: Row; place: Place; rank: number; chosen: boolean; compared: boolean; reasons: string[] }

const Who = kept(({ row, place, rank, chosen, compared, reasons }: WhoProps) => (
  <th scope="row">
    <span class={`badge ${place}`} aria-label={rank ? `number ${rank}` : PLACES[place]}>{rank || SIGNS[place]}</span>
    <span class="who">
      <button class="name" value={row.name} aria-pressed={chosen}>{place === "yardstick" ? "Plain LoRA, the yardstick" : row.title}</button>
      <span class="run">{shortName(row)}</span>
      {reasons.length > 0 && <span class="why">{reasons.join("; ")}</span>}
    </span>
    {row.values && place !== "yardstick" && (
      <label class="pick" title="Compare"><input type="checkbox" value={row.name} checked={compared} aria-label={`Compare ${row.title} ${shortName(row)}`} /></label>
    )}
  </th>
));

const Entry = kept(({ titles, cells, ...who }: WhoProps & { titles: string[]; cells: string[] }) => (
  <tr class={`${who.place}${who.chosen ? " chosen" : ""}`} data-name={who.place === "yardstick" ? undefined : who.row.name}>
    <Who {...who} />
    {cells.map((text, place) => titles[place] === "Serving"
      ? <td key="serving" data-title="Serving"><span class={`way ${text}`}>{text}</span></td>
      : <td key={titles[place]} data-title={titles[place]} class="figure">{text}</td>)}
  </tr>
));

export function Results({ shop }: { shop: Shop }) {
  const { facts, question, answer, parameters, go } = shop;
  const columns = columnsOf(shop);
  const lines = sorted(linesOf(shop), columns, parameters.get("sort"));
  const sort = parameters.get("sort") ?? "";
  const chosen = parameters.get("run") ?? answer.front[0]?.row.name;
  const compared = listOf(shop, "compare");
  const show = parameters.get("show") ?? "best";
  const lora = question.benchmark.rows.find((row) => row.name === question.benchmark.baselines["lora"]);
  const rankable = facts.rankable(question.benchmark);
  const plain = (): Record<string, unknown>[] => lines.map((line) => ({
    name: line.row.name, title: line.row.title, place: line.place,
    ...Object.fromEntries(columns.map((one) => [one.id, one.plain(line)])),
    reasons: line.reasons.join("; "),
  }));
  const choose = (name: string): void => {
    go({ run: name });
    // where the details lie below the table
    if (matchMedia("(max-width: 1180px)").matches)
      requestAnimationFrame(() => document.querySelector(".detail")?.scrollIntoView());
  };
  const toggle = (name: string): void => {
    const next = compared.includes(name) ? compared.filter((one) => one !== name) : [...compared, name].slice(-4);
    go({ compare: next.join(",") || null }, { replace: true });
  };
  const pick = (event: Event): void => {
    const one = event.target as HTMLInputElement;
    if (event.type === "change") toggle(one.value);
    else if (one.matches("button.name")) choose(one.value);
  };
  const titles = columns.map((one) => one.title);
  const entry = (line: Line) => (
    <Entry key={(line.place === "yardstick" ? line.place : "") + line.row.name} row={line.row} place={line.place} rank={line.rank} reasons={line.reasons}
      chosen={line.row.name === chosen} compared={compared.includes(line.row.name)} titles={titles} cells={columns.map((one) => one.show(line))} />
  );
  return (
    <section class="results" aria-label="Candidates">
      <div class="tools">
        <label class="search"><span class="hidden">Find</span>
          <input type="search" name="find" placeholder="Find a method, class, variant …" value={parameters.get("find") ?? ""}
            onInput={(event) => go({ find: event.currentTarget.value || null }, { replace: true })} /></label>
        <div class="segments" role="group" aria-label="Which candidates are listed">
          {SHOWS.map(([id, text]) => (
            <button key={id} aria-pressed={show === id} onClick={() => go({ show: id === "best" ? null : id })}>{text}</button>
          ))}
        </div>
      </div>
      <Scroll label="Table of candidates">
        <table>
          <caption class="hidden">Candidates; ± is one standard deviation, {question.benchmark.certainty === "questions" ? "of re-runs and of the choice of test questions" : "of re-runs"}; Again is the chance to be best once more</caption>
          <thead><tr>
            <th scope="col"><button onClick={() => go({ sort: null })}>Candidate</button></th>
            {columns.map((one) => {
              const state = sort === one.id ? "ascending" : sort === `-${one.id}` ? "descending" : undefined;
              return (
                <th key={one.id} scope="col" aria-sort={state} class={one.id === "serving" ? "" : "figure"}>
                  <button title={facts.metric.get(one.id)?.description}
                    onClick={() => go({ sort: state === "ascending" ? `-${one.id}` : one.id })}>
                    {one.title}{state && <span aria-hidden="true">{state === "ascending" ? " ▲" : " ▼"}</span>}
                  </button>
                </th>
              );
            })}
          </tr></thead>
          <tbody onClick={pick} onChange={pick}>
            {lines.map(entry)}
            {show === "best" && lora && answer.front.length > 0 && ![...answer.front, ...answer.ties].some((one) => one.row === lora)
              && entry({ row: lora, place: "yardstick", rank: 0, reasons: [] })}
          </tbody>
        </table>
      </Scroll>
      {!lines.length && <p class="none">Nothing to list here.</p>}
      <div class="tools below">
        {compared.length > 0 && <button class="main" disabled={compared.length < 2} onClick={() => go({ view: "compare" })}>Compare {compared.length}</button>}
        <details class="columns"><summary>Columns</summary>
          <fieldset><legend class="hidden">Columns</legend>
            {rankable.map((one) => {
              const shown = columns.some((other) => other.id === one.id);
              return <label key={one.id} class="check"><input type="checkbox" checked={shown} onChange={() => {
                const ids = columns.map((other) => other.id).filter((id) => facts.metric.has(id));
                go({ columns: (shown ? ids.filter((id) => id !== one.id) : [...ids, one.id]).join(",") || null }, { replace: true });
              }} /><span>{one.title}</span></label>;
            })}
          </fieldset></details>
        <button class="quiet" onClick={() => download("peft-shop.csv", csv(plain()), "text/csv")}>CSV</button>
        <button class="quiet" onClick={() => download("peft-shop.json", JSON.stringify(plain(), null, 1), "application/json")}>JSON</button>
        <button class="quiet" onClick={() => void copy(location.href)}>Copy link</button>
      </div>
    </section>
  );
}

/** CSV in which no cell is a formula. */
export function csv(rows: Record<string, unknown>[]): string {
  const cell = (value: unknown): string => {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const names = Object.keys(rows[0] ?? {});
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

