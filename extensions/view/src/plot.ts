/** `Plot`: a uPlot over steps.  It shows the same stretch of steps as the timeline, at the same place, with the same cursor. */

import type uPlot from "uplot";
import type { App } from "./app.js";
import { aria, box, h } from "./dom.js";
import { type Columns, type Extremes, stretchOf } from "./extremes.js";
import { whole } from "./format.js";
import { library } from "./library.js";
import type { Theme } from "./theme.js";
import { Scale, WIDEST } from "./timeline/scale.js";

/** Room beside the plotting area, in CSS pixels; what is drawn over steps in one column of the page lines up. */
export const LEFT = 44;
export const RIGHT = 8;
const AXIS = 16; // room for step numbers
const STEP_ROOM = 46; // between two of them

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
  readonly #band = box("wb-plot-cursor");
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
    return [first, first + Math.max(last - first, (this.el.clientWidth - this.#left - RIGHT) / WIDEST, 1e-3)];
  }

  /** Bring the picture in step.  It is drawn again when the stretch, the size, or one of `depends` changed, and made anew with `kind`. */
  draw(kind: string, ...depends: readonly unknown[]): void {
    const width = Math.floor(this.el.clientWidth);
    const Library = library();
    const left = this.#left;
    if (width <= left + RIGHT || Library === undefined) return; // drawn once it has come
    const [first, last] = this.stretch;
    const made = [this.app.theme, kind, left];
    if (!same(made, this.#made)) this.#make(Library, width, made);
    const drawn = [width, first, last, devicePixelRatio, ...depends];
    if (!same(drawn, this.#drawn)) this.#draw(this.#plot!, width, first, last);
    this.#drawn = drawn;
    this.#place(this.#plot!, width, first, last);
  }

  /** Room at the left: as much as the timeline takes, in a panel that is as wide. */
  get #left(): number {
    const { left, width } = this.app.gutter;
    return width === Math.floor(this.el.clientWidth) ? left : LEFT;
  }

  describe(text: string): void {
    aria(this.el, "label", text);
  }

  #make(Library: typeof uPlot, width: number, made: readonly unknown[]): void {
    this.#plot?.destroy();
    const settings = this.face.settings(this.app.theme);
    settings.axes!.at(-1)!.size = this.#left;
    const fixed = { width, height: this.face.height, legend: { show: false }, cursor: { show: false }, select: HIDDEN };
    this.#plot = new Library({ ...fixed, ...settings, padding: [6, RIGHT, 0, 0] }, [[], ...settings.series.slice(1).map(() => [])], this.el);
    this.#plot.over.append(this.#band);
    this.#made = made;
    this.#drawn = [];
  }

  #draw(plot: uPlot, width: number, first: number, last: number): void {
    plot.batch(() => {
      if (width !== plot.width) plot.setSize({ width, height: this.face.height });
      plot.setData(this.face.data(first, last, width - this.#left - RIGHT), false);
      plot.setScale("x", { min: first - 0.5, max: last - 0.5 });
    });
  }

  /** Only the cursor moves while one scrubs: it lies above the picture, which stays. */
  #place(plot: uPlot, width: number, first: number, last: number): void {
    const room = width - this.#left - RIGHT;
    const step = room / (last - first);
    const left = (this.app.state.position - first) * step;
    const shown = left > -step && left < room && this.app.state.position < this.app.focus.tape.length;
    const from = Math.max(0, left);
    this.#band.style.display = shown && plot.status === 1 ? "" : "none";
    this.#band.style.width = `${Math.max(2, Math.min(step, left + step - from, room - from))}px`;
    this.#band.style.transform = `translateX(${from}px)`;
  }
}

const HIDDEN = { show: false, left: 0, top: 0, width: 0, height: 0 };
export const same = (a: readonly unknown[], b: readonly unknown[]): boolean => a.length === b.length && a.every((one, i) => Object.is(one, b[i]));

/** The axis of step numbers below a plot. */
export function stepAxis(app: App, theme: Theme): uPlot.Axis {
  return {
    ...plain(theme),
    size: AXIS,
    gap: 2,
    splits: (plot, _, low, high) => stepSplits(app.focus.tape.firstStep, low, high, plot.bbox.width / devicePixelRatio),
    grid: { show: false },
    ticks: { show: false },
    values: (_, splits) => splits.map((position) => whole(position + app.focus.tape.firstStep)),
  };
}

/** Positions whose step numbers are written: the same as in the timeline. */
function stepSplits(firstStep: number, low: number, high: number, width: number): number[] {
  const every = new Scale(low, high, 0, width, 1).interval(STEP_ROOM);
  const first = Math.ceil((low + firstStep) / every) * every - firstStep;
  return Array.from({ length: Math.max(0, Math.floor((high - first) / every) + 1) }, (_, i) => first + i * every);
}

/** The axis of values at the left of a plot. */
export function valueAxis(theme: Theme, values: (value: number) => string): uPlot.Axis {
  return {
    ...plain(theme),
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
  const [width, height] = [bbox.width / devicePixelRatio, bbox.height / devicePixelRatio];
  ctx.save();
  ctx.translate(bbox.left, bbox.top);
  ctx.scale(devicePixelRatio, devicePixelRatio);
  ctx.beginPath();
  ctx.rect(-6, -6, width + 12, height + 6); // marks at the edges stay whole
  ctx.clip();
  draw(ctx, width, height);
  ctx.restore();
}

/** Write on a plotting area, on a little of the background so that it can be read whatever lies there. */
export function write(context: CanvasRenderingContext2D, theme: Theme, text: string, right: number, baseline: number): void {
  context.font = `10px ${theme.font}`;
  context.textAlign = "right";
  context.textBaseline = "alphabetic";
  context.globalAlpha = 0.82;
  context.fillStyle = theme.background;
  context.fillRect(right - context.measureText(text).width - 3, baseline - 10, context.measureText(text).width + 6, 13);
  context.globalAlpha = 1;
  context.fillStyle = theme.ink;
  context.fillText(text, right, baseline);
}

/** A pointer event's place on the plotting area, in CSS pixels. */
export function placeOn(over: HTMLElement, event: MouseEvent): readonly [x: number, y: number] {
  const box = over.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

/** A line in stairs: a step's value over its width, or the least and the most of steps that share a pixel. */
export function stairs(extremes: Extremes, { level, from, to }: Columns): Float64Array {
  const found = new Float64Array(2 * (to - from));
  for (let at = from; at < to; at++) found.set(extremes.of(level, at), 2 * (at - from));
  return found;
}

/** Where such stairs lie along the axis of positions. */
export function stairsAt({ level, from, to }: Columns, length: number): Float64Array {
  const found = new Float64Array(2 * (to - from));
  for (let at = from; at < to; at++) {
    const [first, end] = stretchOf(level, at, length);
    const middle = (first + end - 1) / 2;
    found.set(level > 0 ? [middle, middle] : [middle - 0.5, middle + 0.5], 2 * (at - from));
  }
  return found;
}
