/** `Tape`: the steps of one run as growable columns.  It only grows at its end, or is cut back; everything drawn is read from here. */

import { firstNot } from "./search.js";
import { type Numbers, type Part, type RequestInfo, type TapeEvent, readColumns } from "./wire.js";

const TABLES = ["lanes", "cells", "touches", "tokens", "rounds", "tops", "drafts"] as const;
export type Table = (typeof TABLES)[number];

export const STATES = ["prefill", "decode", "verify", "waiting", "idle", "held", "preempted"] as const;
export type LaneState = (typeof STATES)[number];
export const ORIGINS = ["decoded", "accepted", "corrected", "bonus"] as const;
export const BLOCK_STATUS = ["free", "cached", "in use", "unknown", "gone"] as const;
export const VERDICTS = ["scheduled", "partial", "deferred", "preempted", "rejected"] as const;

/** A part that begins after the last step held: a message was lost. */
export class Gap extends Error {}

export class Tape {
  readonly strings: string[] = [];
  readonly ownerSets: (readonly number[])[] = [];
  readonly vocab = new Map<number, string>();
  readonly requests: RequestInfo[] = [];
  /** Sparse things that happened, in order of steps. */
  events: TapeEvent[] = [];
  /** Counts every change, so that whoever caches what depends on the tape knows when it is stale. */
  version = 0;
  /** The length after each time it was cut back: what was worked out of later steps must then begin again. */
  readonly cuts: number[] = [];
  #length = 0;
  readonly #columns = new Map<string, Numbers>();
  readonly #rows = new Map<string, number>(); // rows held of each table
  readonly #starts = new Map<Table, Uint32Array>(); // first row of each position, one more than positions

  constructor(readonly firstStep: number) {
    for (const table of TABLES) this.#starts.set(table, new Uint32Array(1));
  }

  /** Steps held. */
  get length(): number {
    return this.#length;
  }

  /** A whole column, e.g. `column("steps.token_used")`; longer than what is held, so never read its `length`. */
  column(name: string): Numbers {
    return this.#columns.get(name) ?? EMPTY;
  }

  /** One number of a step. */
  at(name: string, position: number): number {
    return this.column(`steps.${name}`)[position] ?? 0;
  }

  /** Rows `[first, end)` of a table that belong to a position. */
  rows(table: Table, position: number): readonly [first: number, end: number] {
    const starts = this.#starts.get(table)!;
    return position < 0 || position >= this.#length ? [0, 0] : [starts[position]!, starts[position + 1]!];
  }

  /** The position whose step a row of a table belongs to. */
  positionOfRow(table: Table, row: number): number {
    const starts = this.#starts.get(table)!;
    return firstNot(1, this.#length, (at) => starts[at]! <= row) - 1;
  }

  /** The row of `lanes` that tells of a request in a position; -1 if it was not there.  Rows are in order of request. */
  lane(position: number, request: number): number {
    const requests = this.column("lanes.request");
    const [first, end] = this.rows("lanes", position);
    const row = firstNot(first, end, (at) => requests[at]! < request);
    return row < end && requests[row] === request ? row : -1;
  }

  /** Milliseconds of a step, all phases together. */
  durationMs(position: number): number {
    return PHASES.reduce((sum, phase) => sum + this.at(phase, position), 0);
  }

  /** When the tokens of a step existed, in seconds on the engine's clock. */
  endS(position: number): number {
    return this.at("start_s", position) + this.durationMs(position) / 1e3;
  }

  textOf(token: number): string {
    return this.vocab.get(token) ?? "";
  }

  /** Take in the next part.  Throws `Gap` when steps are missing before it. */
  append(part: Part, buffer: ArrayBuffer | DataView): void {
    if (part.at > this.#length) throw new Gap(`steps ${this.#length} to ${part.at - 1} did not arrive`);
    if (part.at < this.#length) this.cut(part.at);
    const [strings, ownerSets, requests] = part.base;
    extend(this.strings, strings, part.strings);
    extend(this.ownerSets, ownerSets, part.owner_sets);
    extend(this.requests, requests, part.requests);
    part.vocab?.[0].forEach((id, i) => this.vocab.set(id, part.vocab![1][i]!));
    for (const event of part.events ?? []) this.events.push(event);
    const columns = readColumns(part, buffer);
    for (const [name, values] of columns) this.#put(name, values);
    for (const table of TABLES) this.#count(table, columns.get(`steps.${table}`), part.count);
    this.#rows.set("steps", part.at + part.count);
    for (const table of TABLES) this.#rows.set(table, this.#starts.get(table)![part.at + part.count]!);
    this.#length = part.at + part.count;
    this.version += 1;
  }

  /** Forget all steps from `length` on. */
  cut(length: number): void {
    if (length >= this.#length) return;
    this.events = this.events.filter((event) => event.step < this.firstStep + length);
    for (const table of TABLES) this.#rows.set(table, this.#starts.get(table)![length]!);
    this.#rows.set("steps", length);
    this.#length = length;
    this.version += 1;
    this.cuts.push(length);
  }

  #put(name: string, values: Numbers): void {
    const held = this.#rows.get(name.slice(0, name.indexOf("."))) ?? 0;
    let column = this.#columns.get(name);
    if (column === undefined || column.length < held + values.length) {
      const Kind = values.constructor as new (length: number) => Numbers;
      const larger = new Kind(Math.max(256, 2 * (held + values.length)));
      if (column !== undefined) larger.set(column.subarray(0, held));
      this.#columns.set(name, larger);
      column = larger;
    }
    column.set(values, held);
  }

  #count(table: Table, counts: Numbers | undefined, added: number): void {
    let starts = this.#starts.get(table)!;
    if (starts.length < this.#length + added + 1) {
      const larger = new Uint32Array(2 * (this.#length + added + 1));
      larger.set(starts.subarray(0, this.#length + 1));
      this.#starts.set(table, larger);
      starts = larger;
    }
    for (let i = 0; i < added; i++) starts[this.#length + i + 1] = starts[this.#length + i]! + (counts?.[i] ?? 0);
  }
}

/** Put new entries where they belong; a list that holds some of them already is cut back first, so what comes twice does no harm. */
function extend<Entry>(held: Entry[], base: number, entries: readonly Entry[] = []): void {
  held.length = Math.min(held.length, base);
  for (const entry of entries) held.push(entry);
}

export const PHASES = ["plan_ms", "prepare_ms", "forward_ms", "sample_ms", "commit_ms", "draft_ms"] as const;
const EMPTY = new Float64Array(0);
