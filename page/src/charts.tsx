// The other pictures: roofline, memory over the steps, threads over time, error by layer.

import { useState } from "preact/hooks";
import { quantity } from "./colours";
import type { Report } from "./data";
import { short } from "./draw";
import type { State, Store } from "./state";

interface Props {
  report: Report;
  store: Store;
  state: State;
}

const W = 960;
const H = 520;
const MARGIN = { left: 70, right: 20, top: 16, bottom: 44 };

function Nothing({ title, why }: { title: string; why: string | undefined }) {
  return (
    <main class="chart">
      <h2>{title}</h2>
      <p class="quiet">{why ?? "not measured"}</p>
    </main>
  );
}

/** Ticks of a logarithmic axis: powers of ten, with 2 and 5 of each if those are few. */
function powers(least: number, most: number): number[] {
  const steps = most / least > 1000 ? [1] : [1, 2, 5];
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.log10(most); power++) {
    ticks.push(...steps.map((step) => step * 10 ** power).filter((t) => t >= least && t <= most));
  }
  return ticks.map((tick) => Number(tick.toPrecision(1)));
}

function nodeName(report: Report, key: number): { op: string; module: string; kernel: string } {
  const row = report.graphAt(report.stages.length - 1).get(key);
  if (row === undefined) return { op: report.data.keys[key]!, module: "", kernel: "" };
  const form = report.form(row);
  return { op: short(form.op), module: form.module, kernel: form.kernel };
}

/** A chart, and below it the words for what is pointed at. */
function Chart({ title, note, children, said }: {
  title: string;
  note: string;
  children: preact.ComponentChildren;
  said: string;
}) {
  return (
    <main class="chart">
      <h2>{title}</h2>
      <p class="quiet">{note}</p>
      <div class="drawing">{children}</div>
      <p class="said" aria-live="polite">{said || "\u00a0"}</p>
    </main>
  );
}

/** From where the slope of the bandwidth enters the picture to its corner, and on to the right. */
function roofPath(
  roofs: { gmacs: number; gbytes: number },
  x0: number,
  y0: number,
  px: (x: number) => number,
  py: (y: number) => number,
): string {
  const left = Math.max(x0, y0 / roofs.gbytes);
  const corner = Math.max(left, roofs.gmacs / roofs.gbytes);
  const begins = Math.min(roofs.gmacs, left * roofs.gbytes);
  return `M${px(left)} ${py(begins)} L${px(corner)} ${py(roofs.gmacs)} H${W - MARGIN.right}`;
}

