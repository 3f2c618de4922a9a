/** A span that shows a token, and knows which. */

import type { Tape } from "../tape.js";
import { type Token, type TokenAt, faceOf } from "./token.js";

interface TokenSpan extends Element {
  wbToken?: Token; // on the element itself: a WeakMap of ten thousand spans slows every collection of garbage down
}

export function tokenOf(el: Element): Token | undefined {
  return (el as TokenSpan).wbToken;
}

/** Have a span show a token of a text, `cls` added to the classes of its face.  Its text node is used again, which is far cheaper than a new one. */
export function fill(span: HTMLElement, tape: Tape, token: Token, at: TokenAt, cls: string): HTMLElement {
  const face = faceOf(tape, token, at);
  span.className = face.cls + cls;
  if (span.firstChild === null) span.append(face.text);
  else (span.firstChild as Text).data = face.text;
  (span as TokenSpan).wbToken = token;
  return span;
}

export function tokenSpan(tape: Tape, token: Token, at: TokenAt, cls = ""): HTMLElement {
  return fill(document.createElement("span"), tape, token, at, cls);
}
