/** `Totals`: tokens and milliseconds of every step, folded by powers of two, so that any zoom reads one number per column. */

/** Fields of a column: sums over its steps, then maxima. */
export const PREFILL = 0;
export const DECODE = 1;
export const VERIFY = 2;
export const CACHED = 3;
export const PLAN = 4; // plan and prepare
export const FORWARD = 5;
export const SAMPLE = 6; // sample, propose drafts and commit
export const LIMIT = 7; // the highest token budget
export const TOKENS = 8; // the most tokens computed in a step
export const TIME = 9; // the slowest step, in milliseconds
export const FIELDS = 10;

export class Totals {
  length = 0;
  readonly #levels: Float32Array[] = [new Float32Array(256 * FIELDS)];

  /** Columns of 2 ** level steps, `FIELDS` numbers each; longer than what is held. */
  level(level: number): Float32Array {
    return this.#levels[Math.min(level, this.#levels.length - 1)]!;
  }

  /** The fields of the whole run as one column. */
  whole(): Float32Array {
    return this.#levels.at(-1)!.subarray(0, this.length > 0 ? FIELDS : 0);
  }

  /** Make room for `length` steps, whose numbers are then put at level 0. */
  reach(length: number): Float32Array {
    this.length = length;
    return this.#room(0, length);
  }

  /** Fold again what lies from a position on. */
  fold(from: number): void {
    let level = 1;
    for (let held = this.length; held > 1; level++) {
      const below = this.#levels[level - 1]!;
      const count = Math.ceil(held / 2);
      const here = this.#room(level, count);
      for (let column = Math.min(from >> level, count); column < count; column++) join(below, here, column, held);
      held = count;
    }
    this.#levels.length = Math.max(1, level);
  }

  #room(level: number, columns: number): Float32Array {
    const held = this.#levels[level];
    if (held !== undefined && held.length >= columns * FIELDS) return held;
    const larger = new Float32Array(Math.max(8, 2 * columns) * FIELDS);
    if (held !== undefined) larger.set(held);
    return (this.#levels[level] = larger);
  }
}

function join(below: Float32Array, here: Float32Array, column: number, held: number): void {
  const left = 2 * column * FIELDS;
  const right = left + FIELDS;
  const both = 2 * column + 1 < held;
  for (let field = 0; field < FIELDS; field++) {
    const other = both ? below[right + field]! : 0;
    const value = below[left + field]!;
    here[column * FIELDS + field] = field < LIMIT ? value + other : Math.max(value, other);
  }
}
