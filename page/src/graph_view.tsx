// The graph on a canvas: moved, zoomed, pointed at, and coloured.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Colouring, colouring, overlays, readTheme, type Theme } from "./colours";
import type { Report } from "./data";
import { type Camera, draw, drawStrip, type Look, short } from "./draw";
import { NODE, PITCH, Scene } from "./scene";
import type { Mode, State, Store } from "./state";

type Side = Exclude<Mode, "split">;

const STRIP = 54;
/** Room beside the nodes for the names of blocks. */
const LABELS = 110;

interface Props {
  report: Report;
  store: Store;
  state: State;
  found: Set<number> | null;
  theme: Theme;
}

/** Scenes that were made, the latest last: flipping back and forth makes none anew. */
class Scenes {
  private made = new Map<string, Scene>();

  constructor(private readonly report: Report) {}

  get(stage: number, side: Side): Scene {
    const name = `${stage} ${side}`;
    const scene = this.made.get(name) ?? new Scene(this.report, stage, side);
    this.made.delete(name);
    this.made.set(name, scene);
    for (const old of this.made.keys()) if (this.made.size > 6) this.made.delete(old);
    return scene;
  }
}

export function GraphView(props: Props) {
  const { report, state } = props;
  const scenes = useMemo(() => new Scenes(report), [report]);
  const camera = useMemo<Shared>(() => new Shared(), [report]);
  const colours = useMemo(
    () => colouring(report, state.overlay, state.pass, props.theme),
    [report, state.overlay, state.pass, props.theme],
  );
  const sides: Side[] = state.mode === "split" ? ["before", "after"] : [state.mode];
  const stage = report.stages[state.pass]!;
  return (
    <div class="graph">
      <div class="canvases">
        {sides.map((side, i) => (
          <Picture
            key={side === "diff" ? "one" : i}
            {...props}
            scene={scenes.get(state.pass, side)}
            shared={camera}
            colours={colours}
            title={sides.length > 1 ? `${side} ${stage.pass}` : ""}
          />
        ))}
      </div>
      <Movement shared={camera} />
      <Legend report={report} overlay={state.overlay} colours={colours} />
    </div>
  );
}

/** The camera that all pictures share, and who draws again when it moves. */
class Shared {
  camera: Camera | null = null;
  private pictures = new Set<() => void>();
  private asked = false;

  join(picture: () => void): () => void {
    this.pictures.add(picture);
    return () => this.pictures.delete(picture);
  }

  move(change: Partial<Camera>): void {
    if (this.camera) Object.assign(this.camera, change);
    this.redraw();
  }

  redraw(): void {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      for (const picture of this.pictures) picture();
    });
  }

  zoom(factor: number, x = 0, y = 0): void {
    const camera = this.camera;
    if (!camera) return;
    const zoom = Math.min(2.5, Math.max(0.02, camera.zoom * factor));
    const kept = 1 / camera.zoom - 1 / zoom;
    this.move({ zoom, x: camera.x + x * kept, y: camera.y + y * kept });
  }
}

interface PictureProps extends Props {
  scene: Scene;
  shared: Shared;
  colours: Colouring;
  title: string;
}