/** Each step that multiplies: its rate over its multiply-adds for each byte. */
export function Roofline({ report, store, state }: Props) {
  const [said, say] = useState("");
  const [time, macs, bytes] = ["time", "macs", "bytes"].map((name) => report.values(name)) as [
    Map<number, number>, Map<number, number>, Map<number, number>,
  ];
  const points = [...time]
    .map(([key, ms]) => ({ key, ms, macs: macs.get(key) ?? 0, bytes: bytes.get(key) ?? 0 }))
    .filter((one) => one.macs > 0 && one.bytes > 0 && one.ms > 0)
    .map((one) => ({ ...one, x: one.macs / one.bytes, y: one.macs / one.ms / 1e6 }));
  if (!points.length) return <Nothing title="Roofline" why={report.data.missing.roofline ?? report.data.missing.time} />;
  const { roofs } = report.data;
  const xs = points.map((one) => one.x);
  const ys = points.map((one) => one.y);
  const [x0, x1] = [Math.min(...xs) / 2, Math.max(...xs, roofs ? (2 * roofs.gmacs) / roofs.gbytes : 0) * 2];
  const [y0, y1] = [Math.min(...ys) / 2, Math.max(...ys, roofs?.gmacs ?? 0) * 2];
  const log = (value: number, least: number, most: number) =>
    Math.log(value / least) / Math.log(most / least);
  const px = (x: number) => MARGIN.left + log(x, x0, x1) * (W - MARGIN.left - MARGIN.right);
  const py = (y: number) => H - MARGIN.bottom - log(y, y0, y1) * (H - MARGIN.top - MARGIN.bottom);
  const total = points.reduce((sum, one) => sum + one.ms, 0);
  const note = roofs
    ? roofs.note
    : `The size of a point is its time. ${report.data.missing.roofs ?? ""}`;
  return (
    <Chart title="Roofline" note={note} said={said}>
      <svg viewBox={`0 0 ${W} ${H}`} role="img" aria-label="roofline">
        {powers(x0, x1).map((x) => (
          <g key={`x${x}`}>
            <line class="grid" x1={px(x)} x2={px(x)} y1={MARGIN.top} y2={H - MARGIN.bottom} />
            <text x={px(x)} y={H - MARGIN.bottom + 18} text-anchor="middle">{x}</text>
          </g>
        ))}
        {powers(y0, y1).map((y) => (
          <g key={`y${y}`}>
            <line class="grid" x1={MARGIN.left} x2={W - MARGIN.right} y1={py(y)} y2={py(y)} />
            <text x={MARGIN.left - 8} y={py(y) + 4} text-anchor="end">{y}</text>
          </g>
        ))}
        <text x={W / 2} y={H - 6} text-anchor="middle">multiply-adds for each byte</text>
        <text transform={`translate(16 ${H / 2}) rotate(-90)`} text-anchor="middle">GMAC/s</text>
        {roofs && (
          <path
            class="roof"
            d={roofPath(roofs, x0, y0, px, py)}
          />
        )}
        {points.map(({ key, ms, x, y }) => {
          const { op, module, kernel } = nodeName(report, key);
          const words = `${op} ${module} ${kernel}: ${y.toFixed(1)} GMAC/s at ${x.toFixed(2)} multiply-adds for each byte, ${quantity(ms, "ms")}, ${((100 * ms) / total).toFixed(1)} %`;
          return (
            <circle
              key={key}
              class={report.data.keys[key] === state.node ? "dot chosen" : "dot"}
              cx={px(x)}
              cy={py(y)}
              r={Math.max(3, Math.sqrt(ms / total) * 46)}
              onPointerEnter={() => say(words)}
              onClick={() => open(report, store, key)}
            />
          );
        })}
      </svg>
    </Chart>
  );
}

function open(report: Report, store: Store, key: number): void {
  store.set({ view: "graph", pass: report.stages.length - 1, node: report.data.keys[key]! });
}

/** The arena: which value lies where, from the step that makes it to the last that reads it. */
export function MemoryPlan({ report, store, state }: Props) {
  const [said, say] = useState("");
  const { memory } = report.data;
  if (!memory) return <Nothing title="Memory" why={report.data.missing.memory} />;
  const steps = Math.max(1, ...memory.lives.map((life) => life[5] + 1));
  const px = (step: number) => MARGIN.left + (step / steps) * (W - MARGIN.left - MARGIN.right);
  const py = (at: number) => H - MARGIN.bottom - (at / memory.arena) * (H - MARGIN.top - MARGIN.bottom);
  const shared = quantity(memory.unshared, "B");
  const note = `${quantity(memory.arena, "B")} of memory for what would take ${shared} unshared, at the sizes of the example. Brown is what a kernel needs while it runs.`;
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => share * memory.arena);
  return (
    <Chart title="Memory" note={note} said={said}>
      <svg viewBox={`0 0 ${W} ${H}`} role="img" aria-label="memory over the steps">
        {ticks.map((at) => (
          <g key={at}>
            <line class="grid" x1={MARGIN.left} x2={W - MARGIN.right} y1={py(at)} y2={py(at)} />
            <text x={MARGIN.left - 6} y={py(at) + 4} text-anchor="end">{quantity(Math.round(at), "B")}</text>
          </g>
        ))}
        <text x={W / 2} y={H - 8} text-anchor="middle">nodes of the last graph, in order</text>
        {memory.lives.map(([key, text, offset, bytes, first, last], i) => (
          <rect
            key={i}
            class={report.data.keys[key] === state.node ? "life chosen" : key < 0 ? "life scratch" : "life"}
            x={px(first)}
            width={Math.max(0.7, px(last + 1) - px(first))}
            y={py(offset + bytes)}
            height={Math.max(0.7, py(offset) - py(offset + bytes))}
            onPointerEnter={() => say(`${text}: ${quantity(bytes, "B")} from node ${first} to ${last}`)}
            onClick={() => key >= 0 && open(report, store, key)}
          />
        ))}
      </svg>
    </Chart>
  );
}

