/** `Slots`: the place in the batch that each request takes: the lowest that is free when it is admitted, kept until it leaves. */

import { type Follower, Following } from "../follow.js";
import { firstNot } from "../search.js";
import { STATES, type Tape } from "../tape.js";
import { RANK } from "./looks.js";
import { Rows } from "./rows.js";

const [WAITING, PREEMPTED] = [STATES.indexOf("waiting"), STATES.indexOf("preempted")];

/** A request in a place of the batch, positions `[first, end)`. */
export interface Stay {
  readonly request: number;
  readonly first: number;
  end: number;
}

export class Slots extends Rows implements Follower {
  readonly stays: Stay[][] = []; // by place, in order of time
  readonly #following: Following;
  #places = new Map<number, number>(); // place by request, of those in the batch in the newest step

  constructor(private readonly tape: Tape) {
    super();
    this.#following = new Following(tape, this);
  }

  update(): void {
    if (this.#following.update()) this.fold();
  }

  /** Who is preempted leaves its place only after the step; the others of the batch stay, then newcomers take the free places. */
  take(position: number): void {
    const request = this.tape.column("lanes.request");
    const state = this.tape.column("lanes.state");
    const before = this.#places;
    this.#places = new Map();
    const newcomers: number[] = [];
    const [first, end] = this.tape.rows("lanes", position);
    for (let row = first; row < end; row++) {
      const place = before.get(request[row]!);
      if (state[row] === WAITING) continue;
      if (place !== undefined) this.#stay(place, request[row]!, position, RANK[state[row]!]!);
      else if (state[row] !== PREEMPTED) newcomers.push(row);
    }
    for (const row of newcomers) this.#stay(this.#free(position), request[row]!, position, RANK[state[row]!]!);
  }

  /** The request in a place; -1 if there is none. */
  requestAt(place: number, position: number): number {
    const stays = this.stays[place] ?? [];
    const stay = stays[staysBefore(stays, position + 1) - 1];
    return stay !== undefined && position < stay.end ? stay.request : -1;
  }

  override cut(length: number): number {
    this.#places.clear();
    this.stays.forEach((stays, place) => {
      while (stays.length > 0 && stays.at(-1)!.first >= length) stays.pop();
      const last = stays.at(-1);
      if (last === undefined || last.end < length) return;
      last.end = length;
      this.#places.set(last.request, place);
    });
    return super.cut(length);
  }

  #free(position: number): number {
    const place = this.stays.findIndex((stays) => (stays.at(-1)?.end ?? 0) <= position);
    return place < 0 ? this.stays.push([]) - 1 : place;
  }

  #stay(place: number, request: number, position: number, rank: number): void {
    const last = this.stays[place]!.at(-1);
    if (last?.request === request && last.end === position) last.end = position + 1;
    else this.stays[place]!.push({ request, first: position, end: position + 1 });
    this.#places.set(request, place);
    this.put(place, position, rank);
  }
}

/** How many of the stays began before a position. */
export const staysBefore = (stays: readonly Stay[], position: number): number => firstNot(0, stays.length, (at) => stays[at]!.first < position);
