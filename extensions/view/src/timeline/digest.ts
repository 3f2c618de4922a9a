/** `Digest`: what the timeline draws of a tape, worked out once per step: it grows with the tape and is cut back with it. */

import type { Tape } from "../tape.js";
import { RANK } from "./looks.js";
import { Rows } from "./rows.js";
import { Slots } from "./slots.js";
import { CACHED, DECODE, FIELDS, FORWARD, LIMIT, PLAN, PREFILL, SAMPLE, TIME, TOKENS, Totals, VERIFY } from "./totals.js";

const WORK = [PREFILL, DECODE, VERIFY]; // by code of lanes.state
const IN_BATCH = [true, true, true, false, true, true, true]; // all but those that wait

export class Digest {
  readonly totals = new Totals();
  readonly requests = new Rows();
  #slots: Slots | undefined;
  #length = 0;
  #cuts = 0;
  #outlier = { length: -1, ms: 0 };

  constructor(readonly tape: Tape) {}

  /** Take in the steps that are new, and forget those that were taken back. */
  update(): void {
    const { tape } = this;
    const kept = Math.min(this.#length, ...tape.cuts.slice(this.#cuts));
    this.#cuts = tape.cuts.length;
    if (kept === tape.length && kept === this.#length) return;
    if (kept < this.#length) {
      this.requests.cut(kept);
      this.#slots?.cut(kept);
      this.#outlier.length = -1;
    }
    this.#length = tape.length;
    this.totals.reach(tape.length);
    this.#lanes(kept);
    this.#times(kept);
    this.totals.fold(kept);
    this.requests.fold(kept);
    if (this.#slots !== undefined) this.#batches(this.#slots, kept);
  }

  /** Places in the batch; worked out from when they are first asked for. */
  get slots(): Slots {
    if (this.#slots === undefined) this.#batches((this.#slots = new Slots()), 0);
    return this.#slots;
  }

  /** Milliseconds that all but one step in a hundred stay below (and all but the slowest, in a short run). */
  usualMs(): number {
    const { length } = this.totals;
    if (this.#outlier.length < 0 || length < 200 || length > 1.05 * this.#outlier.length) {
      const values = this.totals.level(0);
      const ordered = Float64Array.from({ length }, (_, i) => values[i * FIELDS + TIME]!).sort();
      this.#outlier = { length, ms: ordered[Math.max(0, Math.min(length - 2, Math.floor(0.99 * (length - 1))))] ?? 0 };
    }
    return this.#outlier.ms;
  }

  #lanes(from: number): void {
    const values = this.totals.level(0).fill(0, from * FIELDS, this.#length * FIELDS);
    const [request, state, start, end, cached] = ["request", "state", "start", "end", "cached"].map((name) => this.tape.column(`lanes.${name}`)) as [
      ...Uint32Array[],
    ];
    for (let position = from; position < this.#length; position++) {
      const base = position * FIELDS;
      const [first, last] = this.tape.rows("lanes", position);
      for (let row = first; row < last; row++) {
        const code = state![row]!;
        this.requests.put(request![row]!, position, RANK[code]!);
        const tokens = end![row]! - start![row]!;
        if (code < WORK.length) values[base + WORK[code]!]! += tokens;
        values[base + CACHED]! += cached![row]!;
        values[base + TOKENS]! += tokens;
      }
    }
  }

  #times(from: number): void {
    const values = this.totals.level(0);
    for (let position = from; position < this.#length; position++) {
      const base = position * FIELDS;
      values[base + LIMIT] = this.tape.at("token_limit", position);
      values[base + PLAN] = this.tape.at("plan_ms", position) + this.tape.at("prepare_ms", position);
      values[base + FORWARD] = this.tape.at("forward_ms", position);
      values[base + SAMPLE] = this.tape.at("sample_ms", position) + this.tape.at("commit_ms", position);
      values[base + TIME] = values[base + PLAN]! + values[base + FORWARD]! + values[base + SAMPLE]!;
    }
  }

  #batches(slots: Slots, from: number): void {
    const request = this.tape.column("lanes.request");
    const state = this.tape.column("lanes.state");
    for (let position = from; position < this.#length; position++) {
      const batch: (readonly [number, number])[] = [];
      const [first, last] = this.tape.rows("lanes", position);
      for (let row = first; row < last; row++) if (IN_BATCH[state[row]!]) batch.push([request[row]!, RANK[state[row]!]!]);
      slots.take(position, batch);
    }
    slots.fold(from);
  }
}
