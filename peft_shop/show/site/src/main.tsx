// The page; under node only what answers, for the tests that compare it with Python.
import { type ComponentChild, render } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { answerOf } from "./answer";
import { Detail } from "./detail";
import { Filters } from "./filters";
import { commandLine, configCode, pythonLine } from "./lines";
import { failuresOf } from "./judge";
import { type ModelFile, type Plan, planned, trainingOf } from "./planning";
import { About, Compare, MethodScreen } from "./pages";
import { Plot, axesOf } from "./plot";
import { format, uncertain } from "./quantity";
import { type Parameters, linkOf, parametersOf, questionOf } from "./question";
import { Results } from "./results";
import { type Changes, type Shop, copy } from "./state";
import { Facts, type Table, type Words } from "./table";

type Data = Record<string, unknown>;
const shared = globalThis as unknown as { peftShopData?: Data; peftShop?: unknown };
shared.peftShop = { Facts, answerOf, commandLine, configCode, format, linkOf, parametersOf, planned, pythonLine, questionOf, uncertain };

const VIEWS: [string, string][] = [["shop", "Shop"], ["method", "Methods"], ["compare", "Compare"], ["about", "About"]];

/** Loads a data file as a script, since pages opened from a file cannot fetch. */
const asked = new Set<string>();
function load(name: string, done: () => void): void {
  if (asked.has(name)) return;
  asked.add(name);
  const script = document.createElement("script");
  script.src = `data/${name}.js`;
  script.onload = done;
  document.head.append(script);
}

function App({ facts }: { facts: Facts }) {
  const read = (): ReturnType<typeof parametersOf> => parametersOf(location.hash, location.search);
  const [[parameters, doubled], setState] = useState(read);
  const [loaded, setLoaded] = useState(0);
  const [open, setOpen] = useState(false);
  useEffect(() => {
    const follow = (): void => setState(read());
    addEventListener("popstate", follow);
    addEventListener("hashchange", follow);
    return () => { removeEventListener("popstate", follow); removeEventListener("hashchange", follow); };
  }, []);
  const data = <T,>(name: string): T | undefined => {
    const found = shared.peftShopData![name];
    if (found === undefined) load(name, () => setLoaded((count) => count + 1));
    return found as T | undefined;
  };
  const texts = data<string[]>("texts");
  if (texts) facts.texts = texts;
  const words = data<Words>("words");
  useMemo(() => words && facts.describe(words), [words]);
  const link = linkOf(new Map([...parameters].filter(([name]) => !facts.table.view.includes(name))));
  const [asked, troubles] = useMemo(() => questionOf(facts, parameters), [link, texts, words]);
  const { plan } = asked;
  const file = plan ? data<ModelFile>(`model-${plan.place}`) : undefined;
  const [question, answer] = useMemo(() => {
    const made = plan && file ? { ...asked, benchmark: planned(asked.benchmark, plan, file) } : asked;
    return [made, answerOf(facts, made)] as const;
  }, [asked, file]);
  const go = (changes: Changes, how: { replace?: boolean } = {}): void => {
    const next: Parameters = new Map(parameters);
    for (const [name, value] of Object.entries(changes))
      if (value === null) next.delete(name);
      else next.set(name, value);
    setState([next, []]);
    // the page first, its address right after: writing that takes browsers milliseconds
    setTimeout(() => history[how.replace ? "replaceState" : "pushState"](null, "", linkOf(next)));
    if ("view" in changes || "name" in changes) scrollTo(0, 0);
  };
  const shop: Shop = { facts, parameters, question, troubles: [...doubled, ...troubles], answer, go, loaded, data };
  const view = parameters.get("view") ?? "shop";
  const embedded = parameters.get("embed") === "1" || /[?&]embed=1/.test(location.search);
  const highlight = new URLSearchParams(location.search).get("highlight");
  if (highlight && !parameters.has("highlight")) shop.parameters = new Map([...parameters, ["highlight", highlight]]);
  useEffect(() => {
    document.title = `${VIEWS.find(([id]) => id === view)?.[1] ?? "Shop"} – peft-shop`;
  }, [view]);
  const screen = view === "method" ? <MethodScreen shop={shop} /> : view === "compare" ? <Compare shop={shop} />
    : plan && !file ? <main class="page" id="result"><p role="status">Loading the forecasts …</p></main> : view === "about" ? <About shop={shop} /> : <ShopScreen shop={shop} open={open} setOpen={setOpen} embedded={embedded} />;
  if (embedded) return <div class="embedded">{screen}</div>;
  return (
    <>
      <header class="top">
        <a class="skip" href="#result" onClick={(event) => { event.preventDefault(); document.querySelector<HTMLElement>("h1")?.focus(); }}>Skip to the answer</a>
        <span class="brand">peft-shop</span>
        <nav aria-label="Screens">
          {VIEWS.map(([id, title]) => (
            <a key={id} href={linkOf(screenLink(parameters, id))} aria-current={view === id ? "page" : undefined}
              onClick={(event) => {
                if (event.ctrlKey || event.metaKey || event.shiftKey) return;
                event.preventDefault();
                go({ view: id === "shop" ? null : id, name: null, find: null });
              }}>{title}</a>
          ))}
        </nav>
      </header>
      {VIEWS.some(([id]) => id === view) || <p class="trouble">There is no screen “{view}”; this is the shop.</p>}
      {plan && <section class="plan-note" aria-label="Forecast">Forecast for <b>{plan.model.id}</b>: memory, file, counts. As measured on {asked.benchmark.model}: scores and times.</section>}
      {screen}
    </>
  );
}

