/** Speculation of a run, read from its tape: acceptance by draft position, rounds of a step, and what rounds gave over time.
 *
 * Definitions are those of `workbench.metrics`: rounds without drafts do not count, those with placeholders do; the unconditional rate of a position is the share
 * of all rounds in which that draft was accepted, the conditional one the share of those that came to it: that had it, and accepted all before it.
 */

import { Following, Growing, once } from "../follow.js";
import { ORIGINS, type Tape } from "../tape.js";

export interface AtPosition {
  readonly proposed: number; // rounds that proposed so many drafts
  readonly reached: number; // of these, rounds in which all drafts before it were accepted
  readonly accepted: number;
}

export interface Acceptance {
  readonly rounds: number; // with drafts
  readonly accepted: number;
  readonly positions: readonly AtPosition[];
  /** Sums over the steps before a position (one more entry than steps): rounds, and the tokens that they emitted. */
  readonly roundsBefore: Float64Array;
  readonly emittedBefore: Float64Array;
}

class Counted implements Acceptance {
  readonly #following: Following;
  #proposed: number[] = []; // rounds by the number of drafts proposed, accepted
  #accepted: number[] = [];
  #whole: number[] = []; // rounds that accepted so many drafts, which were all
  #rounds = new Growing(new Float64Array(256));
  #emitted = new Growing(new Float64Array(256));
  rounds = 0;
  accepted = 0;
  positions: readonly AtPosition[] = [];

  constructor(private readonly tape: Tape) {
    this.#following = new Following(tape, this);
    this.cut();
  }

  get roundsBefore(): Float64Array {
    return this.#rounds.values;
  }
  get emittedBefore(): Float64Array {
    return this.#emitted.values;
  }

  update(): this {
    if (this.#following.update()) this.positions = this.#proposed.slice(1).map((_, place) => this.#at(place));
    return this;
  }

  cut(): number {
    this.#proposed = [];
    this.#accepted = [];
    this.#whole = [];
    this.rounds = this.accepted = 0;
    for (const column of [this.#rounds, this.#emitted]) {
      column.length = 0;
      column.push(0);
    }
    return 0;
  }

  take(position: number): void {
    const [proposed, accepted, emitted] = ["proposed", "accepted", "emitted"].map((name) => this.tape.column(`rounds.${name}`));
    const [first, end] = this.tape.rows("rounds", position);
    let [rounds, tokens] = [this.roundsBefore[position]!, this.emittedBefore[position]!];
    for (let row = first; row < end; row++) {
      if (proposed![row] === 0) continue;
      this.#count(proposed![row]!, accepted![row]!);
      rounds += 1;
      tokens += emitted![row]!;
    }
    this.#rounds.push(rounds);
    this.#emitted.push(tokens);
  }

  #count(proposed: number, accepted: number): void {
    while (this.#proposed.length <= proposed) {
      this.#proposed.push(0);
      this.#accepted.push(0);
      this.#whole.push(0);
    }
    this.#proposed[proposed]! += 1;
    this.#accepted[accepted]! += 1;
    if (accepted === proposed) this.#whole[accepted]! += 1;
    this.rounds += 1;
    this.accepted += accepted;
  }

  #at(place: number): AtPosition {
    const from = (counts: readonly number[], least: number): number => counts.slice(least).reduce((sum, one) => sum + one, 0);
    return { proposed: from(this.#proposed, place + 1), reached: from(this.#accepted, place) - this.#whole[place]!, accepted: from(this.#accepted, place + 1) };
  }
}

/** Acceptance over a whole tape, brought up to date; work is done only for what is new. */
export const acceptanceOf = (tape: Tape): Acceptance => made(tape).update();

const made = once((tape: Tape) => new Counted(tape));

/** One verification: the drafts that were proposed, how many were right, and the token that came after them, if one did. */
export interface Round {
  readonly request: number;
  readonly drafts: readonly number[];
  readonly accepted: number;
  readonly emitted: number;
  readonly draftMs: number; // this round's share of proposing its drafts, and of the step that verified them
  readonly verifyMs: number;
  readonly own?: { readonly id: number; readonly origin: (typeof ORIGINS)[number] };
}

/** The rounds of a step that had drafts, in order. */
export function roundsAt(tape: Tape, position: number): Round[] {
  const [first, end] = tape.rows("rounds", position);
  const numbers = (name: string, row: number): number => tape.column(`rounds.${name}`)[row]!;
  const found: Round[] = [];
  let draft = tape.rows("drafts", position)[0];
  for (let row = first; row < end; row++) {
    const request = numbers("request", row);
    const drafts = Array.from(tape.column("drafts.id").subarray(draft, draft + numbers("proposed", row)));
    draft += drafts.length;
    const own = ownToken(tape, position, request);
    const times = { draftMs: numbers("draft_ms", row), verifyMs: numbers("verify_ms", row) };
    if (drafts.length > 0) found.push({ request, drafts, accepted: numbers("accepted", row), emitted: numbers("emitted", row), ...times, ...(own && { own }) });
  }
  return found;
}

/** The token that the model itself put at the end of a round: corrected or bonus.  None when the request ended before it. */
function ownToken(tape: Tape, position: number, request: number): Round["own"] {
  const [first, end] = tape.rows("tokens", position);
  for (let row = end - 1; row >= first; row--) {
    if (tape.column("tokens.request")[row] !== request) continue;
    const origin = ORIGINS[tape.column("tokens.origin")[row]!]!;
    return origin === "accepted" ? undefined : { id: tape.column("tokens.id")[row]!, origin };
  }
  return undefined;
}
