/** `Area`: where a latency lies on the plotting area, in CSS pixels from its upper left corner. */

import { firstNot } from "../search.js";

export class Area {
  constructor(
    readonly width: number,
    readonly height: number,
    readonly first: number, // visible stretch of positions
    readonly last: number,
    readonly low: number, // milliseconds at the bottom and the top
    readonly high: number,
    readonly log: boolean,
  ) {}

  x(position: number): number {
    return ((position + 0.5 - this.first) / (this.last - this.first)) * this.width;
  }

  y(ms: number): number {
    const { low, high, height } = this;
    if (!this.log) return height * (1 - (ms - low) / (high - low));
    return height * (1 - Math.log10(Math.max(ms, low) / low) / Math.log10(high / low));
  }
}

/** Lower and upper end of a scale that holds all of `least` to `most` with some air. */
export function limits(least: number, most: number, log: boolean): readonly [low: number, high: number] {
  if (!(most > 0)) return log ? [0.1, 10] : [0, 1];
  const bottom = least > 0 ? least : most / 1e3;
  return log ? [bottom / 1.25, most * 1.25] : [0, most * 1.08];
}

/** Round numbers on a logarithmic scale: the more powers of ten it spans, the fewer of each. */
export function logSplits(low: number, high: number): number[] {
  const found: number[] = [];
  const parts = high / low > 300 ? [1] : high / low > 20 ? [1, 3] : high / low > 4 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++) {
    for (const part of parts) found.push(Number((part * 10 ** power).toPrecision(2)));
  }
  return found.filter((split) => split >= low && split <= high);
}

/** The first index of ascending `values` that is at least `wanted`. */
export const lowerBound = (values: Uint32Array, length: number, wanted: number): number => firstNot(0, length, (at) => values[at]! < wanted);
