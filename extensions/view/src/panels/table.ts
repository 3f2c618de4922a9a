/** The data tables: what the pictures show, for those who do not see them and those who like numbers. */

import type { App, MakePanel, Panel } from "../app.js";
import { aria, box, button, h, hide, mark } from "../dom.js";
import { RequestTable } from "../table/requests.js";
import { StepTable } from "../table/steps.js";

export const table: MakePanel = (app, signal) => new Tables(app, signal);

class Tables implements Panel {
  readonly #toggle = button("table", "Show steps and requests as tables", () => this.#turn());
  readonly #steps: StepTable;
  readonly #requests: RequestTable;
  readonly #body: HTMLElement;
  readonly el: HTMLElement;
  #open = false;

  constructor(
    private readonly app: App,
    signal: AbortSignal,
  ) {
    this.#steps = new StepTable(app, signal);
    this.#requests = new RequestTable(app);
    this.#body = box("wb-tables wb-hidden", this.#steps.el, this.#requests.el);
    aria(this.#toggle, "expanded", "false");
    this.el = h("section", { class: "wb-panel wb-table", "aria-label": "Tables" }, this.#toggle, this.#body);
  }

  draw(): void {
    if (!this.#open) return;
    this.#steps.draw();
    this.#requests.draw();
  }

  #turn(): void {
    this.#open = !this.#open;
    aria(this.#toggle, "expanded", this.#open);
    hide(this.#body, !this.#open);
    mark(this.el, "wb-open", this.#open);
    this.app.redraw();
  }
}
