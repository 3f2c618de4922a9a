/** The speculation panel, drawn when a run verified drafts: how many were right, where, and what that gave and cost. */

import type { App, MakePanel, Panel } from "../app.js";
import { box, h, hide, section, setText, span } from "../dom.js";
import { count } from "../format.js";
import { Bars } from "../speculation/bars.js";
import { Chips } from "../speculation/chips.js";
import { acceptanceOf } from "../speculation/rounds.js";
import { Yield, draftsChosen } from "../speculation/yield.js";

export const speculation: MakePanel = (app, signal) => new SpeculationPanel(app, signal);

class SpeculationPanel implements Panel {
  readonly el: HTMLElement;
  readonly #bars: Bars;
  readonly #chips: Chips;
  readonly #yield: Yield;
  readonly #step = span("", "");
  readonly #dot = span("", "");
  readonly #chosen = span("", key("┄", ""), "drafts chosen");

  constructor(
    private readonly app: App,
    signal: AbortSignal,
  ) {
    const { el, body } = section("wb-speculation", "acceptance by position");
    this.el = el;
    this.#bars = new Bars(app, signal);
    this.#chips = new Chips(app);
    this.#yield = new Yield(app, signal);
    const bars = h("div", {}, this.#bars.el);
    const rates = legend(span("", key("■", "wb-mark-round"), "of all rounds"), span("", key("━", ""), "of those that came to it"));
    const yields = legend(span("", key("●", "wb-mark-round"), this.#dot), span("", key("━", ""), "mean so far"), this.#chosen);
    const over = h("h4", {}, span("", "tokens per round"), h("em", {}, "and what a step cost"));
    body.append(bars, rates, h("h4", {}, this.#step), this.#chips.el, over, this.#yield.el, yields);
  }

  draw(): void {
    const { focus, state } = this.app;
    const acceptance = acceptanceOf(focus.tape);
    hide(this.el, acceptance.rounds === 0);
    if (acceptance.rounds === 0) return;
    hide(this.#chosen, draftsChosen(focus.tape, 0) === null);
    setText(this.#step, `drafts of step ${focus.tape.firstStep + state.position}`);
    this.#bars.draw(acceptance);
    this.#yield.draw();
    this.#chips.draw(); // last: what it changes is laid out once, after all sizes were asked for
    setText(this.#dot, this.#yield.together > 1 ? `mean of ${count(this.#yield.together, "step")}` : "mean of a step's rounds");
  }
}

const legend = (...keys: readonly HTMLElement[]): HTMLElement => box("wb-legend", ...keys);
const key = (mark: string, cls: string): HTMLElement => h("i", { class: cls }, `${mark} `);
