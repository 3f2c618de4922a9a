/** The load panel: blocks in use, cached and free, and how many requests run and wait, over the steps. */

import type uPlot from "uplot";
import type { App, MakePanel, Panel } from "../app.js";
import { box, h, on, section, span } from "../dom.js";
import { Extremes, columnsOf } from "../extremes.js";
import { once } from "../follow.js";
import { count, percent } from "../format.js";
import { type Face, Plot, type Settings, placeOn, stairs, stairsAt, stepAxis, valueAxis, within, write } from "../plot.js";
import type { Tape } from "../tape.js";
import { COLOURS, type Theme } from "../theme.js";

const HEIGHT = 116;
const AIR = 1.12; // above the most requests
const WAITING_DASH = [4, 3];

export const load: MakePanel = (app, signal) => new LoadPanel(app, signal);

class LoadPanel implements Panel, Face {
  readonly el: HTMLElement;
  readonly height = HEIGHT;
  readonly #plot: Plot;
  #most = 1; // requests in sight

  constructor(
    private readonly app: App,
    signal: AbortSignal,
  ) {
    const { el, body } = section("wb-load", "load", "share of the KV pool · requests");
    this.el = el;
    this.#plot = new Plot(app, this, signal);
    body.append(this.#plot.el, legend());
    app.tooltip.over(this.#plot.el, (event) => this.#words(this.#position(event)), signal);
    on(this.#plot.el, "click", (event) => this.#go(this.#position(event)), signal);
  }

  draw(): void {
    const { tape } = this.app.focus;
    this.#plot.draw("", tape, tape.version);
    this.#plot.describe(`KV pool and requests over ${count(tape.length, "step")}. ${this.#words(this.app.state.position)}`);
  }

  settings(theme: Theme): Settings {
    const line = { stroke: theme.ink, width: 1.25, scale: "requests", auto: false, points: { show: false } };
    const area = { scale: "share", auto: false, width: 0.5, points: { show: false } };
    return {
      series: [
        {},
        { ...area, stroke: COLOURS.cache }, // in use and cached: what is above it is free
        { ...area, stroke: COLOURS.prefill, fill: `${COLOURS.prefill}99` },
        { ...line, stroke: theme.ink },
        { ...line, stroke: COLOURS.plan, dash: WAITING_DASH },
      ],
      bands: [{ series: [1, 2], fill: `${COLOURS.cache}66` }],
      scales: { x: { time: false }, share: { range: [0, 1] }, requests: { range: () => [0, this.#most * AIR] } },
      axes: [stepAxis(this.app, theme), { ...valueAxis(theme, percent), scale: "share", splits: [0, 0.5, 1] }],
      hooks: { draw: [(plot) => this.#scale(plot)] },
    };
  }

  data(first: number, last: number, pixels: number): uPlot.AlignedData {
    const { tape } = this.app.focus;
    const columns = columnsOf(first, last, tape.length, pixels);
    const [held, used, ...requests] = seriesOf(tape).map((series) => stairs(series.update(), columns));
    this.#most = Math.max(1, ...requests.map((numbers) => numbers.reduce((a, b) => Math.max(a, b), 0)));
    return [stairsAt(columns, tape.length), held!, used!, ...requests];
  }

  /** The scale of the requests, written inside at the right, so that steps stay below those of the timeline. */
  #scale(plot: uPlot): void {
    const { theme } = this.app;
    within(plot, (context, width, height) => {
      const y = height * (1 - this.#most / (this.#most * AIR));
      context.fillStyle = theme.ink;
      context.fillRect(width - 5, y - 0.5, 5, 1);
      write(context, theme, count(this.#most, "request"), width - 8, y + 4);
    });
  }

  #position(event: MouseEvent): number {
    const [first, last] = this.#plot.stretch;
    const over = this.#plot.over;
    if (over === undefined) return -1;
    return Math.floor(first + (placeOn(over, event)[0] / over.clientWidth) * (last - first));
  }

  #go(position: number): void {
    if (position >= 0 && position < this.app.focus.tape.length) this.app.go(position);
  }

  #words(position: number): string {
    const { tape } = this.app.focus;
    if (position < 0 || position >= tape.length) return "";
    const [used, cached, free, running, waiting] = COLUMNS.map((name) => tape.at(name, position));
    const blocks = `${count(used!, "block")} in use, ${cached} cached, ${free} free`;
    return `step ${tape.firstStep + position}\n${blocks}\n${count(running!, "request")} running, ${waiting} waiting`;
  }
}

/** Blocks that hold something and blocks in use, as shares of the pool; requests that run and that wait. */
const seriesOf = once((tape: Tape): readonly Extremes[] => {
  const share = (held: readonly string[]) => (at: number): number => {
    const of = (names: readonly string[]): number => names.reduce((sum, name) => sum + tape.at(name, at), 0);
    return of(held) / Math.max(1, of(POOL));
  };
  const requests = ["running", "waiting"].map((name) => (at: number) => tape.at(name, at));
  return [share(["kv_in_use", "kv_cached"]), share(["kv_in_use"]), ...requests].map((value) => new Extremes(tape, value));
});

const POOL = ["kv_in_use", "kv_cached", "kv_free"] as const;
const COLUMNS = [...POOL, "running", "waiting"] as const;

function legend(): HTMLElement {
  const kinds = [["in use", "used"], ["cached, reusable", "cached"], ["free", "free"], ["running", "running"], ["waiting", "waiting"]] as const;
  return box("wb-legend", ...kinds.map(([words, kind]) => span("", h("i", { class: `wb-key wb-key-${kind}` }), words)));
}
