/** `Whole`: the prompt and all output of one request, up to the cursor. */

import { h, setText } from "../dom.js";
import type { Tape } from "../tape.js";
import type { Outputs } from "./output.js";
import { Prompt } from "./prompt.js";
import { Refused } from "./refused.js";
import { beforeOutput, standingOf } from "./standing.js";
import { Strip, type Tokens } from "./strip.js";

const MOST = 1500; // output tokens shown without asking; a longer output loses its beginning in strides, so that lines rarely move
const STRIDE = 500;

export class Whole {
  readonly #prompt: Prompt;
  readonly #strip: Strip;
  readonly #refused: Refused;
  readonly #earlier = h("button", { type: "button", class: "wb-button wb-fold wb-hidden" });
  readonly #note = h("div", { class: "wb-dim wb-hidden" });
  readonly #text = h("div", { class: "wb-text-all" });
  readonly el = h("div", { class: "wb-text-scroll" }, this.#text);
  #request = -1;
  #all = false; // the whole output was asked for

  constructor(tokens: Tokens, redraw: () => void) {
    this.#prompt = new Prompt(tokens, redraw);
    this.#strip = new Strip(tokens);
    this.#refused = new Refused(tokens);
    this.#earlier.addEventListener("click", () => {
      this.#all = true;
      redraw();
    });
    this.#text.append(this.#prompt.el, this.#earlier, this.#strip.el, this.#refused.el, this.#note);
  }

  get prompt(): Prompt["counts"] {
    return this.#prompt.counts;
  }

  get origins(): Int32Array {
    return this.#strip.origins;
  }

  /** Drafts shown as refused. */
  get refused(): number {
    return this.#refused.count;
  }

  /** The span of the newest token. */
  get newest(): HTMLElement | null {
    return (this.#strip.el.lastElementChild ?? this.#prompt.el.lastElementChild) as HTMLElement | null;
  }

  draw(tape: Tape, outputs: Outputs, request: number, position: number): void {
    if (request !== this.#request) {
      this.#all = false;
      this.el.scrollTop = 0; // its end: the column runs upwards
    }
    this.#request = request;
    const [since, end] = [outputs.since(request, position), outputs.upTo(request, position)];
    const first = this.#all || end - since <= MOST ? since : since + Math.ceil((end - since - MOST) / STRIDE) * STRIDE;
    this.#prompt.show(tape, request, outputs.prompt(request, position), outputs.promptCached(request, position), outputs.computed(request, position));
    this.#strip.show(tape, request, outputs.rows(request), first, end, outputs.upTo(request, position - 1));
    this.#fold(first - since);
    const standing = standingOf(tape, outputs, request, position);
    this.#refused.show(tape, request, position, standing.here && !standing.ended);
    this.#note.classList.toggle("wb-hidden", end > since);
    setText(this.#note, end > since ? "" : beforeOutput(tape, outputs, request, position));
  }

  #fold(hidden: number): void {
    this.#earlier.classList.toggle("wb-hidden", hidden === 0);
    setText(this.#earlier, `… ${hidden.toLocaleString("en-US")} more tokens`);
    this.#earlier.title = "Show the whole output";
  }
}
