/** Which requests have a place on the screen at a position, when there are more than fit. */

import type { Tape } from "../tape.js";
import type { Outputs } from "./output.js";

const MOST = 24;
const WAITING = 3;

/** Requests that have come by a position, in order: all, or the most lively: those at work, then those that wait, then the latest to come. */
export function livelyRequests(tape: Tape, outputs: Outputs, position: number): { readonly shown: readonly number[]; readonly seen: number } {
  const here: number[] = [];
  for (let request = 0; request < tape.requests.length; request++) {
    const seen = outputs.seen(request);
    if (seen >= 0 && seen <= position) here.push(request);
  }
  if (here.length <= MOST) return { shown: here, seen: here.length };
  const weights = new Map<number, number>();
  const [first, end] = tape.rows("lanes", position);
  const [requests, states] = [tape.column("lanes.request"), tape.column("lanes.state")];
  for (let row = first; row < end; row++) weights.set(requests[row]!, states[row] === WAITING ? 1 : 2);
  const weight = (request: number): number => weights.get(request) ?? 0;
  const best = [...here].sort((a, b) => weight(b) - weight(a) || (weight(a) > 0 ? a - b : b - a));
  return { shown: best.slice(0, MOST).sort((a, b) => a - b), seen: here.length };
}

/** The request whose token came out last by a position; the first that is here if none came out. */
export function newestRequest(tape: Tape, shown: readonly number[], position: number): number {
  const row = tape.rows("tokens", position)[1] - 1;
  return row >= 0 ? tape.column("tokens.request")[row]! : (shown[0] ?? 0);
}
