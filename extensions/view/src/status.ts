/** `StatusLine`: where the cursor stands, in words and at most once a second, and what the view has to say. */

import type { App } from "./app.js";
import { box, button, h, hide, mark, setText, span } from "./dom.js";
import { percent } from "./format.js";

const EVERY_MS = 1000; // a screen reader reads every change aloud

export class StatusLine {
  readonly #where = h("span", { class: "wb-where", role: "status", "aria-live": "polite" });
  readonly #words = span("");
  readonly #message = box("wb-message wb-hidden", this.#words);
  readonly el = box("wb-status", this.#where, this.#message);
  #last = -EVERY_MS;
  #timer = 0;

  constructor() {
    this.#message.append(button("×", "Dismiss this message", () => this.say("")));
  }

  /** Show a message until it is dismissed or another takes its place; an error is announced at once.  An empty text hides it. */
  say(text: string, isError = false): void {
    this.#message.setAttribute("role", isError ? "alert" : "status");
    mark(this.#message, "wb-error", isError);
    hide(this.#message, text === "");
    setText(this.#words, text);
  }

  /** Tell where the cursor stands, now or as soon as a second has passed since the last time. */
  update(app: App): void {
    if (this.#timer !== 0) return;
    const wait = Math.max(0, this.#last + EVERY_MS - performance.now());
    if (wait === 0) return this.#tell(app);
    this.#timer = window.setTimeout(() => {
      this.#timer = 0;
      if (this.el.isConnected) this.#tell(app);
    }, wait);
  }

  #tell(app: App): void {
    this.#last = performance.now();
    setText(this.#where, whereWords(app));
  }
}

/** "step 41: 5 running, 2 waiting, KV 63 %". */
function whereWords(app: App): string {
  const { tape, meta, name } = app.focus;
  const { position } = app.state;
  if (tape.length === 0) return "no steps yet";
  const of = app.runs.length > 1 ? `${name}, ` : "";
  if (position >= tape.length) return `${of}ended before this step`;
  const inUse = tape.at("kv_in_use", position);
  const blocks = inUse + tape.at("kv_cached", position) + tape.at("kv_free", position);
  const share = blocks > 0 ? `, KV ${percent(inUse / blocks)}` : "";
  const queues = `${tape.at("running", position)} running, ${tape.at("waiting", position)} waiting`;
  return `${of}step ${meta.first_step + position}: ${queues}${share}`;
}
