/** `Whole`: the prompt and all output of one request, up to the cursor. */

import { box, button, hide, setText } from "../dom.js";
import { count } from "../format.js";
import { type Here, firstShown } from "./here.js";
import { Prompt } from "./prompt.js";
import { Said } from "./said.js";
import { standingOf } from "./standing.js";

const MOST = 400; // output tokens that are shown without being asked for: the page lays all of them out in every step
const STRIDE = 100;

export class Whole {
  readonly #prompt: Prompt;
  readonly #earlier: HTMLButtonElement;
  readonly #said = new Said();
  readonly el: HTMLElement;
  #request = -1;
  #all = false; // the whole output was asked for

  constructor(redraw: () => void) {
    this.#prompt = new Prompt(redraw);
    this.#earlier = button("", "Show the whole output", () => ((this.#all = true), redraw()), "wb-fold");
    this.el = box("wb-text-scroll", box("wb-text-all", this.#prompt.el, this.#earlier, this.#said.el));
  }

  /** What is shown, by mark, in the order of `Legend`. */
  get counts(): readonly number[] {
    return [...this.#prompt.counts, ...this.#said.origins, this.#said.refused];
  }

  /** The span of the newest token. */
  get newest(): HTMLElement | null {
    return this.#said.newest ?? (this.#prompt.el.lastElementChild as HTMLElement | null);
  }

  draw(here: Here, request: number): void {
    const { tape, outputs, position } = here;
    if (request !== this.#request) {
      this.#all = false;
      this.el.scrollTop = 0; // its end: the column runs upwards
    }
    this.#request = request;
    const [since, end] = [outputs.since(request, position), outputs.upTo(request, position)];
    const first = this.#all ? since : firstShown(since, end, MOST, STRIDE);
    this.#prompt.show(tape, request, outputs.prompt(request, position), outputs.promptCached(request, position), outputs.computed(request, position));
    this.#said.draw(here, request, standingOf(tape, outputs, request, position), first, end);
    hide(this.#earlier, first === since);
    setText(this.#earlier, `… ${count(first - since, "more token")}`);
  }
}
