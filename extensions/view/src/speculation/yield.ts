/** `Yield`: tokens per round and the drafts that were chosen over the steps, and below what each step cost. */

import type uPlot from "uplot";
import type { App } from "../app.js";
import { type Columns, Extremes, columnsOf, stretchOf } from "../extremes.js";
import { once } from "../follow.js";
import { ms } from "../format.js";
import { type Face, Plot, type Settings, stepAxis, valueAxis, within, write } from "../plot.js";
import type { Tape } from "../tape.js";
import { COLOURS, type Theme } from "../theme.js";
import { NO_CODE } from "../wire.js";
import { acceptanceOf } from "./rounds.js";

const HEIGHT = 112;
const BELOW = 0.6; // height of the costs, as a share of that of the tokens

export class Yield implements Face {
  readonly height = HEIGHT;
  readonly #plot: Plot;
  #top = 2; // tokens at the top
  #columns: Columns = { level: 0, from: 0, to: 0 };

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
    return 2 ** this.#columns.level;
  }

  draw(): void {
    const { tape } = this.app.focus;
    this.#plot.draw("", tape, tape.version);
    const { rounds, emittedBefore } = acceptanceOf(tape);
    this.#plot.describe(`Tokens per round over the steps; on average ${(emittedBefore[tape.length]! / rounds).toFixed(2)} in ${rounds} rounds.`);
  }

  settings(theme: Theme): Settings {
    const stroke = COLOURS.verify;
    const line = { scale: "tokens", auto: false, spanGaps: true, points: { show: false } };
    return {
      series: [
        {},
        { ...line, paths: () => null, stroke, points: { show: true, size: 4, space: 0, fill: stroke, stroke } },
        { ...line, stroke: theme.ink, width: 1.5 },
        { ...line, stroke: theme.dim, dash: [2, 3] },
      ],
      scales: { x: { time: false }, tokens: { range: () => [-BELOW * this.#top, this.#top] } },
      axes: [stepAxis(this.app, theme), { ...valueAxis(theme, String), scale: "tokens", splits: () => this.#splits() }],
      hooks: { drawAxes: [(plot) => within(plot, (context, width, height) => this.#cost(context, width, height))] },
    };
  }

  data(first: number, last: number, pixels: number): uPlot.AlignedData {
    const { tape } = this.app.focus;
    const { roundsBefore, emittedBefore, positions } = acceptanceOf(tape);
    const columns = (this.#columns = columnsOf(first, last, tape.length, pixels));
    const mean = (from: number, to: number): number | null => {
      const rounds = roundsBefore[to]! - roundsBefore[from]!;
      return rounds > 0 ? (emittedBefore[to]! - emittedBefore[from]!) / rounds : null;
    };
    const stretches = Array.from({ length: columns.to - columns.from }, (_, i) => stretchOf(columns.level, columns.from + i, tape.length));
    const each = <Value>(value: (from: number, to: number) => Value): Value[] => stretches.map(([from, to]) => value(from, to));
    const chosen = each((_, to) => draftsChosen(tape, to - 1));
    this.#top = Math.max(positions.length, ...chosen.map(Number)) + 1.4;
    return [each((from, to) => (from + to - 1) / 2), each(mean), each((_, to) => mean(0, to)), chosen];
  }

  #splits(): number[] {
    const each = Math.max(1, Math.ceil(this.#top / 4));
    return Array.from({ length: Math.floor(this.#top / each) + 1 }, (_, i) => i * each);
  }

  #cost(context: CanvasRenderingContext2D, width: number, height: number): void {
    const { theme } = this.app;
    const [first, last] = this.#plot.stretch;
    const { tape } = this.app.focus;
    const { level, from, to } = this.#columns;
    const costs = costsOf(tape).update();
    const slowest = Array.from({ length: to - from }, (_, i) => costs.of(level, from + i)[1]);
    const most = Math.max(0, ...slowest);
    const room = (height * BELOW) / (1 + BELOW) - 4;
    const step = width / (last - first);
    context.fillStyle = theme.wait;
    slowest.forEach((value, i) => {
      const [left, right] = stretchOf(level, from + i, tape.length).map((position) => (position - first) * step) as [number, number];
      const tall = most > 0 ? (value / most) * room : 0;
      context.fillRect(left, height - tall, Math.max(1, right - left - (step > 4 ? 1 : 0)), tall);
    });
    write(context, theme, `ms per step, up to ${ms(most)}`, width - 4, height - room - 2);
  }
}

/** How many drafts a step asked for, where that was chosen for it. */
export function draftsChosen(tape: Tape, position: number): number | null {
  const found = tape.at("num_drafts", position);
  return found === NO_CODE ? null : found;
}

/** Milliseconds of the steps. */
const costsOf = once((tape: Tape) => new Extremes(tape, (position) => tape.durationMs(position)));
