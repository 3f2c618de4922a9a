/** `Chips`: which text is shown: all, the newest, or that of one request. */

import { whole } from "../format.js";
import { aria, button, entitle, h, mark, setText, span } from "../dom.js";
import type { Tape } from "../tape.js";
import { requestColour } from "../theme.js";

export type Choice = "all" | "newest" | number;

type Chip = readonly [el: HTMLButtonElement, choice: Choice];

export class Chips {
  readonly el = h("div", { class: "wb-chips", role: "group", "aria-label": "Whose text is shown" });
  readonly #rest = span("wb-dim");
  #made: readonly Chip[] = [];
  #tape: Tape | undefined;

  constructor(private readonly choose: (choice: Choice) => void) {
    this.el.append(this.#rest);
  }

  /** Offer `requests` of `seen`; those in `faint` do nothing just now. */
  show(tape: Tape, requests: readonly number[], seen: number, chosen: Choice, faint: (request: number) => boolean): void {
    this.#made.slice(requests.length + 2).forEach(([el]) => el.remove());
    this.#made = (["all", "newest", ...requests] as const).map((choice, place) => this.#chip(tape, place, choice));
    this.#tape = tape;
    setText(this.#rest, seen > requests.length ? `${requests.length} of ${whole(seen)}` : "");
    for (const [el, choice] of this.#made) {
      aria(el, "pressed", choice === chosen);
      mark(el, "wb-faint", typeof choice === "number" && faint(choice));
    }
  }

  /** The chip at a place, which may have offered another text before. */
  #chip(tape: Tape, place: number, choice: Choice): Chip {
    const known = this.#made[place];
    if (known !== undefined && known[1] === choice && tape === this.#tape) return known;
    const el = known?.[0] ?? button("", "", () => this.choose(this.#made[place]![1]), "wb-tab");
    if (known === undefined) this.#rest.before(el);
    const one = typeof choice === "number";
    const face = one ? (tape.requests[choice]?.id ?? "") : choice;
    setText(el, face);
    entitle(el, one ? `Text of ${face}` : choice === "all" ? "The newest text of every request" : "The request that the newest token belongs to");
    if (one) el.style.setProperty("--wb-owner", requestColour(choice));
    return [el, choice];
  }
}
