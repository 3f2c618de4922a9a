/** `Grid`: where each block has its cell.  Cells are as large as fits, and never so small that they cannot be told apart. */

import { NONE } from "../wire.js";
import { CACHED, FREE, type Facts, GONE, IN_USE, ownerOf } from "./facts.js";

export type Order = "id" | "request";

const LARGEST = 27; // CSS pixels from cell to cell
const SMALLEST = 4;

export interface Grid {
  /** Block ids in the order of their cells. */
  readonly ids: readonly number[] | Int32Array;
  readonly pitch: number;
  readonly columns: number;
  readonly rows: number;
}

/** Lay cells out in `width`, within `height` if the smallest cells allow it. */
export function gridOf(facts: Facts, order: Order, width: number, height: number): Grid {
  const ids = order === "id" ? byId(facts) : byRequest(facts);
  for (let pitch = LARGEST; ; pitch--) {
    const columns = Math.max(1, Math.floor(width / pitch));
    const rows = Math.ceil(ids.length / columns);
    if (rows * pitch <= height || pitch === SMALLEST) return { ids, pitch, columns, rows };
  }
}

/** The block at a place; 0 where there is none. */
export function blockAt({ ids, pitch, columns }: Grid, x: number, y: number): number {
  const column = Math.floor(x / pitch);
  return column < 0 || column >= columns || y < 0 ? 0 : (ids[Math.floor(y / pitch) * columns + column] ?? 0);
}

/** Blocks keep their place, also where a smaller pool gave some up. */
function byId({ blocks }: Facts): Int32Array {
  let last = blocks.count;
  while (last > 0 && blocks.status[last - 1] === GONE) last -= 1;
  return Int32Array.from({ length: last }, (_, i) => i + 1);
}

/** In use by request and place in it, then cached as they will be evicted, then free as they will be used. */
function byRequest(facts: Facts): number[] {
  const { blocks, places } = facts;
  const groups: [used: number[], cached: number[], free: number[], rest: number[]] = [[], [], [], []];
  for (let id = 1; id <= blocks.count; id++) {
    const status = blocks.status[id - 1]!;
    if (status !== GONE) groups[status === IN_USE ? 0 : status === CACHED ? 1 : status === FREE ? 2 : 3].push(id);
  }
  const owners = new Map(groups[0].map((id) => [id, ownerOf(facts, id, null)]));
  const rank = (id: number): number => (blocks.order[id - 1]! !== NONE ? blocks.order[id - 1]! : Infinity);
  groups[0].sort((a, b) => owners.get(a)! - owners.get(b)! || blocks.index[a - 1]! - blocks.index[b - 1]! || a - b);
  groups[1].sort((a, b) => places[a - 1]! - places[b - 1]! || a - b);
  groups[2].sort((a, b) => rank(a) - rank(b) || a - b);
  return groups.flat();
}
