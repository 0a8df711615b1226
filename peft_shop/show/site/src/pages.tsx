// The other screens: a method, a comparison, what this is.
import { costOf } from "./answer";
import { literal } from "./lines";
import { uncertain } from "./quantity";
import { fold } from "./question";
import { Scroll, type Shop, detailsOf, listOf, safeLink, shortName } from "./state";
import { rowCalled } from "./detail";
import { type Capability, SUPPORT, type Row, sdOf, valueOf } from "./table";

/** Text in which backticks set off code. */
const marked = (text: string) => text.split("`").map((part, place) => (place % 2 ? <code>{part}</code> : part));

const spaced = (name: string): string => name.replaceAll("_", " ");

export function MethodScreen({ shop }: { shop: Shop }) {
  const { facts, parameters, go, question } = shop;
  const { methods } = facts.table;
  const name = parameters.get("name");
  const key = fold(name ?? "");
  const method = methods.find((one) => [one.id, one.title, ...one.aliases].some((other) => fold(other) === key))
    ?? methods.find((one) => one.variants.some((variant) => fold(variant.id) === key));
  if (!method) {
    const words = fold(parameters.get("find") ?? "");
    const found = methods.filter((one) => fold([one.id, one.title, one.class, one.summary, ...one.aliases,
      ...one.variants.flatMap((variant) => [variant.id, variant.title, variant.summary])].join(" ")).includes(words));
    return (
      <main class="page" id="result">
        <h1>{methods.length} methods</h1>
        {name && <p class="trouble">“{name}” is no method.</p>}
        <label class="search"><span class="hidden">Find a method</span>
          <input type="search" name="find" placeholder="Find by name, class, description, variant or alias" value={parameters.get("find") ?? ""}
            onInput={(event) => go({ find: event.currentTarget.value || null }, { replace: true })} /></label>
        <ul class="cards">{found.map((one) => (
          <li key={one.id}><button class="card" onClick={() => go({ name: one.id, find: null })}>
            <b>{one.title}</b> <span class="note">{spaced(one.family)}</span><span>{marked(one.summary)}</span></button></li>
        ))}</ul>
      </main>
    );
  }
  const rows = question.benchmark.rows.filter((row) => facts.methodOf(row) === method && row.values);
  const paper = safeLink(method.paper?.url);
  return (
    <main class="page" id="result">
      <p><button class="quiet" onClick={() => go({ name: null })}>All methods</button></p>
      <h1>{method.title}</h1>
      <p class="lead">{marked(method.summary)}</p>
      <p>{spaced(method.family)}, {spaced(method.category)}; class <code>{method.class}</code>
        {method.since && <>; since peft {method.since}</>}{method.requires.length > 0 && <>; needs {method.requires.join(", ")}</>}.</p>
      {method.paper && <p>{paper ? <a href={paper} rel="noopener">{method.paper.title}</a> : method.paper.title}, {method.paper.year}</p>}
      {method.notes.length > 0 && <ul>{method.notes.map((note) => <li key={note}>{marked(note)}</li>)}</ul>}
      {method.variants.length > 0 && <><h2>Variants</h2><ul>{method.variants.map((one) => {
        const url = safeLink(one.paper?.url);
        return <li key={one.id} class={fold(one.id) === key ? "marked" : ""}><b>{one.title}</b> {marked(one.summary)} {url && <a href={url} rel="noopener">Paper</a>}</li>;
      })}</ul></>}
      <h2>Runs on {question.benchmark.title}</h2>
      {rows.length ? <RunTable shop={shop} rows={rows} /> : <p>Never measured here.</p>}
      <h2>What it can do</h2>
      <Scroll label="Capabilities"><table class="capabilities">
        <thead><tr><th scope="col">Capability</th><th scope="col">Support</th><th scope="col">Known by</th><th scope="col">Note</th></tr></thead>
        <tbody>{facts.table.features.map((feature, place) => {
          const [support, level, note, filed] = method.capabilities[place]!;
          return <tr key={feature.id}><th scope="row" title={feature.question}>{feature.group ? `${spaced(feature.group)}: ` : ""}{spaced(feature.title)}</th>
            <td class={`support ${filed ?? support}`}>{SUPPORT[filed ?? support]}</td><td>{facts.table.levels[level]}</td><td>{marked(facts.text(note))}</td></tr>;
        })}</tbody></table></Scroll>
      <p><button class="main" onClick={() => go({ view: null, name: null, methods: method.id })}>Ask with {method.title} only</button></p>
    </main>
  );
}

function RunTable({ shop, rows }: { shop: Shop; rows: Row[] }) {
  const { facts, question, go } = shop;
  const { benchmark } = question;
  const metrics = [benchmark.headline, ...benchmark.objectives.filter((id) => id !== benchmark.headline), "checkpoint_size"]
    .filter((id) => benchmark.metrics.includes(id)).map((id) => facts.metricOf(id));
  const headline = facts.metricOf(benchmark.headline);
  const order = [...rows].sort((a, b) => costOf(benchmark, a, headline) - costOf(benchmark, b, headline));
  return (
    <Scroll label="Runs"><table>
      <thead><tr><th scope="col">Run</th>{metrics.map((one) => <th key={one.id} scope="col" class="figure">{one.title}</th>)}</tr></thead>
      <tbody>{order.map((row) => (
        <tr key={row.name}><th scope="row"><button class="name" onClick={() => go({ view: null, name: null, run: row.name })}>{shortName(row)}</button></th>
          {metrics.map((one) => {
            const value = valueOf(benchmark, row, one.id);
            return <td key={one.id} class="figure">{value === undefined ? "–" : uncertain(value, sdOf(benchmark, row, one.id), one)}</td>;
          })}</tr>
      ))}</tbody></table></Scroll>
  );
}

