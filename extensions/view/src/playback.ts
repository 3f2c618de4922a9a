/** `Playback`: the cursor that walks over recorded steps by itself, as many a second as the state's `speed` says. */

import type { App } from "./app.js";
import { whenOver } from "./dom.js";

const STILL_MS = 500; // between two moves, for those who want reduced motion

export class Playback {
  readonly #still = matchMedia("(prefers-reduced-motion: reduce)");
  #frame = 0;
  #base: { readonly time: number; readonly position: number; readonly speed: number } | undefined;
  #at = 0; // where the walk last put the cursor
  #moved = 0; // when

  /** `arrived` is called when the walk has reached the newest step. */
  constructor(
    private readonly app: App,
    private readonly arrived: () => void,
    private readonly signal: AbortSignal,
  ) {
    whenOver(signal, () => this.stop());
    // Browsers hold animation frames back in a hidden page: the walk goes on from where it stood, not from where it would be.
    document.addEventListener("visibilitychange", () => (this.#base = undefined), { signal });
  }

  /** Walk from the cursor to the newest step. */
  start(): void {
    if (this.#frame !== 0 || this.signal.aborted) return;
    this.#base = undefined;
    this.app.set({ playing: true });
    this.#frame = requestAnimationFrame(this.#walk);
  }

  stop(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (this.app.state.playing) this.app.set({ playing: false });
  }

  readonly #walk = (now: number): void => {
    this.#frame = 0;
    if (!this.app.state.playing) return; // somebody else stopped it
    this.#move(now);
    if (this.app.state.position < this.app.focus.tape.length - 1) {
      this.#frame = requestAnimationFrame(this.#walk);
    } else {
      this.stop();
      this.arrived();
    }
  };

  /** Places follow from one moment of the clock, so that nothing drifts; it is taken anew when cursor or speed were changed by hand. */
  #move(now: number): void {
    const { position, speed } = this.app.state;
    const base = this.#base;
    if (base === undefined || position !== this.#at || speed !== base.speed || document.hidden) {
      this.#base = { time: now, position, speed };
      this.#at = position;
      return;
    }
    if (this.#still.matches && now - this.#moved < STILL_MS) return;
    const wanted = base.position + Math.floor(((now - base.time) * speed) / 1e3);
    this.#at = Math.min(wanted, this.app.focus.tape.length - 1);
    if (this.#at === position) return;
    this.#moved = now;
    this.app.go(this.#at);
  }
}
