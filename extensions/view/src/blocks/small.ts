/** Small cells: a few rectangles each, so that thousands of them cost milliseconds. */

import { COLOURS } from "../theme.js";
import { type Brush, type Cells, colourOf, isPointed, opacityOf } from "./cells.js";
import { CACHED, FREE, IN_USE, TOUCHES, fillOf } from "./facts.js";

export class SmallCells implements Cells {
  readonly #side: number;

  constructor(private readonly brush: Brush) {
    this.#side = brush.pitch - 1;
  }

  draw(id: number, x: number, y: number): void {
    const { theme, facts } = this.brush;
    const side = this.#side;
    const status = facts.blocks.status[id - 1]!;
    if (status === IN_USE) this.#used(id, x, y);
    else if (status === CACHED) {
      this.#rect(COLOURS.cache, x, y, side, side, 0.55);
      this.#rect(theme.background, x + 1, y + 1, side - 2, side - 2, 0.8);
    } else this.#rect(status === FREE ? theme.line : theme.wait, x, y, side, side, status === FREE ? 0.55 : 1);
    const mark = this.#mark(id);
    if (mark !== "") this.#frame(mark, x, y);
  }

  #used(id: number, x: number, y: number): void {
    const { facts } = this.brush;
    const side = this.#side;
    const [colour, opacity] = [colourOf(this.brush, id), opacityOf(this.brush, id)];
    const filled = Math.ceil((side * fillOf(facts, id)) / facts.size);
    if (filled < side) this.#rect(colour, x, y, side, side, 0.35 * opacity);
    this.#rect(colour, x, y + side - filled, side, filled, opacity);
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

  #frame(colour: string, x: number, y: number): void {
    const side = this.#side;
    this.#rect(colour, x, y, side, 1, 1);
    this.#rect(colour, x, y + side - 1, side, 1, 1);
    this.#rect(colour, x, y, 1, side, 1);
    this.#rect(colour, x + side - 1, y, 1, side, 1);
  }

  #rect(colour: string, x: number, y: number, width: number, height: number, opacity: number): void {
    const { context } = this.brush;
    context.globalAlpha = opacity;
    context.fillStyle = colour;
    context.fillRect(x, y, width, height);
  }
}
