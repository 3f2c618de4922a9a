/** What happened in a step, in words: commands before it, who came, was admitted, preempted, and who finished. */

import { firstNot } from "../search.js";
import type { Tape } from "../tape.js";

const NAMED = 6; // requests named before the others are counted

/** "r5 arrived; r5 admitted; r0 finished (stop)"; empty for a step in which nobody came or went. */
export function happenings(tape: Tape, position: number): string {
  const told = new Map<string, string[]>(); // requests by what happened to them, in order
  const tell = (what: string, request: number): void => {
    const names = told.get(what) ?? [];
    told.set(what, names);
    names.push(tape.requests[request]?.id ?? "?");
  };
  const commands: string[] = [];
  const ends: (readonly [string, number])[] = [];
  for (const event of eventsOf(tape, position)) {
    if (event.kind === "command") commands.push(event.text);
    else if (event.kind === "restart") tell("starts afresh with another prompt", event.request);
    else if (event.kind === "finished") ends.push([`finished (${event.reason})`, event.request]);
    else tell(event.kind, event.request);
  }
  for (const request of admitted(tape, position)) tell("admitted", request);
  for (const [what, request] of ends) tell(what, request);
  return [...commands, ...[...told].map(([what, names]) => `${listed(names)} ${what}`)].join("; ");
}

/** The events of a step; they stand in order of steps. */
function eventsOf(tape: Tape, position: number): Tape["events"] {
  const { events } = tape;
  const step = tape.firstStep + position;
  const from = firstFrom(events, step);
  return events.slice(from, firstFrom(events, step + 1));
}

const firstFrom = (events: Tape["events"], step: number): number => firstNot(0, events.length, (at) => events[at]!.step < step);

/** Requests that got their first tokens computed since they waited: only such a chunk begins where the prefix cache's hits end. */
function admitted(tape: Tape, position: number): number[] {
  const [requests, starts, ends, cached] = ["request", "start", "end", "cached"].map((name) => tape.column(`lanes.${name}`));
  const [first, end] = tape.rows("lanes", position);
  const found: number[] = [];
  for (let lane = first; lane < end; lane++) {
    if (ends![lane]! > starts![lane]! && starts![lane] === cached![lane]) found.push(requests![lane]!);
  }
  return found;
}

function listed(names: readonly string[]): string {
  return names.length > NAMED ? `${names.slice(0, NAMED).join(", ")} and ${names.length - NAMED} more` : names.join(", ");
}
