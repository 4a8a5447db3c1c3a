// Finds nodes by words: op, name, module, type, kernel, source or reason.

import type { Report } from "./data";

/** Keys of the nodes after a pass of which every word of a query is said; null for no query. */
export function find(report: Report, stage: number, query: string): number[] | null {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return null;
  const { nodes, keys } = report.data;
  const low = lowered(report);
  const columns = [nodes.op, nodes.name, nodes.module, nodes.type, nodes.kernel, nodes.source];
  const found = among(columns);
  return found.length ? found : among([...columns, nodes.text]); // operands only if nothing else

  function among(columns: number[][]): number[] {
    const found: number[] = [];
    for (const row of report.rowsAt(stage)) {
      const says = (word: string) =>
        columns.some((column) => low[column[row]!]!.includes(word)) ||
        nodes.reasons[row]!.some((at) => low[at]!.includes(word)) ||
        keys[nodes.key[row]!] === query;
      if (words.every(says)) found.push(nodes.key[row]!);
    }
    return found;
  }
}

const made = new WeakMap<Report, string[]>();

function lowered(report: Report): string[] {
  let low = made.get(report);
  if (!low) made.set(report, (low = report.data.strings.map((text) => text.toLowerCase())));
  return low;
}
