/** `Prompt`: a request's prompt as spans, marked by how much of it is computed; a long one is folded in its middle. */

import { button, h } from "../dom.js";
import type { Tape } from "../tape.js";
import { type Tokens, tokenSpan } from "./strip.js";
import { faceOf } from "./token.js";

const WHOLE = 400; // tokens that are shown without a fold
const HEAD = 150;
const TAIL = 200;
const MORE = 2000; // tokens that one press unfolds

const MARKS = ["wb-later", "wb-cached", "wb-computed"] as const;

export class Prompt {
  readonly el = h("span");
  /** Tokens of the whole prompt by mark: not computed yet, from the cache, computed. */
  readonly counts: [later: number, cached: number, computed: number] = [0, 0, 0];
  #ids: readonly number[] = [];
  #tape: Tape | undefined;
  #request = -1;
  #unfolded = 0; // tokens shown beyond the head
  #spans: HTMLSpanElement[] = [];
  #marks: number[] = []; // mark of each span

  constructor(
    private readonly tokens: Tokens,
    private readonly redraw: () => void,
  ) {}

  show(tape: Tape, request: number, ids: readonly number[], cached: number, computed: number): void {
    if (tape !== this.#tape || request !== this.#request || ids !== this.#ids) {
      this.#unfolded = 0;
      this.#build(tape, request, ids);
    }
    const spared = Math.min(cached, ids.length);
    const done = Math.max(spared, Math.min(computed, ids.length));
    if (this.#marks.length > 0 && this.counts[1] === spared && this.counts[2] === done - spared) return;
    this.counts.splice(0, 3, ids.length - done, spared, done - spared);
    this.#spans.forEach((span, i) => {
      const { place, id } = this.tokens.get(span)!;
      const mark = place < spared ? 1 : place < done ? 2 : 0;
      if (this.#marks[i] === mark) return;
      this.#marks[i] = mark;
      span.className = `${faceOf(tape, id).cls} ${MARKS[mark]}`;
    });
  }

  #build(tape: Tape, request: number, ids: readonly number[]): void {
    this.#tape = tape;
    this.#request = request;
    this.#ids = ids;
    const folds = ids.length > WHOLE && HEAD + this.#unfolded < ids.length - TAIL;
    const head = folds ? HEAD + this.#unfolded : ids.length;
    const spans = (first: number, end: number): HTMLSpanElement[] =>
      ids.slice(first, end).map((id, i) => tokenSpan(tape, this.tokens, { request, kind: "prompt", place: first + i, id }));
    const [before, after] = [spans(0, head), folds ? spans(ids.length - TAIL, ids.length) : []];
    this.#spans = [...before, ...after];
    this.#marks = [];
    this.el.replaceChildren(...before, ...(folds ? [this.#fold(ids.length - TAIL - head)] : []), ...after);
  }

  #fold(hidden: number): HTMLButtonElement {
    const open = (): void => {
      this.#unfolded += MORE;
      this.#build(this.#tape!, this.#request, this.#ids);
      this.redraw();
    };
    const title = hidden > MORE ? `Show the next ${MORE.toLocaleString("en-US")} tokens of the prompt` : "Show the whole prompt";
    return button(`… ${hidden.toLocaleString("en-US")} more tokens`, title, open, "wb-fold");
  }
}
