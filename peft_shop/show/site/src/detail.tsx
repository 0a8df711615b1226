// One candidate: what it scored, how sure that is, how it is served, and the configuration to take away.
import { useState } from "preact/hooks";
import { costOf } from "./answer";
import { commandLine, configCode, pythonLine, quote } from "./lines";
import { amount, format, uncertain } from "./quantity";
import { benchmarkPlace, type Shop, copy, detailsOf, download, kept, listOf, percent, safeLink, shortName } from "./state";
import { type Benchmark, type Facts, type Metric, type Row, sdOf, valueOf } from "./table";

const TABS: [string, string][] = [["config", "Config"], ["python", "Python"], ["script", "Script"], ["cli", "CLI"]];
const WAYS: Record<string, string> = { native: "direct", convert: "converted", merge: "merged", none: "not", unknown: "unknown" };

export function rowCalled(shop: Shop, name: string | undefined): Row | undefined {
  const { rows, whole } = shop.question.benchmark;
  return [...rows, ...whole].find((row) => row.name === name || (name !== undefined && row.short === name));
}

export function Detail({ shop }: { shop: Shop }) {
  const { facts, question, answer, parameters, go } = shop;
  const named = parameters.get("run");
  const row = rowCalled(shop, named ?? answer.front[0]?.row.name);
  if (!row)
    return named === undefined ? null : <aside class="detail"><p class="trouble">“{named}” is no candidate of {question.benchmark.title}.</p></aside>;
  const { benchmark } = question;
  const method = facts.methodOf(row);
  const standing = [...answer.front, ...answer.ties, ...answer.beaten].find((one) => one.row === row);
  const dropped = answer.dropped.find((one) => one.row === row);
  const place = standing
    ? { front: `Best, number ${answer.front.indexOf(standing) + 1}`, tie: "As good within noise", beaten: "Beaten" }[standing.place]
    : dropped ? "Left out" : row.values ? "For comparison" : "Never measured here";
  const lora = benchmark.rows.find((one) => one.name === benchmark.baselines["lora"]);
  const compared = listOf(shop, "compare");
  return (
    <aside class="detail" aria-label={`Details of ${row.title}`}>
      <p class={`place ${standing?.place ?? "dropped"}`}>{place}{standing && standing.place !== "beaten" && standing.chance !== null && `, again ${percent(standing.chance)}`}</p>
      <h2>{row.title}</h2>
      <p class="run">{shortName(row)}</p>
      {row.values && <Take key={row.name} shop={shop} row={row} />}
      {dropped && <ul class="reasons">{dropped.failures.map((one) => <li key={one.constraint + one.reason}>{one.reason}</li>)}</ul>}
      {standing?.above && <p>Behind {standing.above.title} ({shortName(standing.above)}).</p>}
      {row.values && <Figures facts={facts} benchmark={benchmark} row={row} lora={lora} forecast={!!question.plan} loaded={shop.loaded} />}
      {row.routes && method && <Ways facts={facts} benchmark={benchmark} row={row} loaded={shop.loaded} />}
      {row.flags && row.flags.length > 0 && <ul class="reasons">{row.flags.map(([code, , reason]) => <li key={reason}>{code}: {facts.text(reason)}</li>)}</ul>}
      <div class="tools">
        {row.values && <button class="quiet" onClick={() => go({ compare: [...new Set([...compared, row.name])].slice(-4).join(","), ...(compared.length ? { view: "compare" } : {}) })}>{compared.length ? "Compare" : "Keep to compare"}</button>}
        {method && <button class="quiet" onClick={() => go({ view: "method", name: method.id })}>About {method.title}</button>}
      </div>
      {row.values && <Source shop={shop} row={row} />}
    </aside>
  );
}

interface OwnProps { facts: Facts; benchmark: Benchmark; row: Row; loaded: number }

const Figures = kept(({ facts, benchmark, row, lora, forecast }: OwnProps & { lora: Row | undefined; forecast: boolean }) => (
  <table class="figures"><caption>Measured on {benchmark.model}{forecast && "; memory, file and counts forecast"}</caption>
    <thead><tr><th scope="col">Metric</th><th scope="col">Here</th><th scope="col">Against plain LoRA</th></tr></thead>
    <tbody>{facts.rankable(benchmark).map((metric) => {
      const value = valueOf(benchmark, row, metric.id);
      const title = <th scope="row" title={metric.description}>{metric.title}</th>;
      if (value === undefined) {
        const why = facts.text(row.unusable?.[benchmark.metrics.indexOf(metric.id)]);
        return <tr key={metric.id}>{title}<td colSpan={2} class="missing">{why || "not measured"}</td></tr>;
      }
      return <tr key={metric.id}>{title}
        <td>{uncertain(value, sdOf(benchmark, row, metric.id), metric)}{metric.id === "peak_memory" && row.forecast
          && ` (${format(row.forecast[0], "bytes", 1)} to ${format(row.forecast[2], "bytes", 1)})`}</td>
        <td>{lora && lora !== row ? against(benchmark, row, lora, metric) : "–"}</td></tr>;
    })}</tbody></table>
));