function screenLink(parameters: Parameters, id: string): Parameters {
  const next = new Map(parameters);
  for (const name of ["view", "name", "find"]) next.delete(name);
  return id === "shop" ? next : next.set("view", id);
}

interface ScreenProps { shop: Shop; open: boolean; setOpen(open: boolean): void; embedded: boolean }

function ShopScreen({ shop, open, setOpen, embedded }: ScreenProps) {
  const { question, answer, facts } = shop;
  const { benchmark } = question;
  const [first, ...others] = question.objectives;
  const say = (one: typeof first): string => `${one!.better === "higher" ? "most" : "least"} ${one!.label}`;
  const model = benchmark.model.split("/").pop();
  const counts = answer.front.length
    ? `${answer.front.length} best, ${answer.ties.length} as good within noise, ${answer.beaten.length} beaten; ` +
      `${answer.dropped.length} left out, ${answer.unmeasured.length} never measured here`
    : `Nothing that was measured meets every constraint: ${answer.dropped.length} are left out`;
  return (
    <div class={embedded ? "shop bare" : "shop"}>
      {!embedded && <Quick shop={shop} toggle={<button class="toggle" aria-expanded={open} onClick={() => setOpen(!open)}>{open ? "Hide filters" : "More filters"}</button>} />}
      {!embedded && (
        <section class={`side${open ? " open" : ""}`} aria-label="More of the question">
          <Filters shop={shop} />
        </section>
      )}
      <main id="result">
        <h1 tabIndex={-1}>{benchmark.title} on {model}: {say(first)}{others.length > 0 && ` for ${others.map(say).join(" and ")}`}</h1>
        <p role="status" class="counts">{counts}</p>
        <Troubles shop={shop} />
        {answer.relaxations.length > 0 && <Relax shop={shop} />}
        {answer.front.length > 0 && <Plot shop={shop} />}
        {!embedded && answer.front.length > 0 && <AxisPickers shop={shop} />}
        <Results shop={shop} />
        {answer.warnings.length > 0 && (
          <details class="warnings"><summary>What to know before trusting the order ({answer.warnings.length})</summary>
            <ul>{answer.warnings.map((text) => <li key={text}>{text}</li>)}</ul></details>
        )}
        <details class="warnings"><summary>The same question elsewhere</summary>
          <pre tabIndex={0}><code>{commandLine(facts, shop.parameters)}{"\n\n"}{pythonLine(facts, shop.parameters)}</code></pre>
          <button class="quiet" onClick={() => void copy(commandLine(facts, shop.parameters))}>Copy command</button></details>
      </main>
      {!embedded && <Detail shop={shop} />}
    </div>
  );
}

