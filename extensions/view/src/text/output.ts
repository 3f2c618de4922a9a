/**
 * `Outputs`: an index of a tape by request.  Which tokens came out, how much of a request was computed and how much of that the cache
 * spared, at any position, without walking the steps.  It grows with the tape and is cut back with it.
 */

import { once } from "../follow.js";
import { firstNot } from "../search.js";
import type { Tape } from "../tape.js";
import { Rows } from "./rows.js";

const WAITING = 3;
const PREEMPTED = 6;

/** What is kept of one request: rows of `tokens` and `lanes`, ascending, and the positions from which another prompt holds. */
interface Kept {
  readonly tokens: Rows;
  readonly work: Rows; // lanes in which it computed something, or lost all (the first lane of each wait)
  readonly admitted: Rows; // those of them that began a stretch of computing
  readonly restarts: { readonly position: number; readonly prompt: readonly number[] }[];
  end?: { readonly position: number; readonly reason: string };
  seen: number; // position in which it first stood in a lane; -1 if none
}

/** The index of a tape, made once for each tape and brought up to date by every call. */
export const outputsOf = (tape: Tape): Outputs => made(tape).update();

const made = once((tape: Tape) => new Outputs(tape));

export class Outputs {
  readonly #requests: (Kept | undefined)[] = [];
  #length = 0; // positions taken in
  #events = 0; // events taken in
  #cuts = 0; // cuts of the tape that were seen

  constructor(private readonly tape: Tape) {
    this.#cuts = tape.cuts.length;
  }

  /** Take in what the tape gained, forget what it lost.  Costs what is new. */
  update(): this {
    const { tape } = this;
    if (this.#cuts !== tape.cuts.length) this.#cut(Math.min(...tape.cuts.slice(this.#cuts)));
    this.#cuts = tape.cuts.length;
    for (; this.#events < tape.events.length; this.#events++) {
      const event = tape.events[this.#events]!;
      const position = event.step - tape.firstStep;
      if (event.kind === "restart") this.#of(event.request).restarts.push({ position, prompt: event.prompt });
      if (event.kind === "finished") this.#of(event.request).end = { position, reason: event.reason };
    }
    for (; this.#length < tape.length; this.#length++) this.#take(this.#length);
    return this;
  }

  /** Rows of `tokens` of a request, in order, over the whole tape, restarts included. */
  rows(request: number): Uint32Array {
    return this.#requests[request]?.tokens.view() ?? NOTHING;
  }

  /** How many of `rows` are out at a position, those of its step included. */
  upTo(request: number, position: number): number {
    return this.#requests[request]?.tokens.below(endOf(this.tape, "tokens", position)) ?? 0;
  }

  /** The first of `rows` that counts at a position: what came before a restart is not part of the output any more. */
  since(request: number, position: number): number {
    const restart = this.#restart(request, position);
    return restart === undefined ? 0 : this.#requests[request]!.tokens.below(startOf(this.tape, "tokens", restart.position));
  }

  /** The prompt that holds at a position. */
  prompt(request: number, position: number): readonly number[] {
    return this.#restart(request, position)?.prompt ?? this.tape.requests[request]?.prompt ?? [];
  }

  /** How many of the request's tokens, prompt first, have their keys and values in blocks at the end of a position's step. */
  computed(request: number, position: number): number {
    const row = this.#requests[request]?.work.last(endOf(this.tape, "lanes", position)) ?? -1;
    return row < 0 ? 0 : computedIn(this.tape, row);
  }

  /** Tokens that the prefix cache spared when the request was last admitted; 0 while it holds nothing. */
  promptCached(request: number, position: number): number {
    const row = this.#admission(request, position);
    return row < 0 ? 0 : this.tape.column("lanes.cached")[row]!;
  }

  /** The position in whose step a token of the request, counted from the start of its prompt, was computed or found; -1 if it is not there. */
  computedAt(request: number, token: number, position: number): number {
    const admission = this.#admission(request, position);
    if (admission < 0 || token >= this.computed(request, position)) return -1;
    const { tape } = this;
    if (token < tape.column("lanes.cached")[admission]!) return tape.positionOfRow("lanes", admission);
    const rows = this.#requests[request]!.work;
    const ends = tape.column("lanes.end");
    const last = rows.below(endOf(tape, "lanes", position)) - 1;
    const place = firstNot(rows.below(admission), last, (at) => ends[rows.at(at)]! <= token);
    return tape.positionOfRow("lanes", rows.at(place));
  }

  /** The position in which a request first came in sight; -1 if it has not. */
  seen(request: number): number {
    return this.#requests[request]?.seen ?? -1;
  }

  /** Why the request had ended by a position (`stop`, `length` or `abort`); undefined if it had not. */
  ended(request: number, position: number): string | undefined {
    const end = this.#requests[request]?.end;
    return end !== undefined && end.position <= position ? end.reason : undefined;
  }

  #take(position: number): void {
    const { tape } = this;
    const owners = tape.column("tokens.request");
    const [first, end] = tape.rows("tokens", position);
    for (let row = first; row < end; row++) this.#of(owners[row]!).tokens.push(row);
    const requests = tape.column("lanes.request");
    const [from, to] = tape.rows("lanes", position);
    for (let row = from; row < to; row++) this.#lane(this.#of(requests[row]!), row, position);
  }

  #lane(one: Kept, row: number, position: number): void {
    if (one.seen < 0) one.seen = position;
    const before = one.work.last(row);
    const held = before < 0 || isLost(this.tape, before) ? -1 : computedIn(this.tape, before);
    if (isLost(this.tape, row)) {
      if (held >= 0) one.work.push(row);
    } else if (this.tape.column("lanes.end")[row]! > 0) {
      // Who goes on begins where it stood; anything else is a new admission (a restart may go through in one step).
      if (this.tape.column("lanes.start")[row] !== held || this.tape.column("lanes.cached")[row]! > 0) one.admitted.push(row);
      one.work.push(row);
    }
  }

  /** Row of `lanes` that admitted the request for the stretch that goes on at a position; -1 while it holds nothing. */
  #admission(request: number, position: number): number {
    const one = this.#requests[request];
    const end = endOf(this.tape, "lanes", position);
    const row = one?.work.last(end) ?? -1;
    return row < 0 || isLost(this.tape, row) ? -1 : one!.admitted.last(end);
  }

