/** `Strip`: a stretch of a request's output as spans.  A step forward appends, a step back takes away; nothing is built twice. */

import { h } from "../dom.js";
import { ORIGINS, type Tape } from "../tape.js";
import { type Token, faceOf } from "./token.js";

/** Which token a span shows. */
export type Tokens = WeakMap<Element, Token>;

export const ORIGIN_CLASSES = ORIGINS.map((origin) => ` wb-${origin}`);

/** A span that shows a token. */
export function tokenSpan(tape: Tape, tokens: Tokens, token: Token, cls = ""): HTMLSpanElement {
  const made = document.createElement("span");
  const face = faceOf(tape, token.id);
  made.className = face.cls + cls;
  made.textContent = face.text;
  tokens.set(made, token);
  return made;
}

export class Strip {
  readonly el = h("span");
  /** How many of the spans have each origin. */
  readonly origins = new Int32Array(ORIGINS.length);
  #tape: Tape | undefined;
  #request = -1;
  #cuts = 0;
  #first = 0; // places shown: [first, end)
  #end = 0;
  #fresh: Element[] = []; // spans marked as new

  constructor(private readonly tokens: Tokens) {}

  /** Show the places [first, end) of `rows`, those from `fresh` on marked as new. */
  show(tape: Tape, request: number, rows: Int32Array, first: number, end: number, fresh: number): void {
    const apart = end <= this.#first || first >= this.#end;
    if (apart || this.#tape !== tape || this.#request !== request || this.#cuts !== tape.cuts.length) this.#clear(first);
    this.#tape = tape;
    this.#request = request;
    this.#cuts = tape.cuts.length;
    for (; this.#end > end; this.#end--) this.#drop(rows[this.#end - 1]!, this.el.lastChild!);
    for (; this.#first < first; this.#first++) this.#drop(rows[this.#first]!, this.el.firstChild!);
    if (first < this.#first) this.el.prepend(this.#made(rows, first, this.#first));
    if (end > this.#end) this.el.append(this.#made(rows, this.#end, end));
    this.#first = first;
    this.#end = end;
    this.#mark(end - Math.max(first, fresh));
  }

  #made(rows: Int32Array, first: number, end: number): DocumentFragment {
    const tape = this.#tape!;
    const [ids, origins] = [tape.column("tokens.id"), tape.column("tokens.origin")];
    const made = document.createDocumentFragment();
    for (let place = first; place < end; place++) {
      const row = rows[place]!;
      const origin = origins[row]!;
      this.origins[origin]! += 1;
      made.append(tokenSpan(tape, this.tokens, { request: this.#request, kind: "output", place, id: ids[row]! }, ORIGIN_CLASSES[origin]));
    }
    return made;
  }

  #drop(row: number, span: ChildNode): void {
    this.origins[this.#tape!.column("tokens.origin")[row]!]! -= 1;
    span.remove();
  }

  #clear(first: number): void {
    this.el.replaceChildren();
    this.origins.fill(0);
    this.#fresh = [];
    this.#first = this.#end = first;
  }

  #mark(count: number): void {
    const fresh: Element[] = [];
    for (let span = this.el.lastElementChild; span !== null && fresh.length < count; span = span.previousElementSibling) fresh.push(span);
    if (fresh.length === this.#fresh.length && fresh.every((span, i) => span === this.#fresh[i])) return;
    for (const span of this.#fresh) span.classList.remove("wb-new");
    for (const span of fresh) span.classList.add("wb-new");
    this.#fresh = fresh;
  }
}
