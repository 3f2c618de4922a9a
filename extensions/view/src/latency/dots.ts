/** Draws latencies: gaps as dots, those above the 99th percentile in another colour, first tokens as triangles. */

import { ms } from "../format.js";
import { COLOURS, type Theme } from "../theme.js";
import { type Area, lowerBound } from "./area.js";
import type { First, Gaps } from "./gaps.js";

const MANY = 4000; // visible dots above which they are drawn as a grid of small squares, each once
const CELL = 2; // its squares, CSS pixels
const LABEL = 12; // height of a label

export interface Look {
  readonly theme: Theme;
  readonly selected: number | null; // request whose dots stand out
}

type Context = CanvasRenderingContext2D;

/** Everything on the plotting area, from the back to the front. */
export function drawLatencies(context: Context, area: Area, gaps: Gaps, look: Look): void {
  dots(context, area, gaps, look);
  for (const first of gaps.firsts) triangle(context, area, first, look);
  if (gaps.count > 0) lines(context, area, gaps, look.theme);
}

/** Gaps of the positions in sight, as indices `[first, end)`. */
export function inSight(area: Area, gaps: Gaps): readonly [first: number, end: number] {
  const at = (position: number): number => lowerBound(gaps.position, gaps.count, Math.max(0, position));
  return [at(Math.floor(area.first)), at(Math.ceil(area.last))];
}

const enum Kind {
  Usual = 1,
  Selected,
  Above,
}

function kindOf(gaps: Gaps, gap: number, selected: number | null): Kind {
  if (gaps.ms[gap]! > gaps.itl.p99) return Kind.Above;
  return gaps.request[gap] === selected ? Kind.Selected : Kind.Usual;
}

/** Set the colour of a kind; while a request is selected the others step back. */
function paint(context: Context, kind: Kind, selected: number | null): number {
  context.fillStyle = kind === Kind.Above ? COLOURS.preempted : COLOURS.decode;
  context.globalAlpha = kind !== Kind.Usual ? 1 : selected === null ? 0.6 : 0.22;
  return kind === Kind.Usual ? 1.7 : 2.6;
}

function dots(context: Context, area: Area, gaps: Gaps, { selected }: Look): void {
  const [first, end] = inSight(area, gaps);
  const grid = end - first > MANY ? occupied(area, gaps, first, end, selected) : undefined;
  for (const kind of [Kind.Usual, Kind.Selected, Kind.Above]) {
    const radius = paint(context, kind, selected);
    if (grid !== undefined) squares(context, area, grid, kind);
    else circles(context, area, gaps, (gap) => kindOf(gaps, gap, selected) === kind, radius);
  }
  context.globalAlpha = 1;
}

function circles(context: Context, area: Area, gaps: Gaps, wanted: (gap: number) => boolean, radius: number): void {
  const [first, end] = inSight(area, gaps);
  context.beginPath();
  for (let gap = first; gap < end; gap++) {
    if (!wanted(gap)) continue;
    const [x, y] = [area.x(gaps.position[gap]!), area.y(gaps.ms[gap]!)];
    context.moveTo(x + radius, y);
    context.arc(x, y, radius, 0, 7);
  }
  context.fill();
}

/** The most important kind that lies in each cell, column by column. */
function occupied(area: Area, gaps: Gaps, first: number, end: number, selected: number | null): Uint8Array {
  const rows = Math.ceil(area.height / CELL) + 1;
  const grid = new Uint8Array((Math.ceil(area.width / CELL) + 1) * rows);
  for (let gap = first; gap < end; gap++) {
    const x = area.x(gaps.position[gap]!);
    if (x < 0 || x >= area.width) continue;
    const cell = Math.floor(x / CELL) * rows + Math.min(rows - 1, Math.max(0, Math.floor(area.y(gaps.ms[gap]!) / CELL)));
    const kind = kindOf(gaps, gap, selected);
    if (kind > grid[cell]!) grid[cell] = kind;
  }
  return grid;
}

/** Fill the cells of a kind, those above each other in one go. */
function squares(context: Context, area: Area, grid: Uint8Array, kind: Kind): void {
  const rows = Math.ceil(area.height / CELL) + 1;
  for (let start = 0; start < grid.length; start += rows) {
    const x = (start / rows) * CELL;
    for (let row = 0; row < rows; row++) {
      if (grid[start + row] !== kind) continue;
      const top = row;
      while (row + 1 < rows && grid[start + row + 1] === kind) row += 1;
      context.fillRect(x, top * CELL, CELL, (row + 1 - top) * CELL);
    }
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
  label(context, area, `p99 ${ms(gaps.itl.p99)}`, Math.max(LABEL - 5, upper - 3), theme);
  label(context, area, `p50 ${ms(gaps.itl.p50)}`, lower - upper < 2 * LABEL ? lower + LABEL - 2 : lower - 3, theme);
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

function label(context: Context, area: Area, text: string, y: number, theme: Theme): void {
  context.font = `10px ${theme.font}`;
  context.textAlign = "right";
  context.textBaseline = "alphabetic";
  context.lineJoin = "round";
  context.lineWidth = 3;
  context.strokeStyle = theme.background;
  context.strokeText(text, area.width - 4, y);
  context.fillStyle = theme.ink;
  context.fillText(text, area.width - 4, y);
}
