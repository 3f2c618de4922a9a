/** The timeline: a column per step, a row per request; above it what each step computed, below it how long it took. */

import type { App, MakePanel, Panel, RunView } from "../app.js";
import { aria, box, button, h, hide, mark, on, section, setText, span } from "../dom.js";
import { whole } from "../format.js";
import { LEFT, RIGHT } from "../plot.js";
import { Chart, type Hit } from "../timeline/chart.js";
import { type Hands, listen } from "../timeline/gestures.js";
import type { RowKind } from "../timeline/lanes.js";
import { drawLegend } from "../timeline/legend.js";
import { Minimap } from "../timeline/minimap.js";
import { Scale, WIDEST } from "../timeline/scale.js";
import { pan, settle, type Stretch, stretchOf, WHOLE, zoom } from "../timeline/stretch.js";
import { cellWords, flagWords, timeWords, tokenWords } from "../timeline/words.js";

const CROWDED = 3; // CSS pixels a step under which a followed run shows its end only
const ROWS_HEIGHT = 300; // CSS pixels of rows at most; less for each of several runs

class Timeline implements Panel, Hands {
  readonly #frame = section("wb-timeline", "steps");
  readonly el = this.#frame.el;
  readonly #runs = box("wb-tl-runs");
  readonly #legend = box("wb-legend wb-tl-legend");
  readonly #foot: HTMLElement;
  readonly #map: Minimap;
  readonly #kinds: readonly HTMLButtonElement[];
  #charts: Chart[] = [];
  #kind: RowKind = "requests";
  #length = 0; // columns of the longest run
  #shown: Stretch = WHOLE;
  #whole = true; // also of what is still to come
  #fitted = false; // the whole run was asked for, however narrow its steps become
  #cursor = -1;

