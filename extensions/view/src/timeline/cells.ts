/** The cells of one row: what a request, or a place in the batch, does in every step. */

import type { Tape } from "../tape.js";
import { COLOURS } from "../theme.js";
import { FILLS, RANKED } from "./looks.js";
import { type Row, rankAt } from "./rows.js";
import { DETAILED, type Pen, write } from "./scale.js";

export class CellPainter {
  readonly #hatch: CanvasPattern;
  readonly #detailed: boolean;

  constructor(
    private readonly pen: Pen,
    private readonly tape: Tape,
  ) {
    this.#hatch = pen.hatching.of(pen.theme.wait, pen.scale.ratio);
    this.#detailed = pen.scale.step >= DETAILED;
  }

  /** Draw a row's cells, `height` pixels high, from `y` down; `requestAt` says whose step it is. */
  row(row: Row, y: number, height: number, requestAt: (position: number) => number): void {
    const { scale } = this.pen;
    const size = 2 ** scale.level;
    const [from, to] = scale.columns(row.end);
    for (let column = Math.max(from, row.first >> scale.level); column < to; ) {
      const rank = rankAt(row, scale.level, column);
      let end = column + 1;
      while (end < to && rankAt(row, scale.level, end) === rank) end++;
      if (rank > 0) this.#run(RANKED[rank]!, column * size, Math.min(row.end, end * size), y, height, requestAt);
      column = end;
    }
  }

  /** One state over positions `[first, end)`. */
  #run(state: string, first: number, end: number, y: number, height: number, requestAt: (position: number) => number): void {
    const { context, scale } = this.pen;
    const left = scale.edge(first);
    const width = Math.max(1 / scale.ratio, scale.edge(end) - left - scale.gap);
    const fill = FILLS[state as keyof typeof FILLS];
    if (fill === undefined) this.#pause(state, left, width, y, height, end - first);
    else if (this.#detailed) this.#work(state, fill, first, end, y, height, requestAt);
    else {
      const inset = shortened(state, height);
      context.fillStyle = fill;
      context.fillRect(left, y + inset, width, height - 2 * inset);
      if (state !== "verify" || height < 6) return;
      context.fillStyle = "rgb(255 255 255 / 0.55)";
      context.fillRect(left, y + height - 3.5, width, 1.5);
    }
  }

  #pause(state: string, left: number, width: number, y: number, height: number, steps: number): void {
    const { context, theme } = this.pen;
    const middle = Math.round(y + height / 2) - 0.5;
    context.strokeStyle = theme.dim;
    context.lineWidth = 1;
    if (state === "waiting") {
      context.fillStyle = this.#hatch;
      context.fillRect(left, y, width, height);
    } else if (state === "idle") {
      context.fillStyle = theme.dim;
      context.fillRect(left, middle - 0.5, width, height < 6 ? 1 : 2);
    } else if (state === "held") {
      context.setLineDash([1.5, 2]);
      context.strokeRect(left + 0.5, y + 0.5, Math.max(0.5, width - 1), height - 1);
      context.setLineDash([]);
    } else for (let i = 0; i < Math.min(steps, width); i++) this.#triangle(left + ((i + 0.5) * width) / Math.min(steps, width), y, height);
  }

  #triangle(x: number, y: number, height: number): void {
    const { context } = this.pen;
    const size = Math.min(10, Math.max(5, height));
    const top = y + (height - size * 0.9) / 2;
    context.fillStyle = COLOURS.preempted;
    context.beginPath();
    context.moveTo(x - size / 2, top);
    context.lineTo(x + size / 2, top);
    context.lineTo(x, top + size * 0.9);
    context.fill();
  }

  /** Steps of work that are wide enough for their particulars. */
  #work(state: string, fill: string, first: number, end: number, y: number, height: number, requestAt: (position: number) => number): void {
    const { context, scale } = this.pen;
    const inset = shortened(state, height);
    const [from, to] = [Math.max(first, Math.floor(scale.first)), Math.min(end, Math.ceil(scale.last))];
    context.fillStyle = fill;
    context.beginPath();
    for (let position = from; position < to; position++) {
      const left = scale.edge(position);
      const width = scale.edge(position + 1) - left - scale.gap;
      if (width > 0) context.roundRect(left, y + inset, width, height - 2 * inset, Math.min(2.5, width / 3, height / 4));
    }
    context.fill();
    for (let position = from; state !== "decode" && position < to; position++) {
      const left = scale.edge(position);
      const width = scale.edge(position + 1) - left - scale.gap;
      const lane = this.tape.lane(position, requestAt(position));
      if (lane < 0 || width <= 0) continue;
      if (state === "verify") this.#notches(lane, left, width, y, height);
      else this.#prompt(lane, left, width, y, height);
    }
  }

  /** A prefill's share from the cache, at its left, and its count of tokens if there is room. */
  #prompt(lane: number, left: number, width: number, y: number, height: number): void {
    const { context } = this.pen;
    const number = (name: string): number => this.tape.column(`lanes.${name}`)[lane]!;
    const cached = number("cached");
    const tokens = number("end") - number("start");
    const share = cached === 0 ? 0 : Math.min(width, Math.max(2, (width * cached) / (cached + tokens)));
    if (share > 0) {
      context.fillStyle = COLOURS.cache;
      context.beginPath();
      context.roundRect(left, y, share, height, [Math.min(2.5, share / 2), 0, 0, Math.min(2.5, share / 2)]);
      context.fill();
    }
    if (height < 11 || width - share < 15) return;
    const text = String(tokens);
    if (text.length * 6 < width - share) write(this.pen, text, left + (share + width) / 2, y + height / 2 + 0.5, "#ffffff", "center", "9px");
  }

  /** A notch for every draft at the cell's foot: white if it was accepted, faint if not. */
  #notches(lane: number, left: number, width: number, y: number, height: number): void {
    const { context } = this.pen;
    const proposed = this.tape.column("lanes.drafts")[lane]!;
    const accepted = this.tape.column("lanes.accepted")[lane]!;
    if (proposed === 0 || height < 6) return;
    const room = width - 2;
    const pitch = Math.min(4, room / proposed);
    const gap = pitch >= 2 ? 0.8 : 0;
    const start = left + (width - pitch * proposed + gap) / 2;
    for (let draft = 0; draft < proposed; draft++) {
      context.fillStyle = draft < accepted ? "#ffffff" : "rgb(255 255 255 / 0.35)";
      context.fillRect(start + draft * pitch, y + height - 3.5, pitch - gap, 2);
    }
  }
}

/** Decoding is drawn less high than prefill and verification, so that the three differ in more than colour. */
const shortened = (state: string, height: number): number => (state === "decode" && height >= 6 ? Math.round(height * 0.15) : 0);

/** The mark at which a request ends: a square (stop), a bar (length) or a cross (abort). */
export function drawEnd(pen: Pen, reason: string, x: number, y: number, height: number): void {
  const { context, theme } = pen;
  const middle = y + height / 2;
  const half = Math.min(3, height / 2);
  context.fillStyle = context.strokeStyle = theme.ink;
  if (reason === "length") context.fillRect(x, y, 2.5, height);
  else if (reason === "abort") {
    context.lineWidth = 1.5;
    context.beginPath();
    for (const side of [-1, 1]) {
      context.moveTo(x, middle - side * half);
      context.lineTo(x + 2 * half, middle + side * half);
    }
    context.stroke();
  } else context.fillRect(x, middle - half, 2 * half, 2 * half);
}
