/** `Grid`: where each block has its cell.  Cells are as large as fits, and never so small that they cannot be told apart. */

import { NONE } from "../wire.js";
import { FREE, type Facts, GONE, IN_USE, UNKNOWN, ownerOf } from "./facts.js";

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
  const ids = new Int32Array(last);
  for (let i = 0; i < last; i++) ids[i] = i + 1;
  return ids;
}

/** In use by request and place in it, then cached as they will be evicted, then free as they will be used, then what is not known. */
function byRequest(facts: Facts): number[] {
  const { blocks, queue } = facts;
  const tables = new Map<number, number[][]>();
  const rest: number[] = [];
  for (let id = 1; id <= blocks.count; id++) {
    const status = blocks.status[id - 1]!;
    if (status === IN_USE) enter(tables, ownerOf(facts, id, null), blocks.index[id - 1]!, id);
    else if (status !== GONE && (status === UNKNOWN || blocks.order[id - 1] === NONE)) rest.push(id);
  }
  const owners = [...tables.keys()].sort((a, b) => a - b);
  const free = queue.filter((id) => blocks.status[id - 1] === FREE);
  return [...owners.flatMap((owner) => tables.get(owner)!.flat()), ...facts.evictions, ...free, ...rest];
}

/** Tables have a list of blocks at every place: two may stand for one, or none where one is shared. */
function enter(tables: Map<number, number[][]>, owner: number, index: number, id: number): void {
  let table = tables.get(owner);
  if (table === undefined) tables.set(owner, (table = []));
  (table[Math.max(0, index)] ??= []).push(id);
}
