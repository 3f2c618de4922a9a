/** What a tape itself says of a step, in the words that came with its run: shown until the kernel's explanation is here. */

import { count, whole } from "../format.js";
import { STATES, type Tape, VERDICTS } from "../tape.js";
import { type Meta, NONE, NO_CODE } from "../wire.js";

/** One row of `lanes`, by the names of its columns. */
export class Lane {
  constructor(
    readonly tape: Tape,
    private readonly row: number,
  ) {}

  number(name: string): number {
    return this.tape.column(`lanes.${name}`)[this.row]!;
  }

  get request(): number {
    return this.number("request");
  }
  get state(): (typeof STATES)[number] {
    return STATES[this.number("state")]!;
  }
  /** What was decided; none for a request that was not asked, as one whose batch holds it. */
  get verdict(): (typeof VERDICTS)[number] | undefined {
    return VERDICTS[this.number("verdict")];
  }
  get tokens(): number {
    return this.number("end") - this.number("start");
  }
}

export function lanesAt(tape: Tape, position: number): Lane[] {
  const [first, end] = tape.rows("lanes", position);
  return Array.from({ length: end - first }, (_, i) => new Lane(tape, first + i));
}

/** In two or three words what a request did: `chunk 38 of 61`, `verify 4`, `waiting`. */
export function labelOf(lane: Lane): string {
  if (lane.verdict === "rejected") return "rejected";
  if (lane.state === "prefill") return lane.verdict === "partial" ? `chunk ${lane.tokens} of ${lane.number("needed")}` : `prefill ${lane.tokens}`;
  if (lane.state === "verify") return `verify ${lane.number("drafts")}`;
  return lane.state === "idle" ? "not in this step" : lane.state;
}

/** The reason of a decision with its numbers, as a sentence. */
export function reasonOf(lane: Lane, meta: Meta): string {
  if (lane.number("reason") === NO_CODE) return lane.state === "held" ? "Done; its place is kept until its batch is." : "";
  return sentence(reasonIn(lane, meta));
}

/** The same inside a sentence; empty if no reason is known. */
export function reasonIn(lane: Lane, meta: Meta): string {
  const reason = meta.reasons[lane.number("reason")] ?? "";
  const words = meta.reason_words[reason] ?? reason.replaceAll("_", " ");
  return words.replace(/\{(needed|available|limit|blocker)\}/g, (_, name: string) => {
    const found = lane.number(name);
    if (name === "blocker") return lane.tape.requests[found]?.id ?? "another request";
    return found === NONE ? "?" : whole(found);
  });
}

/** Budgets, blocks and queues of a step in one line, as `workbench.explain` begins it. */
export function summaryOf(tape: Tape, position: number): string {
  const at = (name: string): number => tape.at(name, position);
  const blocks = `blocks ${at("kv_in_use")} in use, ${at("kv_cached")} cached, ${at("kv_free")} free`;
  const batch = `${at("seq_used")} of ${count(at("seq_limit"), "request")} running; ${at("waiting")} waiting`;
  return `Step ${tape.firstStep + position}: ${at("token_used")} of ${count(at("token_limit"), "token")}; ${batch}; ${blocks}.`;
}

/** What was done to the engine before a step. */
export function commandsOf(tape: Tape, position: number): string[] {
  return tape.events.flatMap((event) => (event.kind === "command" && event.step === tape.firstStep + position ? [event.text] : []));
}

const sentence = (words: string): string => (words === "" ? "" : `${words[0]!.toUpperCase()}${words.slice(1)}.`);