function Picture({ report, store, state, found, theme, scene, shared, colours, title }: PictureProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const strip = useRef<HTMLCanvasElement>(null);
  const [hovered, setHovered] = useState(-1);
  const selected = scene.at.get(report.keyOf.get(state.node) ?? -1) ?? -1;
  const look: Look = { theme, colours, selected, hovered, module: state.module, found };
  const now = useRef({ scene, look });
  const last = useRef<{ scene: Scene; node: string; module: string } | null>(null);
  now.current = { scene, look };

  useEffect(() => {
    const element = canvas.current!;
    const context = element.getContext("2d")!;
    const below = strip.current!;
    const side = below.getContext("2d")!;
    let painted: unknown[] = [];
    const paint = () => {
      const { scene, look } = now.current;
      const { clientWidth: width, clientHeight: height } = element;
      if (!width || !height) return;
      const camera = (shared.camera ??= opening(scene, width, height));
      const started = performance.now();
      draw(context, scene, camera, width, height, look);
      const what = [scene, look.colours, look.found, look.module, look.theme, height];
      if (what.some((one, i) => one !== painted[i])) {
        drawStrip(side, scene, STRIP, height, look);
        painted = what;
      }
      window.dispatchEvent(new CustomEvent("drawn", { detail: performance.now() - started }));
      const at = look.selected;
      if (at < 0) delete element.dataset.selected;
      else {
        const x = (scene.x[at]! - camera.x) * camera.zoom + width / 2;
        const y = (scene.y[at]! - camera.y) * camera.zoom + height / 2;
        element.dataset.selected = `${Math.round(x)} ${Math.round(y)}`;
      }
      const shown = below.parentElement!.querySelector<HTMLElement>(".window")!;
      const share = (y: number) => Math.max(0, Math.min(1, y / scene.bounds.height));
      const top = share(camera.y - height / 2 / camera.zoom + PITCH.y / 2);
      const bottom = share(camera.y + height / 2 / camera.zoom + PITCH.y / 2);
      shown.style.top = `${top * height}px`;
      shown.style.height = `${Math.max(4, (bottom - top) * height)}px`;
    };
    const size = () => {
      for (const one of [element, below]) {
        one.width = one.clientWidth * devicePixelRatio;
        one.height = one.clientHeight * devicePixelRatio;
      }
      painted = [];
      paint();
    };
    const observer = new ResizeObserver(size);
    observer.observe(element);
    const leave = shared.join(paint);
    return () => {
      observer.disconnect();
      leave();
    };
  }, [shared]);

  // Another scene keeps in place what the eye is on; another node comes into sight.
  useEffect(() => {
    const { camera } = shared;
    const element = canvas.current!;
    const before = last.current;
    last.current = { scene, node: state.node, module: state.module };
    if (camera && before && before.scene !== scene) keep(before.scene, scene, camera, selected);
    if (camera && selected >= 0 && before?.node !== state.node) {
      reveal(scene, camera, selected, element);
    }
    if (camera && state.module && before?.module !== state.module) {
      const first = firstOf(scene, report, state.module);
      if (first >= 0) reveal(scene, camera, first, element);
    }
    shared.redraw();
  });

  const pointers = useRef(new Map<number, { x: number; y: number }>());
  const moved = useRef(0);
  const place = (event: { clientX: number; clientY: number }) => {
    const box = canvas.current!.getBoundingClientRect();
    return { x: event.clientX - box.left - box.width / 2, y: event.clientY - box.top - box.height / 2 };
  };
  const hit = (event: { clientX: number; clientY: number }) => {
    const { x, y } = place(event);
    const camera = shared.camera;
    return camera ? scene.hit(camera.x + x / camera.zoom, camera.y + y / camera.zoom) : -1;
  };
  const onPointerMove = (event: PointerEvent) => {
    const held = pointers.current;
    const camera = shared.camera;
    const was = held.get(event.pointerId);
    if (!was || !camera) {
      const at = event.pointerType === "mouse" ? hit(event) : -1;
      if (at !== hovered) setHovered(at);
      return;
    }
    const spread = () => {
      const [a, b] = [...held.values()];
      return a && b ? Math.hypot(a.x - b.x, a.y - b.y) : 0;
    };
    const old = spread();
    const point = place(event);
    held.set(event.pointerId, point);
    moved.current += Math.abs(point.x - was.x) + Math.abs(point.y - was.y);
    if (held.size > 1 && old > 0) shared.zoom(spread() / old, point.x, point.y);
    const steps = held.size * camera.zoom;
    shared.move({ x: camera.x - (point.x - was.x) / steps, y: camera.y - (point.y - was.y) / steps });
  };
  const onWheel = (event: WheelEvent) => {
    event.preventDefault();
    const camera = shared.camera;
    if (!camera) return;
    const lines = event.deltaMode === 1 ? 16 : 1;
    if (event.ctrlKey || event.metaKey) {
      const { x, y } = place(event);
      shared.zoom(Math.exp(-event.deltaY * lines * 0.01), x, y);
    } else {
      const [dx, dy] = event.shiftKey ? [event.deltaY, event.deltaX] : [event.deltaX, event.deltaY];
      shared.move({
        x: camera.x + (dx * lines) / camera.zoom,
        y: camera.y + (dy * lines) / camera.zoom,
      });
    }
  };
  useEffect(() => {
    const element = canvas.current!;
    element.addEventListener("wheel", onWheel, { passive: false });
    return () => element.removeEventListener("wheel", onWheel);
  });
  const jump = (event: PointerEvent) => {
    if (event.buttons !== 1 && event.type !== "pointerdown") return;
    const element = event.currentTarget as HTMLElement;
    element.setPointerCapture(event.pointerId);
    const box = element.getBoundingClientRect();
    shared.move({ y: ((event.clientY - box.top) / box.height) * scene.bounds.height });
  };
  const form = hovered >= 0 ? report.form(scene.rows[hovered]!) : null;
  return (
    <div class="picture">
      <canvas
        ref={canvas}
        class={`main ${hovered >= 0 ? "pointing" : ""}`}
        role="img"
        aria-label={`graph of ${scene.keys.length} nodes`}
        onPointerDown={(event) => {
          canvas.current!.setPointerCapture(event.pointerId);
          if (pointers.current.size === 0) moved.current = 0;
          pointers.current.set(event.pointerId, place(event));
        }}
        onPointerMove={onPointerMove}
        onPointerUp={(event) => {
          pointers.current.delete(event.pointerId);
          if (moved.current > 6) return;
          const at = hit(event);
          store.set({ node: at >= 0 ? report.data.keys[scene.keys[at]!]! : "" });
        }}
        onPointerCancel={(event) => pointers.current.delete(event.pointerId)}
        onPointerLeave={() => setHovered(-1)}
        onDblClick={(event) => {
          const { x, y } = place(event);
          shared.zoom(1.7, x, y);
        }}
      />
      <div class="strip" onPointerDown={jump} onPointerMove={jump} title="the whole graph">
        <canvas ref={strip} />
        <div class="window" />
      </div>
      {title && <div class="side-title">{title}</div>}
      {form && (
        <div class="tip">
          <b>{short(form.op)}</b> {form.type}
          {form.module && <div>{form.module}</div>}
        </div>
      )}
    </div>
  );
}

