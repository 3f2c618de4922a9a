/** Searching what stands in order, by halving. */

/** The first of the numbers `[low, high)` that is not `before` what is looked for; `high` if all are. */
export function firstNot(low: number, high: number, before: (at: number) => boolean): number {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (before(middle)) low = middle + 1;
    else high = middle;
  }
  return low;
}
