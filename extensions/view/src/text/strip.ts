/** `Strip`: a stretch of a request's output as spans.  A step forward appends, a step back takes away, a jump writes over the spans there are. */

import { h } from "../dom.js";
import { ORIGINS, type Tape } from "../tape.js";
import { fill, tokenOf } from "./span.js";

export const ORIGIN_CLASSES = ORIGINS.map((origin) => ` wb-${origin}`);

export class Strip {
  readonly el = h("span");
  /** How many of the spans have each origin. */
  readonly origins = new Int32Array(ORIGINS.length);
  #tape: Tape | undefined;
  #request = -1;
  #cuts = 0;
  #rows: Uint32Array = new Uint32Array(0);
  #first = 0; // places shown: [first, end)
  #end = 0;
  #fresh: Element[] = []; // spans marked as new

  /** Show the places [first, end) of `rows`, those from `fresh` on marked as new. */
  show(tape: Tape, request: number, rows: Uint32Array, first: number, end: number, fresh: number): void {
    const same = this.#tape === tape && this.#request === request && this.#cuts === tape.cuts.length;
    this.#tape = tape;
    this.#request = request;
    this.#cuts = tape.cuts.length;
    this.#rows = rows;
    if (!same || end <= this.#first || first >= this.#end) this.#rewrite(first, end);
    for (; this.#end > end; this.#end--) this.#drop(this.el.lastChild as Element);
    for (; this.#first < first; this.#first++) this.#drop(this.el.firstChild as Element);
    if (first < this.#first) this.el.prepend(...this.#made(first, this.#first));
    if (end > this.#end) this.el.append(...this.#made(this.#end, end));
    this.#first = first;
    this.#end = end;
    this.#mark(end - Math.max(first, fresh));
  }

  #made(first: number, end: number): HTMLElement[] {
    return Array.from({ length: Math.max(0, end - first) }, (_, i) => this.#fill(document.createElement("span"), first + i));
  }

  #fill(span: HTMLElement, place: number): HTMLElement {
    const tape = this.#tape!;
    const ids = tape.column("tokens.id");
    const at = (each: number): number | undefined => ids[this.#rows[each]!];
    const origin = tape.column("tokens.origin")[this.#rows[place]!]!;
    this.origins[origin]! += 1;
    return fill(span, tape, { request: this.#request, kind: "output", place, id: at(place)!, origin }, at, ORIGIN_CLASSES[origin]!);
  }

  #drop(span: Element): void {
    this.origins[tokenOf(span)!.origin!]! -= 1;
    span.remove();
  }

  /** Let the spans show places from `first` on, as many as there are. */
  #rewrite(first: number, end: number): void {
    this.origins.fill(0);
    this.#fresh = [];
    this.#first = this.#end = first;
    let span = this.el.firstElementChild;
    for (; span !== null && this.#end < end; span = span.nextElementSibling) this.#fill(span as HTMLElement, this.#end++);
    while (span !== null) {
      const next = span.nextElementSibling;
      span.remove();
      span = next;
    }
  }

  #mark(count: number): void {
    for (const span of this.#fresh) span.classList.remove("wb-new");
    this.#fresh = [];
    for (let span = this.el.lastElementChild; span !== null && this.#fresh.length < count; span = span.previousElementSibling) {
      span.classList.add("wb-new");
      this.#fresh.push(span);
    }
  }
}
