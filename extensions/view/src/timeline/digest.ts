/** `Digest`: what the timeline draws of a tape, worked out once per step: it grows with the tape and is cut back with it. */

import { type Follower, Following } from "../follow.js";
import { PHASES, type Tape } from "../tape.js";
import type { Numbers, TapeEvent } from "../wire.js";
import { RANK } from "./looks.js";
import { Rows } from "./rows.js";
import { Slots } from "./slots.js";
import { CACHED, DECODE, FIELDS, FORWARD, LIMIT, PLAN, PREFILL, SAMPLE, TIME, TOKENS, Totals, VERIFY } from "./totals.js";

/** Something that happened, of one kind. */
export type Event<Kind extends TapeEvent["kind"]> = Extract<TapeEvent, { kind: Kind }>;

const WORK = [PREFILL, DECODE, VERIFY]; // by code of lanes.state
const LANES = ["request", "state", "start", "end", "cached"];
const STEPS = ["token_limit", ...PHASES];
const STRIPES = [LIMIT, PLAN, PLAN, FORWARD, SAMPLE, SAMPLE, SAMPLE]; // by column of STEPS

export class Digest implements Follower {
  readonly totals = new Totals();
  readonly requests = new Rows();
  /** What was done to the engine, and who finished, in order of steps. */
  commands: readonly Event<"command">[] = [];
  finished: readonly Event<"finished">[] = [];
  #slots: Slots | undefined;
  readonly #following: Following;
  #lanes: readonly Numbers[] = [];
  #steps: readonly Numbers[] = [];
  #folded = 0; // positions from here on have been taken in since
  #usual = { length: -1, ms: 0 };

  constructor(private readonly tape: Tape) {
    this.#following = new Following(tape, this);
  }

  /** Take in the steps that are new, and forget those that were taken back. */
  update(): void {
    this.#lanes = LANES.map((name) => this.tape.column(`lanes.${name}`));
    this.#steps = STEPS.map((name) => this.tape.column(`steps.${name}`));
    if (!this.#following.update()) return;
    this.totals.fold(this.#folded);
    this.requests.fold();
    this.#folded = this.totals.length;
    this.commands = this.tape.events.filter((event) => event.kind === "command");
    this.finished = this.tape.events.filter((event) => event.kind === "finished");
  }

  /** Places in the batch; worked out from when they are first asked for. */
  get slots(): Slots {
    this.#slots ??= new Slots(this.tape);
    this.#slots.update();
    return this.#slots;
  }

  /** Milliseconds that all but one step in a hundred stay below (and all but the slowest, in a short run). */
  usualMs(): number {
    const { length } = this.totals;
    if (this.#usual.length < 0 || length < 200 || length > 1.05 * this.#usual.length) {
      const values = this.totals.level(0);
      const ordered = Float64Array.from({ length }, (_, i) => values[i * FIELDS + TIME]!).sort();
      this.#usual = { length, ms: ordered[Math.max(0, Math.min(length - 2, Math.floor(0.99 * (length - 1))))] ?? 0 };
    }
    return this.#usual.ms;
  }

  cut(length: number): number {
    this.#usual.length = -1;
    this.#folded = Math.min(this.#folded, length);
    this.totals.reach(length);
    return this.requests.cut(length);
  }

  take(position: number): void {
    const values = this.totals.reach(position + 1);
    const base = position * FIELDS;
    values.fill(0, base, base + FIELDS);
    for (let i = 0; i < STEPS.length; i++) values[base + STRIPES[i]!]! += this.#steps[i]![position]!;
    values[base + TIME] = values[base + PLAN]! + values[base + FORWARD]! + values[base + SAMPLE]!;
    const [first, end] = this.tape.rows("lanes", position);
    const [request, state, from, to, cached] = this.#lanes;
    for (let row = first; row < end; row++) {
      const code = state![row]!;
      const tokens = to![row]! - from![row]!;
      this.requests.put(request![row]!, position, RANK[code]!);
      values[base + CACHED]! += cached![row]!;
      if (code >= WORK.length) continue;
      values[base + WORK[code]!]! += tokens;
      values[base + TOKENS]! += tokens;
    }
  }
}