/** Where a picture begins: the top of the graph, as large as it can be read. */
function opening(scene: Scene, width: number, height: number): Camera {
  const rows = Math.min(scene.starts.length - 1, Math.ceil(height / PITCH.y));
  let [left, right] = [0, 0];
  for (let i = 0; i < scene.starts[rows]!; i++) {
    left = Math.min(left, scene.x[i]! - PITCH.x / 2);
    right = Math.max(right, scene.x[i]! + PITCH.x / 2);
  }
  const zoom = Math.max(0.5, Math.min(1, width / (right - left + 2 * LABELS)));
  return { x: (left + right) / 2, y: height / 2 / zoom - PITCH.y * 0.8, zoom };
}

/** Moves a camera so that what is selected, or else in the middle, stays where it was. */
function keep(before: Scene, after: Scene, camera: Camera, selected: number): void {
  let anchor = selected >= 0 && before.at.has(after.keys[selected]!) ? after.keys[selected]! : -1;
  for (let away = 0, middle = before.rowAt(camera.y); anchor < 0 && away < 400; away++) {
    for (const row of [middle - away, middle + away]) {
      if (row < 0 || row > before.starts.length - 2) continue;
      for (let i = before.starts[row]!; i < before.starts[row + 1]!; i++) {
        if (after.at.has(before.keys[i]!)) anchor = before.keys[i]!;
      }
    }
  }
  if (anchor < 0) {
    camera.y = Math.min(camera.y, after.bounds.height);
    return;
  }
  camera.y += after.y[after.at.get(anchor)!]! - before.y[before.at.get(anchor)!]!;
}

/** Moves a camera, no further than it must, so that a node is well in sight. */
function reveal(scene: Scene, camera: Camera, at: number, element: HTMLElement): void {
  const zoom = (camera.zoom = Math.max(camera.zoom, 0.55));
  const within = (value: number, centre: number, size: number, node: number) => {
    const room = Math.max(0, size / 2 / zoom - node);
    return Math.max(value - room, Math.min(value + room, centre));
  };
  camera.x = within(scene.x[at]!, camera.x, element.clientWidth, NODE.width);
  camera.y = within(scene.y[at]!, camera.y, element.clientHeight, 2.5 * PITCH.y);
}

function firstOf(scene: Scene, report: Report, module: string): number {
  for (let i = 0; i < scene.keys.length; i++) {
    const name = report.form(scene.rows[i]!).module;
    if (name === module || name.startsWith(`${module}.`)) return i;
  }
  return -1;
}

const MODES: [Mode, string][] = [
  ["diff", "Diff"],
  ["before", "Before"],
  ["after", "After"],
  ["split", "Side by side"],
];

/** Moves the camera when keys ask for it. */
function Movement({ shared }: { shared: Shared }) {
  useEffect(() => {
    const act = (event: Event) => {
      const what = (event as CustomEvent<string>).detail;
      if (what === "in") shared.zoom(1.25);
      if (what === "out") shared.zoom(0.8);
      if (what === "fit") {
        shared.camera = null;
        shared.redraw();
      }
    };
    window.addEventListener("camera", act);
    return () => window.removeEventListener("camera", act);
  }, [shared]);
  return null;
}

export function Controls({ report, store, state }: Omit<Props, "found" | "theme">) {
  return (
    <div class="controls">
      <div class="segments" role="group" aria-label="what is drawn">
        {MODES.map(([mode, title]) => (
          <button
            key={mode}
            class={mode}
            aria-pressed={state.mode === mode}
            onClick={() => store.set({ mode })}
          >
            {title}
          </button>
        ))}
      </div>
      <label class="overlay">
        <span>Colour by</span>
        <select
          value={state.overlay}
          onChange={(event) => store.set({ overlay: event.currentTarget.value })}
        >
          <option value="">changes</option>
          {overlays(report).map((one) => (
            <option key={one.name} value={one.name}>
              {one.title.toLowerCase()}
            </option>
          ))}
        </select>
      </label>
    </div>
  );
}

/** Asks the pictures for another camera. */
export function camera(what: "in" | "out" | "fit"): void {
  window.dispatchEvent(new CustomEvent("camera", { detail: what }));
}

function Legend({ report, overlay, colours }: { report: Report; overlay: string; colours: Colouring }) {
  const title = overlays(report).find((one) => one.name === overlay);
  if (!title) {
    return (
      <div class="legend">
        <span><i class="added" />added</span>
        <span><i class="changed" />changed</span>
        <span><i class="removed" />removed</span>
      </div>
    );
  }
  return (
    <div class="legend">
      {colours.legend.map(({ label, colour }) => (
        <span key={label}>
          <i style={{ background: colour }} />
          {label}
        </span>
      ))}
    </div>
  );
}

export { readTheme };
