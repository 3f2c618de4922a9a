/** What the timeline says in words: tooltips, and the summary for those who do not see it. */

import type { RunView } from "../app.js";
import { count, ms, number, whole } from "../format.js";
import { STATES } from "../tape.js";
import type { TapeEvent } from "../wire.js";
import { Lane, reasonIn } from "../why/words.js";
import type { Event } from "./digest.js";
import { LABELS } from "./looks.js";

/** Positions `[first, end)` that share a column. */
export type Share = readonly [first: number, end: number];

export function spanWords(run: RunView, [first, end]: Share): string {
  const from = run.meta.first_step + first;
  return end - first > 1 ? `steps ${whole(from)}–${whole(from + end - first - 1)}` : `step ${whole(from)}`;
}

/** A request in a step, or in the steps that share a column. */
export function cellWords(run: RunView, share: Share, request: number): string {
  const name = run.tape.requests[request]?.id ?? "?";
  const head = `${spanWords(run, share)} · ${name}`;
  if (share[1] - share[0] > 1) return `${head}: ${foldedWords(run, share, request)}${endWords(run, share, request)}`;
  const lane = run.tape.lane(share[0], request);
  return lane < 0 ? `${head}: ${absentWords(run, share[0], request)}` : `${head} ${laneWords(run, lane)}${endWords(run, share, request)}`;
}

function laneWords(run: RunView, lane: number): string {
  const found = new Lane(run.tape, lane);
  const value = (name: string): number => found.number(name);
  const { state } = found;
  const why = reasonWords(run, lane);
  if (state !== "prefill" && state !== "decode" && state !== "verify") return why ? `${LABELS[state]}: ${why}` : LABELS[state];
  const [start, end] = [value("start"), value("end")];
  const parts = [`${state}, ${end - start === 1 ? `token ${start}` : `tokens ${start}–${end} (${end - start})`}`];
  if (value("cached") > 0) parts.push(`${value("cached")} from the prefix cache`);
  if (value("accepted") >= 0) parts.push(`${value("accepted")} of ${count(value("drafts"), "draft")} accepted, ${count(value("sampled"), "token")} out`);
  if (found.verdict === "partial" && why) parts.push(`not all of it: ${why}`);
  return parts.join(", ");
}

/** Why a request did not run, or not in full, with the numbers behind it; "" if no reason is known. */
export function reasonWords(run: RunView, lane: number): string {
  const found = new Lane(run.tape, lane);
  return found.verdict === "scheduled" ? "" : reasonIn(found, run.meta);
}

function foldedWords(run: RunView, [first, end]: Share, request: number): string {
  const counts = new Map<string, number>();
  for (let position = first; position < end; position++) {
    const lane = run.tape.lane(position, request);
    if (lane < 0) continue;
    const state = STATES[run.tape.column("lanes.state")[lane]!]!;
    counts.set(state, (counts.get(state) ?? 0) + 1);
  }
  if (counts.size === 0) return absentWords(run, first, request);
  return `${[...counts].map(([state, steps]) => `${state} in ${steps}`).join(", ")} of ${end - first} steps`;
}

function endWords(run: RunView, [first, end]: Share, request: number): string {
  const found = finished(run, request, first, end);
  return found ? `\nfinished: ${found.reason}` : "";
}

function absentWords(run: RunView, position: number, request: number): string {
  const ended = finished(run, request, 0, position + 1);
  return ended ? `finished in step ${whole(ended.step)} (${ended.reason})` : "not here in this step";
}

/** The end of a request in positions `[first, end)`. */
function finished({ tape }: RunView, request: number, first: number, end: number): Event<"finished"> | undefined {
  const ends = (each: TapeEvent): each is Event<"finished"> => each.kind === "finished" && each.request === request;
  return tape.events.filter(ends).find(({ step }) => step >= tape.firstStep + first && step < tape.firstStep + end);
}

const KINDS = ["prefill", "decode", "verify"] as const;

