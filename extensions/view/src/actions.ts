/** `Actions`: everything that the buttons and keys of a view can do, and why one of them cannot be done now. */

import type { App, RunView } from "./app.js";
import { count } from "./format.js";
import { Pending } from "./pending.js";
import { Playback } from "./playback.js";
import type { Tape } from "./tape.js";

/** What ▶ would do now. */
export type PlayMode = "halt" | "pause" | "branch" | "apply" | "resume" | "walk" | "again" | "nothing";

export const SAVED = "this is a saved page: run.view() in a kernel has these buttons";
const LOADED = "no engine stands behind this run: workbench.Engine.from_trace(trace) makes one";
const OVER = "the run is over: fork it at a step to go on";
const TRY_MS = 50; // a branch's first frame may come after the answer that announces it
const TRIES = 40;
const WAITS = "the kernel has not answered yet";
export const NO_STEPS = "there are no steps yet";
const FROM_NEXT = "before the next step";

export class Actions {
  readonly pending: Pending;
  readonly #playback: Playback;
  readonly #busy = new Set<string>();
  #owed = 0; // steps asked for while the engine was at one
  #ends: { readonly tape: Tape; readonly version: number; readonly requests: ReadonlySet<number> } | undefined;

  constructor(
    private readonly app: App,
    signal: AbortSignal,
  ) {
    this.pending = new Pending(app);
    this.#playback = new Playback(app, () => this.#arrived(), signal);
  }

  // -- where things stand ----------------------------------------------------------------------------------------

  /** Number of the step under the cursor; of a run that ended before it, the last. */
  get step(): number {
    return this.app.focus.meta.first_step + this.#position;
  }

  get atEnd(): boolean {
    return this.app.state.position >= this.app.focus.tape.length - 1;
  }

  /** Steps that going back to the cursor would drop. */
  get later(): number {
    return this.app.focus.tape.length - this.#position;
  }

  /** Whether the kernel has yet to answer this request. */
  busy(op: string): boolean {
    return this.#busy.has(op);
  }

  /** Why the engine of the focused run cannot be asked for anything; empty if it can. */
  get deaf(): string {
    if (!this.app.live) return SAVED;
    return this.app.focus.live ? "" : LOADED;
  }

  /** Why nothing can be changed in the engine any more; empty while the run has steps to come. */
  get ended(): string {
    return this.deaf || (isOver(this.app.focus) ? OVER : "");
  }

  /** Why the past cannot be gone back to; empty if it can. */
  get unreachable(): string {
    return this.deaf || (this.app.focus.tape.length === 0 ? NO_STEPS : "");
  }

  get playMode(): PlayMode {
    const { state, focus } = this.app;
    if (state.playing) return "halt";
    if (this.deaf === "" && focus.status.state === "running") return "pause";
    const paused = this.ended === "" && focus.status.state === "paused";
    const changed = this.deaf === "" && this.pending.count > 0;
    const forks = !paused || !this.atEnd || this.pending.forkOnly.length > 0;
    if (changed && forks && focus.tape.length > 0) return "branch";
    if (!this.atEnd) return "walk";
    if (paused) return changed && !forks ? "apply" : "resume";
    return focus.tape.length > 1 ? "again" : "nothing";
  }

  // -- the cursor ------------------------------------------------------------------------------------------------

  home(): void {
    this.#playback.stop();
    this.app.go(0);
  }

  end(): void {
    this.#playback.stop();
    this.app.go(this.app.focus.tape.length - 1);
  }

