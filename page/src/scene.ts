// Where the nodes of one picture are, and the ways of the lines between them.

import type { Report, Status } from "./data";
import type { Mode } from "./state";

export const NODE = { width: 196, height: 42 };
export const PITCH = { x: 228, y: 66 };
/** Lines over more rows than this are drawn only where one end is selected. */
export const LONGEST = 60;

export interface Lane {
  from: number;
  to: number;
  first: number;
  last: number;
  x: number;
}

/** Nodes of one picture by number, sorted by row and place in it. */
export class Scene {
  readonly keys: Int32Array;
  readonly rows: Int32Array;
  readonly x: Float32Array;
  readonly y: Float32Array;
  readonly status: Status[];
  readonly at = new Map<number, number>();
  /** For each row of the layout the number of its first node. */
  readonly starts: Int32Array;
  readonly near: [from: number, to: number][][] = [];
  readonly lanes: Lane[] = [];
  readonly far: [from: number, to: number][] = [];
  readonly readers: number[][];
  readonly operands: number[][];
  readonly bounds: { left: number; right: number; height: number };

  constructor(
    readonly report: Report,
    readonly stage: number,
    mode: Exclude<Mode, "split">,
  ) {
    const { before } = report.stages[stage]!;
    const layout = report.layoutOf(stage);
    const after = report.graphAt(stage);
    const was = before < 0 ? after : report.graphAt(before);
    const shown: { key: number; row: number; x: number; y: number; status: Status }[] = [];
    layout.keys.forEach((key, i) => {
      const now = after.get(key);
      const then = was.get(key);
      const row = mode === "before" ? then : (now ?? (mode === "diff" ? then : undefined));
      if (row === undefined) return;
      const status = report.status(stage, key);
      shown.push({ key, row, x: layout.x[i]! / 2, y: layout.y[i]!, status });
    });
    shown.sort((a, b) => a.y - b.y || a.x - b.x);
    const count = shown.length;
    this.keys = Int32Array.from(shown, (one) => one.key);
    this.rows = Int32Array.from(shown, (one) => one.row);
    this.x = Float32Array.from(shown, (one) => one.x * PITCH.x);
    this.y = Float32Array.from(shown, (one) => one.y * PITCH.y);
    this.status = shown.map((one) => one.status);
    const depth = layout.y.reduce((most, y) => Math.max(most, y), 0) + 1;
    this.starts = new Int32Array(depth + 1).fill(count);
    for (let i = count - 1; i >= 0; i--) {
      this.at.set(this.keys[i]!, i);
      this.starts[shown[i]!.y] = i;
    }
    for (let row = depth - 1; row >= 0; row--) {
      this.starts[row] = Math.min(this.starts[row]!, this.starts[row + 1]!);
    }
    this.readers = Array.from({ length: count }, () => []);
    this.operands = Array.from({ length: count }, () => []);
    this.bounds = {
      left: this.x.reduce((least, x) => Math.min(least, x), 0) - PITCH.x,
      right: this.x.reduce((most, x) => Math.max(most, x), 0) + PITCH.x,
      height: depth * PITCH.y,
    };
    this.connect(mode, was);
  }

  /** The row of the layout that a height belongs to. */
  rowAt(y: number): number {
    return Math.max(0, Math.min(this.starts.length - 2, Math.round(y / PITCH.y)));
  }

  /** The node at a place, or -1. */
  hit(x: number, y: number): number {
    const row = this.rowAt(y);
    for (let i = this.starts[row]!; i < this.starts[row + 1]!; i++) {
      const inside = Math.abs(this.x[i]! - x) <= NODE.width / 2;
      if (inside && Math.abs(this.y[i]! - y) <= NODE.height / 2) return i;
    }
    return -1;
  }

  private connect(mode: Mode, was: Map<number, number>): void {
    const { inputs } = this.report.data.nodes;
    const crossing: [from: number, to: number][] = [];
    for (let to = 0; to < this.keys.length; to++) {
      this.near.push([]);
      const makers = new Set<number>();
      const forms = [this.rows[to]!];
      if (mode === "diff" && this.status[to] === "changed") forms.push(was.get(this.keys[to]!)!);
      for (const row of forms) for (const input of inputs[row]!) makers.add(input[1]);
      for (const maker of makers) {
        const from = this.at.get(maker);
        if (from === undefined || from === to) continue;
        this.operands[to]!.push(from);
        this.readers[from]!.push(to);
        const span = (this.y[to]! - this.y[from]!) / PITCH.y;
        if (span === 1 || (span > 0 && span <= 3 && this.free(from, to))) {
          this.near[to]!.push([from, to]);
        } else if (Math.abs(span) <= LONGEST) crossing.push([from, to]);
        else this.far.push([from, to]);
      }
    }
    this.route(crossing);
  }

  /** Whether a straight line between two nodes meets none in the rows between. */
  private free(from: number, to: number): boolean {
    const [x0, y0, x1, y1] = [this.x[from]!, this.y[from]!, this.x[to]!, this.y[to]!];
    for (let row = y0 / PITCH.y + 1; row < y1 / PITCH.y; row++) {
      const x = x0 + ((x1 - x0) * (row * PITCH.y - y0)) / (y1 - y0);
      for (let i = this.starts[row]!; i < this.starts[row + 1]!; i++) {
        if (Math.abs(this.x[i]! - x) < NODE.width * 0.6) return false;
      }
    }
    return true;
  }

  /** Gives every line that has to pass nodes a lane beside them: short ones inside. */
  private route(crossing: [from: number, to: number][]): void {
    const spans = crossing.map(([from, to]) => {
      const rows = [this.y[from]! / PITCH.y, this.y[to]! / PITCH.y];
      return { from, to, first: Math.min(...rows), last: Math.max(...rows) };
    });
    spans.sort((a, b) => a.last - a.first - (b.last - b.first) || a.first - b.first);
    const taken = new Uint16Array(this.starts.length); // of each row a bit for each lane
    for (const span of spans) {
      let right = Math.max(this.x[span.from]!, this.x[span.to]!);
      let used = 0;
      for (let row = span.first; row <= span.last; row++) {
        const last = this.starts[row + 1]! - 1;
        if (last >= this.starts[row]!) right = Math.max(right, this.x[last]!);
        used |= taken[row]!;
      }
      let lane = 0;
      while (lane < 15 && used & (1 << lane)) lane++;
      for (let row = span.first; row < span.last; row++) taken[row]! |= 1 << lane;
      this.lanes.push({ ...span, x: right + NODE.width / 2 + 14 + lane * 9 });
    }
    this.lanes.sort((a, b) => a.first - b.first);
  }
}
