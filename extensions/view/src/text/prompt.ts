/** `Prompt`: a request's prompt as spans, marked by how much of it is computed; a long one is folded in its middle. */

import { button, h } from "../dom.js";
import { count, whole } from "../format.js";
import type { Tape } from "../tape.js";
import { fill, tokenOf, tokenSpan } from "./span.js";

const WHOLE = 400; // tokens that are shown without a fold
const HEAD = 150;
const TAIL = 200;
const MORE = 2000; // tokens that one press unfolds

const MARKS = [" wb-computed", " wb-cached", " wb-later"] as const;

export class Prompt {
  readonly el = h("span");
  /** Tokens of the whole prompt: computed, found in the cache, not computed yet. */
  counts: readonly [number, number, number] = [0, 0, 0];
  #ids: readonly number[] = [];
  #tape: Tape | undefined;
  #request = -1;
  #unfolded = 0; // tokens shown beyond the head
  readonly #at = (place: number): number | undefined => this.#ids[place];
  #spans: HTMLElement[] = [];
  #marked = ""; // how much of it the marks tell

  constructor(private readonly redraw: () => void) {}

  show(tape: Tape, request: number, ids: readonly number[], cached: number, computed: number): void {
    if (tape !== this.#tape || request !== this.#request || ids !== this.#ids) {
      this.#tape = tape;
      this.#request = request;
      this.#ids = ids;
      this.#unfolded = 0;
      this.#build();
    }
    const spared = Math.min(cached, ids.length);
    const done = Math.max(spared, Math.min(computed, ids.length));
    if (this.#marked === `${spared} ${done}`) return;
    this.#marked = `${spared} ${done}`;
    this.counts = [done - spared, spared, ids.length - done];
    for (const span of this.#spans) {
      const token = tokenOf(span)!;
      fill(span, tape, token, this.#at, MARKS[token.place < spared ? 1 : token.place < done ? 0 : 2]!);
    }
  }

  #build(): void {
    const { length } = this.#ids;
    const head = length > WHOLE ? Math.min(HEAD + this.#unfolded, length - TAIL) : length;
    const before = this.#made(0, head);
    const after = this.#made(length > WHOLE ? length - TAIL : length, length);
    const hidden = length - before.length - after.length;
    this.#spans = [...before, ...after];
    this.#marked = "";
    this.el.replaceChildren(...before, ...(hidden > 0 ? [this.#fold(hidden)] : []), ...after);
  }

  #made(first: number, end: number): HTMLElement[] {
    return this.#ids.slice(first, end).map((id, i) => tokenSpan(this.#tape!, { request: this.#request, kind: "prompt", place: first + i, id }, this.#at));
  }

  #fold(hidden: number): HTMLElement {
    const open = (): void => {
      this.#unfolded += MORE;
      this.#build();
      this.redraw();
    };
    return button(`… ${count(hidden, "more token")}`, `Show ${whole(Math.min(hidden, MORE))} more tokens of the prompt`, open, "wb-fold");
  }
}
