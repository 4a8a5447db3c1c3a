// The tree of the modules of the user's model.

import { useMemo, useState } from "preact/hooks";
import { quantity } from "./colours";
import type { Report } from "./data";
import type { State, Store } from "./state";

interface Branch {
  name: string;
  path: string;
  nodes: number;
  ms: number;
  parts: Map<string, Branch>;
}

function grow(report: Report, stage: number): Branch {
  const root: Branch = { name: "", path: "", nodes: 0, ms: 0, parts: new Map() };
  const times = report.values("time");
  for (const row of report.rowsAt(stage)) {
    const form = report.form(row);
    if (form.op === "input" || form.op === "output") continue;
    const ms = times.get(form.key) ?? 0;
    let branch = root;
    branch.nodes++;
    branch.ms += ms;
    for (const name of form.module ? form.module.split(".") : []) {
      const path = branch.path ? `${branch.path}.${name}` : name;
      let part = branch.parts.get(name);
      if (!part) branch.parts.set(name, (part = { name, path, nodes: 0, ms: 0, parts: new Map() }));
      part.nodes++;
      part.ms += ms;
      branch = part;
    }
  }
  return root;
}

interface Props {
  report: Report;
  store: Store;
  state: State;
}

export function ModuleTree({ report, store, state }: Props) {
  const root = useMemo(() => grow(report, state.pass), [report, state.pass]);
  const key = report.keyOf.get(state.node);
  const row = key === undefined ? undefined : report.graphAt(state.pass).get(key);
  const mine = row === undefined ? "" : report.form(row).module;
  return (
    <div class="modules" role="tree">
      {state.module && (
        <button class="clear" onClick={() => store.set({ module: "" })}>show all modules</button>
      )}
      {[...root.parts.values()].map((part) => (
        <Twig key={part.path} branch={part} root={root} mine={mine} store={store} state={state} depth={0} />
      ))}
      {root.parts.size === 0 && <p class="quiet">The nodes name no modules.</p>}
    </div>
  );
}

function within(path: string, module: string): boolean {
  return path === module || path.startsWith(`${module}.`);
}

interface TwigProps {
  branch: Branch;
  root: Branch;
  mine: string;
  store: Store;
  state: State;
  depth: number;
}

function Twig({ branch, root, mine, store, state, depth }: TwigProps) {
  const [toggled, toggle] = useState<boolean | null>(null);
  const chain = root.parts.size === 1 && depth === 0;
  const holds = within(mine, branch.path) || within(state.module, branch.path);
  const open = toggled ?? (holds || chain);
  const share = root.ms > 0 ? branch.ms / root.ms : 0;
  const classes = [
    "twig",
    state.module === branch.path ? "chosen" : "",
    mine === branch.path ? "mine" : "",
  ];
  return (
    <div role="treeitem" aria-expanded={branch.parts.size ? open : undefined}>
      <div class={classes.join(" ")} style={{ paddingLeft: `${6 + depth * 13}px` }}>
        <button
          class="fold"
          aria-label={open ? "close" : "open"}
          disabled={!branch.parts.size}
          onClick={() => toggle(!open)}
        >
          {branch.parts.size ? (open ? "▾" : "▸") : ""}
        </button>
        <button
          class="name"
          onClick={() => store.set({ module: state.module === branch.path ? "" : branch.path })}
        >
          {branch.name}
        </button>
        <span class="count">{root.ms > 0 ? quantity(branch.ms, "ms") : branch.nodes}</span>
        {share > 0.005 && <i class="bar" style={{ width: `${share * 100}%` }} />}
      </div>
      {open &&
        [...branch.parts.values()].map((part) => (
          <Twig key={part.path} branch={part} root={root} mine={mine} store={store} state={state} depth={depth + 1} />
        ))}
    </div>
  );
}
