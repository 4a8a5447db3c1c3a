// What the page shows: the JSON that graphopt/inspection/page writes, and questions about it.

/** Rows of one table, a column each; numbers that name things are places in `strings`. */
interface NodeColumns {
  key: number[];
  name: number[];
  op: number[];
  text: number[];
  type: number[];
  module: number[];
  source: number[];
  code: number[];
  kernel: number[];
  precision: number[];
  place: number[];
  inputs: [role: number, key: number, text: number][][];
  reasons: number[][];
  fused: number[][];
  came: number[][];
}

interface StageData {
  pass: string;
  graph: string;
  changed: boolean;
  ms: number;
  nodes: number[] | null;
  before: number;
  notes: string[];
  error: string;
  wrong: boolean;
}

interface LayoutData {
  first: number;
  last: number;
  keys: number[];
  x: number[];
  y: number[];
}

export interface Values {
  title: string;
  unit: string;
  keys: number[];
  values: number[];
}

export interface Fact {
  label: string;
  value: string;
  note: string;
}

export interface Memory {
  arena: number;
  unshared: number;
  steps: string[];
  lives: [key: number, text: string, offset: number, bytes: number, first: number, last: number][];
}

export interface ReportData {
  format: number;
  model: {
    name: string;
    target: string;
    precision: string;
    levels: string[];
    version: string;
    checks: string[];
  };
  facts: Fact[];
  missing: Record<string, string>;
  strings: string[];
  keys: string[];
  nodes: NodeColumns;
  stages: StageData[];
  layouts: LayoutData[];
  values: Record<string, Values>;
  critical: number[];
  steps: [key: number, fn: number, call: string][];
  functions: string[];
  assembly: Record<string, string>;
  memory: Memory | null;
  roofs: { gmacs: number; gbytes: number; note: string } | null;
  timeline: [thread: number, key: number, start: number, length: number][] | null;
  accuracy: [key: number, sqnr: number, max: number][] | null;
}

/** One form of a node: as it is after some passes, until one changes it. */
export interface NodeForm {
  row: number;
  key: number;
  name: string;
  op: string;
  text: string;
  type: string;
  module: string;
  source: string;
  code: string;
  kernel: string;
  precision: string;
  place: string;
  inputs: { role: string; key: number; text: string }[];
  reasons: string[];
  fused: string[];
  /** Keys of nodes of the pass before whose work it does too, since the pass that made this form. */
  came: number[];
}

export interface Stage {
  index: number;
  pass: string;
  graph: string;
  changed: boolean;
  ms: number;
  notes: string[];
  error: string;
  wrong: boolean;
  before: number;
  count: number;
}

export type Status = "same" | "added" | "removed" | "changed";

/** Sums of neighbouring differences back into numbers. */
function undelta(differences: number[]): Int32Array {
  const numbers = new Int32Array(differences.length);
  let sum = 0;
  differences.forEach((difference, i) => (numbers[i] = sum += difference));
  return numbers;
}

export class Report {
  readonly stages: Stage[];
  readonly keyOf = new Map<string, number>();
  readonly stepOf = new Map<number, number>();
  private readonly rows: Int32Array[] = [];
  private readonly forms = new Map<number, NodeForm>();
  private readonly graphs = new Map<number, Map<number, number>>();
  private readonly overlays = new Map<string, Map<number, number>>();

  constructor(readonly data: ReportData) {
    data.keys.forEach((name, key) => this.keyOf.set(name, key));
    data.steps.forEach(([key], i) => this.stepOf.set(key, i));
    this.stages = data.stages.map((stage, index) => {
      this.rows.push(stage.nodes ? undelta(stage.nodes) : (this.rows[stage.before] as Int32Array));
      const { pass, graph, changed, ms, notes, error, wrong, before } = stage;
      const count = this.sizeOf(index);
      return { index, pass, graph, changed, ms, notes, error, wrong, before, count };
    });
  }

  private sizeOf(stage: number): number {
    const op = this.data.nodes.op;
    const ends = new Set([this.data.strings.indexOf("input"), this.data.strings.indexOf("output")]);
    return (this.rows[stage] as Int32Array).reduce((n, row) => n + (ends.has(op[row]!) ? 0 : 1), 0);
  }