export function Compare({ shop }: { shop: Shop }) {
  const { facts, question, go } = shop;
  const { benchmark } = question;
  const names = listOf(shop, "compare");
  const found = names.map((name) => rowCalled(shop, name));
  const rows = found.filter((row) => row !== undefined);
  const missing = names.filter((_, place) => !found[place]);
  const details = rows.map((row) => detailsOf(shop, row));
  const lines: { name: string; cells: string[]; kind: string }[] = [];
  for (const metric of facts.rankable(benchmark))
    lines.push({ kind: "Figures", name: metric.title, cells: rows.map((row) => {
      const value = valueOf(benchmark, row, metric.id);
      return value === undefined ? "–" : uncertain(value, sdOf(benchmark, row, metric.id), metric);
    }) });
  const keys = [...new Set(details.flatMap((one) => Object.keys(one?.config ?? {})))].sort();
  for (const key of keys)
    lines.push({ kind: "Configuration", name: key, cells: details.map((one) => (one?.config && key in one.config ? literal(one.config[key]) : "default")) });
  const settings = [...new Set(details.flatMap((one) => Object.keys(one?.training ?? {})))].sort();
  for (const key of settings)
    lines.push({ kind: "Training", name: spaced(key), cells: details.map((one) => (one && key in one.training ? literal(one.training[key]) : "default")) });
  const can = (row: Row, place: number): Capability | undefined => (facts.methodOf(row) ? facts.capability(row, place) : undefined);
  facts.table.features.forEach((feature, place) =>
    lines.push({ kind: "Capabilities", name: `${feature.group ? `${spaced(feature.group)}: ` : ""}${spaced(feature.title)}`, cells: rows.map((row) => {
      const one = can(row, place);
      return one ? SUPPORT[one[3] ?? one[0]] : "–";
    }) }));
  for (const place of benchmark.engines)
    lines.push({ kind: "Serving", name: facts.table.engines[place]!.title, cells: rows.map((row) => facts.route(benchmark, row, place)?.[0] ?? "–") });
  const differs = (line: { cells: string[] }): boolean => new Set(line.cells).size > 1;
  const body = (which: typeof lines) => {
    let kind = "";
    return which.flatMap((line) => {
      const head = line.kind === kind ? [] : [<tr key={line.kind} class="kind"><th scope="colgroup" colSpan={rows.length + 1}>{line.kind}</th></tr>];
      kind = line.kind;
      return [...head, <tr key={line.kind + line.name}><th scope="row">{line.name}</th>{line.cells.map((cell, place) => <td key={rows[place]!.name}>{cell}</td>)}</tr>];
    });
  };
  const header = (
    <thead><tr><th scope="col"><span class="hidden">What</span></th>{rows.map((row) => (
      <th key={row.name} scope="col">{row.title}<span class="run">{shortName(row)}</span>
        <button class="quiet" onClick={() => go({ compare: names.filter((name) => name !== row.name && name !== row.short).join(",") || null })}>Remove<span class="hidden"> {row.title} {shortName(row)}</span></button></th>
    ))}</tr></thead>
  );
  return (
    <main class="page" id="result">
      <h1>Compare</h1>
      {missing.map((name) => <p key={name} class="trouble">“{name}” is no candidate of {benchmark.title}.</p>)}
      {names.length > 4 && <p class="trouble">At most four are compared side by side; the link names {names.length}.</p>}
      {rows.length < 2 ? <p>Tick two to four candidates in the table of the shop.</p> : (
        <>
          <p class="lead">What differs comes first; {lines.filter((line) => !differs(line)).length} lines are the same for all.</p>
          <Scroll label="What differs"><table class="compare"><caption class="hidden">What differs</caption>{header}<tbody>{body(lines.filter(differs))}</tbody></table></Scroll>
          <details><summary>What is the same</summary><Scroll label="What is the same"><table class="compare"><caption class="hidden">What is the same</caption>{header}<tbody>{body(lines.filter((line) => !differs(line)))}</tbody></table></Scroll></details>
        </>
      )}
    </main>
  );
}

export function About({ shop }: { shop: Shop }) {
  const { table } = shop.facts;
  const runs = table.benchmarks.reduce((sum, one) => sum + one.rows.filter((row) => row.values).length, 0);
  return (
    <main class="page" id="result">
      <h1>About this page</h1>
      <p class="lead">It answers which parameter-efficient fine-tuning method, with which configuration, from {runs} measured runs of {table.methods.length} methods.</p>
      <h2>What it cannot tell</h2>
      <ol>
        {shop.facts.limits.map((text) => <li key={text}>{text}</li>)}
      </ol>
      <h2>Benchmarks</h2>
      <dl>{table.benchmarks.map((one) => <div key={one.id}><dt>{one.title}</dt><dd>{one.description} Snapshot {one.snapshot ?? "–"}, {one.rows.filter((row) => row.values).length} runs. {one.floorBecause}</dd></div>)}</dl>
      <h2>Versions</h2>
      <p>Catalog {table.catalogVersion}, peft {table.peftVersion}; licence {table.licence}.</p>
      <ul>{table.engines.map((one) => <li key={one.id}>{one.title} {one.version}</li>)}</ul>
      <h2>Sources</h2>
      <ul>{table.sources.map((one) => { const url = safeLink(one.url); return <li key={one.id}>{url ? <a href={url} rel="noopener">{one.project}</a> : one.project} ({one.licence})</li>; })}</ul>
      <p>For programs: <a href="catalog.json">catalog.json</a>, <a href="llms.txt">llms.txt</a> (beside this page, where it is a folder).</p>
    </main>
  );
}

