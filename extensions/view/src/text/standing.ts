/** How a request stands at a position, in a few words. */

import { STATES, type Tape } from "../tape.js";
import { count, whole } from "../format.js";
import type { Outputs } from "./output.js";

const ENDINGS: Readonly<Record<string, string>> = { stop: "done", length: "done: at its limit", abort: "aborted" };
const WORDS: Readonly<Record<(typeof STATES)[number], string>> = {
  prefill: "prefill",
  decode: "decode",
  verify: "verify",
  waiting: "waits",
  idle: "not in this step",
  held: "done, held",
  preempted: "preempted",
};

export interface Standing {
  readonly here: boolean; // it has arrived
  readonly waits: boolean;
  readonly ended: boolean;
  readonly word: string;
}

export function standingOf(tape: Tape, outputs: Outputs, request: number, position: number): Standing {
  const seen = outputs.seen(request);
  if (seen < 0 || seen > position) return { here: false, waits: false, ended: false, word: "not here yet" };
  const ending = outputs.ended(request, position);
  const lane = tape.lane(position, request);
  const state = lane < 0 ? undefined : STATES[tape.column("lanes.state")[lane]!];
  if (ending !== undefined && state !== "held") return { here: true, waits: false, ended: true, word: ENDINGS[ending] ?? ending };
  const waits = state === "waiting" || state === "preempted";
  return { here: true, waits, ended: false, word: state === undefined ? "not in sight" : WORDS[state] };
}

/** What stands where there is no output yet: "r4 waits: nothing computed yet". */
export function beforeOutput(tape: Tape, outputs: Outputs, request: number, position: number): string {
  const id = tape.requests[request]?.id ?? "";
  const standing = standingOf(tape, outputs, request, position);
  if (!standing.here) return `${id} has not arrived yet`;
  if (standing.ended) return `${id} ended without output`;
  const computed = outputs.computed(request, position);
  if (computed === 0) return `${id} ${standing.waits ? "waits" : "stands by"}: nothing computed yet`;
  return `${whole(computed)} of ${count(outputs.prompt(request, position).length, "token")} of its prompt computed`;
}
