/** Figures that grow with a tape: each step is taken in once, and what was taken back is forgotten. */

import type { Tape } from "./tape.js";

export interface Follower {
  /** Forget the positions from `length` on; returns how many are still held, which may be fewer. */
  cut(length: number): number;
  /** Take in the next position. */
  take(position: number): void;
}

export class Following {
  #version = -1;
  #taken = 0;
  #cuts = 0;

  constructor(
    private readonly tape: Tape,
    private readonly follower: Follower,
  ) {}

  /** Bring the follower in step with the tape; true if anything changed. */
  update(): boolean {
    const { tape, follower } = this;
    if (this.#version === tape.version) return false;
    const left = Math.min(this.#taken, ...tape.cuts.slice(this.#cuts));
    if (left < this.#taken) this.#taken = follower.cut(left);
    this.#cuts = tape.cuts.length;
    while (this.#taken < tape.length) follower.take(this.#taken++);
    this.#version = tape.version;
    return true;
  }
}

/** What `make` makes of a thing, made once for each and kept as long as it is. */
export function once<Thing extends object, Made>(make: (thing: Thing) => Made): (thing: Thing) => Made {
  const known = new WeakMap<Thing, Made>();
  return (thing) => {
    if (!known.has(thing)) known.set(thing, make(thing));
    return known.get(thing)!;
  };
}

/** A column that grows at its end: plain typed arrays, so that hundreds of thousands of numbers cost what they weigh. */
export class Growing<Kind extends Float64Array | Uint32Array | Uint8Array> {
  length = 0;

  constructor(public values: Kind) {}

  push(value: number): void {
    if (this.length === this.values.length) this.#reserve(this.length + 1);
    this.values[this.length++] = value;
  }

  /** Make it longer by zeros, or shorter. */
  resize(length: number): void {
    if (length > this.values.length) this.#reserve(length);
    this.values.fill(0, this.length, length);
    this.length = length;
  }

  #reserve(length: number): void {
    const larger = new (this.values.constructor as new (length: number) => Kind)(Math.max(256, 2 * length));
    larger.set(this.values.subarray(0, this.length));
    this.values = larger;
  }
}
