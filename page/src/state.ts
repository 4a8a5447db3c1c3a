// What is shown, as the address says it: `#view=graph&pass=12&node=...`.

export type View = "summary" | "graph" | "roofline" | "memory" | "timeline" | "accuracy";
export type Mode = "diff" | "before" | "after" | "split";
export type Pane = "node" | "history" | "c" | "assembly";

export interface State {
  view: View;
  pass: number;
  node: string;
  mode: Mode;
  overlay: string;
  pane: Pane;
  side: "passes" | "modules";
  module: string;
  find: string;
}

const INITIAL: State = {
  view: "summary",
  pass: 0,
  node: "",
  mode: "diff",
  overlay: "",
  pane: "node",
  side: "passes",
  module: "",
  find: "",
};

/** The state that an address means; what it leaves out is as at the start. */
export function parse(hash: string): State {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const state: Record<string, string | number> = { ...INITIAL };
  for (const [name, value] of given) {
    if (name === "pass") state.pass = Math.max(0, parseInt(value, 10) || 0);
    else if (name in INITIAL) state[name] = value;
  }
  if (given.has("pass") && !given.has("view")) state.view = "graph";
  return state as unknown as State;
}

/** The address of a state, without what is as at the start. */
export function format(state: State): string {
  const said = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    const initial = INITIAL[name as keyof State];
    if (value !== initial || (name === "pass" && state.view === "graph")) said.set(name, `${value}`);
  }
  return `#${said}`;
}

/** Holds the state, tells who listens, and keeps the address in step. */
export class Store {
  private listeners = new Set<() => void>();
  state: State;

  constructor(private readonly passes: number) {
    this.state = this.bounded(parse(location.hash));
    addEventListener("hashchange", () => this.take(this.bounded(parse(location.hash))));
  }

  /** Changes some of the state; a change of view is a step of the browser's history. */
  set(change: Partial<State>): void {
    const next = this.bounded({ ...this.state, ...change });
    const step = next.view !== this.state.view;
    this.take(next);
    if (step) history.pushState(null, "", format(next));
    else history.replaceState(null, "", format(next));
  }

  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  private bounded(state: State): State {
    return { ...state, pass: Math.min(state.pass, this.passes - 1) };
  }

  private take(next: State): void {
    this.state = next;
    for (const listener of this.listeners) listener();
  }
}
