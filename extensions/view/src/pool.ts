/** `Pool`: every KV block as it stood in any step, from the changes that a tape holds. */

import type { Tape } from "./tape.js";
import { NONE } from "./wire.js";

const EVERY = 256; // steps between two states that are kept
const FIELDS = ["status", "owners", "content", "index", "hash", "order"] as const;
type Field = (typeof FIELDS)[number];

/** All blocks in one step; index 0 of each array is block 1.  Codes and meanings are those of the `cells` columns. */
export type Blocks = { readonly [field in Field]: Int32Array } & { readonly count: number };

const BLANK: Readonly<Record<Field, number>> = { status: 4, owners: -1, content: -1, index: -1, hash: -1, order: NONE };

export class Pool {
  #kept: Blocks[] = []; // state at positions 0, EVERY, 2·EVERY, …
  #cuts = 0; // cuts of the tape that were seen
  #last: { position: number; blocks: Blocks } | undefined;

  constructor(private readonly tape: Tape) {}

  /** The state at a position; an array per field that the next call may reuse.  Empty when there are no steps. */
  at(position: number): Blocks {
    if (this.#cuts !== this.tape.cuts.length) this.#afterCut();
    if (position < 0 || position >= this.tape.length) return blank(0);
    const last = this.#last;
    if (last?.position === position) return last.blocks;
    const near = last !== undefined && last.position < position && position - last.position < EVERY;
    const [from, blocks] = near ? [last.position, last.blocks] : this.#before(position);
    const found = this.#forward(blocks, from, position);
    this.#last = { position, blocks: found };
    return found;
  }

  #before(position: number): [number, Blocks] {
    const wanted = Math.floor(position / EVERY);
    if (this.#kept.length === 0) this.#kept.push(this.#forward(blank(0), -1, 0));
    while (this.#kept.length <= wanted) {
      const at = (this.#kept.length - 1) * EVERY;
      this.#kept.push(this.#forward(copy(this.#kept.at(-1)!), at, at + EVERY));
    }
    return [wanted * EVERY, copy(this.#kept[wanted]!)];
  }

  #forward(start: Blocks, from: number, to: number): Blocks {
    let blocks = start;
    const ids = this.tape.column("cells.block");
    const values = FIELDS.map((field) => this.tape.column(`cells.${field}`));
    for (let position = from + 1; position <= to; position++) {
      const [first, end] = this.tape.rows("cells", position);
      for (let row = first; row < end; row++) {
        const id = ids[row]!;
        if (id > blocks.count) blocks = larger(blocks, id);
        for (let f = 0; f < FIELDS.length; f++) blocks[FIELDS[f]!][id - 1] = values[f]![row]!;
      }
    }
    return blocks;
  }

  #afterCut(): void {
    const left = Math.min(...this.tape.cuts.slice(this.#cuts));
    this.#cuts = this.tape.cuts.length;
    this.#kept = this.#kept.slice(0, left > 0 ? Math.floor((left - 1) / EVERY) + 1 : 0);
    if (this.#last !== undefined && this.#last.position >= left) this.#last = undefined;
  }
}

/** Block ids in the order in which they will be reused, the next first; blocks in use are not among them. */
export function reuseOrder(blocks: Blocks): number[] {
  const keys = new Float64Array(blocks.count); // order and id in one number, as sorting numbers is ten times faster than sorting by a function
  let found = 0;
  for (let i = 0; i < blocks.count; i++) if (blocks.order[i] !== NONE && blocks.status[i]! < 2) keys[found++] = blocks.order[i]! * SPREAD + i + 1;
  return Array.from(keys.subarray(0, found).sort(), (key) => key - Math.floor(key / SPREAD) * SPREAD);
}

const SPREAD = 2 ** 21; // more than there are blocks; 2 ** 31 times that is still exact

function blank(count: number): Blocks {
  const made = Object.fromEntries(FIELDS.map((field) => [field, new Int32Array(count).fill(BLANK[field])]));
  return { ...(made as Record<Field, Int32Array>), count };
}

function copy(blocks: Blocks): Blocks {
  const made = Object.fromEntries(FIELDS.map((field) => [field, blocks[field].slice()]));
  return { ...(made as Record<Field, Int32Array>), count: blocks.count };
}

function larger(blocks: Blocks, count: number): Blocks {
  const made = blank(count);
  for (const field of FIELDS) made[field].set(blocks[field]);
  return made;
}
