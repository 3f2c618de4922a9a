/** What is written over the strips: step numbers, flags, lines at special steps, and the cursor. */

import { whole } from "../format.js";
import { COLOURS } from "../theme.js";
import type { Event } from "./digest.js";
import { type Box, fitted, type Pen, write } from "./scale.js";

/** Step numbers under the strips, at round numbers, but for the place where the number of the position `at` stands. */
export function drawAxis(pen: Pen, y: number, firstStep: number, length: number, at: number): void {
  const { context, scale, theme } = pen;
  const interval = scale.interval(46);
  const last = Math.min(length, scale.last);
  const from = Math.ceil((Math.max(0, scale.first) + firstStep) / interval) * interval;
  for (let step = from; step < last + firstStep; step += interval) {
    const x = scale.x(step - firstStep + 0.5);
    if (x > scale.right) break;
    const text = whole(step);
    if (Math.abs(x - scale.x(at + 0.5)) > text.length * 6 + 8) write(pen, text, x, y + 9, theme.dim, "center");
    context.fillRect(Math.round(x), y, 1, 3);
  }
}

/** A small flag before every step that something was done before. */
export function drawFlags(pen: Pen, commands: readonly Event<"command">[], firstStep: number, y: number): void {
  const { context, scale, theme } = pen;
  context.fillStyle = context.strokeStyle = theme.select;
  let last = -9;
  for (const command of commands) {
    const position = command.step - firstStep;
    const x = Math.round(scale.x(position));
    if (position < scale.first - 0.5 || position > scale.last || x - last < 4) continue;
    last = x;
    context.fillRect(x, y, 1, 10);
    context.beginPath();
    context.moveTo(x + 1, y);
    context.lineTo(x + 7, y + 3);
    context.lineTo(x + 1, y + 6);
    context.fill();
  }
}

/** A line before a position through all strips, and its name above them, which begins or ends at the line. */
export function drawLine(pen: Pen, position: number, box: Box, name: string, colour: string, align: "left" | "right" = "left"): void {
  const { context, scale } = pen;
  if (position < scale.first || position > scale.last) return;
  const x = Math.round(scale.x(position)) - 0.5;
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.setLineDash([2, 2]);
  context.beginPath();
  context.moveTo(x, box.top + 12);
  context.lineTo(x, box.bottom);
  context.stroke();
  context.setLineDash([]);
  const text = fitted(pen, name, 0.6 * (scale.right - scale.left));
  const width = context.measureText(text).width;
  const left = align === "left" ? x - 3 : x + 3 - width;
  write(pen, text, Math.max(2, Math.min(left, scale.right - width)), box.top + 6, colour, "left");
}

/** The step that failed: a crossed column, and what went wrong. */
export function drawFailure(pen: Pen, position: number, box: Box, message: string): void {
  const { context, scale } = pen;
  if (position < scale.first - 1 || position > scale.last) return;
  const left = scale.edge(position);
  const width = Math.max(2, scale.edge(position + 1) - left - scale.gap);
  context.fillStyle = COLOURS.preempted;
  context.globalAlpha = 0.25;
  context.fillRect(left, box.top + 14, width, box.bottom - box.top - 14);
  context.globalAlpha = 1;
  drawLine(pen, position, box, `✗ ${message}`, COLOURS.preempted);
}

/** The column under the cursor, through all strips, and its step number. */
export function drawCursor(pen: Pen, position: number, box: Box, step: number): void {
  const { context, scale, theme } = pen;
  if (position + 1 <= scale.first || position >= scale.last) return;
  const left = scale.edge(position);
  const width = Math.max(2, scale.edge(position + 1) - left);
  context.fillStyle = theme.select;
  context.globalAlpha = width < 4 ? 0.7 : 0.16;
  context.fillRect(left - (width < 4 ? 0 : 0.5), box.top, width, box.bottom - box.top);
  context.globalAlpha = 1;
  const text = whole(step);
  context.font = `bold 10px ${theme.font}`;
  const wide = context.measureText(text).width + 10;
  const middle = Math.max(wide / 2, Math.min(scale.right + 8 - wide / 2, left + width / 2));
  context.beginPath();
  context.roundRect(middle - wide / 2, box.bottom + 2, wide, 14, 4);
  context.fill();
  write(pen, text, middle, box.bottom + 9.5, theme.background, "center", "bold 10px");
}
