/** The strips above and below the rows: tokens of a step by kind against the budget, and its milliseconds by phase. */

import { COLOURS } from "../theme.js";
import { type Box, DETAILED, type Pen } from "./scale.js";
import { CACHED, DECODE, FIELDS, FORWARD, LIMIT, PLAN, PREFILL, SAMPLE, TIME, TOKENS, type Totals, VERIFY } from "./totals.js";

const LEAST = 1.5; // CSS pixels of tokens that are there at all
/** CSS pixels above the scale's top: for tokens that were spared, and for marks. */
export const ROOM = 9;

/** The value at the top of the scale: the budget, unless the steps stay so far below it that they could not be told apart. */
export function tokenTop(totals: Totals): number {
  const [limit, most] = [totals.whole()[LIMIT] ?? 0, totals.whole()[TOKENS] ?? 0];
  return most < limit / 4 ? Math.max(1, most) : Math.max(limit, most, 1);
}

/** The value at the top of the scale: the slowest step, unless it would flatten all others; then what lies above is cut off. */
export function timeTop(totals: Totals, usualMs: number): number {
  const slowest = totals.whole()[TIME] ?? 0;
  return slowest > 2.5 * usualMs && usualMs > 0 ? 1.3 * usualMs : slowest;
}

/** Tokens by kind; those that the prefix cache spared on top, and the budget as a line. */
export function drawTokens(pen: Pen, totals: Totals, box: Box): void {
  const bars = new Bars(pen, totals, box, tokenTop(totals), LEAST);
  bars.peaks(TOKENS);
  bars.stack(DECODE, COLOURS.decode);
  bars.stack(VERIFY, COLOURS.verify);
  bars.stack(PREFILL, COLOURS.prefill);
  bars.spared();
  bars.limit();
}

/** Milliseconds by phase; a bar that goes on above the scale's top has an arrowhead. */
export function drawTimes(pen: Pen, totals: Totals, box: Box, usualMs: number): void {
  const bars = new Bars(pen, totals, box, timeTop(totals, usualMs), 0);
  bars.peaks(TIME);
  bars.stack(PLAN, COLOURS.plan);
  bars.stack(FORWARD, pen.theme.dim, 0.32);
  bars.stack(SAMPLE, pen.theme.dim);
  bars.arrows();
}

/** Stacked bars of one strip: means per column, where several steps share one. */
class Bars {
  readonly #values: Float32Array;
  readonly #heights: Float32Array; // of what is stacked so far, by column
  readonly #from: number;
  readonly #unit: number; // CSS pixels

  constructor(
    private readonly pen: Pen,
    private readonly totals: Totals,
    private readonly box: Box,
    private readonly top: number,
    private readonly least: number,
  ) {
    const [from, to] = pen.scale.columns(totals.length);
    this.#values = totals.level(pen.scale.level);
    this.#heights = new Float32Array(to - from);
    this.#from = from;
    this.#unit = (box.bottom - box.top - ROOM) / top;
  }

  /** The highest step of every column, pale, behind the means. */
  peaks(field: number): void {
    if (this.pen.scale.level === 0) return;
    this.#paint(this.pen.theme.dim, 0.25, (column, _) => this.#values[column * FIELDS + field]!);
    this.#heights.fill(0);
  }

  stack(field: number, colour: string, alpha = 1): void {
    this.#paint(colour, alpha, (column, steps) => this.#values[column * FIELDS + field]! / steps);
  }

  #paint(colour: string, alpha: number, valueOf: (column: number, steps: number) => number): void {
    const { context, scale } = this.pen;
    const { top, bottom } = this.box;
    context.fillStyle = colour;
    context.globalAlpha = alpha;
    scale.each(this.totals.length, (column, left, width, steps) => {
      const value = valueOf(column, steps);
      if (value <= 0) return;
      const base = this.#heights[column - this.#from]!;
      const high = Math.min(base + Math.max(this.least, value * this.#unit), bottom - top - ROOM);
      const [below, above] = [scale.snap(bottom - base), scale.snap(bottom - high)];
      context.fillRect(left, above, width, below - above);
      this.#heights[column - this.#from] = high;
    });
    context.globalAlpha = 1;
  }

  /** Tokens that the prefix cache spared: outlined and hatched; open above where there is no room for all. */
  spared(): void {
    const { context, scale, hatching } = this.pen;
    const fine = scale.step < DETAILED;
    context.fillStyle = fine ? COLOURS.cache : hatching.of(COLOURS.cache, scale.ratio);
    context.strokeStyle = COLOURS.cache;
    context.lineWidth = 1;
    scale.each(this.totals.length, (column, left, width, steps) => {
      const spared = this.#values[column * FIELDS + CACHED]! / steps;
      if (spared === 0) return;
      const bottom = this.box.bottom - this.#heights[column - this.#from]!;
      const wanted = bottom - Math.max(3, spared * this.#unit);
      const top = Math.max(this.box.top, wanted);
      context.fillRect(left, top, width, bottom - top);
      if (!fine) this.#outline(left + 0.5, top + 0.5, left + width - 0.5, bottom, wanted < top);
    });
  }

  #outline(left: number, top: number, right: number, bottom: number, open: boolean): void {
    const { context } = this.pen;
    context.beginPath();
    context.moveTo(left, bottom);
    context.lineTo(left, top);
    context[open ? "moveTo" : "lineTo"](right, top);
    context.lineTo(right, bottom);
    context.stroke();
  }

  /** The token budget, which may change from step to step; at the strip's edge when it lies beyond the scale. */
  limit(): void {
    const { context, scale, theme } = this.pen;
    context.beginPath();
    scale.each(this.totals.length, (column, left, width) => {
      const limit = this.#values[column * FIELDS + LIMIT]!;
      const y = Math.max(this.box.top + 0.5, Math.round(this.box.bottom - limit * this.#unit) - 0.5);
      context.lineTo(left, y);
      context.lineTo(left + width + scale.gap, y);
    });
    context.setLineDash([4, 3]);
    context.strokeStyle = theme.ink;
    context.lineWidth = 1;
    context.stroke();
    context.setLineDash([]);
  }

  /** An arrowhead over every bar that goes on above the scale's top. */
  arrows(): void {
    const { context, scale, theme } = this.pen;
    const y = this.box.top + 1.5;
    context.fillStyle = theme.ink;
    context.beginPath();
    scale.each(this.totals.length, (column, left, width) => {
      if (this.#values[column * FIELDS + TIME]! <= this.top * 1.001) return;
      const x = left + width / 2;
      context.moveTo(x - 3.5, y + 5.5);
      context.lineTo(x + 3.5, y + 5.5);
      context.lineTo(x, y);
    });
    context.fill();
  }
}
