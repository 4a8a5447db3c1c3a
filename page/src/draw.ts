// Draws a scene, or a strip with all of it, on a canvas: only what is seen, and no more of it than
// can be read at its size.

import type { Colouring, Theme } from "./colours";
import type { Report, Status } from "./data";
import { LONGEST, NODE, PITCH, type Scene } from "./scene";

export interface Camera {
  x: number;
  y: number;
  zoom: number;
}

export interface Look {
  theme: Theme;
  colours: Colouring;
  selected: number;
  hovered: number;
  module: string;
  found: Set<number> | null;
}

const SIGNS: Record<Status, string> = { same: "", added: "+", removed: "−", changed: "~" };

export function draw(
  context: CanvasRenderingContext2D,
  scene: Scene,
  camera: Camera,
  width: number,
  height: number,
  look: Look,
): void {
  const { theme } = look;
  const { zoom } = camera;
  const ratio = devicePixelRatio;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = theme.page as string;
  context.fillRect(0, 0, width, height);
  context.setTransform(
    ratio * zoom, 0, 0, ratio * zoom,
    ratio * (width / 2 - camera.x * zoom), ratio * (height / 2 - camera.y * zoom),
  );
  const half = height / 2 / zoom;
  const first = Math.max(0, scene.rowAt(camera.y - half) - 1);
  const last = Math.min(scene.starts.length - 2, scene.rowAt(camera.y + half) + 1);
  bands(context, scene, camera, width, first, last, theme);
  labels(context, scene, camera, height, first, last, theme);
  if (zoom > 0.06) edges(context, scene, first, last, zoom, theme);
  const side = width / 2 / zoom + NODE.width;
  for (let i = scene.starts[first]!; i < scene.starts[last + 1]!; i++) {
    if (Math.abs(scene.x[i]! - camera.x) < side) node(context, scene, i, zoom, look);
  }
  for (const at of [look.hovered, look.selected]) if (at >= 0) ways(context, scene, at, zoom, look);
}

/** The module of a row of the layout: that of its first node that has one. */
function moduleOf(scene: Scene, row: number): string {
  const { nodes, strings } = scene.report.data;
  for (let i = scene.starts[row]!; i < scene.starts[row + 1]!; i++) {
    const module = strings[nodes.module[scene.rows[i]!]!]!;
    if (module) return module;
  }
  return "";
}

/** The part of a model that a band stands for: the path down to the number of a block. */
export function block(module: string): string {
  const found = /^(?:[^.\d][^.]*\.)*\d+/.exec(module);
  return found ? found[0] : (module.split(".").slice(0, 2).join("."));
}

function bands(
  context: CanvasRenderingContext2D,
  scene: Scene,
  camera: Camera,
  width: number,
  first: number,
  last: number,
  theme: Theme,
): void {
  const left = camera.x - width / 2 / camera.zoom;
  context.fillStyle = theme.band as string;
  runs(scene, first, last, (name, from, to, odd) => {
    if (!odd || !name) return;
    const top = (from - 0.5) * PITCH.y;
    context.fillRect(left, top, width / camera.zoom, (to - from + 1) * PITCH.y);
  });
}

/** Calls `take` for each run of rows of one block; `odd` of every other one. */
function runs(
  scene: Scene,
  first: number,
  last: number,
  take: (name: string, from: number, to: number, odd: boolean) => void,
): void {
  const blocks = blocksOf(scene);
  let from = first;
  for (let row = first; row <= last; row++) {
    if (row < last && blocks.number[row + 1] === blocks.number[row]) continue;
    take(blocks.names[blocks.number[row]!]!, from, row, blocks.number[row]! % 2 === 1);
    from = row + 1;
  }
}

interface Blocks {
  /** For each row the number of its run. */
  number: Int32Array;
  names: string[];
}

const known = new WeakMap<Scene, Blocks>();

function blocksOf(scene: Scene): Blocks {
  let blocks = known.get(scene);
  if (blocks) return blocks;
  const number = new Int32Array(scene.starts.length);
  const names: string[] = [];
  for (let row = 0; row < scene.starts.length - 1; row++) {
    const name = block(moduleOf(scene, row)) || names.at(-1) || "";
    if (name !== names.at(-1)) names.push(name);
    number[row] = names.length - 1;
  }
  blocks = { number, names };
  known.set(scene, blocks);
  return blocks;
}

/** Names of blocks at the left, the one at the top staying in sight. */
function labels(
  context: CanvasRenderingContext2D,
  scene: Scene,
  camera: Camera,
  height: number,
  first: number,
  last: number,
  theme: Theme,
): void {
  const ratio = devicePixelRatio;
  context.save();
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "top";
  const screen = (row: number) => (row * PITCH.y - camera.y) * camera.zoom + height / 2;
  let free = 0;
  runs(scene, first, last, (name, from, to) => {
    const top = Math.max(8, screen(from - 0.5) + 6, free);
    if (!name || top + 14 > Math.max(screen(to + 0.5), 24) || top > height) return;
    const text = name.length > 40 ? `…${name.slice(-39)}` : name;
    const room = context.measureText(text).width + 10;
    context.fillStyle = theme.page as string;
    context.globalAlpha = 0.8;
    context.fillRect(6, top - 3, room, 18);
    context.globalAlpha = 1;
    context.fillStyle = theme.soft as string;
    context.fillText(text, 11, top);
    free = top + 18;
  });
  context.restore();
}

