/** `Rows`: what stands in every row (a request, or a place in the batch) in every step, folded by powers of two. */

import { RANKED } from "./looks.js";

export interface Row {
  first: number; // position of the first step it is there
  end: number;
  folded: number; // positions from here on are not in the levels above 0
  readonly levels: Uint8Array[]; // ranks per column of 2 ** level steps, from the column of `first` on; up to the level that is one column
}

export class Rows {
  readonly rows: (Row | undefined)[] = [];
  /** Cells of each rank, for a legend without surplus entries. */
  readonly counts = new Uint32Array(RANKED.length);

  put(index: number, position: number, rank: number): void {
    const row = (this.rows[index] ??= { first: position, end: position, folded: position, levels: [] });
    const ranks = room(row, 0, position + 1 - row.first);
    ranks.fill(0, row.end - row.first, position - row.first);
    ranks[position - row.first] = rank;
    row.end = position + 1;
    this.counts[rank]! += 1;
  }

  /** Bring the levels above 0 in step. */
  fold(): void {
    for (const row of this.rows) if (row !== undefined && row.end > row.folded) foldRow(row);
  }

  /** Forget the steps from `length` on; returns it. */
  cut(length: number): number {
    this.rows.forEach((row, index) => {
      if (row === undefined || row.end <= length) return;
      for (let position = Math.max(length, row.first); position < row.end; position++) this.counts[row.levels[0]![position - row.first]!]! -= 1;
      row.end = length;
      row.folded = Math.min(row.folded, length - 1);
      if (row.first >= length) this.rows[index] = undefined;
      else foldRow(row);
    });
    return length;
  }
}

/** The most telling rank in a column of 2 ** level steps; 0 if the row has nothing there. */
export function rankAt(row: Row, level: number, column: number): number {
  const at = Math.min(level, row.levels.length - 1);
  if (column < row.first >> level || column > (row.end - 1) >> level) return 0;
  return row.levels[at]![at === level ? column - (row.first >> level) : 0]!;
}

function foldRow(row: Row): void {
  let level = 1;
  for (; row.first >> (level - 1) < (row.end - 1) >> (level - 1); level++) {
    const base = row.first >> level;
    const count = ((row.end - 1) >> level) + 1 - base;
    const fresh = level >= row.levels.length;
    const ranks = room(row, level, count);
    const below = row.levels[level - 1]!;
    const [start, end] = [row.first >> (level - 1), (row.end - 1) >> (level - 1)];
    for (let column = fresh ? 0 : (row.folded >> level) - base; column < count; column++) {
      const left = 2 * (base + column);
      const one = left >= start ? below[left - start]! : 0;
      ranks[column] = Math.max(one, left < end ? below[left + 1 - start]! : 0);
    }
  }
  row.levels.length = level;
  row.folded = row.end;
}

function room(row: Row, level: number, count: number): Uint8Array {
  const held = row.levels[level];
  if (held !== undefined && held.length >= count) return held;
  const larger = new Uint8Array(Math.max(8, 2 * count));
  if (held !== undefined) larger.set(held);
  return (row.levels[level] = larger);
}