/** What a step computed, by kind, or what the steps that share a column did. */
export function tokenWords(run: RunView, [first, end]: Share): string {
  const { tape } = run;
  const [state, start, stop, cached] = ["state", "start", "end", "cached"].map((name) => tape.column(`lanes.${name}`));
  const tokens = [0, 0, 0];
  let [spared, most] = [0, 0];
  for (let position = first; position < end; position++) {
    const before = tokens[0]! + tokens[1]! + tokens[2]!;
    const [from, to] = tape.rows("lanes", position);
    for (let lane = from; lane < to; lane++) {
      if (state![lane]! < 3) tokens[state![lane]!]! += stop![lane]! - start![lane]!;
      spared += cached![lane]!;
    }
    most = Math.max(most, tokens[0]! + tokens[1]! + tokens[2]! - before);
  }
  const kinds = KINDS.map((kind, i) => (tokens[i]! > 0 ? `${whole(tokens[i]!)} ${kind}` : "")).filter(Boolean);
  const all = tokens[0]! + tokens[1]! + tokens[2]!;
  const budget = whole(tape.at("token_limit", end - 1));
  const size = end - first > 1 ? `at most ${whole(most)} of ${budget} tokens, ${number(all / (end - first))} on average` : `${whole(all)} of ${budget} tokens`;
  const lines = [`${spanWords(run, [first, end])}: ${size}`];
  if (kinds.length > 0) lines.push(kinds.join(", "));
  if (spared > 0) lines.push(`${whole(spared)} more spared by the prefix cache`);
  lines.push(`${tape.at("running", end - 1)} running, ${tape.at("waiting", end - 1)} waiting`);
  return lines.join("\n");
}

/** How long a step took, by phase; of several steps the slowest is told. */
export function timeWords(run: RunView, [first, end]: Share): string {
  const { tape } = run;
  let slowest = first;
  let sum = 0;
  for (let position = first; position < end; position++) {
    sum += tape.durationMs(position);
    if (tape.durationMs(position) > tape.durationMs(slowest)) slowest = position;
  }
  const phase = (name: string): string => `${name} ${number(tape.at(`${name}_ms`, slowest))}`;
  const phases = `${phase("plan")} + ${phase("prepare")}, ${phase("forward")}, ${phase("sample")} + ${phase("draft")} + ${phase("commit")}`;
  const words = `${spanWords(run, [slowest, slowest + 1])}: ${ms(tape.durationMs(slowest))}\n${phases}`;
  return end - first > 1 ? `${spanWords(run, [first, end])}: ${ms(sum / (end - first))} on average, the slowest\n${words}` : words;
}

/** What was done to the engine before the steps near a position. */
export function flagWords(run: RunView, commands: readonly Event<"command">[], position: number, reach: number): string {
  return commands
    .filter((command) => Math.abs(command.step - run.meta.first_step - position) <= reach)
    .slice(0, 8)
    .map((command) => `before step ${whole(command.step)}: ${command.text}`)
    .join("\n");
}

/** The step under the cursor, and what is marked, in one line. */
export function summary(run: RunView, position: number): string {
  const { tape, status, parted } = run;
  const first = run.meta.first_step;
  const parts = tape.length === 0 ? ["no step yet"] : [`step ${whole(first + position)} of ${whole(tape.length)}`];
  if (tape.length > 0) {
    parts.push(`${tape.at("running", position)} running, ${tape.at("waiting", position)} waiting`);
    parts.push(`${whole(tape.at("token_used", position))} of ${whole(tape.at("token_limit", position))} tokens, ${ms(tape.durationMs(position))}`);
  }
  if (run.forkStep !== undefined) parts.push(`a branch from step ${whole(run.forkStep)} on`);
  if (parted !== undefined) parts.push(`first difference in step ${whole(first + parted.position)}`);
  if (status.error !== undefined) parts.push(`step ${whole(status.error.step)} failed: ${status.error.message}`);
  return parts.join(", ");
}
