/** What all sizes of cells share: what the reader points at, and the colours of a block. */

import { type Theme, requestColour } from "../theme.js";
import { type Facts, IN_USE, ownerOf, ownersOf } from "./facts.js";

export interface Cells {
  /** Draw a block's cell, the `place`-th, with its upper left corner at (x, y); nothing for a block that is gone. */
  draw(id: number, x: number, y: number, place: number): void;
}

/** What the reader points at. */
export interface Emphasis {
  readonly selected: number | null; // request: all others are dimmed
  readonly pointed: number | null; // request: its blocks are framed
  readonly hovered: number; // block
}

/** What a cell is drawn with. */
export interface Brush {
  readonly context: CanvasRenderingContext2D;
  readonly theme: Theme;
  readonly facts: Facts;
  readonly emphasis: Emphasis;
  readonly pitch: number; // CSS pixels from cell to cell
  readonly looks: string[]; // of the cells on the canvas, by place, as far as they are small
}

export function opacityOf({ facts, emphasis }: Brush, id: number): number {
  const { selected } = emphasis;
  if (selected === null || facts.blocks.status[id - 1] !== IN_USE) return 1;
  return ownersOf(facts, id).includes(selected) ? 1 : 0.25;
}

export function colourOf({ facts, emphasis, theme }: Brush, id: number): string {
  const owner = ownerOf(facts, id, emphasis.selected);
  return owner < 0 ? theme.wait : requestColour(owner);
}

export function isPointed({ facts, emphasis }: Brush, id: number): boolean {
  if (id === emphasis.hovered) return true;
  return emphasis.pointed !== null && ownersOf(facts, id).includes(emphasis.pointed);
}

/** Black or white, whichever is easier to read on a colour. */
export function inkOn(colour: string): string {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)) as [number, number, number];
  return 0.299 * red + 0.587 * green + 0.114 * blue > 150 ? "#1f2328" : "#ffffff";
}
