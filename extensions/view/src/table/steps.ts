/** `StepTable`: the steps around the cursor as a real table, a window of rows at a time. */

import type { App, RunView } from "../app.js";
import { aria, box, button, entitle, h, on, setText } from "../dom.js";
import { number, whole } from "../format.js";
import { happenings } from "./happenings.js";

const ROWS = 25;
const COLUMNS = ["step", "ms", "tokens", "running", "waiting", "KV in use", "KV cached", "KV free", "what happened"];

export class StepTable {
  readonly #rows = Array.from({ length: ROWS }, () => new Row());
  readonly #caption = h("caption", {});
  readonly #earlier = button("‹ earlier", "Show earlier steps", () => this.#turn(-ROWS));
  readonly #later = button("later ›", "Show later steps", () => this.#turn(ROWS));
  readonly el: HTMLElement;
  #first = 0; // position in the first row
  #cursor = -1; // for which the window was laid
  #shown = ""; // what the rows were filled with

  constructor(
    private readonly app: App,
    signal: AbortSignal,
  ) {
    const head = h("tr", {}, ...COLUMNS.map((name) => h("th", { scope: "col" }, name)));
    const body = h("tbody", {}, ...this.#rows.map((row) => row.el));
    const table = h("table", {}, this.#caption, h("thead", {}, head), body);
    this.el = h("div", {}, box("wb-scroll", table), box("wb-row", this.#earlier, this.#later));
    on(body, "click", (event) => this.#chosen(event), signal);
  }

  draw(): void {
    const { focus, state } = this.app;
    if (this.#cursor !== state.position) this.#lay(state.position);
    this.#first = this.#within(this.#first);
    const shown = `${focus.run} ${focus.tape.version} ${focus.tape.cuts.length} ${this.#first}`;
    if (shown !== this.#shown) this.#fill(focus);
    this.#shown = shown;
    this.#rows.forEach((row, i) => row.mark(this.#first + i === state.position));
    this.#earlier.disabled = this.#first === 0;
    this.#later.disabled = this.#first + ROWS >= focus.tape.length;
  }

  #fill(run: RunView): void {
    const { length } = run.tape;
    const at = run.meta.first_step + this.#first;
    const last = Math.min(length, this.#first + ROWS) - 1;
    setText(this.#caption, length === 0 ? "No steps yet" : `Steps ${at} to ${run.meta.first_step + last} of ${run.name}`);
    this.#rows.forEach((row, i) => row.fill(run, this.#first + i));
  }

  /** Lay the window so that the cursor is in it; it stays where it is while it holds the cursor. */
  #lay(position: number): void {
    this.#cursor = position;
    if (position < this.#first || position >= this.#first + ROWS) this.#first = position - (ROWS >> 1);
  }

  #within(first: number): number {
    return Math.max(0, Math.min(first, this.app.focus.tape.length - ROWS));
  }

  #turn(rows: number): void {
    this.#first = this.#within(this.#first + rows);
    this.app.redraw();
  }

  #chosen(event: Event): void {
    const place = this.#rows.findIndex((row) => row.el.contains(event.target as Node));
    if (place >= 0) this.app.go(this.#first + place);
  }
}

class Row {
  readonly #step = button("", "", () => undefined, "wb-plain"); // the click is heard by the table's body
  readonly #cells = COLUMNS.slice(1).map(() => h("td", {}));
  readonly el = h("tr", {}, h("th", { scope: "row" }, this.#step), ...this.#cells);

  fill({ tape, meta }: RunView, position: number): void {
    this.el.hidden = position >= tape.length;
    if (this.el.hidden) return;
    const step = String(meta.first_step + position);
    setText(this.#step, step);
    entitle(this.#step, `Go to step ${step}`);
    const at = (name: string): string => whole(tape.at(name, position));
    const tokens = `${at("token_used")} / ${at("token_limit")}`;
    const numbers = ["running", "waiting", "kv_in_use", "kv_cached", "kv_free"].map(at);
    [milliseconds(tape.durationMs(position)), tokens, ...numbers, happenings(tape, position)].forEach((text, i) => setText(this.#cells[i]!, text));
  }

  mark(current: boolean): void {
    if (current) aria(this.el, "current", "step");
    else this.el.removeAttribute("aria-current");
  }
}

/** With as many digits in every row, so that the column can be read downwards. */
const milliseconds = (value: number): string => (value < 1 ? number(value) : value.toFixed(1));