function edges(
  context: CanvasRenderingContext2D,
  scene: Scene,
  first: number,
  last: number,
  zoom: number,
  theme: Theme,
): void {
  context.lineWidth = Math.max(1.2, 0.7 / zoom);
  context.strokeStyle = theme.edge as string;
  context.beginPath();
  const end = Math.min(last + 3, scene.starts.length - 2);
  for (let i = scene.starts[first]!; i < scene.starts[end + 1]!; i++) {
    for (const [from, to] of scene.near[i]!) curve(context, scene, from, to);
  }
  // The first lane that can reach what is seen.
  let low = 0;
  let high = scene.lanes.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (scene.lanes[middle]!.first < first - LONGEST) low = middle + 1;
    else high = middle;
  }
  for (; low < scene.lanes.length && scene.lanes[low]!.first <= last; low++) {
    const lane = scene.lanes[low]!;
    if (lane.last >= first) around(context, scene, lane.from, lane.to, lane.x);
  }
  context.stroke();
}

function curve(context: CanvasRenderingContext2D, scene: Scene, from: number, to: number): void {
  const [x0, x1] = [scene.x[from]!, scene.x[to]!];
  const [y0, y1] = [scene.y[from]! + NODE.height / 2, scene.y[to]! - NODE.height / 2];
  context.moveTo(x0, y0);
  if (x0 === x1) context.lineTo(x1, y1);
  else context.bezierCurveTo(x0, y0 + PITCH.y / 3, x1, y1 - PITCH.y / 3, x1, y1);
}

function around(
  context: CanvasRenderingContext2D,
  scene: Scene,
  from: number,
  to: number,
  x: number,
): void {
  const [x0, x1] = [scene.x[from]! + NODE.width / 4, scene.x[to]! + NODE.width / 4];
  const [y0, y1] = [scene.y[from]! + NODE.height / 2, scene.y[to]! - NODE.height / 2];
  const bend = PITCH.y * 0.36;
  const down = y1 >= y0 ? bend : -bend;
  context.moveTo(x0, y0);
  context.bezierCurveTo(x0, y0 + bend / 2, x, y0, x, y0 + down);
  context.lineTo(x, y1 - down);
  context.bezierCurveTo(x, y1, x1, y1 - bend / 2, x1, y1);
}

/** All lines of one node, over everything. */
function ways(
  context: CanvasRenderingContext2D,
  scene: Scene,
  at: number,
  zoom: number,
  look: Look,
): void {
  context.strokeStyle = look.theme.accent as string;
  context.lineWidth = Math.max(2, 1.2 / zoom);
  context.globalAlpha = at === look.selected ? 0.9 : 0.45;
  context.beginPath();
  for (const from of scene.operands[at]!) way(context, scene, from, at);
  for (const to of scene.readers[at]!) way(context, scene, at, to);
  context.stroke();
  context.globalAlpha = 1;
  for (const near of [at, ...scene.operands[at]!, ...scene.readers[at]!]) {
    node(context, scene, near, zoom, look);
    outline(context, scene, near, near === at ? 2.5 : 1.2, zoom, look.theme.accent as string);
  }
}

function way(context: CanvasRenderingContext2D, scene: Scene, from: number, to: number): void {
  if (scene.near[to]!.some(([maker]) => maker === from)) curve(context, scene, from, to);
  else {
    const lane = scene.lanes.find((one) => one.from === from && one.to === to);
    const beside = Math.max(scene.x[from]!, scene.x[to]!) + NODE.width / 2 + 30;
    around(context, scene, from, to, lane ? lane.x : beside);
  }
}

function outline(
  context: CanvasRenderingContext2D,
  scene: Scene,
  at: number,
  line: number,
  zoom: number,
  colour: string,
): void {
  context.strokeStyle = colour;
  context.lineWidth = line / Math.min(zoom, 1);
  box(context, scene, at);
  context.stroke();
}

function box(context: CanvasRenderingContext2D, scene: Scene, at: number): void {
  const end = isEnd(scene.report, scene.rows[at]!);
  const [x, y] = [scene.x[at]! - NODE.width / 2, scene.y[at]! - NODE.height / 2];
  context.beginPath();
  context.roundRect(x, y, NODE.width, NODE.height, end ? NODE.height / 2 : 7);
}

/** Whether a row is an input or the output of the graph. */
function isEnd(report: Report, row: number): boolean {
  const op = report.op(row);
  return op === "input" || op === "output";
}

