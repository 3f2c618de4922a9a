/** `PromptForm`: a prompt that joins what the engine works on, and the end of the selected request. */

import type { Actions } from "../actions.js";
import type { App } from "../app.js";
import { Dressed } from "../controls/dressed.js";
import { box, h, on, take } from "../dom.js";

const TOKENS = 64; // of output, unless asked otherwise

export class PromptForm {
  readonly #text = h("textarea", { rows: "2", class: "wb-input", placeholder: "Write a prompt; Ctrl+Enter adds it", "aria-label": "Prompt to add" });
  readonly #tokens = h("input", { type: "number", min: "1", step: "1", value: String(TOKENS), class: "wb-input", "aria-label": "Most output tokens" });
  readonly #add = new Dressed(() => void this.#send());
  readonly #abort = new Dressed(() => this.actions.abort());
  readonly el: HTMLElement;

  constructor(
    private readonly app: App,
    private readonly actions: Actions,
    signal: AbortSignal,
  ) {
    const below = box("wb-row", h("label", {}, "max tokens ", this.#tokens), this.#add.el, this.#abort.el);
    this.el = box("wb-prompt", h("h5", {}, "Add a prompt"), this.#text, below);
    on(this.#text, "keydown", (event) => this.#pressed(event), signal);
    for (const each of [this.#text, this.#tokens]) on(each, "input", () => app.redraw(), signal);
  }

  draw(): void {
    const { actions, app } = this;
    this.#add.wear({ name: "Add this prompt", hint: "Ctrl+Enter", face: "add", off: actions.ended || this.#problem, busy: actions.busy("add") });
    const selected = app.state.request === null ? undefined : app.focus.tape.requests[app.state.request]?.id;
    const face = selected === undefined ? "abort" : `abort ${selected}`;
    this.#abort.wear({ name: face, hint: "end this request before the next step", face, off: actions.unabortable, busy: actions.busy("abort") });
  }

  get #problem(): string {
    if (this.#text.value.trim() === "") return "write a prompt first";
    const tokens = Number(this.#tokens.value);
    return Number.isSafeInteger(tokens) && tokens >= 1 ? "" : "max tokens must be a whole number of at least 1";
  }

  #pressed(event: KeyboardEvent): void {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    take(event); // a notebook would run the cell
    const problem = this.actions.ended || this.#problem;
    if (problem === "") void this.#send();
    else this.app.say(problem, true);
  }

  /** The text stays until the kernel has taken it. */
  async #send(): Promise<void> {
    const sent = this.#text.value;
    const refusal = await this.actions.add(sent, Number(this.#tokens.value));
    if (refusal === "" && this.#text.value === sent) this.#text.value = "";
    this.app.redraw();
  }
}