function Troubles({ shop }: { shop: Shop }) {
  if (!shop.troubles.length) return null;
  const elsewhere = shop.troubles.some((one) => one.elsewhere);
  return (
    <div class="trouble" role="alert">
      <ul>{shop.troubles.map((one) => <li key={one.name + one.text}><code>{one.name}</code>: {one.text}{" "}
        <button class="quiet" onClick={() => shop.go({ [one.name]: null })}>Leave it out</button></li>)}</ul>
      <p>What is below answers the question without that.{elsewhere && " The whole question:"}</p>
      {elsewhere && <pre tabIndex={0}><code>{commandLine(shop.facts, shop.parameters)}</code></pre>}
    </div>
  );
}

/** What another training step would admit: how many candidates, and the step. */
function steps({ facts, question, data }: Shop): [string, number, string][] {
  const { plan, benchmark } = question;
  const file = plan && data<ModelFile>(`model-${plan.place}`);
  if (!file || plan.limit === null) return [];
  const tried: [string, Partial<Plan>][] = [["gradient checkpointing", { checkpointing: true }], ["a 4-bit base", { quantized: true }],
    ["both", { checkpointing: true, quantized: true }], ["both and batches of 1", { checkpointing: true, quantized: true, batch: 1 }]];
  return tried.map(([word, change]): [string, number, string] => {
    const other = { ...plan, ...change };
    const asked = { ...question, plan: other, benchmark: planned(facts.benchmark(benchmark.id), other, file) };
    return [word, asked.benchmark.rows.filter((row) => row.forecast && row.values && !failuresOf(facts, asked, row).length).length, trainingOf(plan, change)];
  }).filter(([, count]) => count);
}

function Relax({ shop }: { shop: Shop }) {
  return (
    <section class="relax" aria-label="What to relax">
      <h2>What would admit some</h2>
      <ul>{steps(shop).map(([word, count, training]) => (
        <li key={word}>with {word}: {count} would fit <button class="main" onClick={() => shop.go({ training })}>Do it</button></li>
      ))}{shop.answer.relaxations.slice(0, 6).map((one) => (
        <li key={one.constraints.join("+")}>{one.suggestion}{" "}
          {one.change ? <button class="main" onClick={() => shop.go(Object.fromEntries(one.change!))}>Do it</button>
            : <span class="note">on the command line</span>}</li>
      ))}</ul>
    </section>
  );
}

function AxisPickers({ shop }: { shop: Shop }) {
  const rankable = shop.facts.rankable(shop.question.benchmark);
  const [x, y] = axesOf(shop);
  const picker = (axis: "x" | "y", current: string, word: string) => (
    <label class="axis"><span>{word}</span>
      <select name={axis} value={current} onChange={(event) => shop.go({ [axis]: event.currentTarget.value })}>
        {rankable.map((one) => <option key={one.id} value={one.id}>{one.title}</option>)}
      </select></label>
  );
  return <div class="axes-pickers">{picker("x", x.id, "Across")}{picker("y", y.id, "Up")}</div>;
}

