/** `Minimap`: the whole run in one line, with the stretch in sight as a frame that can be dragged, or drawn anew. */

import type { App } from "../app.js";
import { Canvas } from "../canvas.js";
import { box, on } from "../dom.js";
import type { Chart } from "./chart.js";
import { Scale } from "./scale.js";
import type { Stretch } from "./stretch.js";
import { FIELDS, TOKENS } from "./totals.js";

const HEIGHT = 26;

export class Minimap {
  readonly canvas = new Canvas("wb-tl-map");
  readonly el = box("wb-tl-place", this.canvas.el);
  #scale = new Scale(0, 1, 0, 1, 1);
  #shown: Stretch = { first: 0, last: 1 };

  /** `show` brings a stretch into sight. */
  constructor(show: (first: number, last: number) => void, signal: AbortSignal) {
    const { el } = this.canvas;
    let drag: ((at: number) => void) | undefined;
    const at = (event: PointerEvent): number => Math.max(0, Math.min(this.#scale.last, this.#scale.position(this.canvas.place(event)[0])));
    const press = (event: PointerEvent): void => {
      const start = at(event);
      const { first, last } = this.#shown;
      const inside = start >= first && start < last && last - first < this.#scale.last;
      el.setPointerCapture(event.pointerId);
      drag = inside ? (now) => show(first + now - start, last + now - start) : (now) => show(Math.min(start, now), Math.max(start, now));
    };
    on(el, "pointerdown", press, signal);
    on(el, "pointermove", (event) => drag?.(at(event)), signal);
    for (const end of ["pointerup", "pointercancel"]) el.addEventListener(end, () => (drag = undefined), { signal });
  }

  /** The run of a chart, of `length` columns in all, between the strips' own left and right. */
  draw(app: App, chart: Chart, shown: Stretch, length: number): void {
    const { scale } = chart;
    this.#scale = new Scale(0, length, scale.left, scale.right, scale.ratio);
    this.#shown = shown;
    if (!this.canvas.begin(HEIGHT)) return;
    this.#silhouette(app, chart);
    this.#frame(app, shown);
    const first = chart.run.meta.first_step;
    this.canvas.describe(`the whole run; in sight are steps ${Math.floor(shown.first) + first} to ${Math.ceil(shown.last) + first - 1}`);
  }

  /** The most tokens per column; a column is a pixel or two, so this is cheap enough for every frame. */
  #silhouette(app: App, chart: Chart): void {
    const { context } = this.canvas;
    const { totals } = chart.digest;
    const values = totals.level(this.#scale.level);
    const most = Math.max(1, totals.whole()[TOKENS] ?? 1);
    context.fillStyle = app.theme.dim;
    context.globalAlpha = 0.5;
    this.#scale.each(totals.length, (column, left, width) => {
      const height = Math.max(1, (values[column * FIELDS + TOKENS]! / most) * (HEIGHT - 8));
      context.fillRect(left, HEIGHT - 4 - height, width, height);
    });
    context.globalAlpha = 1;
  }

  #frame(app: App, { first, last }: Stretch): void {
    const { context } = this.canvas;
    const [left, right] = [this.#scale.edge(first), this.#scale.edge(last)];
    context.fillStyle = context.strokeStyle = app.theme.select;
    context.globalAlpha = 0.12;
    context.fillRect(left, 1, right - left, HEIGHT - 2);
    context.globalAlpha = 1;
    context.fillRect(this.#scale.edge(app.state.position + 0.5) - 0.5, 1, 1, HEIGHT - 2);
    context.beginPath();
    context.roundRect(left + 0.5, 1.5, Math.max(4, right - left - 1), HEIGHT - 3, 3);
    context.stroke();
  }
}
