/** Which latency lies under a pointer. */

import type { Area } from "./area.js";
import { lowerBound } from "./area.js";
import type { First, Gaps } from "./gaps.js";

const REACH = 7; // CSS pixels

export type Found = { readonly kind: "gap"; readonly gap: number } | { readonly kind: "first"; readonly first: First };

/** The nearest gap or first token within reach of a place on the plotting area. */
export function nearest(area: Area, gaps: Gaps, x: number, y: number): Found | undefined {
  let found: Found | undefined;
  let best = REACH * REACH;
  const consider = (position: number, ms: number, made: () => Found): void => {
    const far = (area.x(position) - x) ** 2 + (area.y(ms) - y) ** 2;
    if (far > best) return;
    best = far;
    found = made();
  };
  const at = (px: number): number => area.first - 0.5 + (px / area.width) * (area.last - area.first);
  const end = lowerBound(gaps.position, gaps.count, Math.max(0, Math.floor(at(x + REACH)) + 1));
  const begin = lowerBound(gaps.position, gaps.count, Math.max(0, Math.ceil(at(x - REACH))));
  for (let gap = begin; gap < end; gap++) consider(gaps.position[gap]!, gaps.ms[gap]!, () => ({ kind: "gap", gap }));
  for (const first of gaps.firsts) consider(first.position, first.ms, () => ({ kind: "first", first }));
  return found;
}
