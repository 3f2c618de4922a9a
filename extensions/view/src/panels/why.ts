/** The why panel: for every request of the step at the cursor what was decided and why, and what would have changed it, as buttons. */

import type { App, MakePanel, Panel } from "../app.js";
import { nameOf } from "../blocks/words.js";
import { aria, box, button, h, mark, section, setText, span, whenOver } from "../dom.js";
import { count } from "../format.js";
import { same } from "../plot.js";
import { requestColour } from "../theme.js";
import { type Line, linesOf } from "../why/lines.js";
import { commandsOf, summaryOf } from "../why/words.js";
import type { Why, WhyRow } from "../wire.js";

const REST_MS = 120; // the cursor must rest so long before the kernel is asked: it has better to do than to explain steps that fly by
const MOST_NAMES = 8; // of requests in one line

type Change = WhyRow["changes"][number];

export const why: MakePanel = (app, signal) => new WhyPanel(app, signal);

class WhyPanel implements Panel {
  readonly el: HTMLElement;
  readonly #title: HTMLElement;
  readonly #summary = box("wb-why-summary");
  readonly #list = h("ul", { class: "wb-why-list" });
  readonly #unfolded = new Set<string>(); // by the names of a line's requests: they stay so from step to step
  readonly #busy = new Set<string>(); // changes that are being tried
  #drawn: readonly unknown[] = [];
  #place = ""; // run and step at the cursor,
  #sinceMs = 0; // and since when
  #timer: number | undefined;
  #least: readonly [of: string, height: number] = ["", 0];

  constructor(
    private readonly app: App,
    signal: AbortSignal,
  ) {
    const { el, title, body } = section("wb-why", "why");
    this.el = el;
    this.#title = title;
    body.append(this.#summary, this.#list);
    whenOver(signal, () => clearTimeout(this.#timer));
  }

  draw(): void {
    const { focus, state } = this.app;
    const { tape } = focus;
    const step = tape.firstStep + state.position;
    const there = state.position < tape.length;
    const told = there ? this.#told(step) : undefined;
    const busy = [...this.#busy].join();
    const drawn = [focus.run, step, there, told, tape.cuts.length, state.request, focus.live, this.app.live, busy, [...this.#unfolded].join()];
    if (same(drawn, this.#drawn)) return;
    this.#drawn = drawn;
    setText(this.#title, there ? `why, at step ${step}` : "why");
    this.#fill(there, told);
    if (told !== undefined) this.#keepHeight();
  }

  /** The explanation, if it is here or the cursor has rested long enough to ask for it. */
  #told(step: number): Why | undefined {
    const { focus } = this.app;
    const place = `${focus.run}:${step}`;
    if (place !== this.#place) {
      this.#place = place;
      this.#sinceMs = performance.now();
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.app.redraw(), REST_MS);
    }
    // Asked again while it rests, as what came after a step is told too, and more of it may have come.
    return performance.now() - this.#sinceMs >= REST_MS ? this.app.why(step) : focus.whys.get(step);
  }

  #fill(there: boolean, told: Why | undefined): void {
    const { focus, state } = this.app;
    if (!there) {
      this.#summary.replaceChildren(span("wb-dim", "no step yet"));
      this.#list.replaceChildren();
      return;
    }
    const flags = (told?.commands ?? commandsOf(focus.tape, state.position)).map((text) => span("wb-why-flag", `⚑ ${text}`));
    this.#summary.replaceChildren(span("", told?.summary ?? summaryOf(focus.tape, state.position)), ...flags);
    this.#list.replaceChildren(...linesOf(focus, state.position, told, state.request).map((line) => this.#line(line)));
  }

  #line(line: Line): HTMLElement {
    const selected = line.requests.length === 1 && line.requests[0] === this.app.state.request;
    const what = box("wb-why-what", span("", line.sentence));
    const open = line.more.length > 0 && (selected || this.#unfolded.has(key(line)));
    for (const change of line.changes) what.append(" ", this.#chip(change));
    if (line.hopeless && this.app.focus.live) what.append(" ", span("wb-dim", "no single knob would have let it run"));
    if (line.more.length > 0 && !selected) what.append(" ", this.#fold(line, open));
    if (open) what.append(h("ul", { class: "wb-why-more" }, ...line.more.map((text) => h("li", {}, text))));
    const made = h("li", { class: "wb-why-row" }, this.#names(line), span("wb-why-label", line.label), what);
    if (selected) aria(made, "current", "true");
    return made;
  }

  #names({ requests }: Line): HTMLElement {
    const { tape } = this.app.focus;
    const shown = requests.slice(0, requests.length > MOST_NAMES ? MOST_NAMES - 1 : MOST_NAMES);
    const made = span("wb-why-names", ...shown.map((request) => this.#name(request)));
    const rest = requests.slice(shown.length).map((request) => nameOf(tape, request));
    if (rest.length > 0) made.append(h("span", { class: "wb-dim", title: rest.join(" ") }, `+${rest.length}`));
    return made;
  }

  #name(request: number): HTMLElement {
    const name = nameOf(this.app.focus.tape, request);
    const selected = request === this.app.state.request;
    const made = button(name, selected ? `Select no request` : `Select ${name}`, () => this.app.select(selected ? null : request), "wb-why-name");
    made.style.color = requestColour(Math.max(0, request));
    return made;
  }

  #fold(line: Line, open: boolean): HTMLElement {
    const names = line.requests.length > 1 ? count(line.requests.length, "request") : nameOf(this.app.focus.tape, line.requests[0]!);
    const made = button(open ? "less" : "more", `${open ? "Less" : "More"} about ${names}`, () => this.#toggle(key(line)), "wb-why-fold");
    aria(made, "expanded", open);
    return made;
  }

  #toggle(which: string): void {
    if (!this.#unfolded.delete(which)) this.#unfolded.add(which);
    this.app.redraw();
  }

  #chip(change: Change): HTMLElement {
    const busy = this.#busy.has(this.#named(change));
    const made = button(change.label, `Run a branch: ${change.label}`, () => void this.#try(change), "wb-chip");
    made.classList.remove("wb-button");
    made.disabled = busy;
    mark(made, "wb-busy", busy);
    aria(made, "busy", busy);
    return made;
  }

  readonly #named = (change: Change): string => `${this.#place} ${JSON.stringify(change.fork)}`;

  async #try(change: Change): Promise<void> {
    const { app } = this;
    if (!app.live || !app.focus.live) return app.say("open run.view() in a kernel to run this branch");
    const named = this.#named(change);
    this.#busy.add(named);
    app.redraw();
    try {
      await app.ask("fork", { step: app.focus.tape.firstStep + app.state.position, changes: change.fork, resume: true });
    } catch (error) {
      app.say(error instanceof Error ? error.message : String(error), true);
    } finally {
      this.#busy.delete(named);
      app.redraw();
    }
  }

  /** The list keeps the height that it once needed, within limits, so that what is below it does not jump from step to step. */
  #keepHeight(): void {
    if (this.#list.querySelector(".wb-why-more") !== null) return; // what was unfolded may fold again
    const of = `${this.app.focus.run}:${this.#list.clientWidth}`;
    if (this.#least[0] !== of) this.#list.style.minHeight = "";
    const height = Math.max(this.#least[0] === of ? this.#least[1] : 0, this.#list.offsetHeight);
    this.#least = [of, height];
    this.#list.style.minHeight = `${height}px`;
  }
}

const key = (line: Line): string => line.requests.join();
