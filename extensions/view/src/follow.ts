/** Figures that grow with a tape: each step is taken in once, and everything begins again after the tape was cut back. */

import type { Tape } from "./tape.js";

export interface Follower {
  /** Forget everything. */
  reset(): void;
  /** Take in the next position, from 0 on. */
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

  /** Bring the follower in step with the tape; true if anything changed.  A cut beyond what was taken in costs nothing. */
  update(): boolean {
    const { tape, follower } = this;
    if (this.#version === tape.version) return false;
    if (tape.cuts.slice(this.#cuts).some((left) => left < this.#taken)) {
      follower.reset();
      this.#taken = 0;
    }
    this.#cuts = tape.cuts.length;
    while (this.#taken < tape.length) follower.take(this.#taken++);
    this.#version = tape.version;
    return true;
  }
}

/** A column that grows at its end: plain typed arrays, so that hundreds of thousands of numbers cost what they weigh. */
export class Growing<Kind extends Float64Array | Uint32Array> {
  length = 0;

  constructor(public values: Kind) {}

  push(value: number): void {
    if (this.length === this.values.length) {
      const larger = new (this.values.constructor as new (length: number) => Kind)(Math.max(256, 2 * this.length));
      larger.set(this.values);
      this.values = larger;
    }
    this.values[this.length++] = value;
  }
}
