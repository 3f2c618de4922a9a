/** `Pending`: what was prepared on the screen but not sent: changed knobs of every run, and whether the drawer that holds them is open. */

import type { App, RunView } from "./app.js";
import type { Knob, KnobValue } from "./wire.js";

export type Changes = Readonly<Record<string, KnobValue>>;

export class Pending {
  #open = false;
  readonly #changes = new Map<number, Map<string, KnobValue>>(); // by run

  constructor(private readonly app: App) {}

  get open(): boolean {
    return this.#open;
  }

  set open(open: boolean) {
    this.#open = open;
    this.app.redraw();
  }

  /** Changed knobs of the focused run, by name. */
  get changes(): Changes {
    return Object.fromEntries(this.#changed ?? []);
  }

  get count(): number {
    return this.#changed?.size ?? 0;
  }

  /** Changed knobs that an engine cannot take between two steps. */
  get forkOnly(): readonly string[] {
    const changed = this.#changed;
    return this.app.focus.meta.knobs.filter((knob) => !knob.live && changed?.has(knob.name)).map((knob) => knob.name);
  }

  /** What a field shows: the value prepared for the focused run, else the one in force. */
  value(knob: Knob): KnobValue {
    const changed = this.#changed;
    return changed?.has(knob.name) ? changed.get(knob.name)! : valueInForce(this.app.focus, knob);
  }

  has(knob: Knob): boolean {
    return this.#changed?.has(knob.name) ?? false;
  }

  /** Prepare a value; the one in force takes the change back. */
  set(knob: Knob, value: KnobValue): void {
    const changed = this.#changed ?? new Map<string, KnobValue>();
    this.#changes.set(this.app.focus.run, changed);
    if (value === valueInForce(this.app.focus, knob)) changed.delete(knob.name);
    else changed.set(knob.name, value);
    this.app.redraw();
  }

  /** Forget prepared values of a run: those named, or all. */
  drop(run: number, names?: Iterable<string>): void {
    if (names === undefined) this.#changes.delete(run);
    else for (const name of names) this.#changes.get(run)?.delete(name);
    this.app.redraw();
  }

  get #changed(): Map<string, KnobValue> | undefined {
    return this.#changes.get(this.app.focus.run);
  }
}

/** The value that the engine works with, as far as the kernel has said. */
export function valueInForce(run: RunView, knob: Knob): KnobValue {
  const config = run.status.config;
  return config !== undefined && knob.name in config ? config[knob.name]! : knob.value;
}
