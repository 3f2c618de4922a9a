/** Large cells: round corners, fill levels, words where they fit, and a mark for everything that happened in the step. */

import { COLOURS, REQUEST_COLOURS, requestColour } from "../theme.js";
import { type Brush, type Cells, colourOf, inkOn, isPointed, opacityOf } from "./cells.js";
import { CACHED, FREE, GONE, IN_USE, TOUCHES, fillOf, ownerOf, ownersOf } from "./facts.js";

const WORDS = 19; // CSS pixels from cell to cell, from which there is room for a name
const SMALLEST_FONT = 6.5;

export class LargeCells implements Cells {
  readonly #side: number;
  readonly #named: ReadonlyMap<number, number>; // first block of each request's own, by request

  constructor(private readonly brush: Brush) {
    this.#side = brush.pitch - 3;
    this.#named = brush.pitch >= WORDS ? firstOwn(brush) : new Map();
    const { context } = brush;
    context.lineWidth = 1;
    context.textAlign = "center";
    context.textBaseline = "middle";
  }

  draw(id: number, left: number, upper: number): void {
    const { context, theme, facts } = this.brush;
    const status = facts.blocks.status[id - 1]!;
    if (status === GONE) return;
    const [x, y] = [left + 1.5, upper + 1.5];
    context.globalAlpha = opacityOf(this.brush, id);
    if (status === IN_USE) this.#used(id, x, y);
    else if (status === CACHED) this.#cached(id, x, y);
    else if (status === FREE) this.#outline(x, y, 0, theme.line);
    else this.#unknown(x, y);
    context.globalAlpha = 1;
    this.#touches(facts.touched[id - 1]!, x, y);
    if (isPointed(this.brush, id)) this.#outline(x, y, -1, theme.select, 1.5);
  }

  #used(id: number, x: number, y: number): void {
    const { context, theme, facts, emphasis } = this.brush;
    const colour = colourOf(this.brush, id);
    const share = fillOf(facts, id) / facts.size;
    this.#box(x, y, 0);
    context.fillStyle = colour;
    if (share === 1) context.fill();
    else this.#partly(colour, share, x, y);
    const owner = ownerOf(facts, id, emphasis.selected);
    if (owner >= REQUEST_COLOURS.length) this.#repeated(owner, x, y);
    const ink = share > 0.5 ? inkOn(colour) : theme.ink;
    const owners = ownersOf(facts, id).length;
    if (owners > 1) this.#word(`×${owners}`, ink, x, y, () => this.#dot(x + 3, y + 3, ink));
    else if (this.#named.get(owner) === id) this.#word(facts.run.tape.requests[owner]?.id ?? "", ink, x, y);
  }

  #partly(colour: string, share: number, x: number, y: number): void {
    const { context } = this.brush;
    const [side, opacity] = [this.#side, context.globalAlpha];
    context.save();
    context.clip();
    context.globalAlpha = 0.22 * opacity;
    context.fillRect(x, y, side, side);
    context.globalAlpha = opacity;
    context.fillRect(x, y + side * (1 - share), side, side * share);
    context.restore();
    this.#outline(x, y, 0.5, colour);
  }

