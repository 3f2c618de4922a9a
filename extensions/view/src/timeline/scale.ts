/** `Scale`: where steps lie along the x-axis, and how many of them share a column when they are too narrow to be drawn one by one. */

import type { Theme } from "../theme.js";
import type { Hatching } from "./looks.js";

/** CSS pixels that a step takes at most; a short run does not fill the width. */
export const WIDEST = 30;

/** From this many CSS pixels a step on, cells stand apart and show their particulars. */
export const DETAILED = 4;

export class Scale {
  readonly step: number; // CSS pixels of a step
  readonly level: number; // 2 ** level steps share a column, which is then 1 to 2 pixels wide
  readonly gap: number; // between two columns

  /** Positions `[first, last)`, fractions allowed, drawn from `left` to `right`; `ratio` device pixels are a CSS pixel. */
  constructor(
    readonly first: number,
    readonly last: number,
    readonly left: number,
    readonly right: number,
    readonly ratio: number,
  ) {
    this.step = Math.min(WIDEST, (right - left) / Math.max(1e-6, last - first));
    this.level = Math.max(0, Math.ceil(-Math.log2(this.step)));
    this.gap = this.step >= DETAILED ? 1 : 0;
  }

  x(position: number): number {
    return this.left + (position - this.first) * this.step;
  }

  /** Where a position begins, on a device pixel and inside the strip. */
  edge(position: number): number {
    return this.snap(Math.min(this.right, Math.max(this.left, this.x(position))));
  }

  /** The nearest place between two device pixels, so that edges are sharp. */
  snap(place: number): number {
    return Math.round(place * this.ratio) / this.ratio;
  }

  /** The position, with its fraction, at an x. */
  position(x: number): number {
    return this.first + (x - this.left) / this.step;
  }

  /** Columns in sight of `length` steps, half-open. */
  columns(length: number): readonly [from: number, to: number] {
    const size = 2 ** this.level;
    const to = Math.ceil(Math.min(length, this.last) / size);
    return [Math.min(to, Math.max(0, Math.floor(this.first / size))), to];
  }

  /** Show every column in sight of `length` steps: its number, where it begins, how wide it is, and how many steps share it. */
  each(length: number, see: (column: number, left: number, width: number, steps: number) => void): void {
    const size = 2 ** this.level;
    const [from, to] = this.columns(length);
    for (let column = from, left = this.edge(from * size); column < to; column++) {
      const end = Math.min(length, (column + 1) * size);
      const right = this.edge(end);
      see(column, left, Math.max(1 / this.ratio, right - left - this.gap), end - column * size);
      left = right;
    }
  }

  /** First step and end of the column that a position is in, of `length` steps. */
  share(position: number, length: number): readonly [first: number, end: number] {
    const size = 2 ** this.level;
    const first = Math.floor(position / size) * size;
    return [first, Math.min(length, first + size)];
  }

  /** Step numbers between two that are labelled: 1, 2 or 5 times a power of ten, at least `room` pixels apart. */
  interval(room: number): number {
    const least = Math.max(1, room / this.step);
    const power = 10 ** Math.floor(Math.log10(least));
    return power * [1, 2, 5, 10].find((times) => times * power >= least)!;
  }
}

/** What drawing needs: where to, in which place and in which colours. */
export interface Pen {
  readonly context: CanvasRenderingContext2D;
  readonly scale: Scale;
  readonly theme: Theme;
  readonly hatching: Hatching;
}

/** Write one line around a middle height; `size` as in a CSS font, without the family. */
export function write({ context, theme }: Pen, text: string, x: number, y: number, colour: string, align: CanvasTextAlign, size = "10px"): void {
  context.font = `${size} ${theme.font}`;
  context.textBaseline = "middle";
  context.textAlign = align;
  context.fillStyle = colour;
  context.fillText(text, x, y);
}

/** The text, cut to what fits. */
export function fitted({ context, theme }: Pen, text: string, room: number, size = "10px"): string {
  context.font = `${size} ${theme.font}`;
  let shown = text.replace(/\s+/g, " ").slice(0, 160);
  while (shown.length > 1 && context.measureText(shown).width > room) shown = `${shown.slice(0, -2)}…`;
  return shown;
}

/** Upper and lower end of a strip, in CSS pixels. */
export interface Box {
  readonly top: number;
  readonly bottom: number;
}