/** The question that most people have, in three choices. */
function Quick({ shop, toggle }: { shop: Shop; toggle: ComponentChild }) {
  const { facts, question, parameters, go } = shop;
  const { benchmark } = question;
  const { plan } = question;
  const limit = (plan ? parameters.get("device") ?? parameters.get("max_memory") : parameters.get("max_peak_memory")) ?? "";
  const memory = benchmark.metrics.includes("peak_memory");
  const cards = facts.table.cards.map((one) => ({ ...one, text: `${Math.floor((one.usable / 2 ** 30) * 100) / 100}GiB` }));
  const named = (text: string) => cards.find((one) => (plan ? one.names.includes(text) : one.text === text));
  const known = named(limit);
  const fits = (card: typeof known, other: string, model: boolean): Changes => ({
    max_peak_memory: model ? null : card?.text ?? (other || null), device: model && card ? card.names[0]! : null,
    max_memory: model && !card && other ? other : null, fit: model && (card || other) ? "off" : null,
  });
  const models = facts.table.models.filter((one) => one.benchmark === benchmark.id);
  const count = (name: "batch" | "length", word: string) => (
    <label><span>{word}</span><input name={name} inputMode="numeric" value={plan![name]} autocomplete="off"
      onChange={(event) => go({ training: trainingOf(plan!, { [name]: event.currentTarget.value }) })} /></label>);
  const tick = (name: "checkpointing" | "quantized", word: string) => (
    <label class="check"><input type="checkbox" name={name} checked={plan![name]}
      onChange={() => go({ training: trainingOf(plan!, { [name]: !plan![name] }) })} /><span>{word}</span></label>);
  const headline = facts.metricOf(benchmark.headline);
  const orders: [string, string][] = [["headline", `best ${headline.label}`], ["knee", "best balance"], ["cheapest-tie", "cheapest of the equal"],
    ...facts.rankable(benchmark).filter((one) => one.id !== headline.id).map((one): [string, string] => [one.id, `${one.better === "lower" ? "least" : "most"} ${one.label}`])];
  const serve = parameters.get("serve") ?? "";
  const engines = benchmark.engines.map((place) => facts.table.engines[place]!);
  return (
    <section class="quick" aria-label="Question">
      <label><span>Task</span>
        <select name="benchmark" value={benchmark.id} onChange={(event) => go(Object.fromEntries([
          ...[...parameters.keys()].filter((name) => /^(max|min)_|^(model|device|fit|training|objectives|serve|floor|rank_by|run|compare|x|y|sort|columns)$/.test(name)).map((name) => [name, null]),
          ["benchmark", event.currentTarget.value]]))}>
          {facts.table.benchmarks.map((one) => <option key={one.id} value={one.id}>{one.title} ({one.model.split("/").pop()})</option>)}
        </select></label>
      {models.length > 0 && <label><span>Your model</span>
        <select name="model" value={plan?.model.id ?? ""} onChange={(event) => {
          const model = models.find((one) => one.id === event.currentTarget.value);
          go({ ...fits(known, limit, !!model), model: model?.id ?? null,
            training: model ? trainingOf({ batch: 4, length: 512, checkpointing: false, quantized: false, ...plan }, {}) : null });
        }}>
          <option value="">{benchmark.model.split("/").pop()}, as measured</option>
          {models.map((one) => <option key={one.id} value={one.id}>{one.id.split("/").pop()}</option>)}
        </select></label>}
      {memory && <label><span>Fits my card</span>
        <select name="card" value={limit} onChange={(event) => go(fits(named(event.currentTarget.value), "", !!plan))}>
          <option value="">any memory</option>
          {limit && !known && <option value={limit}>{limit}</option>}
          {cards.map((one) => <option key={one.text} value={!plan ? one.text : one === known ? limit : one.names[0]}>{one.names.join(", ")} ({format(one.usable, "bytes", 1)} usable)</option>)}
        </select></label>}
      <label><span>Served by</span>
        <select name="engine" value={serve} onChange={(event) => go({ serve: event.currentTarget.value || null })}>
          <option value="">any engine, or none</option>
          {serve && !engines.some((one) => one.id === serve) && <option value={serve}>{serve}</option>}
          {engines.map((one) => <option key={one.id} value={one.id}>{one.title}</option>)}
        </select></label>
      <label><span>First</span>
        <select name="order" value={question.rankBy === "weights" ? parameters.get("rank_by")! : question.rankBy} onChange={(event) => go({ rank_by: event.currentTarget.value === "headline" ? null : event.currentTarget.value, sort: null })}>
          {question.rankBy === "weights" && <option value={parameters.get("rank_by")!}>{parameters.get("rank_by")}</option>}
          {orders.map(([id, text]) => <option key={id} value={id}>{text}</option>)}
        </select></label>
      {toggle}
      {plan && <div class="plan">{count("batch", "Batch")}{count("length", "Tokens")}{tick("checkpointing", "Gradient checkpointing")}{tick("quantized", "4-bit base")}</div>}
    </section>
  );
}

if (typeof document !== "undefined" && shared.peftShopData) {
  const root = document.getElementById("app")!;
  root.textContent = "";
  render(<App facts={new Facts(shared.peftShopData["table"] as Table)} />, root);
}
