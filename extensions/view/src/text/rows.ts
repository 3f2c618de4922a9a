/** `Rows`: ascending row numbers in a typed array that grows at its end, searched by halving. */

export class Rows {
  #values = new Int32Array(16);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  at(place: number): number {
    return this.#values[place]!;
  }

  view(): Int32Array {
    return this.#values.subarray(0, this.#length);
  }

  push(row: number): void {
    if (this.#length === this.#values.length) {
      const larger = new Int32Array(2 * this.#length);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[this.#length++] = row;
  }

  /** How many are smaller than `row`. */
  below(row: number): number {
    let [low, high] = [0, this.#length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#values[middle]! < row) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The largest that is smaller than `row`; -1 if there is none. */
  last(row: number): number {
    const place = this.below(row);
    return place === 0 ? -1 : this.#values[place - 1]!;
  }

  /** Forget those that are not smaller than `row`. */
  cut(row: number): void {
    this.#length = this.below(row);
  }
}
