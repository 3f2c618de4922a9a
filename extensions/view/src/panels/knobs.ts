/** The drawer of knobs: those that change between two steps, those that take a branch, and prompts to add. */

import { type Actions, actionsOf } from "../actions.js";
import type { App, MakePanel, Panel } from "../app.js";
import { Dressed } from "../controls/dressed.js";
import { box, h, hide, leave, on, setText, span } from "../dom.js";
import { Field } from "../knobs/field.js";
import { PromptForm } from "../knobs/prompt.js";
import type { Knob } from "../wire.js";

export const knobs: MakePanel = (app, signal) => new Knobs(app, actionsOf(app, signal), signal);

class Knobs implements Panel {
  readonly #groups = box("wb-knob-groups");
  readonly #apply = new Dressed(() => void this.#send("change"), "wb-main");
  readonly #branch = new Dressed(() => void this.#send("fork"), "wb-main");
  readonly #reset = new Dressed(() => this.#takeAllBack());
  readonly #refusal = span("wb-problem");
  readonly #prompt: PromptForm;
  readonly el: HTMLElement;
  #fields: readonly Field[] = [];
  #shown: readonly Knob[] | undefined; // what the fields are made of
  #run = -1; // and whose

  constructor(
    private readonly app: App,
    private readonly actions: Actions,
    private readonly signal: AbortSignal,
  ) {
    this.#prompt = new PromptForm(app, actions, signal);
    const send = box("wb-row", this.#apply.el, this.#branch.el, this.#reset.el, this.#refusal);
    this.el = h("section", { class: "wb-knobs wb-hidden", "aria-label": "Knobs" }, this.#groups, send, this.#prompt.el);
    on(this.el, "keydown", (event) => this.#pressed(event), signal);
  }

  draw(): void {
    const { pending } = this.actions;
    const open = pending.open && this.app.live;
    hide(this.el, !open);
    if (!open) return;
    const { meta } = this.app.focus;
    this.el.style.colorScheme = this.app.theme.dark ? "dark" : "light";
    if (this.#shown !== meta.knobs || this.#run !== this.app.focus.run) this.#build(meta.knobs);
    for (const field of this.#fields) field.draw();
    this.#drawSend();
    this.#prompt.draw();
  }

  #drawSend(): void {
    const { actions } = this;
    const { pending, step } = actions;
    const invalid = this.#fields.find((field) => field.problem !== "");
    const wrong = invalid === undefined ? "" : `${invalid.knob.name} ${invalid.problem}`;
    const none = pending.count === 0 ? "no knob is changed" : "";
    const past = actions.atEnd ? "" : "the cursor is in the past: branch from there, or go to the newest step";
    const forks = pending.forkOnly.length > 0 ? `${pending.forkOnly.join(", ")} cannot change between two steps: branch` : "";
    const off = wrong || none;
    this.#apply.wear({ name: "Apply now", hint: "from the next step on", face: "Apply now", off: actions.ended || off || past || forks, busy: actions.busy("change") });
    const face = `Branch from step ${step} with these`;
    this.#branch.wear({ name: face, hint: "this step is decided again, on an engine of its own", face, off: actions.unreachable || off, busy: actions.busy("fork") });
    this.#reset.wear({ name: "Take all changes back", face: "↺ reset", off: wrong === "" ? none : "" });
  }

  #build(knobs: readonly Knob[]): void {
    const same = this.#run === this.app.focus.run && JSON.stringify(this.#shown) === JSON.stringify(knobs);
    this.#shown = knobs;
    if (same) return; // the run was described once more: who is typing goes on
    this.#run = this.app.focus.run;
    const usable = knobs.filter((knob) => knob.live || knob.fork);
    this.#fields = usable.map((knob) => new Field(knob, this.app.focus.run, this.actions.pending, this.signal));
    const groups = [...new Set(usable.map((knob) => knob.group))];
    const made = groups.map((group) => {
      const fields = this.#fields.filter((field) => field.knob.group === group).map((field) => field.el);
      return h("fieldset", {}, h("legend", {}, group || "other"), box("wb-knob-grid", ...fields));
    });
    this.#groups.replaceChildren(...made);
    setText(this.#refusal, "");
  }

  /** Send the changes; what the kernel refuses stands beside the field that it names, else beside the buttons. */
  async #send(op: "change" | "fork"): Promise<void> {
    setText(this.#refusal, "");
    const refusal = op === "fork" ? await this.actions.fork() : await this.actions.apply();
    if (refusal === "") return;
    const field = this.#fields.find((each) => refusal.startsWith(each.knob.name));
    if (field === undefined) setText(this.#refusal, refusal);
    else field.refuse(refusal);
    this.app.redraw();
  }

  #takeAllBack(): void {
    this.actions.pending.drop(this.app.focus.run);
    this.#run = -1; // fields with a problem begin anew as well
    this.app.redraw();
  }

  #pressed(event: KeyboardEvent): void {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    this.actions.pending.open = false;
    leave(this.el);
  }
}
