/** `Tails`: the newest text of every request, a short block each; only those in sight are drawn. */

import { aria, box, button, h, mark, setText, span } from "../dom.js";
import { count } from "../format.js";
import type { Tape } from "../tape.js";
import { requestColour } from "../theme.js";
import { type Here, firstShown } from "./here.js";
import { Said } from "./said.js";
import { standingOf } from "./standing.js";
import { oneLine } from "./token.js";

const ROW = 52; // CSS pixels from tail to tail, as text.css has it
const HEIGHT = 286; // and of all that is in sight
const MOST = 60; // tokens of a tail; what is left after a stride fills two lines of a wide panel
const STRIDE = 20;

/** A place for the tail of whichever request stands there. */
class Tail {
  readonly #name: HTMLButtonElement;
  readonly #word = span("wb-dim");
  readonly said = new Said();
  readonly el: HTMLElement;
  #of: readonly [Tape | undefined, request: number] = [undefined, -1];

  constructor(select: (request: number) => void) {
    this.#name = button("", "", () => select(this.#of[1]), "wb-name");
    const text = box("wb-tail-text", h("div", {}, this.said.el));
    this.el = box("wb-tail", box("wb-tail-head", this.#name, this.#word), text);
  }

  draw(here: Here, request: number): void {
    const { tape, outputs, position } = here;
    if (tape !== this.#of[0] || request !== this.#of[1]) this.#title(here, request);
    const [since, end] = [outputs.since(request, position), outputs.upTo(request, position)];
    const standing = standingOf(tape, outputs, request, position);
    this.said.draw(here, request, standing, firstShown(since, end, MOST, STRIDE), end);
    setText(this.#word, end > since ? `${standing.word} · ${end - since}` : standing.word);
    mark(this.el, "wb-faint", standing.waits);
  }

  #title({ tape, outputs, position }: Here, request: number): void {
    const prompt = outputs.prompt(request, position);
    const id = tape.requests[request]?.id ?? "";
    this.#of = [tape, request];
    this.#name.style.setProperty("--wb-owner", requestColour(request));
    setText(this.#name, id);
    this.#name.title = `Show ${id} whole; its prompt, ${count(prompt.length, "token")}, ends: ${oneLine(tape, prompt.slice(-60), 240)}`;
    aria(this.#name, "label", `Show ${id} whole`);
  }
}

export class Tails {
  readonly el = box("wb-tails");
  readonly #tails: Tail[] = []; // by place; those out of sight hold what was there last
  #inSight: readonly Tail[] = [];
  #top = 0;

  constructor(
    private readonly select: (request: number) => void,
    redraw: () => void,
  ) {
    this.el.addEventListener("scroll", () => {
      this.#top = this.el.scrollTop;
      redraw();
    });
  }

  /** What is in sight, by mark, in the order of `Legend`; prompts are not shown here. */
  get counts(): readonly number[] {
    const sum = [0, 0, 0, 0, 0, 0, 0, 0];
    for (const { said } of this.#inSight) [0, 0, 0, ...said.origins, said.refused].forEach((n, kind) => (sum[kind]! += n));
    return sum;
  }

  /** The span of the newest token of the first request in sight that has one. */
  get newest(): HTMLElement | null {
    return this.#inSight.find(({ said }) => said.newest !== null)?.said.newest ?? null;
  }

  /** Draw the tails of `requests`: those that have ended stand below the others. */
  draw(here: Here, all: readonly number[]): void {
    const ended = (request: number): boolean => standingOf(here.tape, here.outputs, request, here.position).ended;
    const requests = [...all.filter((request) => !ended(request)), ...all.filter(ended)];
    while (this.#tails.length > requests.length) this.#tails.pop()!.el.remove();
    while (this.#tails.length < requests.length) this.el.append(this.#tails[this.#tails.push(new Tail(this.select)) - 1]!.el);
    const first = Math.floor(Math.max(0, Math.min(this.#top, requests.length * ROW - HEIGHT)) / ROW);
    this.#inSight = this.#tails.slice(first, Math.ceil((this.#top + HEIGHT) / ROW));
    this.#inSight.forEach((tail, place) => tail.draw(here, requests[first + place]!));
  }
}
