// What is known of one node: what it is, why it is so, what it costs, what became of it, its code.

import { quantity } from "./colours";
import type { NodeForm, Report } from "./data";
import { short } from "./draw";
import type { Pane, State, Store } from "./state";

interface Props {
  report: Report;
  store: Store;
  state: State;
}

const PANES: [Pane, string][] = [
  ["node", "Node"],
  ["history", "Passes"],
  ["c", "C"],
  ["assembly", "Assembly"],
];

export function NodePane(props: Props) {
  const { report, store, state } = props;
  const key = report.keyOf.get(state.node);
  if (key === undefined) {
    return (
      <div class="node-pane empty">
        <p>Choose a node: click it, or search with <kbd>/</kbd>.</p>
        <Changes {...props} />
      </div>
    );
  }
  const stage = report.stages[state.pass]!;
  const after = report.graphAt(state.pass).get(key);
  const before = stage.before < 0 ? undefined : report.graphAt(stage.before).get(key);
  const row = after ?? before ?? lastRow(report, key, state.pass);
  const form = row === undefined ? null : report.form(row);
  return (
    <div class="node-pane">
      {form && <Head {...props} form={form} />}
      <div class="segments tabs" role="tablist">
        {PANES.map(([pane, title]) => (
          <button
            key={pane}
            role="tab"
            aria-selected={state.pane === pane}
            aria-pressed={state.pane === pane}
            onClick={() => store.set({ pane })}
          >
            {title}
          </button>
        ))}
      </div>
      {form && state.pane === "node" && <Sheet {...props} form={form} />}
      {state.pane === "history" && <History {...props} nodeKey={key} />}
      {state.pane === "c" && <Code {...props} nodeKey={key} />}
      {state.pane === "assembly" && <Assembly {...props} nodeKey={key} />}
    </div>
  );
}

/** The row of a key in the pass nearest to one in which it is not. */
function lastRow(report: Report, key: number, pass: number): number | undefined {
  for (let away = 1; away < report.stages.length; away++) {
    for (const at of [pass - away, pass + away]) {
      const row = report.stages[at] && report.graphAt(at).get(key);
      if (row !== undefined) return row;
    }
  }
  return undefined;
}

function Head({ report, store, state, form }: Props & { form: NodeForm }) {
  const status = report.status(state.pass, form.key);
  const present = report.graphAt(state.pass).has(form.key);
  const gone = !present && status !== "removed";
  return (
    <header>
      <h2>
        {short(form.op)} <small>{form.name}</small>
        <button class="close" aria-label="close" onClick={() => store.set({ node: "" })}>×</button>
      </h2>
      {status !== "same" && !gone && <span class={`chip ${status}`}>{status} by this pass</span>}
      {gone && <span class="chip">not in the graph after this pass</span>}
      {form.precision && <span class="chip">{form.precision}</span>}
      {form.kernel && <span class="chip">{form.kernel}</span>}
      {report.data.critical.includes(form.key) && (
        <span class="chip" title="no number of cores makes it shorter">critical path</span>
      )}
    </header>
  );
}

function Sheet({ report, store, state, form }: Props & { form: NodeForm }) {
  const readers = [...report.rowsAt(state.pass)]
    .map((row) => report.form(row))
    .filter((reader) => reader.inputs.some((input) => input.key === form.key));
  return (
    <div class="sheet">
      <dl>
        <dt>Result</dt>
        <dd><code>{form.type || "none"}</code></dd>
        {form.text && <><dt>Call</dt><dd><code>{form.text}</code></dd></>}
        {form.place && <><dt>Memory</dt><dd><code>{form.place}</code></dd></>}
        {form.module && (
          <>
            <dt>Module</dt>
            <dd>
              <button class="link" onClick={() => store.set({ module: form.module, side: "modules" })}>
                {form.module}
              </button>
            </dd>
          </>
        )}
        {form.source && (
          <>
            <dt>Source</dt>
            <dd>{form.source}{form.code && <pre>{form.code}</pre>}</dd>
          </>
        )}
      </dl>
      <Measured report={report} nodeKey={form.key} />
      {form.reasons.length > 0 && (
        <section>
          <h3>Why it is so</h3>
          <ul class="reasons">
            {form.reasons.map((reason) => {
              const [who, ...why] = reason.split(": ");
              return <li key={reason}><b>{why.length ? who : ""}</b> {why.join(": ") || who}</li>;
            })}
          </ul>
        </section>
      )}
      <Neighbours title="Reads" report={report} store={store} rows={form.inputs} />
      <Neighbours
        title="Read by"
        report={report}
        store={store}
        rows={readers.map((reader) => ({ role: "", key: reader.key, text: reader.type }))}
      />
      <Neighbours
        title="Made of"
        report={report}
        store={store}
        rows={form.came.map((key) => ({ role: "", key, text: report.data.keys[key]! }))}
      />
      {form.fused.length > 0 && (
        <section>
          <h3>Also does the work of</h3>
          <ul>{form.fused.map((module) => <li key={module}>{module}</li>)}</ul>
        </section>
      )}
    </div>
  );
}

function Measured({ report, nodeKey }: { report: Report; nodeKey: number }) {
  const rows = Object.entries(report.data.values).flatMap(([name, { title, unit }]) => {
    const value = report.values(name).get(nodeKey);
    return value === undefined ? [] : [{ name, title, text: quantity(value, unit) }];
  });
  const ms = report.values("time").get(nodeKey);
  const macs = report.values("macs").get(nodeKey);
  if (ms && macs) {
    rows.push({ name: "rate", title: "Rate", text: `${quantity(macs / ms / 1e6, "GMAC/s")}` });
  }
  if (!rows.length) return null;
  return (
    <div class="figures">
      {rows.map(({ name, title, text }) => (
        <div key={name}><span>{title}</span><b>{text}</b></div>
      ))}
    </div>
  );
}

