/** The strip of rows: which there are, how high, which are in sight, and how they are drawn. */

import { requestColour } from "../theme.js";
import type { RunView } from "../app.js";
import { CellPainter, drawEnd } from "./cells.js";
import type { Digest, Event } from "./digest.js";
import { RANKED } from "./looks.js";
import { type Row, type Rows, rankAt } from "./rows.js";
import { type Box, fitted, type Pen, write } from "./scale.js";
import { Slots, staysBefore } from "./slots.js";

export type RowKind = "requests" | "slots";

const TALL = 18; // CSS pixels of a row where there is room
const SHORT = 4; // below this the rows scroll
const BUSY = new Set<string>(["prefill", "decode", "verify", "idle"]);

/** How the rows of a run are arranged within a bounded height. */
export class Arrangement {
  readonly rowHeight: number;
  readonly height: number; // of the strip
  readonly hidden: number; // pixels that can be scrolled
  /** Index of the request, or of the place in the batch, of each row. */
  readonly indices: readonly number[];
  readonly rows: Rows;
  readonly finished: readonly Event<"finished">[];

  constructor(
    readonly run: RunView,
    digest: Digest,
    readonly kind: RowKind,
    bound: number,
  ) {
    this.finished = digest.finished;
    this.rows = kind === "slots" ? digest.slots : digest.requests;
    this.indices = [...this.rows.rows.keys()].filter((index) => this.rows.rows[index] !== undefined);
    const count = Math.max(1, this.indices.length);
    this.rowHeight = Math.max(SHORT, Math.min(TALL, Math.floor(bound / count)));
    this.height = Math.min(count * this.rowHeight, Math.floor(bound / this.rowHeight) * this.rowHeight);
    this.hidden = count * this.rowHeight - this.height;
  }

  /** Height of a cell; the rest of the row is air. */
  get cellHeight(): number {
    return this.rowHeight - (this.rowHeight >= 12 ? 5 : this.rowHeight >= 7 ? 2 : 1);
  }

  row(place: number): Row {
    return this.rows.rows[this.indices[place]!]!;
  }

  name(place: number): string {
    const index = this.indices[place]!;
    return this.kind === "slots" ? `slot ${index + 1}` : (this.run.tape.requests[index]?.id ?? "?");
  }

  /** The lowest row that has something to do in the newest step; -1 if none. */
  lastActive(): number {
    const newest = this.run.tape.length - 1;
    return this.indices.map((_, place) => place).filter((place) => BUSY.has(RANKED[rankAt(this.row(place), 0, newest)]!)).at(-1) ?? -1;
  }

  /** The request that a row shows at a position; -1 if none. */
  requestAt(place: number, position: number): number {
    const index = this.indices[place];
    if (index === undefined) return -1;
    return this.rows instanceof Slots ? this.rows.requestAt(index, position) : index;
  }
}

/** What a row needs beyond its cells. */
export interface RowsLook {
  readonly selected: number; // request, or -1
  readonly scroll: number; // pixels, whole rows
}

export function drawRows(pen: Pen, plan: Arrangement, box: Box, look: RowsLook): void {
  const painter = new CellPainter(pen, plan.run.tape);
  const first = look.scroll / plan.rowHeight;
  const end = first + plan.height / plan.rowHeight;
  const every = Math.max(1, Math.ceil(10 / plan.rowHeight)); // names that fit below each other
  for (let place = first; place < Math.min(end, plan.indices.length); place++) {
    const y = box.top + place * plan.rowHeight - look.scroll + Math.floor((plan.rowHeight - plan.cellHeight) / 2);
    const chosen = plan.kind === "requests" && plan.indices[place] === look.selected;
    if (chosen) drawChosen(pen, y, plan);
    painter.row(plan.row(place), y, plan.cellHeight, (position) => plan.requestAt(place, position));
    if (chosen || place % every === 0) drawName(pen, plan, place, y + plan.cellHeight / 2, chosen);
    if (plan.rows instanceof Slots) drawStays(pen, plan, plan.rows, place, y, look.selected);
  }
  if (plan.kind === "requests") drawEnds(pen, plan, box, look.scroll);
  if (plan.hidden > 0) drawBar(pen, plan, box, look.scroll);
}

function drawChosen({ context, scale, theme }: Pen, y: number, plan: Arrangement): void {
  context.globalAlpha = 0.1;
  context.fillStyle = theme.select;
  context.fillRect(0, y - 2, scale.right, plan.cellHeight + 4);
  context.globalAlpha = 1;
}

function drawName(pen: Pen, plan: Arrangement, place: number, y: number, chosen: boolean): void {
  const { context, scale, theme } = pen;
  const size = `${chosen ? "bold " : ""}${plan.rowHeight >= 12 ? 11 : 9}px`;
  write(pen, fitted(pen, plan.name(place), scale.left - 14, size), scale.left - 8, y + 0.5, theme.ink, "right", size);
  if (!chosen) return;
  context.fillStyle = requestColour(plan.indices[place]!);
  context.fillRect(scale.left - 5, y - plan.cellHeight / 2, 3, plan.cellHeight);
}

/** A line in the request's colour under each stay, so that one can tell who sits in the place. */
function drawStays({ context, scale }: Pen, plan: Arrangement, slots: Slots, place: number, y: number, selected: number): void {
  const stays = slots.stays[plan.indices[place]!]!;
  for (let i = Math.max(0, staysBefore(stays, scale.first) - 1); i < stays.length && stays[i]!.first < scale.last; i++) {
    const { request, first, end } = stays[i]!;
    const left = scale.edge(first);
    const high = request === selected ? 4 : 2;
    context.fillStyle = requestColour(request);
    context.fillRect(left, y + plan.cellHeight - 1, Math.max(1, scale.edge(end) - left - 1), Math.min(high, plan.rowHeight - plan.cellHeight + 1));
  }
}

function drawEnds(pen: Pen, plan: Arrangement, box: Box, scroll: number): void {
  const { scale } = pen;
  const places = new Map(plan.indices.map((index, place) => [index, place]));
  for (const event of plan.finished) {
    const place = places.get(event.request);
    if (place === undefined) continue;
    const y = box.top + place * plan.rowHeight - scroll + Math.floor((plan.rowHeight - plan.cellHeight) / 2);
    if (y < box.top || y > box.top + plan.height) continue;
    const position = Math.min(event.step - plan.run.meta.first_step + 1, plan.row(place).end);
    if (position <= scale.first || position > scale.last) continue;
    drawEnd(pen, event.reason, scale.edge(position) + 1, y, plan.cellHeight);
  }
}

/** The rows' own scroll bar. */
function drawBar({ context, scale, theme }: Pen, plan: Arrangement, box: Box, scroll: number): void {
  const [length, offset] = barOf(plan, scroll);
  context.fillStyle = theme.line;
  context.fillRect(scale.right + 2, box.top, 5, plan.height);
  context.fillStyle = theme.dim;
  context.fillRect(scale.right + 2, box.top + offset, 5, length);
}

/** Length and offset of the scroll bar's thumb, in pixels. */
function barOf(plan: Arrangement, scroll: number): readonly [length: number, offset: number] {
  const all = plan.height + plan.hidden;
  return [Math.max(12, (plan.height * plan.height) / all), (scroll * plan.height) / all];
}
