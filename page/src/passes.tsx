// The passes in order, and a slider over them.

import { useEffect, useRef } from "preact/hooks";
import { quantity } from "./colours";
import type { Report, Stage } from "./data";
import type { State, Store } from "./state";

interface Props {
  report: Report;
  store: Store;
  state: State;
}

/** The pass that lies some passes on, of all or of those that changed something. */
export function stepped(report: Report, pass: number, by: number, changed: boolean): number {
  const way = Math.sign(by);
  for (let at = pass + way; at >= 0 && at < report.stages.length; at += way) {
    if (!changed || report.stages[at]!.changed) return at;
  }
  return pass;
}

export function Slider({ report, store, state }: Props) {
  const stage = report.stages[state.pass]!;
  const step = (by: number) => store.set({ pass: stepped(report, state.pass, by, true) });
  return (
    <div class="slider">
      <button onClick={() => step(-1)} aria-label="pass before that changed something">‹</button>
      <input
        type="range"
        min={0}
        max={report.stages.length - 1}
        value={state.pass}
        aria-label="pass"
        aria-valuetext={stage.pass}
        onInput={(event) => store.set({ pass: Number(event.currentTarget.value) })}
      />
      <button onClick={() => step(1)} aria-label="next pass that changed something">›</button>
    </div>
  );
}

export function PassList({ report, store, state }: Props) {
  const chosen = useRef<HTMLLIElement>(null);
  useEffect(() => chosen.current?.scrollIntoView({ block: "nearest" }), [state.pass]);
  const graphs = new Set(report.stages.map((stage) => stage.graph)).size;
  return (
    <ol class="passes">
      {report.stages.map((stage, i) => (
        <>
          {graphs > 1 && stage.graph !== report.stages[i - 1]?.graph && (
            <li class="part">{stage.graph}</li>
          )}
          <li
            key={i}
            ref={i === state.pass ? chosen : null}
            class={`${stage.changed ? "changed" : "idle"} ${i === state.pass ? "chosen" : ""}`}
          >
            <button onClick={() => store.set({ pass: i })} aria-current={i === state.pass}>
              <span class="number">{i}</span>
              <span class="pass">{stage.pass.split("_").flatMap((word, n) => (n ? ["_", <wbr />, word] : [word]))}</span>
              <span class="what">{describe(report, stage)}</span>
              <span class="time">{stage.ms > 0 ? quantity(stage.ms, "ms") : ""}</span>
              {stage.error && (
                <span class={stage.wrong ? "error removed" : "error"}>error {stage.error}</span>
              )}
            </button>
          </li>
        </>
      ))}
    </ol>
  );
}

/** The number of nodes, and by how many it changed. */
export function describe(report: Report, stage: Stage): string {
  if (stage.before < 0) return `${stage.count}`;
  const more = stage.count - report.stages[stage.before]!.count;
  if (!stage.changed) return "";
  if (more === 0) return `${stage.count}`;
  return `${stage.count} (${more > 0 ? "+" : "−"}${Math.abs(more)})`;
}

/** What a pass did, in one line above the graph. */
export function PassTitle({ report, store, state }: Props) {
  const stage = report.stages[state.pass]!;
  const counts = { added: 0, removed: 0, changed: 0, same: 0 };
  for (const { status } of report.changes(state.pass)) counts[status]++;
  return (
    <div class="pass-title">
      <b>{stage.pass}</b>
      <span class="counts">
        {stage.before < 0
          ? `${stage.count} nodes`
          : stage.changed
            ? (["added", "changed", "removed"] as const)
                .filter((status) => counts[status])
                .map((status) => (
                  <button
                    key={status}
                    class={status}
                    title={`show the next node that was ${status}`}
                    onClick={() => store.set({ node: next(report, state, status) })}
                  >
                    {counts[status]} {status}
                  </button>
                ))
            : "changed nothing"}
      </span>
      {stage.notes.map((note) => <span class="note" key={note}>{note}</span>)}
    </div>
  );
}

/** The node behind the selected one to which a pass did something. */
function next(report: Report, state: State, status: string): string {
  const keys = report.changes(state.pass).filter((one) => one.status === status);
  const at = keys.findIndex((one) => report.data.keys[one.key] === state.node);
  return report.data.keys[keys[(at + 1) % keys.length]!.key]!;
}
