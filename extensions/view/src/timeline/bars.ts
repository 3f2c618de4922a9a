/** The strips above and below the rows: tokens of a step by kind against the budget, and its milliseconds by phase. */

import { COLOURS } from "../theme.js";
import { type Box, DETAILED, type Pen } from "./scale.js";
import { CACHED, DECODE, FIELDS, FORWARD, LIMIT, PLAN, PREFILL, SAMPLE, TIME, TOKENS, type Totals, VERIFY } from "./totals.js";

const LEAST = 1.5; // CSS pixels of tokens that are there at all
const ROOM = 9; // CSS pixels above the scale's top: for tokens that were spared, and for marks

type Coat = readonly [field: number, colour: string | CanvasPattern, alpha: number];

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

export function drawTokens(pen: Pen, totals: Totals, box: Box): void {
  const top = tokenTop(totals);
  const scale = { top: box.top + ROOM, bottom: box.bottom };
  const heights = stack(pen, totals, scale, top, TOKENS, [
    [DECODE, COLOURS.decode, 1],
    [VERIFY, COLOURS.verify, 1],
    [PREFILL, COLOURS.prefill, 1],
  ]);
  drawSpared(pen, totals, box, (scale.bottom - scale.top) / top, heights);
  drawLimit(pen, totals, scale, top);
}

export function drawTimes(pen: Pen, totals: Totals, box: Box, usualMs: number): void {
  const top = timeTop(totals, usualMs);
  const scale = { top: box.top + ROOM, bottom: box.bottom };
  const { theme } = pen;
  stack(pen, totals, scale, top, TIME, [
    [PLAN, COLOURS.plan, 1],
    [FORWARD, theme.dim, 0.32],
    [SAMPLE, theme.dim, 1],
  ]);
  markCut(pen, totals, box, top);
}

/** Stacked bars, a mean per column, over a pale one for the highest step that shares the column; how high each became. */
function stack(pen: Pen, totals: Totals, box: Box, top: number, peak: number, coats: readonly Coat[]): Float32Array {
  const { context, scale } = pen;
  const values = totals.level(scale.level);
  const unit = (box.bottom - box.top) / top;
  const [from, to] = scale.columns(totals.length);
  const heights = new Float32Array(to - from);
  if (scale.level > 0) paint(pen, totals, box, new Float32Array(to - from), [peak, pen.theme.dim, 0.25], (column) => values[column * FIELDS + peak]! * unit);
  const one = (field: number) => (column: number): number => (values[column * FIELDS + field]! * unit) / steps(pen, column, totals.length);
  for (const coat of coats) paint(pen, totals, box, heights, coat, one(coat[0]), peak === TOKENS ? LEAST : 0);
  context.globalAlpha = 1;
  return heights;
}

function paint(pen: Pen, totals: Totals, box: Box, heights: Float32Array, [, colour, alpha]: Coat, heightOf: (column: number) => number, least = 0): void {
  const { context, scale } = pen;
  const size = 2 ** scale.level;
  const [from, to] = scale.columns(totals.length);
  context.fillStyle = colour;
  context.globalAlpha = alpha;
  for (let column = from, left = scale.edge(from * size); column < to; column++) {
    const right = scale.edge(Math.min(totals.length, (column + 1) * size));
    const height = heightOf(column);
    if (height > 0) {
      const base = heights[column - from]!;
      const shown = Math.min(Math.max(least, height), box.bottom - box.top - base);
      context.fillRect(left, box.bottom - base - shown, right - left - scale.gap, shown);
      heights[column - from] = base + shown;
    }
    left = right;
  }
}

const steps = (pen: Pen, column: number, length: number): number => {
  const size = 2 ** pen.scale.level;
  return Math.min(size, length - column * size);
};

/** Tokens that the prefix cache spared: outlined and hatched, on top of what was computed; open above where there is no room for all. */
function drawSpared(pen: Pen, totals: Totals, box: Box, unit: number, heights: Float32Array): void {
  const { context, scale } = pen;
  const values = totals.level(scale.level);
  const [from, to] = scale.columns(totals.length);
  const size = 2 ** scale.level;
  context.fillStyle = scale.step < DETAILED ? COLOURS.cache : pen.hatching.of(COLOURS.cache, scale.ratio);
  context.strokeStyle = COLOURS.cache;
  context.lineWidth = 1;
  for (let column = from; column < to; column++) {
    const spared = values[column * FIELDS + CACHED]! / steps(pen, column, totals.length);
    if (spared === 0) continue;
    const left = scale.edge(column * size);
    const width = Math.max(1, scale.edge(Math.min(totals.length, (column + 1) * size)) - left - scale.gap);
    const bottom = box.bottom - heights[column - from]!;
    const height = Math.max(3, spared * unit);
    const top = Math.max(box.top, bottom - height);
    context.fillRect(left, top, width, bottom - top);
    if (scale.step < DETAILED) continue;
    context.beginPath();
    context.moveTo(left + 0.5, bottom);
    context.lineTo(left + 0.5, top + 0.5);
    context[bottom - height < box.top ? "moveTo" : "lineTo"](left + width - 0.5, top + 0.5);
    context.lineTo(left + width - 0.5, bottom);
    context.stroke();
  }
}

/** The token budget, which may change from step to step. */
function drawLimit(pen: Pen, totals: Totals, box: Box, top: number): void {
  const { context, scale } = pen;
  const values = totals.level(scale.level);
  const size = 2 ** scale.level;
  const [from, to] = scale.columns(totals.length);
  const level = (column: number): number => {
    const y = box.bottom - (values[column * FIELDS + LIMIT]! / top) * (box.bottom - box.top);
    return Math.round(Math.max(y, box.top)) - 0.5;
  };
  context.beginPath();
  context.moveTo(scale.left, level(from));
  for (let column = from; column < to; column++) {
    context.lineTo(scale.edge(column * size), level(column));
    context.lineTo(column === to - 1 ? scale.right : scale.edge((column + 1) * size), level(column));
  }
  context.setLineDash([4, 3]);
  context.strokeStyle = pen.theme.ink;
  context.lineWidth = 1;
  context.stroke();
  context.setLineDash([]);
}

/** An arrowhead over every bar that goes on above the scale's top. */
function markCut(pen: Pen, totals: Totals, box: Box, top: number): void {
  const { context, scale } = pen;
  const values = totals.level(scale.level);
  const size = 2 ** scale.level;
  const [from, to] = scale.columns(totals.length);
  context.fillStyle = pen.theme.ink;
  context.beginPath();
  for (let column = from; column < to; column++) {
    if (values[column * FIELDS + TIME]! <= top * 1.001) continue;
    const x = (scale.edge(column * size) + scale.edge(Math.min(totals.length, (column + 1) * size)) - scale.gap) / 2;
    context.moveTo(x - 3.5, box.top + 7);
    context.lineTo(x + 3.5, box.top + 7);
    context.lineTo(x, box.top + 1.5);
  }
  context.fill();
}
