/** Small cells: a few rectangles each, and only where a cell looks other than it did, as there may be thousands. */

import { COLOURS } from "../theme.js";
import { type Brush, type Cells, colourOf, isPointed, opacityOf } from "./cells.js";
import { CACHED, FREE, GONE, IN_USE, TOUCHES, fillOf } from "./facts.js";

export class SmallCells implements Cells {
  readonly #side: number;

  constructor(private readonly brush: Brush) {
    this.#side = brush.pitch - 1;
  }

  draw(id: number, x: number, y: number, place: number): void {
    const { context, theme, facts, looks, pitch } = this.brush;
    const side = this.#side;
    const status = facts.blocks.status[id - 1]!;
    const used = status === IN_USE;
    const colour = used ? colourOf(this.brush, id) : status === CACHED ? COLOURS.cache : status === FREE ? theme.line : theme.wait;
    const opacity = used ? opacityOf(this.brush, id) : status === CACHED ? 0.6 : status === FREE ? 0.55 : 1;
    const empty = used ? side - Math.ceil((side * fillOf(facts, id)) / facts.size) : 0; // pixels at its upper edge
    const mark = this.#mark(id);
    const look = `${status} ${colour} ${opacity} ${empty} ${mark}`;
    if (looks[place] === look) return;
    looks[place] = look;
    context.clearRect(x - 0.5, y - 0.5, pitch, pitch); // up to the middle of the gaps around it
    if (status === GONE) return;
    this.#rect(colour, 0.35 * opacity, x, y, side, empty);
    this.#rect(colour, opacity, x, y + empty, side, side - empty);
    if (status === CACHED) this.#rect(theme.background, 0.8, x + 1, y + 1, side - 2, side - 2);
    if (mark === "") return;
    for (const edge of [0, side - 1]) {
      this.#rect(mark, 1, x, y + edge, side, 1);
      this.#rect(mark, 1, x + edge, y, 1, side);
    }
  }

  /** One frame is all there is room for: what the reader points at, else what changed most. */
  #mark(id: number): string {
    const { facts, theme } = this.brush;
    const bits = facts.touched[id - 1]!;
    if (isPointed(this.brush, id)) return theme.select;
    if (bits & TOUCHES.evicted) return COLOURS.preempted;
    if (bits & (TOUCHES.hit | TOUCHES.shared)) return COLOURS.cache;
    return bits & TOUCHES.allocated ? theme.ink : bits & TOUCHES.freed ? theme.dim : "";
  }

  #rect(colour: string, opacity: number, x: number, y: number, width: number, height: number): void {
    const { context } = this.brush;
    context.globalAlpha = opacity;
    context.fillStyle = colour;
    context.fillRect(x, y, width, height);
  }
}
