/** The text: what each request was given and what it said, as far as the cursor; going back takes the words away again. */

import type { App, MakePanel, Panel, RunView } from "../app.js";
import { h, section, setText } from "../dom.js";
import { count } from "../format.js";
import { Chips, type Choice } from "../text/chips.js";
import { livelyRequests, newestRequest } from "../text/choice.js";
import { Legend } from "../text/legend.js";
import { type Outputs, outputsOf } from "../text/output.js";
import { Rove } from "../text/rove.js";
import { standingOf } from "../text/standing.js";
import type { Tokens } from "../text/strip.js";
import { Tails } from "../text/tails.js";
import { type Token, tellToken } from "../text/token.js";
import { Whole } from "../text/whole.js";

export const text: MakePanel = (app, signal) => new TextPanel(app, signal);

class TextPanel implements Panel {
  readonly el: HTMLElement;
  readonly #note: HTMLElement;
  readonly #empty = h("div", { class: "wb-empty" });
  readonly #root = h("div", { class: "wb-text-root", role: "group", "aria-label": "Tokens: arrow keys walk, Enter goes to the step" });
  readonly #tokens: Tokens = new WeakMap();
  readonly #whole: Whole;
  readonly #tails: Tails;
  readonly #chips: Chips;
  readonly #legend = new Legend();
  readonly #rove: Rove;
  #unselected: "all" | "newest" = "all"; // what is shown while no request is selected
  #told: HTMLElement | null = null; // token whose tooltip is open

  constructor(
    private readonly app: App,
    signal: AbortSignal,
  ) {
    const frame = section("wb-text", "Text");
    this.el = frame.el;
    this.#note = frame.note;
    this.#whole = new Whole(this.#tokens, () => app.redraw());
    this.#tails = new Tails(this.#tokens, (request) => app.select(request));
    this.#chips = new Chips((choice) => this.#choose(choice));
    this.#root.append(this.#whole.el, this.#tails.el);
    frame.body.append(this.#chips.el, this.#empty, this.#root, this.#legend.el);
    this.#rove = new Rove(this.#root, (token) => this.#words(token).replaceAll("\n", " · "), (token) => this.#jump(token), (token) => this.#below(token), signal);
    this.#root.addEventListener("mouseover", (event) => this.#hover(event), { signal });
    this.#root.addEventListener("mouseleave", () => this.#hide(), { signal });
    this.#root.addEventListener("click", (event) => this.#click(event), { signal });
  }

  draw(): void {
    const run = this.app.focus;
    const position = this.#position();
    this.el.classList.toggle("wb-bare", position < 0);
    setText(this.#empty, position < 0 ? "No steps yet: the text appears with the first one." : run.tape.vocab.size === 0 ? "This trace holds no texts: token ids stand in their place." : "");
    setText(this.#note, "");
    if (position >= 0) this.#show(run, outputsOf(run.tape), position);
    if (this.#told?.isConnected === false) this.#hide();
  }

  #show(run: RunView, outputs: Outputs, position: number): void {
    const { tape } = run;
    const { shown, seen } = livelyRequests(tape, outputs, position);
    const selected = this.app.state.request;
    const choice: Choice = selected ?? (seen === 1 ? shown[0]! : this.#unselected);
    const all = choice === "all";
    this.#chips.show(tape, withSelected(shown, selected), seen, choice, (request) => standingOf(tape, outputs, request, position).ended);
    this.#chips.el.classList.toggle("wb-hidden", seen < 2 && selected === null);
    this.#whole.el.classList.toggle("wb-hidden", all);
    this.#tails.el.classList.toggle("wb-hidden", !all);
    if (all) this.#drawTails(run, outputs, shown, seen, position);
    else this.#drawWhole(run, outputs, choice === "newest" ? newestRequest(tape, shown, position) : choice, position);
  }

  #drawTails({ tape }: RunView, outputs: Outputs, shown: readonly number[], seen: number, position: number): void {
    this.#tails.draw(tape, outputs, shown, position);
    this.#legend.show(this.#tails.origins, this.#tails.refused);
    this.#rove.settle(this.#tails.newest);
    setText(this.#note, count(seen, "request"));
  }

  #drawWhole({ tape }: RunView, outputs: Outputs, request: number, position: number): void {
    this.#whole.draw(tape, outputs, request, position);
    this.#legend.show(this.#whole.origins, this.#whole.refused, this.#whole.prompt);
    this.#rove.settle(this.#whole.newest);
    const out = outputs.upTo(request, position) - outputs.since(request, position);
    const info = tape.requests[request];
    const words = [info?.id ?? "", standingOf(tape, outputs, request, position).word, `${out} of at most ${count(info?.max_tokens ?? 0, "token")}`];
    setText(this.#note, words.join(" · "));
  }

  #choose(choice: Choice): void {
    if (typeof choice !== "number") this.#unselected = choice;
    this.app.select(typeof choice === "number" ? choice : null);
    this.app.redraw();
  }

  #position(): number {
    return Math.min(this.app.state.position, this.app.focus.tape.length - 1);
  }

  #words(el: HTMLElement): string {
    const { tape } = this.app.focus;
    const token = this.#tokens.get(el);
    return token === undefined ? "" : tellToken(tape, outputsOf(tape), token, this.#position());
  }

  #hover(event: MouseEvent): void {
    const el = event.target as HTMLElement;
    if (!this.#tokens.has(el)) return this.#hide();
    this.#told = el;
    this.app.tooltip.show(this.#words(el), event);
  }

  #below(el: HTMLElement | null): void {
    if (el === null) return this.#hide();
    const box = el.getBoundingClientRect();
    this.#told = el;
    this.app.tooltip.show(this.#words(el), { clientX: box.left, clientY: box.bottom });
  }

  #hide(): void {
    if (this.#told !== null) this.app.tooltip.hide();
    this.#told = null;
  }

  #click(event: MouseEvent): void {
    const el = event.target as HTMLElement;
    if (this.#tokens.has(el) && getSelection()?.isCollapsed !== false) this.#jump(el);
  }

  #jump(el: HTMLElement): void {
    const token = this.#tokens.get(el);
    if (token === undefined) return;
    const { tape } = this.app.focus;
    const at = whereIs(tape, token, this.#position());
    if (at < 0) this.app.select(token.request);
    else this.app.select(token.request, at);
  }
}

/** The position whose step brought a token; -1 if none has. */
function whereIs(tape: RunView["tape"], token: Token, position: number): number {
  const outputs = outputsOf(tape);
  if (token.kind === "output") return tape.positionOfRow("tokens", outputs.rows(token.request)[token.place]!);
  return token.kind === "draft" ? position : outputs.computedAt(token.request, token.place, position);
}

function withSelected(shown: readonly number[], selected: number | null): readonly number[] {
  return selected === null || shown.includes(selected) ? shown : [...shown, selected].sort((a, b) => a - b);
}
