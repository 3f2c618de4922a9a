/** `Plot`: a uPlot over steps.  It shows the same stretch of steps as the timeline, at the same place, with the same cursor. */

import uPlot from "uplot";
import type { App } from "./app.js";
import { h } from "./dom.js";
import type { Theme } from "./theme.js";
import { WIDEST } from "./timeline/scale.js";

/** Room beside the plotting area, in CSS pixels; what is drawn over steps in one column of the page lines up. */
export const LEFT = 44;
export const RIGHT = 8;
const AXIS = 16; // room for step numbers

export type Settings = Omit<uPlot.Options, "width" | "height">;

/** What is drawn; asked again only when something that it depends on has changed. */
export interface Face {
  readonly height: number; // CSS pixels
  /** Axes, series and hooks, in the colours of a theme. */
  settings(theme: Theme): Settings;
  /** Series for a stretch of positions on a plotting area as many pixels wide. */
  data(first: number, last: number, pixels: number): uPlot.AlignedData;
}

export class Plot {
  readonly el = h("div", { class: "wb-plot", role: "img" });
  readonly #band = h("div", { class: "wb-plot-cursor" });
  #plot: uPlot | undefined;
  #made: readonly unknown[] = [];
  #drawn: readonly unknown[] = [];

  constructor(
    private readonly app: App,
    private readonly face: Face,
    signal: AbortSignal,
  ) {
    const resized = new ResizeObserver(() => app.redraw());
    resized.observe(this.el);
    signal.addEventListener("abort", () => {
      resized.disconnect();
      this.#plot?.destroy();
    });
  }

  /** The plotting area, once there is one: pointer events and what is laid over the picture. */
  get over(): HTMLElement | undefined {
    return this.#plot?.over;
  }

  /** The stretch of positions from the left edge to the right: that of the state, or more where steps would become too wide. */
  get stretch(): readonly [first: number, last: number] {
    const { first, last } = this.app.state;
    return [first, first + Math.max(last - first, (this.el.clientWidth - LEFT - RIGHT) / WIDEST, 1e-3)];
  }

