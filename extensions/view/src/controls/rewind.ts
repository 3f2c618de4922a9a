/** `Rewind`: the button that takes the engine back; it asks first, in its own place, as steps are lost by it. */

import type { Actions } from "../actions.js";
import { mark, whenOver } from "../dom.js";
import { count } from "../format.js";
import { Dressed } from "./dressed.js";

const ASKS_MS = 4000;

export class Rewind {
  readonly button = new Dressed(() => this.#pressed());
  #asked: { readonly step: number; readonly timer: number } | undefined;

  constructor(
    private readonly actions: Actions,
    signal: AbortSignal,
  ) {
    whenOver(signal, () => this.#forget());
  }

  draw(): void {
    const { actions } = this;
    const { step, later } = actions;
    if (this.#asked !== undefined && this.#asked.step !== step) this.#forget(); // the question was about another step
    const asks = this.#asked !== undefined;
    this.button.wear({
      name: asks ? `Drop ${count(later, "step")}` : `Rewind to before step ${step}`,
      hint: asks ? `press again to forget step ${step} and all after it` : "the engine goes back, and later steps are dropped",
      face: asks ? `drop ${count(later, "step")}?` : "rewind here",
      off: actions.unreachable,
      busy: actions.busy("rewind"),
    });
    mark(this.button.el, "wb-asks-back", asks);
  }

  #pressed(): void {
    if (this.#asked !== undefined) {
      this.#forget();
      void this.actions.rewind();
    } else {
      const timer = window.setTimeout(() => this.#forget(), ASKS_MS);
      this.#asked = { step: this.actions.step, timer };
    }
    this.draw();
  }

  #forget(): void {
    if (this.#asked === undefined) return;
    clearTimeout(this.#asked.timer);
    this.#asked = undefined;
    this.draw();
  }
}
