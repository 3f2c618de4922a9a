/** `Rove`: the tokens of an element as one stop of the Tab key; arrow keys walk among them, Enter jumps. */

import { on, take } from "../dom.js";

const TOKEN = ".wb-tok";

export interface Guide {
  /** What a token is, in lines. */
  tell(token: HTMLElement): string;
  jump(token: HTMLElement): void;
  /** Show what can be said of the token in focus; null when there is none. */
  show(token: HTMLElement | null): void;
}

export class Rove {
  #stop: HTMLElement | null = null; // the token that Tab reaches

  constructor(
    private readonly root: HTMLElement,
    private readonly guide: Guide,
    signal: AbortSignal,
  ) {
    on(root, "keydown", (event) => this.#key(event), signal);
    on(root, "focusin", (event) => this.#focused(event.target as HTMLElement), signal);
    on(root, "focusout", () => guide.show(null), signal);
  }

  /** After the tokens changed: the stop is the newest token, unless the reader stands on another. */
  settle(newest: HTMLElement | null): void {
    const here = this.#stop !== null && this.#stop.matches(":focus"); // in a saved page the document's active element is a shadow root's host
    if (!here && newest !== this.#stop) this.#put(newest);
  }

  #put(token: HTMLElement | null): void {
    for (const name of ["tabindex", "role", "aria-label"]) this.#stop?.removeAttribute(name);
    this.#stop = token;
    token?.setAttribute("tabindex", "0");
    token?.setAttribute("role", "button");
  }

  #focused(target: HTMLElement): void {
    if (!target.matches(TOKEN)) return;
    if (target !== this.#stop) this.#put(target);
    target.setAttribute("aria-label", this.guide.tell(target).replaceAll("\n", " · "));
    this.guide.show(target);
  }

  #key(event: KeyboardEvent): void {
    const from = event.target as HTMLElement;
    if (!from.matches(TOKEN) || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") this.guide.jump(from);
    else if (event.key === "Escape") this.guide.show(null);
    else if (!this.#walk(from, event.key)) return;
    take(event); // these keys would else move the cursor of the whole view
  }

  #walk(from: HTMLElement, key: string): boolean {
    const all = Array.from(this.root.querySelectorAll<HTMLElement>(TOKEN));
    const here = all.indexOf(from);
    const wanted = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: all.length - 1 }[key] ?? neighbour(all, here, key);
    if (wanted === undefined) return false;
    const token = all[Math.min(Math.max(wanted, 0), all.length - 1)]!;
    this.#put(token);
    token.focus();
    return true;
  }
}

/** The token above or below: the first on another line that reaches as far. */
function neighbour(all: readonly HTMLElement[], here: number, key: string): number | undefined {
  const step = { ArrowUp: -1, ArrowDown: 1 }[key];
  if (step === undefined) return undefined;
  const { left, bottom, top } = all[here]!.getBoundingClientRect();
  for (let i = here + step; i >= 0 && i < all.length; i += step) {
    const box = all[i]!.getBoundingClientRect();
    const beyond = step > 0 ? box.top >= bottom - 3 && box.right > left : box.bottom <= top + 3 && box.left <= left;
    if (beyond) return i;
  }
  return here;
}
