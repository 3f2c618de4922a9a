/** Numbers and counts as people read them; the same words as `workbench/render/_format.py`. */

const GROUPED = new Intl.NumberFormat("en-US"); // made once: `toLocaleString` makes one at every call, which tables feel

/** A whole number with its thousands apart: 12,345. */
export const whole = (n: number): string => GROUPED.format(n);

export const count = (n: number, noun: string): string => `${whole(n)} ${noun}${n === 1 ? "" : "s"}`;

export const percent = (share: number): string => `${Math.round(100 * share)} %`;

/** Three significant digits, never in powers of ten: 0.0123, 1.23, 12.3, 123, 12,345. */
export function number(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 100) return whole(Math.round(value));
  const digits = size === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(size)));
  return String(Number(value.toFixed(Math.min(digits, 6))));
}

export const ms = (value: number): string => `${number(value)} ms`;

/** Interpolate a percentile of ascending values linearly (Hyndman and Fan's type 7), as `workbench.metrics.percentile` does. */
export function percentile(ordered: readonly number[] | Float64Array, percentage: number): number {
  if (ordered.length === 0) return NaN;
  const place = ((ordered.length - 1) * percentage) / 100;
  const below = Math.floor(place);
  const above = Math.min(below + 1, ordered.length - 1);
  const between = ordered[below]! + (ordered[above]! - ordered[below]!) * (place - below);
  return Math.min(between, ordered[above]!);
}
