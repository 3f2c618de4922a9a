/** Draws latencies: gaps as dots, those above the 99th percentile in another colour, first tokens as triangles. */

import { ms } from "../format.js";
import { write } from "../plot.js";
import { COLOURS, type Theme } from "../theme.js";
import { type Area, lowerBound } from "./area.js";
import { type Folded, ROWS, rowOf } from "./folded.js";
import type { First, Gaps } from "./gaps.js";

const MANY = 4000; // visible dots above which they are drawn as cells
const LABEL = 15; // height of a label
const BESIDE = 80; // from the right: past another label

export interface Look {
  readonly theme: Theme;
  readonly selected: number | null; // request whose dots stand out
}

type Context = CanvasRenderingContext2D;

/** Everything on the plotting area, from the back to the front. */
export function drawLatencies(context: Context, area: Area, gaps: Gaps, folded: Folded, look: Look): void {
  const [first, end] = inSight(area, gaps);
  if (end - first > MANY) cells(context, area, gaps, folded, look);
  else for (const kind of [Kind.Usual, Kind.Selected, Kind.Above]) circles(context, area, gaps, kind, look);
  for (const first of gaps.firsts) triangle(context, area, first, look);
  if (gaps.count > 0) lines(context, area, gaps, look.theme);
}

/** Gaps of the positions in sight, as indices `[first, end)`. */
function inSight(area: Area, gaps: Gaps): readonly [first: number, end: number] {
  const at = (position: number): number => lowerBound(gaps.position, gaps.count, Math.max(0, position));
  return [at(Math.floor(area.first)), at(Math.ceil(area.last))];
}

const enum Kind {
  Usual,
  Selected,
  Above,
}

function kindOf(gaps: Gaps, gap: number, selected: number | null): Kind {
  if (gaps.ms[gap]! > gaps.itl.p99) return Kind.Above;
  return gaps.request[gap] === selected ? Kind.Selected : Kind.Usual;
}

/** Set the colour of a kind; while a request is selected the others step back. */
function paint(context: Context, kind: Kind, selected: number | null): void {
  context.fillStyle = kind === Kind.Above ? COLOURS.preempted : COLOURS.decode;
  context.globalAlpha = kind !== Kind.Usual ? 1 : selected === null ? 0.7 : 0.25;
}

function circles(context: Context, area: Area, gaps: Gaps, kind: Kind, { selected }: Look): void {
  const [first, end] = inSight(area, gaps);
  const radius = kind === Kind.Usual ? 1.7 : 2.2;
  paint(context, kind, selected);
  context.beginPath();
  for (let gap = first; gap < end; gap++) {
    if (kindOf(gaps, gap, selected) !== kind) continue;
    const [x, y] = [area.x(gaps.position[gap]!), area.y(gaps.ms[gap]!)];
    context.moveTo(x + radius, y);
    context.arc(x, y, radius, 0, 7);
  }
  context.fill();
  context.globalAlpha = 1;
}

/** Squares in place of circles, one where many gaps fall together; those of the selected request on top. */
function cells(context: Context, area: Area, gaps: Gaps, folded: Folded, { selected }: Look): void {
  const step = area.width / (area.last - area.first);
  const level = Math.max(0, Math.ceil(-Math.log2(step)));
  const held = folded.cells(gaps, area, level);
  const border = rowOf(area, gaps.itl.p99);
  const from = Math.max(0, Math.floor(area.first / 2 ** level));
  const all = held.subarray(from * ROWS, Math.ceil(area.last / 2 ** level) * ROWS);
  const place = (i: number): number => ((from + i + 0.5) * 2 ** level - area.first) * step;
  const fill = (kind: Kind, what: Uint8Array, top: number, bottom: number): void => {
    paint(context, kind, selected);
    for (let i = 0; i < what.length / ROWS; i++) column(context, what, i, top, bottom, place(i), area.height / ROWS);
  };
  fill(Kind.Usual, all, border, ROWS);
  if (selected !== null) fill(Kind.Selected, own(area, gaps, selected, level, from, all.length), border, ROWS);
  fill(Kind.Above, all, 0, border);
  context.globalAlpha = 1;
}

/** Cells of one request's gaps. */
function own(area: Area, gaps: Gaps, selected: number, level: number, from: number, length: number): Uint8Array {
  const found = new Uint8Array(length);
  const [first, end] = inSight(area, gaps);
  for (let gap = first; gap < end; gap++) {
    if (gaps.request[gap] !== selected) continue;
    found[((gaps.position[gap]! >> level) - from) * ROWS + rowOf(area, gaps.ms[gap]!)] = 1;
  }
  return found;
}

/** Fill the cells of a column that hold something, those above each other in one go. */
function column(context: Context, held: Uint8Array, at: number, top: number, bottom: number, x: number, height: number): void {
  for (let row = top; row < bottom; row++) {
    if (held[at * ROWS + row] === 0) continue;
    const first = row;
    while (row + 1 < bottom && held[at * ROWS + row + 1] === 1) row += 1;
    context.fillRect(x - 1, first * height, 2, (row + 1 - first) * height);
  }
}

function triangle(context: Context, area: Area, { request, position, ms: value }: First, { selected, theme }: Look): void {
  const [x, y] = [area.x(position), area.y(value)];
  if (x < -5 || x > area.width + 5) return;
  context.globalAlpha = selected === null || selected === request ? 1 : 0.35;
  context.fillStyle = COLOURS.prefill;
  context.strokeStyle = theme.background;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(x, y - 5);
  context.lineTo(x + 4.5, y + 3.5);
  context.lineTo(x - 4.5, y + 3.5);
  context.closePath();
  context.stroke();
  context.fill();
  context.globalAlpha = 1;
}

function lines(context: Context, area: Area, gaps: Gaps, theme: Theme): void {
  const upper = area.y(gaps.itl.p99);
  const lower = area.y(gaps.itl.p50);
  line(context, area, upper, [4, 3], theme);
  line(context, area, lower, [1, 3], theme);
  const close = lower - upper < LABEL;
  write(context, theme, `p99 ${ms(gaps.itl.p99)}`, area.width - 4, Math.max(LABEL - 5, upper - 4));
  write(context, theme, `p50 ${ms(gaps.itl.p50)}`, area.width - (close ? BESIDE : 4), Math.max(LABEL - 5, lower - 4));
}

function line(context: Context, area: Area, y: number, dash: number[], theme: Theme): void {
  context.strokeStyle = theme.dim;
  context.lineWidth = 1;
  context.setLineDash(dash);
  context.beginPath();
  context.moveTo(0, Math.round(y) + 0.5);
  context.lineTo(area.width, Math.round(y) + 0.5);
  context.stroke();
  context.setLineDash([]);
}
