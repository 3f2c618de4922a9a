/** The text: what each request was given and what it said, as far as the cursor; going back takes the words away again. */

import type { App, MakePanel, Panel, RunView } from "../app.js";
import { box, h, hide, mark, on, section, setText } from "../dom.js";
import { count } from "../format.js";
import { Chips, type Choice } from "../text/chips.js";
import { livelyRequests, newestRequest } from "../text/choice.js";
import type { Here } from "../text/here.js";
import { Legend } from "../text/legend.js";
import { outputsOf } from "../text/output.js";
import { Rove } from "../text/rove.js";
import { tokenOf } from "../text/span.js";
import { standingOf } from "../text/standing.js";
import { Tails } from "../text/tails.js";
import { type Token, hasText, tellToken } from "../text/token.js";
import { Whole } from "../text/whole.js";

export const text: MakePanel = (app, signal) => new TextPanel(app, signal);

const NO_STEPS = "No steps yet: the text appears with the first one.";
const NO_TEXTS = "This trace holds no texts: token ids stand in their place.";

class TextPanel implements Panel {
  readonly el: HTMLElement;
  readonly #note: HTMLElement;
  readonly #empty = box("wb-empty");
  readonly #root = h("div", { class: "wb-text-root", role: "group", "aria-label": "Tokens: arrow keys walk, Enter goes to the step" });
  readonly #whole: Whole;
  readonly #tails: Tails;
  readonly #chips = new Chips((choice) => this.#choose(choice));
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
    const redraw = (): void => app.redraw();
    this.#whole = new Whole(redraw);
    this.#tails = new Tails((request) => app.select(request), redraw);
    this.#root.append(this.#whole.el, this.#tails.el);
    frame.body.append(this.#chips.el, this.#empty, this.#root, this.#legend.el);
    this.#rove = new Rove(this.#root, { tell: (el) => this.#words(el), jump: (el) => this.#jump(el), show: (el) => this.#below(el) }, signal);
    on(this.#root, "mouseover", (event) => this.#tell(event.target as HTMLElement, event), signal);
    on(this.#root, "mouseleave", () => this.#tell(null), signal);
    on(this.#root, "click", (event) => getSelection()?.isCollapsed !== false && this.#jump(event.target as HTMLElement), signal);
  }

  draw(): void {
    const { focus } = this.app;
    const here = this.#here();
    mark(this.el, "wb-bare", here.position < 0);
    setText(this.#empty, here.position < 0 ? NO_STEPS : hasTexts(focus) ? "" : NO_TEXTS);
    setText(this.#note, here.position < 0 ? "" : this.#show(here));
    if (this.#told?.isConnected === false) this.#tell(null);
  }

  /** Show what is chosen; returns the panel's note. */
  #show(here: Here): string {
    const { tape, outputs, position } = here;
    const { shown, seen } = livelyRequests(tape, outputs, position);
    const selected = this.app.state.request;
    const choice: Choice = selected ?? (seen === 1 ? shown[0]! : this.#unselected);
    const offered = selected === null || shown.includes(selected) ? shown : [...shown, selected];
    this.#chips.show(tape, offered, seen, choice, (request) => standingOf(tape, outputs, request, position).ended);
    hide(this.#chips.el, seen < 2 && selected === null);
    const request = choice === "newest" ? newestRequest(tape, shown, position) : choice;
    const view = request === "all" ? this.#tails : this.#whole;
    for (const each of [this.#whole, this.#tails]) hide(each.el, each !== view);
    if (request === "all") this.#tails.draw(here, shown);
    else this.#whole.draw(here, request);
    this.#legend.show(view.counts);
    this.#rove.settle(view.newest);
    return request === "all" ? count(seen, "request") : noteOf(here, request);
  }

  #choose(choice: Choice): void {
    if (typeof choice !== "number") this.#unselected = choice;
    this.app.select(typeof choice === "number" ? choice : null);
  }

  #here(): Here {
    const { tape } = this.app.focus;
    return { tape, outputs: outputsOf(tape), position: Math.min(this.app.state.position, tape.length - 1) };
  }

  #words(el: HTMLElement): string {
    const token = tokenOf(el);
    return token === undefined ? "" : tellToken(this.#here(), token);
  }

  #below(el: HTMLElement | null): void {
    const box = el?.getBoundingClientRect();
    this.#tell(el, box === undefined ? undefined : { clientX: box.left, clientY: box.bottom });
  }

  #tell(el: HTMLElement | null, place?: Pick<MouseEvent, "clientX" | "clientY">): void {
    const words = el === null ? "" : this.#words(el);
    if (words !== "" && place !== undefined) this.app.tooltip.show(words, place);
    else if (this.#told !== null) this.app.tooltip.hide();
    this.#told = words === "" ? null : el;
  }

  #jump(el: HTMLElement): void {
    const token = tokenOf(el);
    if (token === undefined) return;
    const at = whereIs(this.#here(), token);
    this.app.select(token.request, at < 0 ? undefined : at);
  }
}

/** The position whose step brought a token; -1 if none has. */
function whereIs({ tape, outputs, position }: Here, { kind, request, place }: Token): number {
  if (kind === "output") return tape.positionOfRow("tokens", outputs.rows(request)[place]!);
  return kind === "draft" ? position : outputs.computedAt(request, place, position);
}

function noteOf({ tape, outputs, position }: Here, request: number): string {
  const out = outputs.upTo(request, position) - outputs.since(request, position);
  const info = tape.requests[request];
  return `${info?.id ?? ""} · ${standingOf(tape, outputs, request, position).word} · ${out} of at most ${count(info?.max_tokens ?? 0, "token")}`;
}

/** Whether texts are known: a trace has those of all its tokens, or none. */
function hasTexts({ tape }: RunView): boolean {
  const [id] = tape.vocab.keys();
  return id === undefined || hasText(tape, id);
}
