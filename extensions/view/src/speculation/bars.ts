/** `Bars`: acceptance by draft position; a bar for the share of all rounds, a tick for the share of those that came to it. */

import type { App } from "../app.js";
import { Canvas } from "../canvas.js";
import { percent } from "../format.js";
import { same } from "../plot.js";
import { COLOURS, type Theme } from "../theme.js";
import type { Acceptance, AtPosition } from "./rounds.js";

const HEIGHT = 104;
const TOP = 16; // room for the label of a full bar
const BOTTOM = 16; // room for the names
const WIDEST = 44;
const WIDEST_SLOT = 104;
const INK = "#1f2328"; // on a bar, in both themes
const INSIDE = 18; // a bar at least as high holds its own label

export class Bars {
  readonly #canvas = new Canvas("wb-acceptance");
  readonly el = this.#canvas.el;
  #drawn: readonly unknown[] = [];
  #acceptance: Acceptance | undefined;
  #slot = 1; // CSS pixels of a position

  constructor(
    private readonly app: App,
    signal: AbortSignal,
  ) {
    app.tooltip.over(this.el, (event) => this.#words(event), signal);
  }

  draw(acceptance: Acceptance): void {
    this.#acceptance = acceptance;
    const drawn = [this.app.theme, this.el.parentElement?.clientWidth, devicePixelRatio, acceptance.positions];
    if (same(drawn, this.#drawn) || !this.#canvas.begin(HEIGHT)) return;
    this.#drawn = drawn;
    acceptance.positions.forEach((at, place) => this.#bar(at, place, acceptance.positions.length));
    this.#canvas.describe(`Acceptance by position, ${acceptance.rounds} rounds: ${acceptance.positions.map(words).join("; ")}.`);
  }

  #bar(at: AtPosition, place: number, places: number): void {
    const { context, width } = this.#canvas;
    const { theme } = this.app;
    const slot = (this.#slot = Math.min(WIDEST_SLOT, width / places));
    const wide = Math.min(WIDEST, slot * 0.6);
    const middle = (place + 0.5) * slot;
    const all = at.accepted / Math.max(1, this.#acceptance!.rounds);
    const y = height(all);
    context.fillStyle = COLOURS.verify;
    context.fillRect(middle - wide / 2, y, wide, HEIGHT - BOTTOM - y);
    this.#tick(at, middle, wide);
    context.textAlign = "center";
    if (slot > 26) this.#labels(at, middle, all, theme);
    context.font = `10px ${theme.font}`;
    context.fillStyle = theme.dim;
    context.fillText(slot > 44 ? `draft ${place + 1}` : String(place + 1), middle, HEIGHT - 4);
  }

  #tick(at: AtPosition, middle: number, wide: number): void {
    if (at.reached === 0) return;
    const { context } = this.#canvas;
    context.fillStyle = this.app.theme.ink;
    context.fillRect(middle - wide / 2 - 4, height(at.accepted / at.reached) - 1, wide + 8, 2);
  }

  #labels(at: AtPosition, middle: number, all: number, theme: Theme): void {
    const { context } = this.#canvas;
    const y = height(all);
    const given = at.reached > 0 ? at.accepted / at.reached : all;
    const inside = HEIGHT - BOTTOM - y >= INSIDE;
    context.font = `10px ${theme.font}`;
    context.fillStyle = inside ? INK : theme.ink;
    context.fillText(percent(all), middle, inside ? y + 12 : y - (height(given) > y - 14 && given !== all ? 0 : 4));
    context.fillStyle = theme.dim;
    if (given !== all) context.fillText(percent(given), middle, height(given) - 4);
  }

  #words(event: MouseEvent): string {
    const acceptance = this.#acceptance;
    const place = Math.floor(this.#canvas.place(event)[0] / this.#slot);
    const at = acceptance?.positions[place];
    if (acceptance === undefined || at === undefined) return "";
    const all = `draft ${place + 1}: accepted in ${at.accepted} of ${acceptance.rounds} rounds, ${percent(at.accepted / acceptance.rounds)}`;
    const given = `of the ${at.reached} that came to it: ${at.reached > 0 ? percent(at.accepted / at.reached) : "–"}`;
    return [all, ...(place > 0 ? [given] : []), `proposed in ${at.proposed}`].join("\n");
  }
}

const height = (share: number): number => TOP + (1 - share) * (HEIGHT - TOP - BOTTOM);

function words(at: AtPosition, place: number, all: readonly AtPosition[]): string {
  const rounds = all[0]!.reached;
  const given = place > 0 && at.reached > 0 ? `, ${percent(at.accepted / at.reached)} of those that came to it` : "";
  return `draft ${place + 1} ${percent(at.accepted / rounds)} of all${given}`;
}
