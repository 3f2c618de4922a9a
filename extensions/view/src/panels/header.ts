/** The header: which run, on what, how it stands and what it came to; with several runs, which one the panels speak of. */

import type { App, MakePanel, Panel, RunView } from "../app.js";
import { box, h, hide, on, setText, span } from "../dom.js";
import { count, number, percent } from "../format.js";
import { RunTabs } from "../header/tabs.js";
import { figuresOf } from "../latency/gaps.js";
import type { RunState } from "../wire.js";

const DTYPES: Readonly<Record<string, string>> = { bfloat16: "bf16", float16: "fp16", float32: "fp32" };

export const header: MakePanel = (app, signal) => new Header(app, signal);

class Header implements Panel {
  readonly #name = h("b", { class: "wb-run-name" });
  readonly #model = span("wb-pill");
  readonly #state = h("button", { type: "button", class: "wb-pill wb-state" });
  readonly #speculation = span("wb-pill wb-hidden");
  readonly #figures = new FigureRow();
  readonly #errorWords = span("");
  readonly #error = box("wb-failure wb-hidden", this.#errorWords);
  readonly #tabs: RunTabs;
  readonly el: HTMLElement;

  constructor(
    private readonly app: App,
    signal: AbortSignal,
  ) {
    this.#tabs = new RunTabs(app, signal);
    const line = box("wb-headline", this.#name, this.#model, this.#state, this.#speculation, this.#figures.el);
    this.el = h("header", { class: "wb-header" }, line, this.#error, this.#tabs.el);
    on(this.#state, "click", () => this.#error.classList.toggle("wb-whole"), signal);
  }

  draw(): void {
    const run = this.app.focus;
    setText(this.#name, run.name);
    this.#name.title = run.name;
    setText(this.#model, modelWords(run));
    this.#model.title = [run.meta.model["architecture"], run.meta.model["path"]].filter(Boolean).join(" · ");
    this.#drawState(run);
    hide(this.#speculation, !run.meta.speculation);
    setText(this.#speculation, run.meta.speculation);
    this.#figures.draw(run);
    this.#tabs.draw();
  }

  #drawState(run: RunView): void {
    const { state, error } = run.status;
    this.#state.className = `wb-pill wb-state wb-${state}`;
    setText(this.#state, stateWords(run));
    this.#state.disabled = error === undefined;
    this.#state.title = error === undefined ? STATE_HINTS[state] : `${error.type}: ${error.message}`;
    hide(this.#error, error === undefined);
    if (error === undefined) return;
    const rest = `The steps before it are whole${this.app.live ? ": look at them, go back, or fork" : ""}.`;
    setText(this.#errorWords, `Step ${error.step} failed with ${error.type}: ${error.message}\n${rest}`);
  }
}

/** "paused before step 42". */
export function stateWords(run: RunView): string {
  const { tape, meta, status } = run;
  const next = meta.first_step + tape.length;
  switch (status.state) {
    case "running":
      return tape.length > 0 ? `running · step ${next - 1}` : "running";
    case "paused":
      return `paused before step ${next}`;
    case "finished":
    case "stopped":
      return `${status.state} · ${count(tape.length, "step")}`;
    case "failed":
      return `failed at step ${status.error?.step ?? next}`;
  }
}

const STATE_HINTS: Readonly<Record<RunState, string>> = {
  running: "The engine takes step after step",
  paused: "The engine waits for you: step, run on, go back or fork",
  finished: "Every request came to its end",
  stopped: "Ended by hand; what was unfinished was aborted",
  failed: "A step raised an error",
};

/** "smollm2 · bf16 · cpu"; scripted tokens have neither type nor device. */
function modelWords(run: RunView): string {
  const { name, dtype, device } = run.meta.model;
  return [name, DTYPES[String(dtype)] ?? dtype, device].filter((word) => word && word !== "none").join(" · ");
}

/** The headline figures of the whole run, each over its name. */
class FigureRow {
  readonly #ttft = figure("TTFT p50", "Time to first token, from a request's arrival: the median");
  readonly #itl = figure("ITL p50 / p99", "Inter-token latency, between two tokens of a request: the median, and the 99th percentile");
  readonly #output = figure("output", "Output tokens over the time of all steps");
  readonly #hits = figure("prefix hits", "Share of the prompt tokens looked up that the prefix cache held");
  readonly #verify = figure("tokens per verify", "Tokens of a verification on average: accepted drafts and one more");
  readonly el = h("dl", { class: "wb-figures" }, ...[this.#ttft, this.#itl, this.#output, this.#hits, this.#verify].map((each) => each.el));

  draw(run: RunView): void {
    const found = figuresOf(run);
    show(this.#ttft, Number.isNaN(found.ttftP50) ? "–" : `${number(found.ttftP50)} ms`);
    show(this.#itl, Number.isNaN(found.itlP50) ? "–" : `${number(found.itlP50)} / ${number(found.itlP99)} ms`);
    show(this.#output, found.tokensPerS > 0 ? `${number(found.tokensPerS)} tok/s` : "–");
    show(this.#hits, percent(found.hitRate));
    show(this.#verify, found.perVerify === null ? "" : number(found.perVerify));
  }
}

interface Figure {
  readonly el: HTMLElement;
  readonly value: HTMLElement;
}

function figure(name: string, meaning: string): Figure {
  const value = h("dd", {});
  return { el: h("div", { title: meaning }, h("dt", {}, name), value), value };
}

/** An empty text hides the figure. */
function show(figure: Figure, text: string): void {
  hide(figure.el, text === "");
  setText(figure.value, text);
}
