/** `Rows`: ascending row numbers, searched by halving. */

import { Growing } from "../follow.js";
import { firstNot } from "../search.js";

export class Rows extends Growing<Uint32Array> {
  constructor() {
    super(new Uint32Array(16));
  }

  at(place: number): number {
    return this.values[place]!;
  }

  view(): Uint32Array {
    return this.values.subarray(0, this.length);
  }

  /** How many are smaller than `row`. */
  below(row: number): number {
    return firstNot(0, this.length, (place) => this.at(place) < row);
  }

  /** The largest that is smaller than `row`; -1 if there is none. */
  last(row: number): number {
    const place = this.below(row);
    return place === 0 ? -1 : this.at(place - 1);
  }

  /** Forget those that are not smaller than `row`. */
  cut(row: number): void {
    this.length = this.below(row);
  }
}