interface NeighbourProps {
  title: string;
  report: Report;
  store: Store;
  rows: { role: string; key: number; text: string }[];
}

function Neighbours({ title, report, store, rows }: NeighbourProps) {
  if (!rows.length) return null;
  return (
    <section>
      <h3>{title}</h3>
      <ul class="neighbours">
        {rows.map(({ role, key, text }, i) => (
          <li key={i}>
            {role && <span class="role">{role}</span>}
            {key >= 0 ? (
              <button class="link" onClick={() => store.set({ node: report.data.keys[key]! })}>
                {nameOf(report, key)}
              </button>
            ) : null}
            <code>{text}</code>
          </li>
        ))}
      </ul>
    </section>
  );
}

function nameOf(report: Report, key: number): string {
  for (let stage = report.stages.length - 1; stage >= 0; stage--) {
    const row = report.graphAt(stage).get(key);
    if (row === undefined) continue;
    const form = report.form(row);
    return `${short(form.op)}${form.op === "input" ? ` ${form.name}` : ""}`;
  }
  return report.data.keys[key]!;
}

interface StepProps {
  report: Report;
  form: NodeForm | null;
  before: NodeForm | null;
}

function History({ report, store, state, nodeKey }: Props & { nodeKey: number }) {
  const steps = report.history(nodeKey, report.stages[state.pass]!.graph);
  return (
    <ol class="history">
      {steps.map(({ stage, form }, i) => (
        <li key={stage.index} class={stage.index === state.pass ? "chosen" : ""}>
          <button class="link" onClick={() => store.set({ pass: stage.index })}>
            {stage.index} {stage.pass}
          </button>
          <Step report={report} form={form} before={steps[i - 1]?.form ?? null} />
        </li>
      ))}
    </ol>
  );
}

function Step({ report, form, before }: StepProps) {
  if (!form) return <p class="removed">removed</p>;
  if (!before) return <p class="added"><code>{line(form)}</code></p>;
  const changes = (["op", "text", "type", "kernel", "module", "place"] as const).filter(
    (what) => form[what] !== before[what],
  );
  const why = form.reasons.filter((reason) => !before.reasons.includes(reason));
  return (
    <>
      {changes.map((what) => (
        <p key={what} class="changed">
          {before[what] && <del>{before[what]}</del>} {form[what] && <ins>{form[what]}</ins>}
        </p>
      ))}
      {!changes.length && !why.length && !form.came.length && <p class="changed">reads other values</p>}
      {form.came.length > 0 && (
        <p class="why">takes the work of {form.came.map((key) => report.data.keys[key]).join(", ")}</p>
      )}
      {why.map((reason) => <p key={reason} class="why">{reason}</p>)}
    </>
  );
}

function line(form: NodeForm): string {
  return `${form.text || form.op}: ${form.type}`;
}

function Code({ report, nodeKey }: Props & { nodeKey: number }) {
  const step = report.stepOf.get(nodeKey);
  if (step === undefined) {
    return <p class="quiet">{report.data.missing.c ?? "No code of its own: it is gone by the last pass, or only a view of other memory."}</p>;
  }
  const [, fn, call] = report.data.steps[step]!;
  return (
    <div class="code">
      <p>Step {step} of {report.data.steps.length}</p>
      <pre><C text={call} /></pre>
      <pre><C text={report.data.functions[fn]!} /></pre>
    </div>
  );
}

function Assembly({ report, nodeKey }: Props & { nodeKey: number }) {
  const { assembly, missing } = report.data;
  const row = report.graphAt(report.stages.length - 1).get(nodeKey);
  const kernel = row === undefined ? "" : report.form(row).kernel;
  if (!assembly[kernel]) {
    const why = missing.assembly ?? "No kernel of its own: a generated loop, a view, or gone.";
    return <p class="quiet">{why}</p>;
  }
  return (
    <div class="code">
      <p>{kernel}</p>
      <pre>{assembly[kernel]}</pre>
    </div>
  );
}

const WORDS =
  /(\/\*[\s\S]*?\*\/|\/\/[^\n]*)|\b(static|const|void|float|int|double|char|long|for|if|else|return|struct|size_t|while|restrict|inline|u?int\d+_t)\b|\b(\d[\w.]*)\b/g;

/** C with comments, words and numbers told apart. */
function C({ text }: { text: string }) {
  const parts: preact.ComponentChild[] = [];
  let last = 0;
  for (const match of text.matchAll(WORDS)) {
    parts.push(text.slice(last, match.index));
    const kind = match[1] ? "comment" : match[2] ? "word" : "number";
    parts.push(<span class={kind}>{match[0]}</span>);
    last = match.index + match[0].length;
  }
  return <>{parts}{text.slice(last)}</>;
}

/** The nodes that a pass touched, as a list to choose from. */
function Changes({ report, store, state }: Props) {
  const changes = report.changes(state.pass);
  if (!changes.length) return null;
  const stage = report.stages[state.pass]!;
  return (
    <section class="changes">
      <h3>What {stage.pass} did</h3>
      <ul>
        {changes.slice(0, 200).map(({ key, status }) => {
          const row = report.graphAt(status === "removed" ? stage.before : state.pass).get(key)!;
          const form = report.form(row);
          return (
            <li key={key} class={status}>
              <button class="link" onClick={() => store.set({ node: report.data.keys[key]! })}>
                {short(form.op)}
              </button>
              <span>{form.module}</span>
            </li>
          );
        })}
      </ul>
      {changes.length > 200 && <p class="quiet">and {changes.length - 200} more</p>}
    </section>
  );
}
