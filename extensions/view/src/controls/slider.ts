/** `Slider`: the cursor as a native slider over the steps. */

import type { App } from "../app.js";
import { aria, h, on } from "../dom.js";

export class Slider {
  readonly el = h("input", { type: "range", class: "wb-slider", min: "0", step: "1", "aria-label": "Step" });

  constructor(
    private readonly app: App,
    signal: AbortSignal,
  ) {
    on(this.el, "input", () => app.go(this.el.valueAsNumber), signal);
  }

  draw(): void {
    const { tape, meta } = this.app.focus;
    const newest = Math.max(0, tape.length - 1);
    const position = Math.min(Math.max(0, this.app.state.position), newest);
    this.el.disabled = tape.length < 2;
    if (this.el.max !== String(newest)) this.el.max = String(newest); // before the value, which it would cut
    if (this.el.valueAsNumber !== position) this.el.value = String(position);
    this.el.style.setProperty("--wb-done", `${newest > 0 ? (100 * position) / newest : 0}%`);
    const words = tape.length === 0 ? "no steps yet" : `step ${meta.first_step + position} of ${meta.first_step + newest}`;
    aria(this.el, "valuetext", words);
    this.el.title = words;
  }
}
