/** `Summary`: the pool in three numbers, what goes next, the slots that nobody uses, and what the step did. */

import type { RunView } from "../app.js";
import { box, h, setText, span } from "../dom.js";
import { count, number, percent, whole } from "../format.js";
import { NONE } from "../wire.js";
import { type Facts, IN_USE, type Touch, touchCounts } from "./facts.js";
import { TOUCH_WORDS, placeInRequest } from "./words.js";

const WASTED = "Slots of blocks in use that hold no token: the last block of each request is rarely full. Smaller blocks waste fewer.";
const CHOOSERS: Readonly<Record<string, string>> = { lpm: "the radix cache evicts the least recently used leaf" };
const PARTS = ["in_use", "cached", "free"] as const;
const WORDS = { in_use: "in use", cached: "cached, reusable", free: "free" } as const;

type Counts = Readonly<Record<(typeof PARTS)[number], number>>;

export class Summary {
  readonly #parts = PARTS.map((part) => box(`wb-part wb-part-${part}`));
  readonly #shares = h("span");
  readonly #next = span("wb-blocks-next");
  readonly #wasted = h("span", { title: WASTED, class: "wb-explained" });
  readonly #marks = box("wb-legend wb-blocks-marks");
  readonly #bar = h("div", { class: "wb-bar3", "aria-hidden": "true" }, ...this.#parts);
  readonly el = h("div", {}, this.#bar, box("wb-blocks-line", this.#shares, this.#next, this.#wasted), this.#marks);
  #marked = "";

  draw(facts: Facts): void {
    const { run, position } = facts;
    const counts = countsAt(run, position);
    const total = Math.max(1, counts.in_use + counts.cached + counts.free);
    PARTS.forEach((part, i) => (this.#parts[i]!.style.width = `${(100 * counts[part]) / total}%`));
    setText(this.#shares, PARTS.map((part) => `${percent(counts[part] / total)} ${WORDS[part]}`).join(" · "));
    setText(this.#next, nextWords(facts));
    setText(this.#wasted, wastedWords(facts, counts));
    this.#mark(facts);
  }

  /** The marks that occur, and how often. */
  #mark(facts: Facts): void {
    const entries: [cls: string, words: string][] = [];
    for (const [touch, n] of touchCounts(facts.run, facts.position)) if (n > 0) entries.push([`wb-touch-${touch}`, touchWords(touch, n)]);
    const shared = sharedBlocks(facts);
    if (shared > 0) entries.push(["wb-mark-shared", `${whole(shared)} shared`]);
    const key = entries.map(([, words]) => words).join();
    if (key === this.#marked) return;
    this.#marked = key;
    this.#marks.replaceChildren(...entries.map(([cls, words]) => span("", h("i", { class: `wb-mark ${cls}`, "aria-hidden": "true" }), words)));
  }
}

/** The pool's blocks by state, as counted after planning. */
export function countsAt({ tape }: RunView, position: number): Counts {
  return { in_use: tape.at("kv_in_use", position), cached: tape.at("kv_cached", position), free: tape.at("kv_free", position) };
}

/** The whole in a sentence, for those who do not see the map. */
export function inWords(facts: Facts): string {
  const counts = countsAt(facts.run, facts.position);
  const step = facts.run.tape.firstStep + facts.position;
  const parts = PARTS.map((part) => `${whole(counts[part])} ${WORDS[part]}`).join(", ");
  const marks = [...touchCounts(facts.run, facts.position)].filter(([, n]) => n > 0).map(([touch, n]) => touchWords(touch, n));
  return `KV blocks at step ${step}: ${parts}${marks.length > 0 ? `; in this step ${marks.join(", ")}` : ""}`;
}

const touchWords = (touch: Touch, n: number): string => `${whole(n)} ${TOUCH_WORDS[touch]}`;

function nextWords(facts: Facts): string {
  if (!facts.run.meta.has_order) {
    const chooser = CHOOSERS[facts.run.meta.policy];
    return chooser !== undefined ? ` · ${chooser}` : " · the order of reuse is not in this trace";
  }
  const victim = facts.evictions[0];
  if (victim === undefined) return facts.queue.length > 0 ? ` · next to be used: #${facts.queue[0]}` : "";
  const where = placeInRequest(facts, victim);
  const after = facts.ahead > 0 ? `, after ${count(facts.ahead, "free block")}` : "";
  return ` · next to be evicted: #${victim}${where === "" ? "" : ` (${where})`}${after}`;
}

/** Fragmentation as `Moment.fragmentation` defines it. */
function wastedWords({ run, position, size }: Facts, counts: Counts): string {
  const wasted = run.tape.column("steps.wasted")[position] ?? NONE;
  const slots = counts.in_use * size;
  if (wasted === NONE) return "wasted slots: not known, as the trace lacks its beginning";
  const share = slots === 0 ? 0 : (100 * wasted) / slots;
  return `wasted slots: ${whole(wasted)} of ${whole(slots)} (${number(share < 10 ? Number(share.toPrecision(2)) : Math.round(share))} %)`;
}

function sharedBlocks(facts: Facts): number {
  const { blocks } = facts;
  const sizes = facts.run.tape.ownerSets.map((owners) => owners.length);
  let shared = 0;
  for (let i = 0; i < blocks.count; i++) if (blocks.status[i] === IN_USE && (sizes[blocks.owners[i]!] ?? 0) > 1) shared += 1;
  return shared;
}
