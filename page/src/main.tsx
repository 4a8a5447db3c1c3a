// The page: the bar above, the views, and the keyboard.

import { render } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Accuracy, MemoryPlan, Roofline, Timeline } from "./charts";
import { overlays } from "./colours";
import { type Report, readReport } from "./data";
import { short } from "./draw";
import { camera, Controls, GraphView, readTheme } from "./graph_view";
import { ModuleTree } from "./modules";
import { NodePane } from "./node_pane";
import { PassList, PassTitle, Slider, stepped } from "./passes";
import { find } from "./search";
import { type Mode, type State, Store, type View } from "./state";
import { Summary } from "./summary";

const VIEWS: [View, string][] = [
  ["summary", "Summary"],
  ["graph", "Graph"],
  ["roofline", "Roofline"],
  ["memory", "Memory"],
  ["timeline", "Timeline"],
  ["accuracy", "Accuracy"],
];

function Page({ report, store }: { report: Report; store: Store }) {
  const [state, setState] = useState(store.state);
  const [help, setHelp] = useState(false);
  const [theme, setTheme] = useState(readTheme);
  const [sheet, setSheet] = useState(false);
  const search = useRef<HTMLInputElement>(null);
  useEffect(() => store.listen(() => setState(store.state)), [store]);
  useEffect(() => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const change = () => setTheme(readTheme());
    dark.addEventListener("change", change);
    return () => dark.removeEventListener("change", change);
  }, []);
  const keys = useMemo(() => find(report, state.pass, state.find), [report, state.pass, state.find]);
  const found = useMemo(() => keys && new Set(keys), [keys]);
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.key === "?" && !typing(event)) setHelp((shown) => !shown);
      else if (event.key === "Escape" && help) setHelp(false);
      else onKey(event, report, store, search.current);
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [report, store, help]);
  const props = { report, store, state };
  return (
    <>
      <nav>
        <button class="brand" onClick={() => store.set({ view: "summary" })}>graphopt</button>
        <span class="model" title={report.data.model.name}>{report.data.model.name}</span>
        <div class="views" role="tablist">
          {VIEWS.map(([view, title]) => (
            <button
              key={view}
              role="tab"
              aria-selected={state.view === view}
              onClick={() => store.set({ view })}
            >
              {title}
            </button>
          ))}
        </div>
        <Search {...props} keys={keys} input={search} />
        <button class="help-button" aria-label="keyboard" onClick={() => setHelp(!help)}>?</button>
      </nav>
      {state.view === "summary" && <Summary report={report} store={store} />}
      {state.view === "graph" && (
        <div class={`workbench ${state.node ? "with-node" : ""} ${sheet ? "with-side" : ""}`}>
          <aside class="left">
            <div class="segments">
              {(["passes", "modules"] as const).map((side) => (
                <button key={side} aria-pressed={state.side === side} onClick={() => store.set({ side })}>
                  {side === "passes" ? "Passes" : "Modules"}
                </button>
              ))}
            </div>
            {state.side === "passes" ? <PassList {...props} /> : <ModuleTree {...props} />}
          </aside>
          <section class="middle">
            <div class="head">
              <button class="side-button" aria-label="list of passes" onClick={() => setSheet(!sheet)}>☰</button>
              <Slider {...props} />
              <PassTitle {...props} />
              <Controls {...props} />
            </div>
            <GraphView {...props} found={found} theme={theme} />
          </section>
          <aside class="right"><NodePane {...props} /></aside>
        </div>
      )}
      {state.view === "roofline" && <Roofline {...props} />}
      {state.view === "memory" && <MemoryPlan {...props} />}
      {state.view === "timeline" && <Timeline {...props} />}
      {state.view === "accuracy" && <Accuracy {...props} />}
      {help && <Help close={() => setHelp(false)} />}
    </>
  );
}

interface SearchProps {
  report: Report;
  store: Store;
  state: State;
  keys: number[] | null;
  input: { current: HTMLInputElement | null };
}