function against(benchmark: Benchmark, row: Row, other: Row, metric: Metric) {
  if (valueOf(benchmark, other, metric.id) === undefined) return "–";
  const lead = costOf(benchmark, other, metric) - costOf(benchmark, row, metric);
  if (!lead) return "equal";
  const word = lead > 0 ? "better" : "worse";
  return <span class={word}>{amount(lead, metric)} {word}</span>;
}

const Ways = kept(({ facts, benchmark, row }: OwnProps) => (
  <details class="ways"><summary>How it reaches {benchmark.engines.length} serving engines</summary>
    <ul>{benchmark.engines.map((place) => {
      const route = facts.route(benchmark, row, place);
      const engine = facts.table.engines[place]!;
      const kind = route?.[0] ?? "unknown";
      return <li key={engine.id}><b>{engine.title}</b> <span class={`way ${kind === "native" ? "direct" : kind}`}>{WAYS[kind]}</span>
        {route?.[6] === 1 && <strong class="wrong"> loads it as it is and computes something else</strong>}
        {(kind === "none" || kind === "unknown") && <span class="note"> {facts.text(route?.[2])}</span>}</li>;
    })}</ul></details>
));

function Take({ shop, row }: { shop: Shop; row: Row }) {
  const { facts, question, parameters, go } = shop;
  const [done, setDone] = useState("");
  const tab = parameters.get("tab") ?? "config";
  const method = facts.methodOf(row);
  const details = detailsOf(shop, row);
  const scripts = tab === "script" ? shop.data<Record<string, string>>(`scripts-${benchmarkPlace(shop)}`) : undefined;
  const { plan } = question;
  const name = quote(row.name) + (plan ? ` -m ${quote(plan.model.id)}` : "");
  // on another model some of it is another, and some is left to the default
  const config = details?.config && Object.fromEntries(Object.entries({ ...details.config, ...row.config }).filter(([, value]) => value !== null));
  let text = "loading …";
  if (tab === "cli") {
    text = [`# this question`, commandLine(facts, parameters), ``, `# this candidate`,
      `peft-shop config ${name} -b ${question.benchmark.id} -o adapter`, `peft-shop snippet ${name} -b ${question.benchmark.id} -o train.py`].join("\n");
  } else if (tab === "script") {
    if (plan) text = `# a script for this model:\npeft-shop snippet ${name} -b ${question.benchmark.id} -o train.py`;
    else if (scripts) text = scripts[row.name] ?? `# no script for this run; the reason: peft-shop snippet ${name}`;
  } else if (details) {
    if (details.config === null || !method) text = "full fine-tuning: there is no adapter to configure";
    else if (tab === "python")
      text = `${configCode(method, config!)}\n# the same question, with reasons:\n${pythonLine(facts, parameters)}\n`;
    else text = JSON.stringify(config, null, 2);
  }
  const file = { config: "adapter_config.json", python: "config.py", script: "train.py", cli: "question.sh" }[tab] ?? "peft-shop.txt";
  const slug = row.name.replace(/[^A-Za-z0-9.-]+/g, "-");
  const note = details?.training["optimizer"];
  const special = note && note !== "AdamW" ? `It was trained with the optimizer ${String(note)}: take the script.` : "";
  return (
    <div class="take">
      <div class="tabs" role="tablist" aria-label="What to take away">
        {TABS.map(([id, title], place) => (
          <button key={id} role="tab" id={`tab-${id}`} aria-selected={tab === id} aria-controls="panel" tabIndex={tab === id ? 0 : -1}
            onClick={() => go({ tab: id === "config" ? null : id }, { replace: true })}
            onKeyDown={(event) => {
              const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
              if (!step) return;
              const next = TABS[(place + step + TABS.length) % TABS.length]![0];
              go({ tab: next === "config" ? null : next }, { replace: true });
              document.getElementById(`tab-${next}`)?.focus();
            }}>{title}</button>
        ))}
      </div>
      <pre id="panel" role="tabpanel" tabIndex={0} aria-labelledby={`tab-${tab}`}><code>{text}</code></pre>
      {special && <p class="note">{special}</p>}
      <div class="tools">
        <button class="main copy" onClick={() => { void copy(text).then(() => setDone("Copied")); setTimeout(() => setDone(""), 2000); }}>Copy</button>
        <button class="quiet" onClick={() => download(tab === "config" ? file : `${slug}-${file}`, text)}>Download {file}</button>
        <span role="status" class="done">{done}</span>
      </div>
    </div>
  );
}

function Source({ shop, row }: { shop: Shop; row: Row }) {
  const details = detailsOf(shop, row);
  if (!details) return null;
  const packages = Object.entries(details.packages).map(([name, version]) => `${name} ${version}`).join(", ");
  const url = safeLink(details.url);
  const [said, host, addresses = []] = details.samples ?? [];
  return (
    <p class="note">Trained {details.created.slice(0, 10)} on {details.accelerator} with {packages}.{" "}
      {url && <a href={url} rel="noopener">Result file ({new URL(url).host})</a>}
      {said && <><br />{said}{addresses.map((address, place) => [" ", <a href={safeLink(address)} target="_blank" rel="noopener">image {place + 1}<span class="hidden"> on {host}</span></a>])}</>}</p>
  );
}
