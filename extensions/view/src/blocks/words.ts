/** What can be said of one block, line by line. */

import { BLOCK_STATUS, type Tape } from "../tape.js";
import { count, whole } from "../format.js";
import { oneLine } from "../text/token.js";
import { CACHED, FREE, type Facts, GONE, IN_USE, TOUCHES, type Touch, fillOf, ownersOf, tokensOf } from "./facts.js";

const MOST_TEXT = 160;

export const TOUCH_WORDS: Readonly<Record<Touch, string>> = {
  allocated: "allocated",
  hit: "found in the cache",
  shared: "shared with one more",
  cached: "became full",
  evicted: "evicted",
  freed: "let go",
};

export function ordinal(n: number): string {
  const tens = n % 100;
  const end = tens >= 11 && tens <= 13 ? "th" : (["th", "st", "nd", "rd"][n % 10] ?? "th");
  return `${whole(n)}${end}`;
}

export function nameOf(tape: Tape, request: number): string {
  return tape.requests[request]?.id ?? "a request from before the trace";
}

/** "r1, 3rd block", or nothing where that is not known. */
export function placeInRequest({ run, blocks }: Facts, id: number): string {
  const [request, index] = [blocks.content[id - 1]!, blocks.index[id - 1]!];
  return request < 0 || index < 0 ? "" : `${nameOf(run.tape, request)}, ${ordinal(index + 1)} block`;
}

export function tellBlock(facts: Facts, id: number): string {
  const { run, blocks } = facts;
  const status = blocks.status[id - 1]!;
  if (status === GONE) return "";
  const hash = run.tape.strings[blocks.hash[id - 1]!];
  return [
    `block ${id} · ${status === CACHED ? "cached, reusable" : BLOCK_STATUS[status]}`,
    status === IN_USE ? held(facts, id) : "",
    status === IN_USE || status === CACHED ? contents(facts, id) : "",
    text(facts, id),
    hash === undefined ? "" : `hash ${hash}`,
    status === CACHED || status === FREE ? reuse(facts, id) : "",
    happened(facts, id),
  ]
    .filter((line) => line !== "")
    .join("\n");
}

function held(facts: Facts, id: number): string {
  const owners = ownersOf(facts, id).map((owner) => nameOf(facts.run.tape, owner));
  const shown = owners.slice(0, 8).join(", ") + (owners.length > 8 ? ` and ${owners.length - 8} more` : "");
  return owners.length > 1 ? `shared by ${owners.length}: ${shown}` : `held by ${shown || "a request that is not known"}`;
}

function contents(facts: Facts, id: number): string {
  const where = placeInRequest(facts, id);
  if (where === "") return "what it holds is not known";
  const first = facts.blocks.index[id - 1]! * facts.size;
  const filled = fillOf(facts, id);
  if (filled === 0) return `${where}: empty, reserved for tokens from ${first} on`;
  return `${where}: tokens ${first}–${first + filled - 1}${filled < facts.size ? `, ${filled} of ${count(facts.size, "slot")} filled` : ""}`;
}

function text(facts: Facts, id: number): string {
  const ids = tokensOf(facts, id);
  return ids.length === 0 ? "" : `“${oneLine(facts.run.tape, ids, MOST_TEXT)}”`;
}

function reuse(facts: Facts, id: number): string {
  const place = facts.places[id - 1]!;
  if (place > 0) {
    const after = facts.ahead > 0 ? `, after ${count(facts.ahead, "free block")}` : "";
    return place === 1 ? `evicted next${after}` : `evicted ${ordinal(place)} of ${facts.evictions.length} cached${after}`;
  }
  return id === facts.queue[0] ? "used next" : "";
}

function happened(facts: Facts, id: number): string {
  const bits = facts.touched[id - 1]!;
  const words = (Object.keys(TOUCHES) as Touch[]).filter((name) => bits & TOUCHES[name]).map((name) => TOUCH_WORDS[name]);
  return words.length === 0 ? "" : `in this step: ${words.join(", ")}`;
}
