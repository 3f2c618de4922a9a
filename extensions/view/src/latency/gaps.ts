/** Gaps between tokens, and the headline figures of a run: worked out once for every panel that shows them. */

import type { RunView } from "../app.js";
import { once } from "../follow.js";
import { acceptanceOf } from "../speculation/rounds.js";
import type { Tape } from "../tape.js";
import { type Gaps, Latency } from "./lives.js";

export type { First, Gaps, Spread } from "./lives.js";

export interface Figures {
  readonly ttftP50: number; // ms; NaN while there is none
  readonly itlP50: number;
  readonly itlP99: number;
  readonly tokensPerS: number; // output tokens over the time from the start of the first step to the end of the last; 0 if that is none
  readonly hitRate: number; // tokens found in the prefix cache, as a share of those looked up; 0 when nothing was
  readonly perVerify: number | null; // 1 + accepted drafts per round; null when no drafts were verified
}

const PAUSE_MS = 500; // between two readings of a running engine: a number that changes faster cannot be read

const latencyOf = once((tape: Tape) => new Latency(tape));
const figures = new WeakMap<Tape, { readonly version: number; readonly cuts: number; readonly atMs: number; readonly found: Figures }>();

/** Gaps and first tokens of a tape, brought up to date; work is done only for what is new. */
export const gapsOf = (tape: Tape): Gaps => latencyOf(tape).update();

/** The headline figures, as `workbench.metrics.measure` defines them; at most two readings a second while the run goes on. */
export function figuresOf(run: RunView): Figures {
  const { tape } = run;
  const now = performance.now();
  const last = figures.get(tape);
  const early = run.status.state === "running" && now - (last?.atMs ?? 0) < PAUSE_MS && last?.cuts === tape.cuts.length;
  if (last !== undefined && (last.version === tape.version || early)) return last.found;
  const found = read(run);
  figures.set(tape, { version: tape.version, cuts: tape.cuts.length, atMs: now, found });
  return found;
}

function read({ tape, meta }: RunView): Figures {
  const gaps = gapsOf(tape);
  const durationS = tape.length > 0 ? tape.endS(tape.length - 1) - tape.at("start_s", 0) : 0;
  const { rounds, accepted } = acceptanceOf(tape);
  return {
    ttftP50: gaps.ttft.p50,
    itlP50: gaps.itl.p50,
    itlP99: gaps.itl.p99,
    tokensPerS: share(gaps.outputTokens, durationS),
    hitRate: meta.config["enable_prefix_caching"] === true ? share(gaps.hits, gaps.queries) : 0,
    perVerify: rounds > 0 ? 1 + accepted / rounds : null,
  };
}

const share = (part: number, whole: number): number => (whole > 0 ? part / whole : 0);