  #restart(request: number, position: number): Kept["restarts"][number] | undefined {
    const all = this.#requests[request]?.restarts ?? [];
    let place = all.length - 1;
    while (place >= 0 && all[place]!.position > position) place -= 1;
    return all[place];
  }

  #of(request: number): Kept {
    return (this.#requests[request] ??= { tokens: new Rows(), work: new Rows(), admitted: new Rows(), restarts: [], seen: -1 });
  }

  #cut(length: number): void {
    const left = Math.min(length, this.#length);
    this.#length = left;
    this.#events = 0; // the tape keeps only the events that still hold
    const [tokens, lanes] = [endOf(this.tape, "tokens", left - 1), endOf(this.tape, "lanes", left - 1)];
    for (const one of this.#requests) {
      if (one === undefined) continue;
      one.tokens.cut(tokens);
      one.work.cut(lanes);
      one.admitted.cut(lanes);
      one.restarts.length = 0;
      delete one.end;
      if (one.seen >= left) one.seen = -1;
    }
  }
}

function isLost(tape: Tape, row: number): boolean {
  const state = tape.column("lanes.state")[row];
  return state === WAITING || state === PREEMPTED;
}

/** Tokens computed after the step of a lane: its range without the drafts that were refused. */
function computedIn(tape: Tape, row: number): number {
  if (isLost(tape, row)) return 0;
  const accepted = tape.column("lanes.accepted")[row]!;
  const refused = accepted < 0 ? 0 : tape.column("lanes.drafts")[row]! - accepted;
  return tape.column("lanes.end")[row]! - refused;
}

/** Row after the last of a table at a position, also before the first position and beyond the last. */
function endOf(tape: Tape, table: "tokens" | "lanes", position: number): number {
  return position < 0 ? 0 : tape.rows(table, Math.min(position, tape.length - 1))[1];
}

function startOf(tape: Tape, table: "tokens" | "lanes", position: number): number {
  return endOf(tape, table, position - 1);
}

const NOTHING = new Uint32Array(0);
