/** Small cells: a few rectangles each, so that thousands of them cost milliseconds. */

import { COLOURS } from "../theme.js";
import { type Brush, type Cells, colourOf, isPointed, opacityOf } from "./cells.js";
import { CACHED, FREE, IN_USE, TOUCHES, fillOf } from "./facts.js";

/** Rectangles of one look; those of layer 1 lie above those of layer 0. */
interface Batch {
  readonly layer: number;
  readonly colour: string;
  readonly opacity: number;
  readonly places: number[]; // x, y, width, height of each
}

const NOTHING: Batch = { layer: -1, colour: "", opacity: 0, places: [] };

export class SmallCells implements Cells {
  readonly #side: number;
  readonly #batches: Batch[] = [];
  #last = NOTHING;

  constructor(private readonly brush: Brush) {
    this.#side = brush.pitch - 1;
  }

  draw(id: number, x: number, y: number): void {
    const { theme, facts } = this.brush;
    const side = this.#side;
    const status = facts.blocks.status[id - 1]!;
    if (status === IN_USE) this.#used(id, x, y);
    else if (status === CACHED) {
      this.#rect(0, COLOURS.cache, 0.6, x, y, side, side);
      this.#rect(1, theme.background, 0.8, x + 1, y + 1, side - 2, side - 2);
    } else this.#rect(0, status === FREE ? theme.line : theme.wait, status === FREE ? 0.55 : 1, x, y, side, side);
    const mark = this.#mark(id);
    if (mark !== "") this.#frame(mark, x, y);
  }

  finish(): void {
    const { context } = this.brush;
    for (const { colour, opacity, places } of this.#batches.sort((a, b) => a.layer - b.layer)) {
      context.globalAlpha = opacity;
      context.fillStyle = colour;
      for (let i = 0; i < places.length; i += 4) context.fillRect(places[i]!, places[i + 1]!, places[i + 2]!, places[i + 3]!);
    }
  }

  #used(id: number, x: number, y: number): void {
    const { facts } = this.brush;
    const side = this.#side;
    const [colour, opacity] = [colourOf(this.brush, id), opacityOf(this.brush, id)];
    const filled = Math.ceil((side * fillOf(facts, id)) / facts.size);
    if (filled < side) this.#rect(0, colour, 0.35 * opacity, x, y, side, side - filled);
    if (filled > 0) this.#rect(0, colour, opacity, x, y + side - filled, side, filled);
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
    this.#rect(1, colour, 1, x, y, side, 1);
    this.#rect(1, colour, 1, x, y + side - 1, side, 1);
    this.#rect(1, colour, 1, x, y, 1, side);
    this.#rect(1, colour, 1, x + side - 1, y, 1, side);
  }

  /** Kept until all are known: to change the style at every rectangle costs more than the rectangles. */
  #rect(layer: number, colour: string, opacity: number, x: number, y: number, width: number, height: number): void {
    let batch = this.#last;
    if (batch.layer !== layer || batch.colour !== colour || batch.opacity !== opacity) {
      const found = this.#batches.find((each) => each.layer === layer && each.colour === colour && each.opacity === opacity);
      batch = found ?? { layer, colour, opacity, places: [] };
      if (found === undefined) this.#batches.push(batch);
      this.#last = batch;
    }
    batch.places.push(x, y, width, height);
  }
}
