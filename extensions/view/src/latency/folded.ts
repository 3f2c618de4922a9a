/** `Folded`: which cells of the picture hold a gap, for columns of 1, 2, 4, … steps; so that many dots cost what their pixels cost. */

import { Growing } from "../follow.js";
import type { Area } from "./area.js";
import type { Gaps } from "./gaps.js";

export const ROWS = 56; // cells above each other
const LEVELS = 16;

export class Folded {
  readonly #levels: readonly Growing<Uint8Array>[] = Array.from({ length: LEVELS }, () => new Growing(new Uint8Array(ROWS * 256)));
  #taken = 0; // gaps
  #of = "";

  /** Cells of a level, `ROWS` of each column from the top down, as they lie in an area of these limits. */
  cells(gaps: Gaps, area: Area, level: number): Uint8Array {
    const of = `${gaps.generation} ${area.low} ${area.high} ${area.log}`;
    if (of !== this.#of) this.#clear();
    this.#of = of;
    for (; this.#taken < gaps.count; this.#taken++) this.#take(gaps.position[this.#taken]!, rowOf(area, gaps.ms[this.#taken]!));
    const found = this.#levels[Math.min(level, LEVELS - 1)]!;
    return found.values.subarray(0, found.length);
  }

  #clear(): void {
    this.#taken = 0;
    for (const level of this.#levels) level.resize(0);
  }

  #take(position: number, row: number): void {
    for (let level = 0; level < LEVELS; level++) {
      const cells = this.#levels[level]!;
      const at = (position >> level) * ROWS;
      if (at >= cells.length) cells.resize(at + ROWS);
      else if (cells.values[at + row] === 1) return; // so do all wider columns
      cells.values[at + row] = 1;
    }
  }
}

export const rowOf = (area: Area, ms: number): number => Math.min(ROWS - 1, Math.max(0, Math.floor((area.y(ms) / area.height) * ROWS)));
