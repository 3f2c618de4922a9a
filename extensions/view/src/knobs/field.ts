/** `Field`: one knob as a native input, with what is wrong beside it. */

import { aria, button, h, mark, on, setText, span } from "../dom.js";
import type { Pending } from "../pending.js";
import type { Knob, KnobValue } from "../wire.js";
import { problemWith, rangeOf, read } from "./value.js";

const AUTO = "auto"; // an optional knob without a value: the engine chooses

let made = 0;

export class Field {
  readonly #input: HTMLInputElement | HTMLSelectElement;
  readonly #problem = h("span", { class: "wb-problem", id: `wb-problem-${++made}` });
  readonly #reset: HTMLButtonElement;
  readonly el: HTMLElement;
  #refusal = ""; // what the kernel said of the value

  constructor(
    readonly knob: Knob,
    private readonly run: number,
    private readonly pending: Pending,
    signal: AbortSignal,
  ) {
    this.#input = makeInput(knob);
    show(this.#input, pending.value(knob)); // from here on only a field without a problem follows what is in force
    aria(this.#input, "describedby", this.#problem.id);
    on(this.#input, "input", () => this.#changed(), signal);
    this.#reset = button("↺", `Take back the change of ${knob.name}`, () => this.#takeBack(), "wb-small");
    const about = [knob.doc, rangeOf(knob), knob.live ? "" : "needs a branch"].filter(Boolean).join("\n");
    const words = knob.name.split("_").flatMap((word, i) => (i === 0 ? [word] : ["_", h("wbr"), word]));
    const name = span("", ...words);
    if (!knob.live) name.append(" ", h("em", { title: "Takes effect in a branch: an engine cannot change it between two steps" }, "branch"));
    const label = h("label", {}, name, this.#input, span("wb-dim", knob.unit));
    this.el = h("div", { class: "wb-knob", title: about }, label, this.#reset, this.#problem);
  }

  /** What is wrong with what stands in the field; empty when it may be sent. */
  get problem(): string {
    return problemWith(this.knob, this.#input);
  }

  /** Show what the kernel said of the value, until it is changed. */
  refuse(message: string): void {
    this.#refusal = message;
  }

  draw(): void {
    const changed = this.pending.has(this.knob);
    if (!this.#input.matches(":focus") && this.problem === "") show(this.#input, this.pending.value(this.knob));
    const problem = this.problem || this.#refusal;
    setText(this.#problem, problem);
    aria(this.#input, "invalid", problem !== "");
    mark(this.#reset, "wb-off", !changed && problem === "");
    mark(this.el, "wb-changed", changed);
  }

  #changed(): void {
    this.#refusal = "";
    if (this.problem === "") this.pending.set(this.knob, read(this.knob, this.#input));
    else this.pending.drop(this.run, [this.knob.name]);
  }

  #takeBack(): void {
    this.#refusal = "";
    this.pending.drop(this.run, [this.knob.name]);
    show(this.#input, this.pending.value(this.knob));
    this.#input.focus();
  }
}

function makeInput(knob: Knob): HTMLInputElement | HTMLSelectElement {
  if (knob.choices.length > 0) return h("select", { class: "wb-select" }, ...knob.choices.map((choice) => h("option", { value: choice }, choice)));
  if (knob.type === "bool") return h("input", { type: "checkbox" });
  const input = h("input", { type: knob.type === "str" ? "text" : "number", class: "wb-input", autocomplete: "off" });
  if (knob.type !== "str") {
    input.step = knob.type === "int" ? "1" : "any";
    const least = knob.ge ?? (knob.gt !== null && knob.type === "int" ? knob.gt + 1 : knob.gt);
    if (least !== null) input.min = String(least);
    if (knob.le !== null) input.max = String(knob.le);
  }
  if (knob.optional) input.placeholder = AUTO;
  return input;
}

function show(input: HTMLInputElement | HTMLSelectElement, value: KnobValue): void {
  if (input instanceof HTMLInputElement && input.type === "checkbox") input.checked = value === true;
  else if (input.value !== String(value ?? "")) input.value = String(value ?? "");
}
