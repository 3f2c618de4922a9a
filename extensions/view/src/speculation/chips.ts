/** `Chips`: the rounds of one step, draft by draft: accepted, rejected, not reached, and the token that the model put instead. */

import type { App } from "../app.js";
import { nameOf } from "../blocks/words.js";
import { aria, box, h } from "../dom.js";
import { ms } from "../format.js";
import { same } from "../plot.js";
import { requestColour } from "../theme.js";
import type { Tape } from "../tape.js";
import { type Round, roundsAt } from "./rounds.js";

const NO_TOKEN = 2 ** 32 - 1; // stands for a draft whose id is not known (`workbench/tape/columns.py`)

export class Chips {
  readonly el = h("div", { class: "wb-rounds", role: "list" });
  #drawn: readonly unknown[] = [];

  constructor(private readonly app: App) {}

  draw(): void {
    const { focus, state } = this.app;
    const { tape } = focus;
    const drawn = [tape, state.position, tape.cuts.length, state.position < tape.length, state.request];
    if (same(drawn, this.#drawn)) return;
    this.#drawn = drawn;
    const rounds = roundsAt(tape, state.position);
    const none = box("wb-empty", "no drafts were verified in this step");
    this.el.replaceChildren(...(rounds.length > 0 ? rounds.map((round) => this.#row(tape, round)) : [none]));
  }

  #row(tape: Tape, round: Round): HTMLElement {
    const { request, own } = round;
    const id = nameOf(tape, request);
    const name = h("b", { style: `color:${requestColour(request)}` }, id);
    const chips = round.drafts.map((token, place) => chip(tape, token, fate(place, round)));
    const after = own === undefined ? [] : [h("span", { class: "wb-dim", "aria-hidden": "true" }, "→"), chip(tape, own.id, OWN[own.origin])];
    const times = h("span", { class: "wb-dim" }, `${ms(round.draftMs)} draft, ${ms(round.verifyMs)} verify`);
    const row = h("div", { class: "wb-round", role: "listitem", "aria-label": aloud(id, round) }, name, ...chips, ...after, times);
    if (request === this.app.state.request) aria(row, "current", "true");
    return row;
  }
}

type Fate = readonly [cls: string, words: string];

const OWN = {
  decoded: ["wb-own", "decoded"],
  accepted: ["wb-accepted", "accepted draft"],
  corrected: ["wb-corrected", "corrected: the model's own in place of the rejected draft"],
  bonus: ["wb-bonus", "bonus: all drafts were right, so one more came for free"],
} as const satisfies Record<string, Fate>;

function fate(place: number, { accepted, emitted }: Round): Fate {
  // A request that reached its end within the accepted drafts did not take the rest of them.
  if (place < accepted) return place < emitted ? ["wb-accepted", "accepted"] : ["wb-unreached wb-untaken", "accepted, but the request ended before it"];
  if (place === accepted) return ["wb-rejected", "rejected"];
  return ["wb-unreached", "not reached: one before it was rejected"];
}

function chip(tape: Tape, token: number, [cls, words]: Fate): HTMLElement {
  const known = token !== NO_TOKEN;
  const text = known ? tape.textOf(token).replaceAll("\n", "⏎").replaceAll("\t", "⇥") || `#${token}` : "–";
  return h("span", { class: `wb-draft ${cls}`, title: `${words} · ${known ? `token ${token}` : "a placeholder, or not recorded"}` }, text);
}

const aloud = (id: string, { drafts, accepted, emitted }: Round): string => `${id}: ${accepted} of ${drafts.length} drafts accepted, ${emitted} tokens out`;
