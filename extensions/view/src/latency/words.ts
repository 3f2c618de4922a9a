/** What lies behind a latency, in words: the step in which the token came, and what happened to the request before it. */

import { nameOf } from "../blocks/words.js";
import { count, ms } from "../format.js";
import type { Tape } from "../tape.js";
import type { First, Gaps } from "./gaps.js";

const RAN = 2; // lane states up to `verify`

/** `r3 · 64 ms before this token`, the step, and what came between. */
export function gapWords(tape: Tape, gaps: Gaps, gap: number): string {
  const [request, before, position] = [gaps.request[gap]!, gaps.before[gap]!, gaps.position[gap]!];
  const lines = [`${nameOf(tape, request)} · ${ms(gaps.ms[gap]!)} before this token`, stepWords(tape, request, position)];
  return [...lines, ...betweenWords(tape, request, before, position)].join("\n");
}

export function firstWords(tape: Tape, { request, position, ms: waited }: First): string {
  return `${nameOf(tape, request)} · first token ${ms(waited)} after it arrived\n${stepWords(tape, request, position)}`;
}

/** The biggest row of a step, as that is what a step's time is mostly spent on. */
function stepWords(tape: Tape, request: number, position: number): string {
  const step = `step ${tape.firstStep + position}, ${ms(tape.durationMs(position))}`;
  const { row, tokens, rows } = biggest(tape, position);
  if (tokens <= 1) return rows === 1 ? `${step}: it decoded alone` : `${step}: ${count(rows, "request")} decoded, one token each`;
  const owner = tape.column("lanes.request")[row]!;
  const what = tape.column("lanes.state")[row] === 0 ? "prefill" : "verification";
  const whose = owner === request ? "its own" : `${nameOf(tape, owner)}'s`;
  return `${step}: ${whose} ${what} of ${count(tokens, "token")} was in the step`;
}

function biggest(tape: Tape, position: number): { row: number; tokens: number; rows: number } {
  const [first, end] = tape.rows("lanes", position);
  const [starts, ends, states] = ["start", "end", "state"].map((name) => tape.column(`lanes.${name}`));
  let found = { row: -1, tokens: 0, rows: 0 };
  for (let row = first; row < end; row++) {
    if (states![row]! > RAN) continue;
    const tokens = ends![row]! - starts![row]!;
    found = { ...found, rows: found.rows + 1, ...(tokens > found.tokens && { row, tokens }) };
  }
  return found;
}

/** Steps between two tokens that gave the request none, and whether it lost its blocks there. */
function betweenWords(tape: Tape, request: number, before: number, position: number): string[] {
  const lost = tape.events.filter((event) => event.kind === "preempted" && event.request === request);
  const steps = lost.map(({ step }) => step - tape.firstStep).filter((at) => at > before && at <= position);
  if (steps.length > 0) return steps.map((at) => `it was preempted in step ${tape.firstStep + at}${againWords(tape, request, at, position)}`);
  const between = position - before - 1;
  return between > 0 ? [`${count(between, "step")} in between gave it no token`] : [];
}

function againWords(tape: Tape, request: number, lost: number, position: number): string {
  for (let at = lost + 1; at <= position; at++) {
    const row = tape.lane(at, request);
    if (row >= 0 && tape.column("lanes.state")[row]! <= RAN) return ` and ran again from step ${tape.firstStep + at} on`;
  }
  return "";
}
