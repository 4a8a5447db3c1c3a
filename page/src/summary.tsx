// The first page: what came of the model, and what each pass did.

import { quantity } from "./colours";
import type { Report } from "./data";
import { short } from "./draw";
import { describe } from "./passes";
import type { Store } from "./state";

export function Summary({ report, store }: { report: Report; store: Store }) {
  const { model, facts, missing } = report.data;
  return (
    <main class="summary">
      <h1>{model.name}</h1>
      <p class="quiet">
        {model.precision} for {model.target} ({model.levels.join(", ")}), graphopt {model.version}
      </p>
      <div class="facts">
        {facts.map((fact) => (
          <div key={fact.label} class={fact.value ? "" : "unknown"}>
            <span>{fact.label}</span>
            <b>{fact.value || "not measured"}</b>
            <small>{fact.note}</small>
          </div>
        ))}
      </div>
      {model.checks.length > 0 && <p class="checks">{model.checks.join("; ")}</p>}
      <div class="columns">
        <Passes report={report} store={store} />
        <div>
          <Costly report={report} store={store} />
          <Kinds report={report} store={store} />
        </div>
      </div>
      {Object.keys(missing).length > 0 && (
        <section class="missing">
          <h2>Not in this page</h2>
          <dl>
            {Object.entries(missing).map(([what, why]) => (
              <><dt>{what}</dt><dd>{why}</dd></>
            ))}
          </dl>
        </section>
      )}
    </main>
  );
}

function Passes({ report, store }: { report: Report; store: Store }) {
  const changed = report.stages.filter((stage) => stage.changed || stage.before < 0);
  const errors = changed.some((stage) => stage.error);
  return (
    <section>
      <h2>{changed.length} of {report.stages.length} passes changed something</h2>
      <table>
        <thead>
          <tr><th>pass</th><th>nodes</th><th>time</th>{errors && <th>error</th>}</tr>
        </thead>
        <tbody>
          {changed.map((stage) => (
            <tr key={stage.index} onClick={() => store.set({ view: "graph", pass: stage.index })}>
              <td><a href={`#view=graph&pass=${stage.index}`}>{stage.pass}</a></td>
              <td>{describe(report, stage)}</td>
              <td>{stage.ms > 0 ? quantity(stage.ms, "ms") : ""}</td>
              {errors && <td class={stage.wrong ? "removed" : ""}>{stage.error}</td>}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

/** The steps that take longest, or work most where no time was measured. */
function Costly({ report, store }: { report: Report; store: Store }) {
  const name = report.data.values.time ? "time" : "macs";
  const given = report.data.values[name];
  if (!given) return null;
  const last = report.stages.length - 1;
  const total = given.values.reduce((sum, value) => sum + value, 0);
  const rows = given.keys
    .map((key, i) => ({ key, value: given.values[i]! }))
    .sort((a, b) => b.value - a.value)
    .slice(0, 12)
    .filter(({ value }) => value > 0);
  return (
    <section>
      <h2>{name === "time" ? "Slowest steps" : "Steps with most multiply-adds"}</h2>
      <table class="bars">
        <tbody>
          {rows.map(({ key, value }) => {
            const row = report.graphAt(last).get(key);
            const form = row === undefined ? null : report.form(row);
            const node = report.data.keys[key]!;
            return (
              <tr key={key} onClick={() => store.set({ view: "graph", pass: last, node, overlay: name })}>
                <td>
                  <a href={`#view=graph&pass=${last}&node=${encodeURIComponent(node)}&overlay=${name}`}>
                    {form ? short(form.op) : node}
                  </a>
                  <small>{form?.module}</small>
                </td>
                <td>{quantity(value, given.unit)}</td>
                <td class="bar">
                  <i style={{ width: `${(100 * value) / rows[0]!.value}%` }} />
                  {((100 * value) / total).toFixed(1)} %
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </section>
  );
}

/** How many nodes of the last graph have each op, precision and kernel. */
function Kinds({ report, store }: { report: Report; store: Store }) {
  const last = report.stages.length - 1;
  const counts = new Map<string, { op: string; precision: string; kernel: string; count: number }>();
  for (const row of report.rowsAt(last)) {
    const { op, precision, kernel } = report.form(row);
    if (op === "input" || op === "output" || kernel === "view") continue;
    const name = [op, precision, kernel].join(" ");
    const kind = counts.get(name) ?? { op, precision, kernel, count: 0 };
    kind.count++;
    counts.set(name, kind);
  }
  const rows = [...counts.values()].sort((a, b) => b.count - a.count);
  return (
    <section>
      <h2>Kernels</h2>
      <table>
        <thead>
          <tr><th>op</th><th>numbers</th><th>kernel</th><th>nodes</th></tr>
        </thead>
        <tbody>
          {rows.map((kind) => (
            <tr
              key={`${kind.op} ${kind.precision} ${kind.kernel}`}
              onClick={() => store.set({ view: "graph", pass: last, find: `${kind.op} ${kind.kernel}` })}
            >
              <td>{short(kind.op)}</td>
              <td>{kind.precision}</td>
              <td>{kind.kernel.replace(/^go_/, "")}</td>
              <td>{kind.count}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
