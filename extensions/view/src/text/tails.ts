/** `Tails`: the newest text of every request, a short block each; only those in sight are drawn. */

import { aria, box, button, h, setText, span } from "../dom.js";
import { count } from "../format.js";
import type { Tape } from "../tape.js";
import { requestColour } from "../theme.js";
import { type Here, firstShown } from "./here.js";
import { Said } from "./said.js";
import { standingOf } from "./standing.js";
import { oneLine } from "./token.js";

const ROW = 52; // CSS pixels from tail to tail, as text.css has it
const ROWS = 7; // and how many are in sight, with those that are cut by an edge
const MOST = 80; // tokens of a tail; what is left after a stride fills two lines of a wide panel
const STRIDE = 32;

class Tail {
  readonly #name: HTMLButtonElement;
  readonly #word = span("wb-dim");
  readonly said = new Said();
  readonly el: HTMLElement;

  constructor(
    private readonly request: number,
    select: (request: number) => void,
  ) {
    this.#name = button("", "", () => select(request), "wb-name");
    this.#name.style.setProperty("--wb-owner", requestColour(request));
    const text = box("wb-tail-text", h("div", {}, this.said.el));
    this.el = box("wb-tail", box("wb-tail-head", this.#name, this.#word), text);
  }

  draw(here: Here): void {
    const { tape, outputs, position } = here;
    const { request } = this;
    const [since, end] = [outputs.since(request, position), outputs.upTo(request, position)];
    const standing = standingOf(tape, outputs, request, position);
    this.said.draw(here, request, standing, firstShown(since, end, MOST, STRIDE), end);
    setText(this.#word, end > since ? `${standing.word} · ${end - since}` : standing.word);
    this.el.classList.toggle("wb-faint", standing.waits);
    if (this.#name.textContent === "") this.#title(here);
  }

  #title({ tape, outputs, position }: Here): void {
    const prompt = outputs.prompt(this.request, position);
    const id = tape.requests[this.request]?.id ?? "";
    this.#name.textContent = id;
    this.#name.title = `Show ${id} whole; its prompt, ${count(prompt.length, "token")}, ends: ${oneLine(tape, prompt.slice(-60), 240)}`;
    aria(this.#name, "label", `Show ${id} whole`);
  }
}

export class Tails {
  readonly el = box("wb-tails");
  readonly #tails = new Map<number, Tail>();
  #tape: Tape | undefined;
  #order = "";
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
    for (const { said } of this.#inSight) [0, 0, 0, ...said.origins, said.refused].forEach((n, mark) => (sum[mark]! += n));
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
    if (here.tape !== this.#tape) this.#tails.clear();
    const order = requests.join(" ");
    if (order !== this.#order || here.tape !== this.#tape) this.#arrange(requests);
    this.#order = order;
    this.#tape = here.tape;
    const first = Math.max(0, Math.min(Math.floor(this.#top / ROW), requests.length - ROWS));
    this.#inSight = requests.slice(first, first + ROWS).map((request) => this.#tails.get(request)!);
    for (const tail of this.#inSight) tail.draw(here);
  }

  #arrange(requests: readonly number[]): void {
    for (const request of requests) if (!this.#tails.has(request)) this.#tails.set(request, new Tail(request, this.select));
    this.el.replaceChildren(...requests.map((request) => this.#tails.get(request)!.el));
  }
}
