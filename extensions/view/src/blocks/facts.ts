/** What the blocks of a step mean: who holds each, how full it is, what happened to it, and when it will be reused. */

import type { RunView } from "../app.js";
import { type Blocks, reuseOrder } from "../pool.js";
import { type Outputs, outputsOf } from "../text/output.js";

export const FREE = 0;
export const CACHED = 1;
export const IN_USE = 2;
export const UNKNOWN = 3;
export const GONE = 4;

/** What can happen to a block in a step, as bits. */
export const TOUCHES = { allocated: 1, hit: 2, shared: 4, cached: 8, evicted: 16, freed: 32 } as const;
export type Touch = keyof typeof TOUCHES;

export interface Facts {
  readonly run: RunView;
  readonly position: number;
  readonly blocks: Blocks;
  readonly outputs: Outputs;
  readonly size: number; // tokens of a block
  /** Idle blocks in the order in which they will be reused; empty if that is not known. */
  readonly queue: readonly number[];
  /** The cached ones of them, which will be evicted in this order. */
  readonly evictions: readonly number[];
  /** Place of each cached block in it, from 1; 0 for others.  By id − 1. */
  readonly places: Int32Array;
  /** Blocks that are reused before any cached one. */
  readonly ahead: number;
  /** What happened to each block in the step: bits of `TOUCHES`.  By id − 1. */
  readonly touched: Uint8Array;
}

/** Look up all that the panel says of a position; costs the blocks of the pool once. */
export function factsOf(run: RunView, position: number): Facts {
  const blocks = run.pool.at(position);
  const queue = reuseOrder(blocks);
  const evictions = queue.filter((id) => blocks.status[id - 1] === CACHED);
  const places = new Int32Array(blocks.count);
  evictions.forEach((id, i) => (places[id - 1] = i + 1));
  const ahead = evictions.length > 0 ? queue.indexOf(evictions[0]!) : queue.length;
  const touched = touchedIn(run, position, blocks.count);
  return { run, position, blocks, outputs: outputsOf(run.tape), size: run.meta.block_size, queue, evictions, places, ahead, touched };
}

function touchedIn({ tape, meta }: RunView, position: number, count: number): Uint8Array {
  const bits = meta.events.map((name) => TOUCHES[name as Touch] ?? 0);
  const [ids, kinds] = [tape.column("touches.block"), tape.column("touches.kind")];
  const touched = new Uint8Array(count);
  const [first, end] = tape.rows("touches", position);
  for (let row = first; row < end; row++) touched[ids[row]! - 1]! |= bits[kinds[row]!] ?? 0;
  return touched;
}

/** How often each thing happened in the step, by events and not by blocks, in the order of `TOUCHES`. */
export function touchCounts({ tape, meta }: RunView, position: number): ReadonlyMap<Touch, number> {
  const counts = new Map<Touch, number>((Object.keys(TOUCHES) as Touch[]).map((name) => [name, 0]));
  const kinds = tape.column("touches.kind");
  const [first, end] = tape.rows("touches", position);
  for (let row = first; row < end; row++) {
    const name = meta.events[kinds[row]!] as Touch;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return counts;
}

/** Requests that hold a block; −1 among them is one from before the trace. */
export function ownersOf({ run, blocks }: Facts, id: number): readonly number[] {
  return run.tape.ownerSets[blocks.owners[id - 1]!] ?? [];
}

/** The request that a block is drawn for: the selected one if it holds the block, else the first holder; −1 if unknown. */
export function ownerOf(facts: Facts, id: number, selected: number | null): number {
  const owners = ownersOf(facts, id);
  return selected !== null && owners.includes(selected) ? selected : (owners[0] ?? -1);
}

/** The request whose tokens an idle or held block has, by which a click or a glance may find it; −1 if unknown or none. */
export function requestOf(facts: Facts, id: number): number {
  return ownersOf(facts, id)[0] ?? facts.blocks.content[id - 1]!;
}

/** Tokens that a block holds after the step.  Only the last blocks of a request are not full. */
export function fillOf({ outputs, position, blocks, size }: Facts, id: number): number {
  const status = blocks.status[id - 1];
  if (status === FREE || status === GONE) return 0;
  const [request, index] = [blocks.content[id - 1]!, blocks.index[id - 1]!];
  if (blocks.hash[id - 1]! >= 0 || request < 0 || index < 0) return size;
  return Math.min(size, Math.max(0, outputs.computed(request, position) - index * size));
}

/** Ids of the tokens in a block, as far as they are known. */
export function tokensOf(facts: Facts, id: number): number[] {
  const { run, outputs, position, blocks, size } = facts;
  const [request, index] = [blocks.content[id - 1]!, blocks.index[id - 1]!];
  if (request < 0 || index < 0) return [];
  const prompt = outputs.prompt(request, position);
  const [first, end] = [index * size, index * size + fillOf(facts, id)];
  const since = outputs.since(request, position);
  const out = Math.min(end - prompt.length, outputs.upTo(request, position) - since);
  const ids = run.tape.column("tokens.id");
  const rows = outputs.rows(request).subarray(since + Math.max(0, first - prompt.length), since + Math.max(0, out));
  return [...prompt.slice(first, end), ...Array.from(rows, (row) => ids[row]!)];
}
