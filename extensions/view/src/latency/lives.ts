/** Latency of a run, read from its tape: every gap between tokens, and the time to each first token.
 *
 * Definitions are those of `workbench/metrics.py`: a token exists at the end of its step; a step that emits several tokens of a request
 * is one observation; a request that was given another prompt counts from there on only, but arrived when it arrived.
 */

import { Following, Growing } from "../follow.js";
import { percentile } from "../format.js";
import type { Tape } from "../tape.js";
import type { TapeEvent } from "../wire.js";
import { Sorted } from "./sorted.js";

/** A first token: `ms` since its request arrived. */
export interface First {
  readonly request: number;
  readonly position: number;
  readonly ms: number;
}

export interface Spread {
  readonly p50: number; // NaN without observations
  readonly p99: number;
}

export interface Gaps {
  /** Gaps, ascending by position.  Their arrays are longer, and only grow while `generation` stays the same. */
  readonly count: number;
  readonly generation: number;
  readonly request: Uint32Array;
  /** Position of the token after the gap, and of the one before it. */
  readonly position: Uint32Array;
  readonly before: Uint32Array;
  readonly ms: Float64Array;
  /** All gaps, ascending. */
  readonly ordered: Float64Array;
  readonly itl: Spread;
  readonly firsts: readonly First[];
  readonly ttft: Spread;
  readonly outputTokens: number;
  /** Prompt tokens that the prefix cache was asked for, and those that it had, at the first admission of each request. */
  readonly queries: number;
  readonly hits: number;
}

/** What is known of one request, as far as it counts. */
interface Life {
  arrivedS: number; // NaN when it arrived before the tape
  prompt: number;
  ran: boolean;
  cached: number;
  last: number; // position of its newest token, -1 before the first
  output: number;
  first: First | undefined;
}

const unborn = (prompt: number): Life => ({ arrivedS: NaN, prompt, ran: false, cached: 0, last: -1, output: 0, first: undefined });

const RAN = 2; // lane states up to `verify` computed something in their step

export class Latency implements Gaps {
  readonly #following: Following;
  #lives: (Life | undefined)[] = [];
  #event = 0; // the next one to take in
  #sorted = new Sorted();
  #request = new Growing(new Uint32Array(256));
  #position = new Growing(new Uint32Array(256));
  #before = new Growing(new Uint32Array(256));
  #ms = new Growing(new Float64Array(256));
  #ends = new Growing(new Float64Array(256)); // when the tokens of each step existed
  generation = 0;
  itl: Spread = { p50: NaN, p99: NaN };
  ttft: Spread = { p50: NaN, p99: NaN };
  firsts: First[] = [];
  outputTokens = 0;
  queries = 0;
  hits = 0;

  constructor(private readonly tape: Tape) {
    this.#following = new Following(tape, this);
  }

  get count(): number {
    return this.#ms.length;
  }
  get request(): Uint32Array {
    return this.#request.values;
  }
  get position(): Uint32Array {
    return this.#position.values;
  }
  get before(): Uint32Array {
    return this.#before.values;
  }
  get ms(): Float64Array {
    return this.#ms.values;
  }
  get ordered(): Float64Array {
    return this.#sorted.values;
  }

  update(): this {
    if (!this.#following.update()) return this;
    this.#sorted.add(this.ms.subarray(this.#sorted.length, this.count));
    this.itl = spread(this.ordered);
    this.#sum();
    return this;
  }

  /** What a request was before another prompt is not kept, so everything is read again: a few milliseconds for thousands of steps. */
  cut(): number {
    this.#lives = [];
    this.#event = 0;
    this.#ends.length = 0;
    this.#forget();
    for (const column of this.#columns()) column.length = 0;
    return 0;
  }

  take(position: number): void {
    this.#ends.push(this.tape.endS(position));
    this.#events(this.tape.firstStep + position);
    this.#admissions(position);
    this.#tokens(position);
  }

  /** Gaps that were told are none any more. */
  #forget(): void {
    this.#sorted.clear();
    this.generation += 1;
  }

  #columns(): readonly Growing<Float64Array | Uint32Array>[] {
    return [this.#request, this.#position, this.#before, this.#ms];
  }

  #life(request: number): Life {
    return (this.#lives[request] ??= unborn(this.tape.requests[request]?.prompt.length ?? 0));
  }

  #events(step: number): void {
    const events = this.tape.events;
    for (let event = events[this.#event]; event !== undefined && event.step <= step; event = events[++this.#event]) {
      if (event.kind === "arrived") this.#life(event.request).arrivedS = event.at_s;
      else if (event.kind === "restart") this.#restart(event);
    }
  }

  #restart(event: TapeEvent & { kind: "restart" }): void {
    const { arrivedS } = this.#life(event.request);
    this.#lives[event.request] = undefined;
    Object.assign(this.#life(event.request), { arrivedS, prompt: event.prompt.length });
    this.#drop(event.request);
    this.#forget();
  }

  /** Take the gaps of a request out again. */
  #drop(request: number): void {
    const requests = this.request;
    let kept = 0;
    for (let i = 0; i < this.#ms.length; i++) {
      if (requests[i] === request) continue;
      for (const { values } of this.#columns()) values[kept] = values[i]!;
      kept += 1;
    }
    for (const column of this.#columns()) column.length = kept;
  }

  #admissions(position: number): void {
    const states = this.tape.column("lanes.state");
    const requests = this.tape.column("lanes.request");
    const cached = this.tape.column("lanes.cached");
    const [first, end] = this.tape.rows("lanes", position);
    for (let row = first; row < end; row++) {
      if (states[row]! > RAN) continue;
      const life = this.#life(requests[row]!);
      if (life.ran) continue;
      life.ran = true;
      life.cached = cached[row]!;
    }
  }

  #tokens(position: number): void {
    const requests = this.tape.column("tokens.request");
    const [first, end] = this.tape.rows("tokens", position);
    if (first === end) return;
    const endS = this.#ends.values[position]!;
    for (let row = first; row < end; row++) {
      const request = requests[row]!;
      const life = this.#life(request);
      life.output += 1;
      if (life.last === position) continue;
      if (life.last >= 0) this.#gap(request, life.last, position, endS);
      else life.first = { request, position, ms: (endS - life.arrivedS) * 1e3 };
      life.last = position;
    }
  }

  #gap(request: number, before: number, position: number, endS: number): void {
    this.#request.push(request);
    this.#position.push(position);
    this.#before.push(before);
    this.#ms.push((endS - this.#ends.values[before]!) * 1e3);
  }

  #sum(): void {
    const lives = this.#lives.filter((life) => life !== undefined);
    this.firsts = lives.flatMap(({ first }) => (first !== undefined && !Number.isNaN(first.ms) ? [first] : []));
    this.firsts.sort((a, b) => a.position - b.position);
    this.ttft = spread(Float64Array.from(this.firsts, ({ ms }) => ms).sort());
    this.outputTokens = lives.reduce((sum, { output }) => sum + output, 0);
    this.queries = this.hits = 0;
    this.#lives.forEach((life, request) => {
      if (!life?.ran || Number.isNaN(life.arrivedS) || this.tape.requests[request]?.uncached) return;
      this.queries += life.prompt;
      this.hits += life.cached;
    });
  }
}

const spread = (ordered: Float64Array): Spread => ({ p50: percentile(ordered, 50), p99: percentile(ordered, 99) });
