/** `Yield`: tokens per round over the steps, and below what each step cost. */

import type uPlot from "uplot";
import type { App } from "../app.js";
import { ms } from "../format.js";
import { type Bounds, type Face, Plot, type Settings, edges, stairs, stepAxis, valueAxis, within } from "../plot.js";
import { COLOURS, type Theme } from "../theme.js";
import { acceptanceOf } from "./rounds.js";

const HEIGHT = 112;
const BELOW = 0.6; // height of the costs, as a share of that of the tokens

export class Yield implements Face {
  readonly height = HEIGHT;
  readonly #plot: Plot;
  #top = 2; // tokens at the top
  #bounds: Bounds = new Uint32Array(0);
  #costs = new Float64Array(0); // least and most ms of each stretch

  constructor(
    private readonly app: App,
    signal: AbortSignal,
  ) {
    this.#plot = new Plot(app, this, signal);
  }

  get el(): HTMLElement {
    return this.#plot.el;
  }

  /** Steps that stand together in one dot. */
  get together(): number {
    return this.#bounds.length > 1 ? this.#bounds[1]! - this.#bounds[0]! : 1;
  }

  draw(): void {
    const { tape } = this.app.focus;
    this.#plot.draw("", tape, tape.version);
    const { rounds, emittedBefore } = acceptanceOf(tape);
    this.#plot.describe(`Tokens per round over the steps; on average ${(emittedBefore[tape.length]! / rounds).toFixed(2)} in ${rounds} rounds.`);
  }

  settings(theme: Theme): Settings {
    const points = { show: true, size: 4, space: 0, fill: COLOURS.verify, stroke: COLOURS.verify };
    return {
      series: [
        {},
        { scale: "tokens", auto: false, paths: () => null, stroke: COLOURS.verify, points },
        { scale: "tokens", auto: false, stroke: theme.ink, width: 1.5, spanGaps: true, points: { show: false } },
      ],
      scales: { x: { time: false }, tokens: { range: () => [-BELOW * this.#top, this.#top] } },
      axes: [stepAxis(this.app, theme), { ...valueAxis(theme, String), scale: "tokens", splits: () => this.#splits() }],
      hooks: { drawAxes: [(plot) => within(plot, (context, width, height) => this.#cost(context, width, height))] },
    };
  }

  data(first: number, last: number, pixels: number): uPlot.AlignedData {
    const { focus } = this.app;
    const { roundsBefore, emittedBefore, positions } = acceptanceOf(focus.tape);
    const bounds = (this.#bounds = edges(first, last, focus.tape.length, pixels));
    this.#costs = stairs(bounds, (position) => focus.tape.durationMs(position));
    this.#top = positions.length + 1.4;
    const stretches = Array.from(bounds.subarray(1), (to, i) => [bounds[i]!, to] as const);
    const mean = (from: number, to: number): number | null => {
      const rounds = roundsBefore[to]! - roundsBefore[from]!;
      return rounds > 0 ? (emittedBefore[to]! - emittedBefore[from]!) / rounds : null;
    };
    return [stretches.map(([from, to]) => (from + to - 1) / 2), stretches.map(([from, to]) => mean(from, to)), stretches.map(([, to]) => mean(0, to))];
  }

  #splits(): number[] {
    const each = Math.max(1, Math.ceil(this.#top / 4));
    return Array.from({ length: Math.floor(this.#top / each) + 1 }, (_, i) => i * each);
  }

  #cost(context: CanvasRenderingContext2D, width: number, height: number): void {
    const { theme } = this.app;
    const [first, last] = this.#plot.stretch;
    const most = this.#costs.reduce((a, b) => Math.max(a, b), 0);
    const room = (height * BELOW) / (1 + BELOW) - 4;
    const step = width / (last - first);
    const bar = (i: number, value: number, least: number): void => {
      const [left, right] = [(this.#bounds[i]! - first) * step, (this.#bounds[i + 1]! - first) * step];
      const tall = most > 0 ? (value / most) * room : 0;
      context.fillRect(left, height - tall, Math.max(1, right - left - (step > 3 ? 1 : 0)), Math.max(least, 0) || tall);
    };
    context.fillStyle = theme.wait;
    for (let i = 0; i + 1 < this.#bounds.length; i++) bar(i, this.#costs[2 * i + 1]!, 0);
    context.fillStyle = theme.dim;
    for (let i = 0; i + 1 < this.#bounds.length; i++) bar(i, this.#costs[2 * i + 1]!, 1.5);
    this.#label(context, `ms per step, up to ${ms(most)}`, width - 4, height - room - 2);
  }

  #label(context: CanvasRenderingContext2D, text: string, x: number, y: number): void {
    const { theme } = this.app;
    context.font = `10px ${theme.font}`;
    context.textAlign = "right";
    context.lineJoin = "round";
    context.lineWidth = 3;
    context.strokeStyle = theme.background;
    context.strokeText(text, x, y);
    context.fillStyle = theme.dim;
    context.fillText(text, x, y);
  }
}
