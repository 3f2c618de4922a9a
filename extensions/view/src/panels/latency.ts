/** The latency panel: every gap between tokens and every first token, over the step in which the token came. */

import type uPlot from "uplot";
import type { App, MakePanel, Panel } from "../app.js";
import { box, button, entitle, h, mark, on, section, setText, span } from "../dom.js";
import { count, ms, number } from "../format.js";
import { Area, limits, logSplits } from "../latency/area.js";
import { drawLatencies } from "../latency/dots.js";
import { Folded } from "../latency/folded.js";
import { type Gaps, gapsOf } from "../latency/gaps.js";
import { type Found, nearest } from "../latency/near.js";
import { firstWords, gapWords } from "../latency/words.js";
import { type Face, Plot, type Settings, placeOn, stepAxis, valueAxis, within } from "../plot.js";
import type { Tape } from "../tape.js";
import type { Theme } from "../theme.js";

const HEIGHT = 128;

export const latency: MakePanel = (app, signal) => new LatencyPanel(app, signal);

class LatencyPanel implements Panel, Face {
  readonly el: HTMLElement;
  readonly height = HEIGHT;
  readonly #plot: Plot;
  readonly #scale = button("linear", "Linear scale", () => this.#switch(), "wb-mini");
  readonly #jump = button("go to p99", "Go to the first gap that is as long as the 99th percentile or longer", () => this.#goTo99(), "wb-mini");
  #folded: readonly [of: Tape | undefined, folded: Folded] = [undefined, new Folded()];
  #log = true; // first tokens take many times longer than gaps: both are seen on a logarithmic scale

  constructor(
    private readonly app: App,
    signal: AbortSignal,
  ) {
    const { el, body, note } = section("wb-latency", "latency", "every inter-token gap; click a dot to go to its step");
    this.el = el;
    note.after(this.#scale, this.#jump);
    this.#plot = new Plot(app, this, signal);
    body.append(this.#plot.el, legend());
    app.tooltip.over(this.#plot.el, (event) => this.#hover(event), signal);
    on(this.#plot.el, "click", (event) => this.#click(event), signal);
  }

  draw(): void {
    const { tape } = this.app.focus;
    const gaps = gapsOf(tape);
    this.#jump.disabled = gaps.count === 0;
    this.#plot.draw(this.#log ? "log" : "linear", tape, tape.version, this.app.state.request);
    this.#plot.describe(summary(gaps));
  }

  settings(theme: Theme): Settings {
    return {
      series: [{}, { scale: "ms", auto: false, paths: () => null, points: { show: false } }],
      scales: { x: { time: false }, ms: { distr: this.#log ? 3 : 1, range: () => [...this.#limits()] } },
      axes: [stepAxis(this.app, theme), this.#axis(theme)],
      hooks: { draw: [(plot) => within(plot, (context, width, height) => this.#paint(context, width, height))] },
    };
  }

  /** Nothing for uPlot's own series: dots are drawn by `drawLatencies`, which knows which of them fall together. */
  data(first: number, last: number): uPlot.AlignedData {
    return [[first, last], [null, null]];
  }

  #axis(theme: Theme): uPlot.Axis {
    const axis = { ...valueAxis(theme, short), scale: "ms" };
    return this.#log ? { ...axis, splits: () => logSplits(...this.#limits()), filter: (_, splits) => splits } : axis;
  }

  #limits(): readonly [low: number, high: number] {
    const { ordered, count: gaps, firsts } = gapsOf(this.app.focus.tape);
    const waits = firsts.map((first) => first.ms);
    const least = Math.min(ordered[0] ?? Infinity, ...waits);
    return limits(least, Math.max(ordered[gaps - 1] ?? 0, ...waits), this.#log);
  }

  #area(width: number, height: number): Area {
    return new Area(width, height, ...this.#plot.stretch, ...this.#limits(), this.#log);
  }

  #paint(context: CanvasRenderingContext2D, width: number, height: number): void {
    const { theme, state, focus } = this.app;
    drawLatencies(context, this.#area(width, height), gapsOf(focus.tape), this.#foldedOf(focus.tape), { theme, selected: state.request });
  }

  #foldedOf(tape: Tape): Folded {
    if (tape !== this.#folded[0]) this.#folded = [tape, new Folded()];
    return this.#folded[1];
  }

  #under(event: MouseEvent): Found | undefined {
    const over = this.#plot.over;
    if (over === undefined) return undefined;
    return nearest(this.#area(over.clientWidth, over.clientHeight), gapsOf(this.app.focus.tape), ...placeOn(over, event));
  }

  #hover(event: MouseEvent): string {
    const { tape } = this.app.focus;
    const found = this.#under(event);
    mark(this.#plot.el, "wb-pointing", found !== undefined);
    if (found === undefined) return "";
    return found.kind === "gap" ? gapWords(tape, gapsOf(tape), found.gap) : firstWords(tape, found.first);
  }

  #click(event: MouseEvent): void {
    const found = this.#under(event);
    if (found?.kind === "gap") this.#show(found.gap);
    else if (found !== undefined) this.app.select(found.first.request, found.first.position);
  }

  #show(gap: number): void {
    const gaps = gapsOf(this.app.focus.tape);
    this.app.select(gaps.request[gap]!, gaps.position[gap]!);
  }

  /** To the first gap of the slowest hundredth; when the cursor stands on one, to the next, and round again. */
  #goTo99(): void {
    const { state, focus } = this.app;
    const gaps = gapsOf(focus.tape);
    const slow: number[] = [];
    for (let gap = 0; gap < gaps.count; gap++) if (gaps.ms[gap]! >= gaps.itl.p99) slow.push(gap);
    const here = slow.findIndex((gap) => gaps.position[gap] === state.position && gaps.request[gap] === state.request);
    const next = slow[(here + 1) % slow.length];
    if (next !== undefined) this.#show(next);
  }

  #switch(): void {
    this.#log = !this.#log;
    const other = this.#log ? "linear" : "logarithmic";
    setText(this.#scale, this.#log ? "linear" : "log");
    entitle(this.#scale, `${other[0]!.toUpperCase()}${other.slice(1)} scale`);
    this.app.redraw();
  }
}

/** On the axis, where there is little room. */
const short = (value: number): string => (value >= 1000 ? `${number(value / 1000)} s` : ms(value));

function summary(gaps: Gaps): string {
  if (gaps.firsts.length + gaps.count === 0) return "Latency: no token yet.";
  const first = `time to first token ${number(gaps.ttft.p50)} ms in the median of ${count(gaps.firsts.length, "request")}`;
  const spread = `median ${number(gaps.itl.p50)} ms, 99th percentile ${number(gaps.itl.p99)} ms`;
  return `Latency: ${first}; ${count(gaps.count, "inter-token gap")}${gaps.count > 0 ? `, ${spread}` : ""}.`;
}

function legend(): HTMLElement {
  const marks = [["●", "gap", "wb-mark-gap"], ["●", "longer than 99 % of the gaps", "wb-mark-slow"], ["▲", "first token, since arrival", "wb-mark-first"]] as const;
  return box("wb-legend", ...marks.map(([mark, words, cls]) => span("", h("i", { class: cls }, mark), ` ${words}`)));
}
