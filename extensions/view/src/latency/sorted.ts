/** `Sorted`: values kept in ascending order while more come, so that percentiles of a growing run stay cheap. */

export class Sorted {
  length = 0;
  #values = new Float64Array(256);

  clear(): void {
    this.length = 0;
  }

  /** The values, ascending; valid until the next `add`. */
  get values(): Float64Array {
    return this.#values.subarray(0, this.length);
  }

  /** Add values in any order: only they are sorted, then merged in from the end. */
  add(values: Float64Array): void {
    const added = values.slice().sort();
    const total = this.length + added.length;
    this.#reserve(total);
    const held = this.#values;
    let old = this.length - 1;
    let fresh = added.length - 1;
    for (let at = total - 1; fresh >= 0; at--) {
      const fromHeld = old >= 0 && held[old]! > added[fresh]!;
      held[at] = fromHeld ? held[old--]! : added[fresh--]!;
    }
    this.length = total;
  }

  #reserve(total: number): void {
    if (total <= this.#values.length) return;
    const larger = new Float64Array(2 * total);
    larger.set(this.values);
    this.#values = larger;
  }
}