function node(
  context: CanvasRenderingContext2D,
  scene: Scene,
  at: number,
  zoom: number,
  look: Look,
): void {
  const { theme, colours } = look;
  const { report } = scene;
  const [row, key, status] = [scene.rows[at]!, scene.keys[at]!, scene.status[at]!];
  const fill = colours.fill(row, key);
  const x = scene.x[at]! - NODE.width / 2;
  const y = scene.y[at]! - NODE.height / 2;
  const dim = isDim(report, row, key, look);
  context.globalAlpha = dim ? 0.25 : status === "removed" ? 0.75 : 1;
  const mark = status === "same" ? "" : (theme[status] as string);
  if (zoom < 0.2) {
    context.fillStyle = fill || (colours.legend.length ? "" : mark) || (theme.faint as string);
    context.fillRect(x, y, NODE.width, NODE.height);
    context.globalAlpha = 1;
    return;
  }
  box(context, scene, at);
  context.fillStyle = fill || (status === "removed" ? (theme.page as string) : (theme.node as string));
  context.fill();
  const line = colours.legend.length ? "" : mark;
  context.strokeStyle = line || (theme.line as string);
  context.lineWidth = line ? 1.6 : 1;
  if (status === "removed") context.setLineDash([5, 4]);
  context.stroke();
  context.setLineDash([]);
  if (mark) {
    context.fillStyle = mark;
    context.beginPath();
    context.roundRect(x, y, 14, NODE.height, [7, 0, 0, 7]);
    context.fill();
  }
  if (zoom > 0.34) inside(context, scene, at, zoom, fill, mark, look);
  context.globalAlpha = 1;
}

function inside(
  context: CanvasRenderingContext2D,
  scene: Scene,
  at: number,
  zoom: number,
  fill: string,
  mark: string,
  look: Look,
): void {
  const form = scene.report.form(scene.rows[at]!);
  const x = scene.x[at]! - NODE.width / 2;
  const y = scene.y[at]!;
  const ink = fill ? look.colours.ink(form.row, form.key) : (look.theme.text as string);
  const left = x + (mark ? 24 : 11);
  const room = NODE.width - (mark ? 34 : 20);
  context.textBaseline = "middle";
  if (mark) {
    context.fillStyle = look.theme.page as string;
    context.font = "bold 13px system-ui, sans-serif";
    context.fillText(SIGNS[scene.status[at]!], x + 3, y);
  }
  context.fillStyle = ink;
  context.font = "600 12.5px system-ui, sans-serif";
  const title = isEnd(scene.report, form.row) && form.name ? `${form.op} ${form.name}` : short(form.op);
  context.fillText(fit(title, room, 6.9), left, zoom > 0.5 ? y - 8 : y);
  if (zoom <= 0.5) return;
  context.globalAlpha *= 0.72;
  context.font = "10.5px ui-monospace, SFMono-Regular, Menlo, monospace";
  context.fillText(fit(form.type, room, 6.4), left, y + 9);
}

/** An op without the namespace that most have. */
export function short(op: string): string {
  return op.replace(/^go\./, "");
}

function fit(text: string, room: number, letter: number): string {
  const most = Math.floor(room / letter);
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** Whether a node is not what is looked for: found, or of the module that is chosen. */
function isDim(report: Report, row: number, key: number, look: Look): boolean {
  if (look.found && !look.found.has(key)) return true;
  if (!look.module) return false;
  const { nodes, strings } = report.data;
  const module = strings[nodes.module[row]!]!;
  return module !== look.module && !module.startsWith(`${look.module}.`);
}

/** All of a scene in a strip beside it. */
export function drawStrip(
  context: CanvasRenderingContext2D,
  scene: Scene,
  width: number,
  height: number,
  look: Look,
): void {
  const ratio = devicePixelRatio;
  const { theme, colours } = look;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const depth = Math.max(1, scene.starts.length - 1);
  const thick = Math.max(1, Math.min(6, (height / depth) * 0.8));
  const { left, right } = scene.bounds;
  const long = Math.max(5, Math.min(18, (width / (right - left)) * NODE.width));
  const ranks: [string, number[]][] = [["", []], ["found", []]];
  for (let i = 0; i < scene.keys.length; i++) {
    const [row, key] = [scene.rows[i]!, scene.keys[i]!];
    const status = scene.status[i]!;
    const special = (status !== "same" && !colours.legend.length) || look.found?.has(key) || (colours.fill(row, key) && !look.found);
    ranks[special ? 1 : 0]![1].push(i);
  }
  for (const [, places] of ranks) {
    for (const i of places) {
      const [row, key] = [scene.rows[i]!, scene.keys[i]!];
      const status = scene.status[i]!;
      const mark = status === "same" || colours.legend.length ? "" : (theme[status] as string);
      context.globalAlpha = isDim(scene.report, row, key, look) ? 0.2 : 1;
      context.fillStyle = look.found?.has(key)
        ? (theme.accent as string)
        : colours.fill(row, key) || mark || (theme.faint as string);
      const x = ((scene.x[i]! - left) / (right - left)) * width - long / 2;
      context.fillRect(x, (scene.y[i]! / PITCH.y / depth) * height, long, thick);
    }
  }
  context.globalAlpha = 1;
}
