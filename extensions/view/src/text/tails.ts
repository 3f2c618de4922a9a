/** `Tails`: the newest text of every request, a short block each. */

import { h, setText } from "../dom.js";
import { count } from "../format.js";
import type { Tape } from "../tape.js";
import { requestColour } from "../theme.js";
import type { Outputs } from "./output.js";
import { Refused } from "./refused.js";
import { beforeOutput, standingOf } from "./standing.js";
import { Strip, type Tokens } from "./strip.js";
import { oneLine } from "./token.js";

const LEAST = 64; // tokens of a tail that are always there: three lines of a wide panel
const STRIDE = 64; // it loses its beginning so many at a time, so that lines rarely move

class Tail {
  readonly #name = h("button", { type: "button", class: "wb-name" });
  readonly #word = h("span", { class: "wb-dim" });
  readonly #strip: Strip;
  readonly #refused: Refused;
  readonly #note = h("span", { class: "wb-dim" });
  readonly el: HTMLElement;

  constructor(
    readonly request: number,
    tokens: Tokens,
    select: (request: number) => void,
  ) {
    this.#strip = new Strip(tokens);
    this.#refused = new Refused(tokens);
    this.#name.style.setProperty("--wb-owner", requestColour(request));
    this.#name.addEventListener("click", () => select(request));
    const text = h("div", { class: "wb-tail-text" }, h("div", {}, this.#strip.el, this.#refused.el, this.#note));
    this.el = h("div", { class: "wb-tail" }, h("div", { class: "wb-tail-head" }, this.#name, this.#word), text);
  }

  get origins(): Int32Array {
    return this.#strip.origins;
  }

  get refused(): number {
    return this.#refused.count;
  }

  get newest(): HTMLElement | null {
    return this.#strip.el.lastElementChild as HTMLElement | null;
  }

  draw(tape: Tape, outputs: Outputs, position: number): void {
    const { request } = this;
    const [since, end] = [outputs.since(request, position), outputs.upTo(request, position)];
    const first = since + Math.max(0, Math.floor((end - since - LEAST) / STRIDE) * STRIDE);
    const standing = standingOf(tape, outputs, request, position);
    this.#strip.show(tape, request, outputs.rows(request), first, end, outputs.upTo(request, position - 1));
    this.#refused.show(tape, request, position, !standing.ended && end > since);
    setText(this.#note, end > since ? "" : beforeOutput(tape, outputs, request, position));
    setText(this.#word, end > since ? `${standing.word} · ${end - since}` : standing.word);
    this.el.classList.toggle("wb-faint", standing.waits);
    if (this.#name.textContent === "") this.#title(tape, outputs, position);
  }

  #title(tape: Tape, outputs: Outputs, position: number): void {
    const prompt = outputs.prompt(this.request, position);
    const id = tape.requests[this.request]?.id ?? "";
    this.#name.textContent = id;
    this.#name.title = `Show ${id} whole; its prompt, ${count(prompt.length, "token")}, ends: ${oneLine(tape, prompt.slice(-60), 240)}`;
  }
}

export class Tails {
  readonly el = h("div", { class: "wb-tails" });
  readonly #tails = new Map<number, Tail>();
  #tape: Tape | undefined;
  #order = "";
  #shown: readonly number[] = [];

  constructor(
    private readonly tokens: Tokens,
    private readonly select: (request: number) => void,
  ) {}

  /** Tokens shown of each origin, and refused drafts. */
  get origins(): Int32Array {
    const sum = new Int32Array(4);
    for (const request of this.#shown) this.#tails.get(request)!.origins.forEach((n, origin) => (sum[origin]! += n));
    return sum;
  }

  get refused(): number {
    return this.#shown.reduce((sum, request) => sum + this.#tails.get(request)!.refused, 0);
  }

  /** The span of the newest token of the first request that has one. */
  get newest(): HTMLElement | null {
    for (const request of this.#shown) {
      const span = this.#tails.get(request)!.newest;
      if (span !== null) return span;
    }
    return null;
  }

  draw(tape: Tape, outputs: Outputs, requests: readonly number[], position: number): void {
    if (tape !== this.#tape) this.#tails.clear();
    const order = requests.join(" ");
    if (order !== this.#order || tape !== this.#tape) this.#arrange(requests);
    this.#order = order;
    this.#tape = tape;
    for (const request of requests) this.#tails.get(request)!.draw(tape, outputs, position);
  }

  #arrange(requests: readonly number[]): void {
    for (const request of requests) if (!this.#tails.has(request)) this.#tails.set(request, new Tail(request, this.tokens, this.select));
    this.el.replaceChildren(...requests.map((request) => this.#tails.get(request)!.el));
    this.#shown = requests;
  }
}