  #cached(id: number, x: number, y: number): void {
    const { context, theme, facts, emphasis } = this.brush;
    const side = this.#side;
    context.setLineDash([2.5, 2]);
    this.#outline(x, y, 0.5, COLOURS.cache, 1.2);
    context.setLineDash([]);
    const { selected } = emphasis;
    if (selected !== null && facts.blocks.content[id - 1] === selected) {
      context.fillStyle = requestColour(selected);
      context.fillRect(x + 3, y + side - 4, side - 6, 2);
    }
    const place = facts.places[id - 1]!;
    if (place > 0) this.#word(String(place), theme.dim, x, y, () => place === 1 && this.#dot(x + side / 2, y + side / 2, COLOURS.preempted));
  }

  #unknown(x: number, y: number): void {
    const { context, theme } = this.brush;
    const side = this.#side;
    context.save();
    this.#box(x, y, 0);
    context.clip();
    context.strokeStyle = theme.wait;
    context.beginPath();
    for (let i = -side; i < side; i += 4) {
      context.moveTo(x + i, y + side);
      context.lineTo(x + i + side, y);
    }
    context.stroke();
    context.restore();
    this.#word("?", theme.dim, x, y);
  }

  #touches(bits: number, x: number, y: number): void {
    if (bits === 0) return;
    const { theme } = this.brush;
    const side = this.#side;
    if (bits & TOUCHES.allocated) this.#outline(x, y, 0, theme.ink, 2);
    if (bits & (TOUCHES.hit | TOUCHES.shared)) {
      this.#outline(x, y, 0, theme.dark ? COLOURS.cache : "#1f8fd6", 2);
      this.#dot(x + 4.5, y + side - 4.5, theme.background);
    }
    if (bits & TOUCHES.freed) this.#outline(x, y, 3.5, theme.background, 1.5);
    if (bits & TOUCHES.evicted) this.#corner(COLOURS.preempted, x + side, y, -0.42 * side, 0.42 * side);
    if (bits & TOUCHES.cached && side >= 12) this.#tick(x + side - 8, y + side - 5.5);
  }

  #tick(x: number, y: number): void {
    const { context, theme } = this.brush;
    context.strokeStyle = theme.background;
    context.lineWidth = 1.6;
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x + 2, y + 2.2);
    context.lineTo(x + 5.5, y - 2.6);
    context.stroke();
    context.lineWidth = 1;
  }

  /** Colours repeat after the eighth request: the second eight have a notch below, the third above, the fourth both. */
  #repeated(owner: number, x: number, y: number): void {
    const round = Math.floor(owner / REQUEST_COLOURS.length) % 4;
    const { theme } = this.brush;
    const leg = Math.min(6, 0.4 * this.#side);
    if (round & 1) this.#corner(theme.background, x, y + this.#side, leg, -leg);
    if (round & 2) this.#corner(theme.background, x, y, leg, leg);
  }

  // -- strokes -------------------------------------------------------------------------------------------------------

  #box(x: number, y: number, inset: number): void {
    const { context, pitch } = this.brush;
    const side = this.#side - 2 * inset;
    context.beginPath();
    context.roundRect(x + inset, y + inset, side, side, Math.max(1, (pitch >= WORDS ? 4 : 2.5) - inset));
  }

  #outline(x: number, y: number, inset: number, colour: string, width = 1): void {
    const { context } = this.brush;
    this.#box(x, y, inset);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
    context.lineWidth = 1;
  }

  /** A word in the middle of a cell; `otherwise` where it does not fit. */
  #word(word: string, ink: string, x: number, y: number, otherwise?: () => void): void {
    const { context, theme } = this.brush;
    const size = Math.min(10, (this.#side - 3) / (0.62 * Math.max(2, word.length)));
    if (size < SMALLEST_FONT) return void otherwise?.();
    context.font = `${size}px ${theme.font}`;
    context.fillStyle = ink;
    context.fillText(word, x + this.#side / 2, y + this.#side / 2 + 0.5);
  }

  #dot(x: number, y: number, colour: string): void {
    const { context } = this.brush;
    context.fillStyle = colour;
    context.beginPath();
    context.arc(x, y, 1.8, 0, 7);
    context.fill();
  }

  /** A triangle in the corner (x, y), whose legs are `across` and `down`. */
  #corner(colour: string, x: number, y: number, across: number, down: number): void {
    const { context } = this.brush;
    context.fillStyle = colour;
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x + across, y);
    context.lineTo(x, y + down);
    context.fill();
  }
}

/** The first block that a request has to itself bears its name. */
function firstOwn({ facts }: Brush): ReadonlyMap<number, number> {
  const { status, index } = facts.blocks;
  const found = new Map<number, number>();
  for (let id = 1; id <= facts.blocks.count; id++) {
    if (status[id - 1] !== IN_USE || index[id - 1]! < 0) continue;
    const owners = ownersOf(facts, id);
    if (owners.length !== 1) continue;
    const before = found.get(owners[0]!);
    if (before === undefined || index[id - 1]! < index[before - 1]!) found.set(owners[0]!, id);
  }
  return found;
}
