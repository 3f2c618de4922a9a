/** `RequestTable`: the requests in sight at the cursor as a real table, each with the reason for what it did. */

import type { App } from "../app.js";
import { aria, box, button, entitle, h, setText } from "../dom.js";
import { count, whole } from "../format.js";
import { outputsOf } from "../text/output.js";
import { standingOf } from "../text/standing.js";
import { reasonWords } from "../timeline/words.js";

const MOST = 100; // rows
const COLUMNS = ["request", "state", "computed", "cached", "out", "why"];

export class RequestTable {
  readonly #caption = h("caption", {});
  readonly #body = h("tbody", {});
  readonly #rest = h("p", { class: "wb-dim" });
  readonly el: HTMLElement;
  readonly #rows: Row[] = [];

  constructor(private readonly app: App) {
    const head = h("tr", {}, ...COLUMNS.map((name) => h("th", { scope: "col" }, name)));
    this.el = box("wb-requests", box("wb-scroll", h("table", {}, this.#caption, h("thead", {}, head), this.#body)), this.#rest);
  }

  draw(): void {
    const { tape, meta } = this.app.focus;
    const { position } = this.app.state;
    const [first, end] = tape.rows("lanes", position);
    const shown = Math.min(end - first, MOST);
    setText(this.#caption, `${count(end - first, "request")} in sight in step ${meta.first_step + Math.max(0, position)}; token counts are those after it`);
    setText(this.#rest, end - first > shown ? `and ${end - first - shown} more` : "");
    while (this.#rows.length < shown) this.#rows.push(new Row(this.app));
    for (let i = this.#body.children.length; i < shown; i++) this.#body.append(this.#rows[i]!.el);
    while (this.#body.children.length > shown) this.#body.lastChild!.remove();
    const reasons = new Map(this.app.why(meta.first_step + position)?.rows.map((row) => [row.request, row.sentence]) ?? []);
    for (let i = 0; i < shown; i++) this.#rows[i]!.fill(first + i, position, reasons);
  }
}

class Row {
  #request = 0;
  readonly #name = button("", "", () => this.app.select(this.#request), "wb-plain");
  readonly #cells = COLUMNS.slice(1).map(() => h("td", {}));
  readonly el = h("tr", {}, h("th", { scope: "row" }, this.#name), ...this.#cells);

  constructor(private readonly app: App) {}

  fill(lane: number, position: number, reasons: ReadonlyMap<string, string>): void {
    const { tape } = this.app.focus;
    this.#request = tape.column("lanes.request")[lane]!;
    const id = tape.requests[this.#request]?.id ?? "?";
    setText(this.#name, id);
    entitle(this.#name, `Select ${id}`);
    aria(this.el, "current", this.app.state.request === this.#request);
    const outputs = outputsOf(tape);
    const out = outputs.upTo(this.#request, position) - outputs.since(this.#request, position);
    const numbers = [outputs.computed(this.#request, position), outputs.promptCached(this.#request, position), out];
    const state = standingOf(tape, outputs, this.#request, position).word;
    const why = reasons.get(id) ?? reasonWords(this.app.focus, lane);
    [state, ...numbers.map(whole), why].forEach((text, i) => setText(this.#cells[i]!, text));
  }
}