function Search({ report, store, state, keys, input }: SearchProps) {
  const at = keys ? keys.indexOf(report.keyOf.get(state.node) ?? -1) : -1;
  const go = (by: number) => {
    if (!keys?.length) return;
    const next = keys[(at + by + keys.length * (at < 0 && by < 0 ? 2 : 1)) % keys.length]!;
    store.set({ view: "graph", node: report.data.keys[next]! });
  };
  return (
    <form
      class="search"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        go(1);
      }}
    >
      <input
        ref={input}
        type="search"
        placeholder="Search nodes  /"
        aria-label="search nodes"
        value={state.find}
        onInput={(event) => store.set({ find: event.currentTarget.value })}
        onKeyDown={(event) => {
          if (event.key === "Enter" && event.shiftKey) {
            event.preventDefault();
            go(-1);
          }
        }}
      />
      {keys && <span class="hits">{at >= 0 ? `${at + 1}/` : ""}{keys.length}</span>}
      {keys && at < 0 && keys.length > 0 && document.activeElement === input.current && (
        <ul class="results">
          {keys.slice(0, 8).map((key) => {
            const row = report.graphAt(state.pass).get(key)!;
            const form = report.form(row);
            const choose = () => store.set({ view: "graph", node: report.data.keys[key]! });
            return (
              <li key={key}>
                <button
                  type="button"
                  onPointerDown={(event) => {
                    event.preventDefault();
                    choose();
                    input.current?.blur();
                  }}
                >
                  <b>{short(form.op)}</b> <span>{form.module || form.name}</span>
                </button>
              </li>
            );
          })}
        </ul>
      )}
    </form>
  );
}

function typing(event: KeyboardEvent): boolean {
  const element = event.target as HTMLElement;
  return /^(INPUT|SELECT|TEXTAREA)$/.test(element.tagName) && (element as HTMLInputElement).type !== "range";
}

const MODES: Mode[] = ["diff", "before", "after", "split"];

function onKey(event: KeyboardEvent, report: Report, store: Store, search: HTMLInputElement | null): void {
  const { state } = store;
  if (event.key === "Escape") {
    if (typing(event)) (event.target as HTMLElement).blur();
    store.set(state.find ? { find: "" } : state.module ? { module: "" } : { node: "" });
    return;
  }
  if (typing(event) || event.ctrlKey || event.metaKey || event.altKey) return;
  const pass = (by: number) => {
    store.set({ view: "graph", pass: stepped(report, state.pass, by, !event.shiftKey) });
  };
  const actions: Record<string, () => void> = {
    "/": () => search?.focus(),
    ArrowRight: () => pass(1),
    ArrowLeft: () => pass(-1),
    Home: () => store.set({ pass: 0 }),
    End: () => store.set({ pass: report.stages.length - 1 }),
    ArrowDown: () => neighbour(report, store, 1),
    ArrowUp: () => neighbour(report, store, -1),
    d: () => store.set({ mode: MODES[(MODES.indexOf(state.mode) + 1) % MODES.length]! }),
    c: () => {
      const names = ["", ...overlays(report).map((one) => one.name)];
      store.set({ overlay: names[(names.indexOf(state.overlay) + 1) % names.length]! });
    },
    "+": () => camera("in"),
    "=": () => camera("in"),
    "-": () => camera("out"),
    "0": () => camera("fit"),
    m: () => store.set({ side: state.side === "passes" ? "modules" : "passes" }),
  };
  VIEWS.forEach(([view], i) => (actions[`${i + 1}`] = () => store.set({ view })));
  const action = actions[event.key] ?? actions[event.key.toLowerCase()];
  if (!action || (state.view !== "graph" && event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  action();
}

/** Selects the next node of the graph's order, or the one before. */
function neighbour(report: Report, store: Store, by: number): void {
  const keys = [...report.graphAt(store.state.pass).keys()];
  const at = keys.indexOf(report.keyOf.get(store.state.node) ?? -1);
  const next = keys[Math.max(0, Math.min(keys.length - 1, at < 0 ? 0 : at + by))];
  if (next !== undefined) store.set({ node: report.data.keys[next]! });
}

const HELP: [string, string][] = [
  ["← →", "pass before, next pass that changed something (with shift: any)"],
  ["↑ ↓", "node before, next node"],
  ["/", "search; Enter goes to the next hit"],
  ["d", "diff, before, after, side by side"],
  ["c", "colour by the next measure"],
  ["m", "list of passes, tree of modules"],
  ["+ − 0", "zoom in, out, back to the top (or with Ctrl and the wheel)"],
  ["1 to 6", "views"],
  ["Esc", "clears search, module, node in turn"],
];

function Help({ close }: { close: () => void }) {
  return (
    <div class="help" role="dialog" aria-label="keyboard" onClick={close}>
      <dl>{HELP.map(([key, what]) => <><dt><kbd>{key}</kbd></dt><dd>{what}</dd></>)}</dl>
    </div>
  );
}

async function start(): Promise<void> {
  const root = document.getElementById("page")!;
  try {
    const report = await readReport(document.getElementById("report")!);
    render(<Page report={report} store={new Store(report.stages.length)} />, root);
    document.title = `${report.data.model.name}: graphopt`;
    document.body.dataset.ready = "yes";
  } catch (error) {
    root.textContent = `This page cannot be shown: ${String(error)}`;
    throw error;
  }
}

void start();
