// What a node is coloured by: a number, a kind, or what a pass did to it.

import type { Report } from "./data";

export interface Theme {
  dark: boolean;
  [name: string]: string | boolean;
}

const NAMES = [
  "page", "panel", "line", "edge", "text", "soft", "faint", "node", "accent",
  "added", "removed", "changed", "band",
];

/** The colours of the style sheet, for the canvas. */
export function readTheme(): Theme {
  const style = getComputedStyle(document.documentElement);
  const theme: Theme = { dark: style.getPropertyValue("color-scheme").trim() === "dark" };
  for (const name of NAMES) theme[name] = style.getPropertyValue(`--${name}`).trim();
  return theme;
}

const KINDS = ["#4c78a8", "#e08a3c", "#4f9e83", "#b5629b", "#8d7b68", "#7a6fd0", "#c2a83e", "#6b7785"];

export interface Overlay {
  name: string;
  title: string;
  numeric: boolean;
}

const KIND_OVERLAYS: Overlay[] = [
  { name: "precision", title: "Precision", numeric: false },
  { name: "kernel", title: "Kernel", numeric: false },
  { name: "op", title: "Op", numeric: false },
];

/** What nodes can be coloured by: the numbers that there are, and kinds. */
export function overlays(report: Report): Overlay[] {
  const numbers = Object.entries(report.data.values).map(([name, values]) => ({
    name,
    title: values.title,
    numeric: true,
  }));
  return [...numbers, ...KIND_OVERLAYS];
}

export interface Colouring {
  /** Fill of a node by its row and key; empty where nothing is known. */
  fill(row: number, key: number): string;
  /** Whether dark text is read on it. */
  ink(row: number, key: number): string;
  legend: { label: string; colour: string }[];
}

/** Mixes two colours of the form #rrggbb. */
function mix(from: string, to: string, share: number): string {
  const parts = [1, 3, 5].map((at) => {
    const [a, b] = [from, to].map((text) => parseInt(text.slice(at, at + 2), 16));
    return Math.round(a! + (b! - a!) * share).toString(16).padStart(2, "0");
  });
  return `#${parts.join("")}`;
}

export function heat(share: number, theme: Theme): string {
  const [low, middle, high] = theme.dark
    ? ["#262a36", "#5b56b8", "#f0a35e"]
    : ["#eceefa", "#8c8ee0", "#b3421f"];
  return share < 0.5 ? mix(low!, middle!, share * 2) : mix(middle!, high!, share * 2 - 1);
}

/** The place of a number in the range of colours: the square root, so that small ones differ. */
export function share(value: number, most: number): number {
  return most > 0 ? Math.sqrt(Math.max(0, value) / most) : 0;
}

export function colouring(report: Report, overlay: string, stage: number, theme: Theme): Colouring {
  const found = overlays(report).find((one) => one.name === overlay);
  if (!found) return { fill: () => "", ink: () => theme.text as string, legend: [] };
  if (found.numeric) return byNumber(report, overlay, theme);
  const name = overlay as "precision" | "kernel" | "op";
  const counts = new Map<string, number>();
  for (const row of report.rowsAt(stage)) {
    const kind = report.form(row)[name];
    if (kind) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  const order = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  const colours = new Map(order.map(([kind], i) => [kind, KINDS[Math.min(i, KINDS.length - 1)]!]));
  const legend = order.slice(0, KINDS.length - 1).map(([kind, count]) => ({
    label: `${kind} (${count})`,
    colour: colours.get(kind)!,
  }));
  if (order.length >= KINDS.length) legend.push({ label: "others", colour: KINDS.at(-1)! });
  const fill = (row: number) => colours.get(report.form(row)[name]) ?? "";
  return { fill, ink: (row) => (fill(row) ? "#ffffff" : (theme.text as string)), legend };
}

function byNumber(report: Report, overlay: string, theme: Theme): Colouring {
  const values = report.values(overlay);
  const { unit } = report.data.values[overlay]!;
  let most = 0;
  for (const value of values.values()) most = Math.max(most, value);
  const fill = (_: number, key: number) => {
    const value = values.get(key);
    return value === undefined ? "" : heat(share(value, most), theme);
  };
  const ink = (_: number, key: number) => {
    const place = share(values.get(key) ?? 0, most);
    const white = theme.dark ? place < 0.75 : place > 0.45;
    return values.has(key) && white ? "#ffffff" : theme.dark && values.has(key) ? "#15161a" : (theme.text as string);
  };
  const legend = [0, 0.25, 0.5, 0.75, 1].map((place) => ({
    label: quantity(most * place * place, unit),
    colour: heat(place, theme),
  }));
  return { fill, ink, legend };
}

const UNITS: Record<string, [number, string[]]> = {
  B: [1024, ["B", "KiB", "MiB", "GiB"]],
  MAC: [1000, ["MAC", "kMAC", "MMAC", "GMAC", "TMAC"]],
};

/** A number with its unit, three digits. */
export function quantity(value: number, unit: string): string {
  if (unit === "ms") {
    if (value < 1 && value > 0) return `${digits(value * 1000)} µs`;
    return value >= 1000 ? `${digits(value / 1000)} s` : `${digits(value)} ms`;
  }
  const [base, names] = UNITS[unit] ?? [0, []];
  if (!base) return `${digits(value)}${unit && ` ${unit}`}`;
  let step = 0;
  while (value >= base && step < names.length - 1) {
    value /= base;
    step++;
  }
  return `${digits(value)} ${names[step]}`;
}

function digits(value: number): string {
  if (value === 0 || Number.isInteger(value)) return `${value}`;
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
