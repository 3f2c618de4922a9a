/** `Screen`: one picture of a model — its state, its panels, and the frame loop that draws them when something changed. */

import { actionsOf, SAVED } from "./actions.js";
import type { App, MakePanel, Panel, RunView, State } from "./app.js";
import { box, h, hide, setText, whenOver } from "./dom.js";
import { listenToKeys } from "./keyboard.js";
import type { Model } from "./model.js";
import { blocks } from "./panels/blocks.js";
import { controls } from "./panels/controls.js";
import { header } from "./panels/header.js";
import { knobs } from "./panels/knobs.js";
import { latency } from "./panels/latency.js";
import { load } from "./panels/load.js";
import { speculation } from "./panels/speculation.js";
import { table } from "./panels/table.js";
import { text } from "./panels/text.js";
import { timeline } from "./panels/timeline.js";
import { why } from "./panels/why.js";
import { StatusLine } from "./status.js";
import { type Theme, themeOf } from "./theme.js";
import { Tooltip } from "./tooltip.js";
import type { Why } from "./wire.js";

const ABOVE: readonly MakePanel[] = [header, controls, knobs];
const COLUMNS: readonly (readonly MakePanel[])[] = [
  [timeline, why, latency, load],
  [blocks, text, speculation],
];
const SLOW_MS = 500; // between two pictures of a running engine, for those who want reduced motion

export class Screen implements App {
  readonly el = h("div", { class: "wb-view mathjax_ignore tex2jax_ignore", role: "group", "aria-label": "Inference run" });
  readonly tooltip = new Tooltip();
  gutter = { left: 0, width: 0 };
  theme: Theme;
  state: State;
  readonly #status = new StatusLine();
  readonly #panels: readonly Panel[];
  readonly #main = box("wb-all wb-hidden");
  readonly #empty = h("div", { class: "wb-begin", role: "status" }, "waiting for the run …");
  readonly #still = matchMedia("(prefers-reduced-motion: reduce)");
  #frame = 0;
  #drawn = 0;
  #inSight = true;
  #stale = true;
  #known = 0; // runs seen so far

  constructor(
    private readonly model: Model,
    place: HTMLElement,
    signal: AbortSignal,
  ) {
    place.append(this.el);
    this.theme = themeOf(this.el);
    const position = Math.max(0, (model.runs[0]?.tape.length ?? 0) - 1);
    this.state = { position, follow: true, playing: false, speed: 10, focus: 0, request: null, first: 0, last: 0 };
    const make = (panel: MakePanel): Panel => panel(this, signal);
    const above = ABOVE.map(make);
    const columns = COLUMNS.map((column) => column.map(make));
    const below = make(table);
    // Pictures measure their places, words change them: in this order the page is laid out once a frame.
    this.#panels = [...above, ...columns.flat(), below].sort((one, other) => isPicture(other) - isPicture(one));
    this.#main.append(
      ...above.map((panel) => panel.el),
      box("wb-grid", ...columns.map((panels) => box("wb-column", ...panels.map((panel) => panel.el)))),
      h("footer", { class: "wb-footer" }, this.#status.el, below.el),
    );
    this.el.append(this.#empty, this.#main, this.tooltip.el);
    listenToKeys(this.el, this, actionsOf(this, signal), signal);
    model.listen(() => this.#modelChanged(), signal);
    this.#watch(signal);
    this.#modelChanged();
    whenOver(signal, () => (cancelAnimationFrame(this.#frame), this.el.remove()));
  }

  get runs(): readonly RunView[] {
    return this.model.runs;
  }

  get focus(): RunView {
    return this.model.runs[this.state.focus] ?? this.model.runs[0]!;
  }

  get live(): boolean {
    return this.model.link !== undefined;
  }

  set(change: Partial<State>): void {
    this.state = { ...this.state, ...change };
    this.redraw();
  }

  go(position: number): void {
    const newest = Math.max(0, this.#longest - 1);
    const to = Math.max(0, Math.min(newest, Math.round(position)));
    this.set({ position: to, follow: this.state.follow && to === newest });
  }

  select(request: number | null, position?: number): void {
    this.set({ request });
    if (position !== undefined) this.go(position);
  }

  ask(op: string, args?: Readonly<Record<string, unknown>>): Promise<unknown> {
    if (this.model.link === undefined) return Promise.reject(new Error(SAVED));
    return this.model.link.ask(op, this.focus.run, args);
  }

  why(step: number): Why | undefined {
    if (this.focus.status.state !== "running" || !this.focus.whys.has(step)) this.model.explain(this.focus, step);
    return this.focus.whys.get(step);
  }

  redraw(): void {
    this.#stale = true;
    if (this.#frame === 0 && this.#inSight) this.#frame = requestAnimationFrame(() => this.#draw());
  }

  say(words: string, isError = false): void {
    this.#status.say(words, isError);
  }

  /** Steps of the longest run: the cursor of several runs may stand where one of them has ended. */
  get #longest(): number {
    return this.focus.tape.length;
  }

  #modelChanged(): void {
    const ready = this.model.runs.length > 0 && this.model.trouble === "";
    hide(this.#main, !ready);
    hide(this.#empty, ready);
    if (this.model.trouble !== "") setText(this.#empty, this.model.trouble);
    if (!ready) return;
    this.#welcome();
    const newest = Math.max(0, this.#longest - 1);
    if (this.state.follow || this.state.position > newest) this.state = { ...this.state, position: newest };
    if (!this.#still.matches || performance.now() - this.#drawn > SLOW_MS) this.redraw();
    else setTimeout(() => this.redraw(), SLOW_MS);
  }

  /** A branch that was made of the focused run is what one wants to see next. */
  #welcome(): void {
    const { runs } = this.model;
    const fresh = runs.slice(this.#known).find((run) => run.parent === this.state.focus);
    if (this.#known > 0 && fresh !== undefined) this.state = { ...this.state, focus: fresh.run, follow: true };
    this.#known = runs.length;
  }

  #draw(): void {
    this.#frame = 0;
    if (!this.#stale || this.model.runs.length === 0 || this.model.trouble !== "") return;
    this.#stale = false;
    this.#drawn = performance.now();
    this.theme = themeOf(this.el, this.theme);
    for (const panel of this.#panels) panel.draw();
    this.#status.update(this);
  }

  /** Draw again when the place, its theme or its visibility changes. */
  #watch(signal: AbortSignal): void {
    const size = new ResizeObserver(() => this.redraw());
    size.observe(this.el);
    const sight = new IntersectionObserver((seen) => {
      this.#inSight = seen.at(-1)!.isIntersecting;
      if (this.#inSight && this.#stale) this.redraw();
    });
    sight.observe(this.el);
    const dressed = (): void => this.redraw();
    const themes = new MutationObserver(() => setTimeout(dressed, 50)); // the style sheet comes after the attribute
    for (const root of [document.body, document.documentElement]) themes.observe(root, { attributes: true, attributeFilter: ["class", "theme", "data-jp-theme-light", "data-jp-theme-name", "data-vscode-theme-kind"] });
    document.head.addEventListener("load", dressed, { capture: true, signal });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dressed, { signal });
    whenOver(signal, () => (size.disconnect(), sight.disconnect(), themes.disconnect()));
  }
}

const isPicture = (panel: Panel): number => Number(panel.el.querySelector("canvas, .wb-plot") !== null);