  /** Bring the picture in step.  It is drawn again when the stretch, the size, or one of `depends` changed, and made anew with `kind`. */
  draw(kind: string, ...depends: readonly unknown[]): void {
    const width = Math.floor(this.el.clientWidth);
    if (width <= LEFT + RIGHT) return;
    const [first, last] = this.stretch;
    const made = [this.app.theme, kind];
    if (!same(made, this.#made)) this.#make(width, made);
    const drawn = [width, first, last, devicePixelRatio, ...depends];
    if (!same(drawn, this.#drawn)) this.#draw(this.#plot!, width, first, last);
    this.#drawn = drawn;
    this.#place(this.#plot!, width, first, last);
  }

  describe(text: string): void {
    if (this.el.getAttribute("aria-label") !== text) this.el.setAttribute("aria-label", text);
  }

  #make(width: number, made: readonly unknown[]): void {
    this.#plot?.destroy();
    const settings = this.face.settings(this.app.theme);
    const fixed = { width, height: this.face.height, legend: { show: false }, cursor: { show: false }, select: HIDDEN };
    this.#plot = new uPlot({ ...fixed, ...settings, padding: [6, RIGHT, 0, 0] }, [[], ...settings.series.slice(1).map(() => [])], this.el);
    this.#plot.over.append(this.#band);
    this.#made = made;
    this.#drawn = [];
  }

  #draw(plot: uPlot, width: number, first: number, last: number): void {
    plot.batch(() => {
      if (width !== plot.width) plot.setSize({ width, height: this.face.height });
      plot.setData(this.face.data(first, last, width - LEFT - RIGHT), false);
      plot.setScale("x", { min: first - 0.5, max: last - 0.5 });
    });
  }

  /** Only the cursor moves while one scrubs: it lies above the picture, which stays. */
  #place(plot: uPlot, width: number, first: number, last: number): void {
    const step = (width - LEFT - RIGHT) / (last - first);
    const left = (this.app.state.position - first) * step;
    const shown = left > -step && left < width - LEFT - RIGHT && this.app.state.position < this.app.focus.tape.length;
    const from = Math.max(0, left);
    this.#band.style.display = shown && plot.status === 1 ? "" : "none";
    this.#band.style.width = `${Math.max(2, Math.min(step, left + step - from, width - LEFT - RIGHT - from))}px`;
    this.#band.style.transform = `translateX(${from}px)`;
  }
}

const HIDDEN = { show: false, left: 0, top: 0, width: 0, height: 0 };
const same = (a: readonly unknown[], b: readonly unknown[]): boolean => a.length === b.length && a.every((one, i) => Object.is(one, b[i]));

/** The axis of step numbers below a plot. */
export function stepAxis(app: App, theme: Theme): uPlot.Axis {
  return {
    ...plain(theme),
    size: AXIS,
    gap: 2,
    space: 56,
    incrs: [1, 2, 5].flatMap((_, i, steps) => steps.map((step) => step * 10 ** i)).concat([1000, 2000, 5000, 1e4, 2e4, 5e4, 1e5, 1e6]),
    grid: { show: false },
    ticks: { show: false },
    values: (_, splits) => splits.map((position) => String(position + app.focus.tape.firstStep)),
  };
}

/** The axis of values at the left of a plot. */
export function valueAxis(theme: Theme, values: (value: number) => string): uPlot.Axis {
  return {
    ...plain(theme),
    size: LEFT,
    gap: 4,
    space: 22,
    grid: { stroke: theme.line, width: 1 },
    ticks: { show: false },
    values: (_, splits) => splits.map(values),
  };
}

const plain = (theme: Theme): uPlot.Axis => ({ stroke: theme.dim, font: `10px ${theme.font}` });

/** Draw on the plotting area in CSS pixels from its upper left corner, and only there. */
export function within(plot: uPlot, draw: (context: CanvasRenderingContext2D, width: number, height: number) => void): void {
  const { ctx, bbox } = plot;
  const [width, height] = [bbox.width / uPlot.pxRatio, bbox.height / uPlot.pxRatio];
  ctx.save();
  ctx.translate(bbox.left, bbox.top);
  ctx.scale(uPlot.pxRatio, uPlot.pxRatio);
  ctx.beginPath();
  ctx.rect(0, -6, width, height + 6);
  ctx.clip();
  draw(ctx, width, height);
  ctx.restore();
}

/** A pointer event's place on the plotting area, in CSS pixels. */
export function placeOn(over: HTMLElement, event: MouseEvent): readonly [x: number, y: number] {
  const box = over.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

/** Positions at which stretches begin, and the end of the last one. */
export type Bounds = Uint32Array<ArrayBuffer>;

/** Edges of the stretches of positions that stand side by side: one position each, or several where they are narrower than a pixel. */
export function edges(first: number, last: number, length: number, pixels: number): Bounds {
  const each = Math.max(1, Math.ceil((last - first) / Math.max(1, pixels)));
  // Stretches begin at multiples of their size, whatever is in sight: they do not flicker when the picture is moved.
  const from = Math.max(0, Math.floor(first / each) * each);
  const to = Math.min(length, Math.ceil(last));
  const count = Math.max(0, Math.ceil((to - from) / each));
  return Uint32Array.from({ length: count + (count > 0 ? 1 : 0) }, (_, i) => Math.min(from + i * each, to));
}

/** A line in stairs over the stretches between `edges`: a step's value over its width, or the least and most of several. */
export function stairs(bounds: Bounds, value: (position: number) => number): Float64Array<ArrayBuffer> {
  const found = new Float64Array(Math.max(0, 2 * (bounds.length - 1)));
  for (let i = 0; i + 1 < bounds.length; i++) {
    let [least, most] = [Infinity, -Infinity];
    for (let position = bounds[i]!; position < bounds[i + 1]!; position++) {
      const one = value(position);
      if (one < least) least = one;
      if (one > most) most = one;
    }
    found[2 * i] = least;
    found[2 * i + 1] = most;
  }
  return found;
}

/** Where `stairs` lie on the axis of positions. */
export function stairsAt(bounds: Bounds): Float64Array<ArrayBuffer> {
  const found = new Float64Array(Math.max(0, 2 * (bounds.length - 1)));
  for (let i = 0; i + 1 < bounds.length; i++) {
    const [from, to] = [bounds[i]!, bounds[i + 1]!];
    const middle = (from + to - 1) / 2;
    found[2 * i] = to - from > 1 ? middle : from - 0.5;
    found[2 * i + 1] = to - from > 1 ? middle : from + 0.5;
  }
  return found;
}
