/** `Said`: what a request has said: its tokens, the drafts that the step refused, a cursor; or why there is nothing yet. */

import { h, hide, setText, span } from "../dom.js";
import type { Here } from "./here.js";
import { tokenSpan } from "./span.js";
import { type Standing, beforeOutput } from "./standing.js";
import { Strip } from "./strip.js";
import { refusedDrafts } from "./token.js";

export class Said {
  readonly #strip = new Strip();
  readonly #drafts = h("span");
  readonly #cursor = h("span", { class: "wb-cursor", "aria-hidden": "true" }, "▌");
  readonly #note = span("wb-dim");
  readonly el = span("", this.#strip.el, this.#drafts, this.#cursor, this.#note);
  /** Refused drafts that are shown. */
  refused = 0;
  #drawn = "";

  /** Tokens shown, by origin. */
  get origins(): Int32Array {
    return this.#strip.origins;
  }

  /** The span of the newest token. */
  get newest(): HTMLElement | null {
    return this.#strip.el.lastElementChild as HTMLElement | null;
  }

  /** Show the output from `first` on, of which `end` tokens are out. */
  draw(here: Here, request: number, standing: Standing, first: number, end: number): void {
    const { tape, outputs, position } = here;
    this.#strip.show(tape, request, outputs.rows(request), first, end, outputs.upTo(request, position - 1));
    this.#refuse(here, request);
    const begun = this.newest !== null;
    hide(this.#cursor, !begun || standing.ended);
    setText(this.#note, begun ? "" : beforeOutput(tape, outputs, request, position));
  }

  #refuse({ tape, position }: Here, request: number): void {
    const ids = refusedDrafts(tape, request, position);
    const key = `${request} ${ids.join(" ")}`;
    this.refused = ids.length;
    if (key === this.#drawn) return;
    this.#drawn = key;
    this.#drafts.replaceChildren(...ids.map((id, place) => tokenSpan(tape, { request, kind: "draft", place, id }, (at) => ids[at], " wb-refused")));
  }
}