  constructor(
    private readonly app: App,
    private readonly signal: AbortSignal,
  ) {
    this.#map = new Minimap((first, last) => this.#look(stretchOf(first, last, this.#least, this.#length)), signal);
    this.#kinds = [this.#kindButton("requests", "requests"), this.#kindButton("slots", "batch slots")];
    const zoomBy = (factor: number) => (): void => this.zoom(factor, this.#middle());
    const tools = [
      button("−", "show more steps", zoomBy(1.6)),
      button("+", "show fewer steps", zoomBy(1 / 1.6)),
      button("fit", "show the whole run", () => this.#show(WHOLE)),
    ];
    this.#foot = box("wb-tl-foot", this.#legend, h("div", { class: "wb-tl-tools", role: "group", "aria-label": "rows and zoom" }, span("", "rows:"), ...this.#kinds, ...tools));
    this.#frame.body.append(this.#runs, this.#map.el, this.#foot);
  }

  draw(): void {
    const { app } = this;
    this.#sync();
    const bound = app.runs.length > 1 ? Math.max(90, ROWS_HEIGHT / app.runs.length) : ROWS_HEIGHT;
    this.#charts.forEach((chart, i) => chart.update(app.runs[i]!, this.#kind, bound));
    this.#length = Math.max(0, ...this.#charts.map((chart) => chart.extent));
    hide(this.#foot, this.#length === 0);
    const width = this.#runs.clientWidth;
    if (width > 0) this.#drawCharts(width);
    const budget = app.focus.tape.at("token_limit", Math.min(app.state.position, app.focus.tape.length - 1));
    const rows = this.#kind === "slots" ? "batch slots" : "requests";
    const against = budget > 0 ? ` against the budget of ${whole(budget)}` : "";
    setText(this.#frame.note, `tokens per step${against} · rows: ${rows} · below: milliseconds per step`);
    this.#kinds.forEach((each) => aria(each, "pressed", each.dataset["kind"] === this.#kind));
    drawLegend(this.#legend, this.#charts);
  }

  zoom(factor: number, around: number): void {
    this.#show(zoom(this.#shown, factor, around, this.#least, this.#length));
  }

  pan(steps: number): void {
    this.#look(pan(this.#shown, steps, this.#length));
  }

  point(chart: Chart, hit: Hit, pressed: boolean): void {
    const { app } = this;
    if (pressed && app.focus.run !== chart.run.run) app.set({ focus: chart.run.run, request: null });
    const request = pressed && hit.place >= 0 ? chart.plan.requestAt(hit.place, hit.position) : -1;
    if (hit.strip === "names") app.select(request === app.state.request || request < 0 ? null : request);
    else if (request >= 0) app.select(request, hit.position);
    else if (hit.position >= 0 && (pressed || hit.position !== app.state.position)) app.go(hit.position);
  }

  hover(chart: Chart, hit: Hit, event: PointerEvent): void {
    const words = this.#words(chart, hit, chart.canvas.place(event)[0]);
    this.app.tooltip.show(words, event);
  }

  leave(): void {
    this.app.tooltip.hide();
  }

  redraw(): void {
    this.app.redraw();
  }

  #words(chart: Chart, hit: Hit, x: number): string {
    const { run, scale } = chart;
    const at = scale.position(x);
    const { error } = run.status;
    if (hit.strip === "names") return chart.plan.name(hit.place);
    if (x < scale.left || hit.strip === "axis" || hit.strip === "bar") return "";
    if (hit.strip === "flags") return flagWords(run, chart.digest.commands, at, 8 / scale.step);
    if (error !== undefined && at >= chart.failedAt) return `step ${error.step} failed\n${error.type}: ${error.message}`;
    const near = (position: number): boolean => Math.abs(at - position) * scale.step < 5;
    if (hit.strip !== "rows" && run.parted !== undefined && near(run.parted.position)) return `first difference\n${run.parted.sentence}`;
    if (at >= run.tape.length || hit.strip === "head") return "";
    const share = scale.share(hit.position, run.tape.length);
    if (hit.strip === "tokens") return tokenWords(run, share);
    if (hit.strip === "times") return timeWords(run, share);
    const request = hit.place < 0 ? -1 : chart.plan.requestAt(hit.place, hit.position);
    return request < 0 ? "" : cellWords(run, share, request);
  }

  /** Steps that fill the width when they are as wide as can be. */
  get #least(): number {
    const { left, right } = this.#charts[0]!.scale;
    return (right - left) / WIDEST;
  }

  /** Show a stretch; who looks back follows no longer. */
  #look(stretch: Stretch): void {
    if (stretch !== WHOLE && stretch.last < this.app.focus.tape.length && this.app.state.follow) this.app.set({ follow: false });
    this.#show(stretch);
  }

  /** Where the buttons zoom around: the cursor, if it is in sight. */
  #middle(): number {
    const { first, last } = this.#shown;
    const at = this.app.state.position + 0.5;
    return at >= first && at <= last ? at : (first + last) / 2;
  }

  /** Show what the user chose. */
  #show(stretch: Stretch): void {
    this.#whole = this.#fitted = stretch === WHOLE;
    this.#shown = this.#whole ? { first: 0, last: Math.max(1, this.#length) } : stretch;
    this.app.set(this.#shown);
  }

  #drawCharts(width: number): void {
    const { app } = this;
    const left = Math.max(LEFT, ...this.#charts.map((chart) => chart.gutter(app, 0.24 * width)));
    const right = width - RIGHT;
    app.gutter = { left, width };
    this.#settle(right - left);
    const scale = new Scale(this.#shown.first, this.#shown.last, left, right, window.devicePixelRatio || 1);
    const selected = app.state.request === null ? undefined : app.focus.tape.requests[app.state.request]?.id;
    const inRun = (run: RunView): number => (selected === undefined ? -1 : run.tape.requests.findIndex((request) => request.id === selected));
    for (const chart of this.#charts) chart.draw(app, scale, inRun(chart.run));
    const whole = (this.#whole && scale.level === 0) || this.#length === 0;
    hide(this.#map.el, whole);
    const focused = this.#charts.find((chart) => chart.run === app.focus) ?? this.#charts[0]!;
    if (!whole) this.#map.draw(app, focused, this.#shown, this.#length);
  }

  /** Put the stretch of the state right, and say so to the other panels. */
  #settle(width: number): void {
    const { state, focus } = this.app;
    const span = state.last - state.first;
    const whole = same(state, this.#shown) ? this.#whole : span <= 0 || span >= this.#length;
    const grows = focus.live && (focus.status.state === "running" || focus.status.state === "paused");
    const room = grows && !this.#fitted ? Math.floor(width / CROWDED) : Infinity;
    const moved = this.#cursor !== state.position;
    this.#cursor = state.position;
    const { follow, position: cursor } = state;
    this.#shown = settle(state, whole, { length: this.#length, newest: focus.tape.length, room, follow, cursor, moved });
    this.#whole = this.#shown.last - this.#shown.first >= this.#length;
    if (!same(state, this.#shown)) this.app.set(this.#shown);
  }

  /** A chart for every run, made anew for one that is another run than before. */
  #sync(): void {
    const { app } = this;
    const same = app.runs.length === this.#charts.length && app.runs.every((run, i) => run.tape === this.#charts[i]!.run.tape);
    if (!same) {
      this.#charts = app.runs.map((run) => this.#charts.find((chart) => chart.run.tape === run.tape) ?? this.#chart(run));
      this.#runs.replaceChildren(...this.#charts.map((chart) => chart.el));
    }
    for (const chart of this.#charts) {
      const focused = chart.run.run === app.focus.run;
      setText(chart.heading, chart.run.name);
      hide(chart.heading, app.runs.length < 2);
      aria(chart.heading, "pressed", focused);
      mark(chart.el, "wb-tl-focus", focused && app.runs.length > 1);
    }
  }

  #chart(run: RunView): Chart {
    const chart = new Chart(run);
    chart.heading.title = "show this run in the other panels";
    on(chart.heading, "click", () => this.app.set({ focus: chart.run.run }), this.signal);
    listen(chart, this, this.signal);
    return chart;
  }

  #kindButton(kind: RowKind, face: string): HTMLButtonElement {
    const made = button(face, `a row per ${kind === "slots" ? "place in the batch" : "request"}`, () => {
      this.#kind = kind;
      this.app.redraw();
    });
    made.dataset["kind"] = kind;
    return made;
  }
}

const same = (one: Stretch, other: Stretch): boolean => Math.abs(one.first - other.first) + Math.abs(one.last - other.last) < 1e-6;

export const timeline: MakePanel = (app, signal) => new Timeline(app, signal);