  /** Rows of the nodes after a stage, in the order of the graph. */
  rowsAt(stage: number): Int32Array {
    return this.rows[stage] ?? new Int32Array();
  }

  /** The row of each key after a stage; of a stage before the first, none. */
  graphAt(stage: number): Map<number, number> {
    let graph = this.graphs.get(stage);
    if (!graph) {
      const key = this.data.nodes.key;
      graph = new Map();
      for (const row of this.rowsAt(stage)) graph.set(key[row]!, row);
      this.graphs.set(stage, graph);
    }
    return graph;
  }

  form(row: number): NodeForm {
    const known = this.forms.get(row);
    if (known) return known;
    const { nodes, strings } = this.data;
    const text = (column: number[]) => strings[column[row]!]!;
    const form: NodeForm = {
      row,
      key: nodes.key[row]!,
      name: text(nodes.name),
      op: text(nodes.op),
      text: text(nodes.text),
      type: text(nodes.type),
      module: text(nodes.module),
      source: text(nodes.source),
      code: text(nodes.code),
      kernel: text(nodes.kernel),
      precision: text(nodes.precision),
      place: text(nodes.place),
      inputs: nodes.inputs[row]!.map(([role, key, value]) => ({
        role: strings[role]!,
        key,
        text: strings[value]!,
      })),
      reasons: nodes.reasons[row]!.map((at) => strings[at]!),
      fused: nodes.fused[row]!.map((at) => strings[at]!),
      came: nodes.came[row]!,
    };
    this.forms.set(row, form);
    return form;
  }

  op(row: number): string {
    return this.data.strings[this.data.nodes.op[row]!]!;
  }

  /** What a stage did to a key. */
  status(stage: number, key: number): Status {
    const after = this.graphAt(stage).get(key);
    const before = this.stages[stage]!.before;
    if (before < 0) return "same";
    const was = this.graphAt(before).get(key);
    if (after === undefined) return "removed";
    if (was === undefined) return "added";
    return was === after ? "same" : "changed";
  }

  /** Keys that a stage added, removed and changed, in the order of the graphs. */
  changes(stage: number): { key: number; status: Status }[] {
    const { before } = this.stages[stage]!;
    if (before < 0 || !this.stages[stage]!.changed) return [];
    const key = this.data.nodes.key;
    const found: { key: number; status: Status }[] = [];
    for (const row of this.rowsAt(before)) {
      if (!this.graphAt(stage).has(key[row]!)) found.push({ key: key[row]!, status: "removed" });
    }
    for (const row of this.rowsAt(stage)) {
      const status = this.status(stage, key[row]!);
      if (status !== "same") found.push({ key: key[row]!, status });
    }
    return found;
  }

  /** The stages at which a key appears, changes and goes, with its form there. */
  history(key: number, graph: string): { stage: Stage; form: NodeForm | null }[] {
    const found: { stage: Stage; form: NodeForm | null }[] = [];
    let last: number | undefined;
    for (const stage of this.stages) {
      if (stage.graph !== graph && stage.graph !== this.stages[0]!.graph) continue;
      const row = this.graphAt(stage.index).get(key);
      if (row === last) continue;
      found.push({ stage, form: row === undefined ? null : this.form(row) });
      last = row;
    }
    return found;
  }

  layoutOf(stage: number): LayoutData {
    const found = this.data.layouts.find((one) => one.first <= stage && stage <= one.last);
    return found ?? this.data.layouts[this.data.layouts.length - 1]!;
  }

  /** Numbers of an overlay by key. */
  values(name: string): Map<number, number> {
    let values = this.overlays.get(name);
    if (!values) {
      const given = this.data.values[name];
      values = new Map(given?.keys.map((key, i) => [key, given.values[i]!]));
      this.overlays.set(name, values);
    }
    return values;
  }
}

export { undelta };

/** The report in a page: JSON, or its gzip in base64. */
export async function readReport(element: HTMLElement): Promise<Report> {
  const text = element.textContent ?? "";
  const bytes = Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Report(JSON.parse(await new Response(stream).text()) as ReportData);
}
