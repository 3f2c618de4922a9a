/** `Chips`: which text is shown: all, the newest, or that of one request. */

import { whole } from "../format.js";
import { aria, button, h, mark, setText, span } from "../dom.js";
import type { Tape } from "../tape.js";
import { requestColour } from "../theme.js";

export type Choice = "all" | "newest" | number;

export class Chips {
  readonly el = h("div", { class: "wb-chips", role: "group", "aria-label": "Whose text is shown" });
  readonly #rest = span("wb-dim");
  #made: readonly { readonly choice: Choice; readonly el: HTMLButtonElement }[] = [];
  #order = "";
  #tape: Tape | undefined;

  constructor(private readonly choose: (choice: Choice) => void) {}

  /** Offer `requests` of `seen`; those in `faint` do nothing just now. */
  show(tape: Tape, requests: readonly number[], seen: number, chosen: Choice, faint: (request: number) => boolean): void {
    const order = requests.join(" ");
    if (order !== this.#order || tape !== this.#tape) this.#make(tape, requests);
    this.#order = order;
    this.#tape = tape;
    setText(this.#rest, seen > requests.length ? `${requests.length} of ${whole(seen)}` : "");
    for (const { choice, el } of this.#made) {
      aria(el, "pressed", choice === chosen);
      if (typeof choice === "number") mark(el, "wb-faint", faint(choice));
    }
  }

  #make(tape: Tape, requests: readonly number[]): void {
    const one = (choice: Choice, face: string, title: string): { choice: Choice; el: HTMLButtonElement } => {
      const el = button(face, title, () => this.choose(choice), "wb-tab");
      if (typeof choice === "number") el.style.setProperty("--wb-owner", requestColour(choice));
      return { choice, el };
    };
    const names = requests.map((request) => tape.requests[request]?.id ?? "");
    this.#made = [
      one("all", "all", "The newest text of every request"),
      one("newest", "newest", "The request that the newest token belongs to"),
      ...requests.map((request, i) => one(request, names[i]!, `Text of ${names[i]}`)),
    ];
    this.el.replaceChildren(...this.#made.map(({ el }) => el), this.#rest);
  }
}
