/** `Refused`: what stands after a request's newest token: the drafts that this step refused, struck through, and the cursor. */

import { h } from "../dom.js";
import type { Tape } from "../tape.js";
import { type Tokens, tokenSpan } from "./strip.js";
import { refusedDrafts } from "./token.js";

export class Refused {
  readonly #drafts = h("span");
  readonly #cursor = h("span", { class: "wb-cursor", "aria-hidden": "true" }, "▌");
  readonly el = h("span", {}, this.#drafts, this.#cursor);
  count = 0;
  #shown = "";

  constructor(private readonly tokens: Tokens) {}

  /** Show those of a position's step; the cursor only while more may come. */
  show(tape: Tape, request: number, position: number, goesOn: boolean): void {
    this.#cursor.classList.toggle("wb-hidden", !goesOn);
    const ids = refusedDrafts(tape, request, position);
    this.count = ids.length;
    const key = `${request} ${ids.join(" ")}`;
    if (key === this.#shown) return;
    this.#shown = key;
    this.#drafts.replaceChildren(...ids.map((id, place) => tokenSpan(tape, this.tokens, { request, kind: "draft", place, id }, " wb-refused")));
  }
}