/** What each thread did when. */
export function Timeline({ report, store, state }: Props) {
  const [said, say] = useState("");
  const { timeline } = report.data;
  if (!timeline?.length) return <Nothing title="Timeline" why={report.data.missing.timeline} />;
  const threads = Math.max(...timeline.map((one) => one[0])) + 1;
  const end = Math.max(...timeline.map((one) => one[2] + one[3]));
  const row = Math.min(60, (H - MARGIN.top - MARGIN.bottom) / threads);
  const px = (at: number) => MARGIN.left + (at / end) * (W - MARGIN.left - MARGIN.right);
  const height = MARGIN.top + row * threads + MARGIN.bottom;
  return (
    <Chart title="Timeline" note="The fastest of the runs that were timed." said={said}>
      <svg viewBox={`0 0 ${W} ${height}`} role="img" aria-label="threads over time">
        {Array.from({ length: threads }, (_, i) => (
          <text key={i} x={MARGIN.left - 8} y={MARGIN.top + row * (i + 0.5) + 4} text-anchor="end">
            thread {i}
          </text>
        ))}
        {[0, 0.25, 0.5, 0.75, 1].map((share) => (
          <text key={share} x={px(share * end)} y={height - 22} text-anchor={share < 1 ? "middle" : "end"}>
            {quantity((share * end) / 1000, "ms")}
          </text>
        ))}
        {timeline.map(([thread, key, start, length], i) => (
          <rect
            key={i}
            class={report.data.keys[key] === state.node ? "life chosen" : "life"}
            x={px(start)}
            width={Math.max(0.5, px(start + length) - px(start))}
            y={MARGIN.top + row * thread + 2}
            height={row - 4}
            onPointerEnter={() => {
              const { op, module } = nodeName(report, key);
              say(`${op} ${module}: ${quantity(length / 1000, "ms")}`);
            }}
            onClick={() => open(report, store, key)}
          />
        ))}
      </svg>
    </Chart>
  );
}

/** The error at the output of each node, in the order of the graph. */
export function Accuracy({ report, store, state }: Props) {
  const [said, say] = useState("");
  const { accuracy } = report.data;
  if (!accuracy?.length) return <Nothing title="Accuracy" why={report.data.missing.accuracy} />;
  const most = Math.max(...accuracy.map((one) => one[1]), 10);
  const wide = (W - MARGIN.left - MARGIN.right) / accuracy.length;
  const py = (db: number) => H - MARGIN.bottom - (Math.max(0, db) / most) * (H - MARGIN.top - MARGIN.bottom);
  const note = "Signal to quantization noise at the output of each node against the graph in fp32, in dB: the higher the better.";
  return (
    <Chart title="Accuracy" note={note} said={said}>
      <svg viewBox={`0 0 ${W} ${H}`} role="img" aria-label="error by layer">
        {[0, 0.25, 0.5, 0.75, 1].map((share) => (
          <g key={share}>
            <line class="grid" x1={MARGIN.left} x2={W - MARGIN.right} y1={py(share * most)} y2={py(share * most)} />
            <text x={MARGIN.left - 8} y={py(share * most) + 4} text-anchor="end">{(share * most).toFixed(0)} dB</text>
          </g>
        ))}
        {accuracy.map(([key, sqnr, max], i) => (
          <rect
            key={key}
            class={report.data.keys[key] === state.node ? "life chosen" : "life"}
            x={MARGIN.left + i * wide}
            width={Math.max(0.7, wide - 0.5)}
            y={py(sqnr)}
            height={Math.max(1, H - MARGIN.bottom - py(sqnr))}
            onPointerEnter={() => {
              const { op, module } = nodeName(report, key);
              say(`${op} ${module}: ${sqnr.toFixed(1)} dB, at most ${max.toPrecision(3)} off`);
            }}
            onClick={() => open(report, store, key)}
          />
        ))}
      </svg>
    </Chart>
  );
}