  back(steps = 1): void {
    this.#playback.stop();
    this.app.go(this.#position - steps);
  }

  /**
   * Go on over recorded steps; on the newest step of a paused run the engine takes one more.  Every press counts, also while the engine
   * is at a step; a key that is `held` asks only when it is not, so that nothing goes on after it was let go.
   */
  forward(steps = 1, held = false): void {
    this.#playback.stop();
    if (!this.atEnd) this.app.go(this.#position + steps);
    else if (this.ended !== "" || this.app.focus.status.state !== "paused") this.#owed = 0;
    else if (!this.busy("step")) void this.#step();
    else if (!held) this.#owed += 1;
  }

  follow(): void {
    if (this.app.state.follow) this.app.set({ follow: false });
    else this.#followNewest();
  }

  // -- the engine ------------------------------------------------------------------------------------------------

  /** ▶ and Space. */
  toggle(): void {
    switch (this.playMode) {
      case "halt":
        return this.#playback.stop();
      case "pause":
        return void this.ask("pause");
      case "branch":
        return void this.fork();
      case "apply":
        return void this.apply().then((refusal) => (refusal === "" ? this.#resume() : undefined));
      case "resume":
        return this.#resume();
      case "again":
        this.home();
        return this.#playback.start();
      case "walk":
        return this.#playback.start();
      case "nothing":
        return;
    }
  }

  /** A second future: the step under the cursor is decided again, with the prepared knobs.  Returns why not; empty if it was done. */
  async fork(): Promise<string> {
    if (!this.app.live) {
      this.app.say(`This is a saved page. In a kernel, run.view() has this button, and run.fork(${this.step}) does the same in Python.`);
      return SAVED;
    }
    const { run } = this.app.focus;
    const changes = this.pending.changes;
    const refusal = await this.ask("fork", { step: this.step, changes, resume: true }, (branch) => this.#turnTo((branch as { run?: number } | null)?.run));
    if (refusal === "") this.pending.drop(run);
    return refusal;
  }

  /** Give the engine the prepared knobs that it can take between two steps.  Returns why not; empty if it was done. */
  async apply(): Promise<string> {
    const run = this.app.focus.run;
    const kept = new Set(this.pending.forkOnly);
    const knobs = Object.fromEntries(Object.entries(this.pending.changes).filter(([name]) => !kept.has(name)));
    const refusal = await this.ask("change", { knobs }, () => this.app.say(`${Object.keys(knobs).join(", ")}: changed ${FROM_NEXT}.`));
    if (refusal === "") this.pending.drop(run, Object.keys(knobs));
    return refusal;
  }

  /** Take the engine back to before the step under the cursor. */
  async rewind(): Promise<void> {
    const { step, later } = this;
    this.#playback.stop();
    if ((await this.ask("rewind", { step })) === "") this.app.say(`Back before step ${step}; ${count(later, "step")} dropped.`);
  }

  stop(): void {
    void this.ask("stop");
  }

  /** End the selected request. */
  abort(): void {
    const info = this.#selected;
    if (info !== undefined) void this.ask("abort", { request: info.id }, () => this.app.say(`${info.id} ends ${FROM_NEXT}.`));
  }

  /** Add a prompt to what the engine works on.  Returns why not; empty if it is in. */
  add(prompt: string, maxTokens: number): Promise<string> {
    return this.ask("add", { prompt, max_tokens: maxTokens }, (id) => this.app.say(`${id} joins the queue ${FROM_NEXT}.`));
  }

  /** Why the selected request cannot be ended; empty if it can. */
  get unabortable(): string {
    const info = this.#selected;
    if (this.ended !== "") return this.ended;
    if (info === undefined) return "select a request first";
    return this.#finished.has(this.app.state.request!) ? `${info.id} is finished` : "";
  }

  get #finished(): ReadonlySet<number> {
    const { tape } = this.app.focus;
    if (this.#ends?.tape !== tape || this.#ends.version !== tape.version) {
      const requests = tape.events.flatMap((event) => (event.kind === "finished" ? [event.request] : []));
      this.#ends = { tape, version: tape.version, requests: new Set(requests) };
    }
    return this.#ends.requests;
  }

  get #position(): number {
    return Math.max(0, Math.min(this.app.state.position, this.app.focus.tape.length - 1));
  }

  get #selected(): { readonly id: string } | undefined {
    const { request } = this.app.state;
    return request === null ? undefined : this.app.focus.tape.requests[request];
  }

  /** Ask once at a time, and give the answer to `done`.  Returns why it was refused, after that has been said; empty if it was done. */
  async ask(op: string, args?: Readonly<Record<string, unknown>>, done?: (value: unknown) => void): Promise<string> {
    if (this.#busy.has(op)) return WAITS;
    this.#busy.add(op);
    this.app.say(""); // what an earlier question brought
    this.app.redraw();
    try {
      const value = await this.app.ask(op, args);
      done?.(value);
      return "";
    } catch (error) {
      const refusal = error instanceof Error ? error.message : String(error);
      this.app.say(refusal, true);
      return refusal;
    } finally {
      this.#busy.delete(op);
      this.app.redraw();
    }
  }

  /** The walk has caught up: what was paused runs on. */
  #arrived(): void {
    if (this.ended !== "") return;
    if (this.app.focus.status.state === "paused") this.#resume();
    else this.#followNewest();
  }

  /** Let the panels speak of a branch and follow it, as soon as it is on the screen. */
  #turnTo(run: number | undefined, tries = TRIES): void {
    if (run === undefined || tries === 0) return;
    if (this.app.runs.some((each) => each.run === run)) this.app.set({ focus: run, follow: true });
    else setTimeout(() => this.#turnTo(run, tries - 1), TRY_MS);
  }

  /** One step, and those that are owed; not when the cursor was moved back meanwhile, or to another run. */
  async #step(): Promise<void> {
    const { run } = this.app.focus;
    this.#followNewest();
    const refusal = await this.ask("step");
    if (refusal !== "" || !this.app.state.follow || this.app.focus.run !== run) this.#owed = 0;
    if (this.#owed === 0) return;
    this.#owed -= 1;
    this.forward();
  }

  #resume(): void {
    this.#followNewest();
    void this.ask("resume");
  }

  #followNewest(): void {
    this.end();
    this.app.set({ follow: true });
  }
}

export const isOver = (run: RunView): boolean => run.status.state !== "paused" && run.status.state !== "running";

const made = new WeakMap<App, Actions>();

/** The actions of a view; the same ones for all of its panels and its keys.  They end with the `signal` of the first call. */
export function actionsOf(app: App, signal: AbortSignal): Actions {
  let found = made.get(app);
  if (found === undefined) made.set(app, (found = new Actions(app, signal)));
  return found;
}
