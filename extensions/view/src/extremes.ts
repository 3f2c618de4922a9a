/** `Extremes`: the least and the most of a figure in stretches of 1, 2, 4, … steps, so that a long run is drawn at the cost of its pixels. */

import { type Follower, Following, Growing } from "./follow.js";
import type { Tape } from "./tape.js";

const LEVELS = 21; // a column of the last one holds a million steps

interface Level {
  readonly least: Growing<Float64Array>;
  readonly most: Growing<Float64Array>;
}

export class Extremes implements Follower {
  readonly #following: Following;
  readonly #levels: readonly Level[] = Array.from({ length: LEVELS }, () => ({ least: column(), most: column() }));

  constructor(
    tape: Tape,
    private readonly value: (position: number) => number,
  ) {
    this.#following = new Following(tape, this);
  }

  update(): this {
    this.#following.update();
    return this;
  }

  /** The value of a stretch that is drawn as one: the same twice for a single step. */
  of(level: number, at: number): readonly [least: number, most: number] {
    const { least, most } = this.#levels[level]!;
    return [least.values[at]!, most.values[at]!];
  }

  take(position: number): void {
    const value = this.value(position);
    for (let level = 0; level < LEVELS; level++) this.#put(level, position >> level, value, value);
  }

  cut(length: number): number {
    this.#levels.forEach(({ least, most }, level) => {
      const left = Math.ceil(length / 2 ** level);
      least.length = most.length = level > 0 ? Math.max(0, left - 1) : left;
      // The last stretch may have lost its end: it is put together again from its halves.
      if (level > 0) for (const half of [2 * left - 2, 2 * left - 1]) if (half >= 0 && half < this.#levels[level - 1]!.least.length) this.#put(level, left - 1, ...this.of(level - 1, half));
    });
    return length;
  }

  #put(level: number, at: number, low: number, high: number): void {
    const { least, most } = this.#levels[level]!;
    if (at === least.length) {
      least.push(low);
      most.push(high);
      return;
    }
    if (low < least.values[at]!) least.values[at] = low;
    if (high > most.values[at]!) most.values[at] = high;
  }
}

const column = (): Growing<Float64Array> => new Growing(new Float64Array(256));

/** Stretches of 2 ** `level` positions that stand side by side, as columns `[from, to)`. */
export interface Columns {
  readonly level: number;
  readonly from: number;
  readonly to: number;
}

/** The columns in sight between two positions: a step each, or as many as share a pixel. */
export function columnsOf(first: number, last: number, length: number, pixels: number): Columns {
  const level = Math.min(LEVELS - 1, Math.max(0, Math.ceil(Math.log2((last - first) / Math.max(1, pixels)))));
  const to = Math.ceil(Math.min(length, last) / 2 ** level);
  return { level, from: Math.min(to, Math.max(0, Math.floor(first / 2 ** level))), to };
}

/** First position and end of a column of `length` steps. */
export function stretchOf(level: number, at: number, length: number): readonly [first: number, end: number] {
  return [at * 2 ** level, Math.min(length, (at + 1) * 2 ** level)];
}
