/** The controls: they move the cursor over the steps, and ask the engine for more, for less or for another future. */

import { type Actions, actionsOf, NO_STEPS, type PlayMode } from "../actions.js";
import type { App, MakePanel, Panel } from "../app.js";
import { Dressed } from "../controls/dressed.js";
import { Rewind } from "../controls/rewind.js";
import { Slider } from "../controls/slider.js";
import { aria, box, h, mark, on } from "../dom.js";
import { count } from "../format.js";
import type { Icon } from "../icons.js";

const SPEEDS = [1, 4, 10, 30, 100]; // steps a second

export const controls: MakePanel = (app, signal) => new Controls(app, actionsOf(app, signal), signal);

class Controls implements Panel {
  readonly #home = new Dressed(() => this.actions.home(), "wb-icon");
  readonly #back = new Dressed(() => this.actions.back(), "wb-icon");
  readonly #play = new Dressed(() => this.actions.toggle(), "wb-icon wb-main");
  readonly #forward = new Dressed(() => this.actions.forward(), "wb-icon");
  readonly #end = new Dressed(() => this.actions.end(), "wb-icon");
  readonly #follow = new Dressed(() => this.actions.follow(), "wb-follow");
  readonly #knobs = new Dressed(() => (this.actions.pending.open = !this.actions.pending.open));
  readonly #fork = new Dressed(() => void this.actions.fork(), "wb-main");
  readonly #rewind: Rewind;
  readonly #stop = new Dressed(() => this.actions.stop());
  readonly #abort = new Dressed(() => this.actions.abort());
  readonly #add = new Dressed(() => this.#addPrompt());
  readonly #slider: Slider;
  readonly #speed = speeds();
  readonly el: HTMLElement;

  constructor(
    private readonly app: App,
    private readonly actions: Actions,
    signal: AbortSignal,
  ) {
    this.#slider = new Slider(app, signal);
    this.#rewind = new Rewind(actions, signal);
    on(this.#speed, "change", () => app.set({ speed: Number(this.#speed.value) }), signal);
    const moves = [this.#home, this.#back, this.#play, this.#forward, this.#end].map((each) => each.el);
    const asks = [this.#knobs, this.#fork, this.#rewind.button, this.#stop, this.#abort, this.#add].map((each) => each.el);
    this.el = h(
      "div",
      { class: "wb-controls", role: "group", "aria-label": "Steps" },
      box("wb-group", ...moves),
      this.#slider.el,
      box("wb-group", this.#follow.el, this.#speed),
      box("wb-group wb-asks", ...asks),
    );
  }

  draw(): void {
    this.el.style.colorScheme = this.app.theme.dark ? "dark" : "light";
    this.#drawMoves();
    this.#slider.draw();
    const { speed } = this.app.state;
    if (this.#speed.value !== String(speed)) choose(this.#speed, speed);
    this.#drawAsks();
  }

  #drawMoves(): void {
    const { actions, app } = this;
    const { length } = app.focus.tape;
    const first = length === 0 ? NO_STEPS : app.state.position <= 0 ? "this is the first step" : "";
    const last = length === 0 ? NO_STEPS : actions.atEnd ? "this is the newest step" : "";
    this.#home.wear({ name: "First step", icon: "home", hint: "Home", off: first });
    this.#back.wear({ name: "One step back", icon: "back", hint: "←", off: first });
    this.#play.wear(playDress(actions));
    this.#end.wear({ name: "Newest step", icon: "end", hint: "End", off: last });
    const steps = actions.ended === "" && app.focus.status.state === "paused";
    if (actions.atEnd && steps) this.#forward.wear({ name: "Let the engine take one step", icon: "forward", hint: "→" });
    else this.#forward.wear({ name: "One step on", icon: "forward", hint: "→", off: last });
    const newest = app.focus.meta.first_step + Math.max(0, length - 1);
    const face = length === 0 ? "no steps · follow" : `${actions.step} / ${newest} · follow`;
    this.#follow.wear({ name: "Follow", hint: "stay on the newest step (F)", face });
    aria(this.#follow.el, "pressed", app.state.follow);
  }

  #drawAsks(): void {
    const { actions, app } = this;
    const { pending, step } = actions;
    const changed = pending.count > 0 ? ` with ${count(pending.count, "changed knob")}` : "";
    const off = app.live ? actions.unreachable : "";
    const hint = `step ${step} is decided again${changed}, on an engine of its own: two futures`;
    this.#fork.wear({ name: `Fork at step ${step}`, hint, face: "fork here", off, busy: actions.busy("fork") });
    this.#knobs.wear({ name: "Knobs", hint: "settings of the engine, and prompts to add", face: `knobs${pending.count > 0 ? ` · ${pending.count}` : ""} ▾`, off: actions.deaf });
    aria(this.#knobs.el, "expanded", pending.open);
    mark(this.#knobs.el, "wb-changed", pending.count > 0);
    this.#rewind.draw();
    this.#stop.wear({ name: "Stop", hint: "end the run after this step and keep what is there", face: "stop", off: actions.ended, busy: actions.busy("stop") });
    const selected = app.state.request === null ? "" : (app.focus.tape.requests[app.state.request]?.id ?? "");
    this.#abort.wear({ name: `Abort ${selected}`, hint: "end this request before the next step", face: `abort ${selected}`, off: actions.unabortable, busy: actions.busy("abort") });
    this.#add.wear({ name: "Add a prompt", hint: "it joins the queue before the next step", face: "add prompt", off: actions.ended, busy: actions.busy("add") });
    for (const each of [this.#knobs, this.#rewind.button, this.#stop, this.#add]) each.show(app.live);
    this.#abort.show(app.live && selected !== "");
  }

  #addPrompt(): void {
    this.actions.pending.open = true;
    requestAnimationFrame(() => this.el.closest(".wb-view")?.querySelector<HTMLElement>(".wb-prompt textarea")?.focus());
  }
}

const PLAY: Readonly<Record<PlayMode, { readonly name: string; readonly icon: Icon; readonly face?: string; readonly off?: string }>> = {
  halt: { name: "Stand still", icon: "pause" },
  pause: { name: "Pause the engine after this step", icon: "pause" },
  branch: { name: "Branch", icon: "play", face: "branch" },
  apply: { name: "Apply the changed knobs and run on", icon: "play", face: "apply" },
  resume: { name: "Let the engine run on", icon: "play" },
  walk: { name: "Walk through the recorded steps", icon: "play" },
  again: { name: "Walk through the recorded steps again", icon: "play" },
  nothing: { name: "Walk through the recorded steps", icon: "play", off: "there are no steps to walk through" },
};

/** Which question to the kernel each meaning of ▶ waits for. */
const ASKED: Readonly<Partial<Record<PlayMode, string>>> = { pause: "pause", branch: "fork", apply: "change", resume: "resume" };

function playDress(actions: Actions): Parameters<Dressed["wear"]>[0] {
  const mode = actions.playMode;
  const changes = Object.entries(actions.pending.changes).map(([name, value]) => `${name} = ${String(value)}`);
  const name = mode === "branch" ? `Branch from step ${actions.step} with ${changes.join(", ")}` : PLAY[mode].name;
  const asked = ASKED[mode];
  return { ...PLAY[mode], name, hint: "Space", busy: asked !== undefined && actions.busy(asked) };
}

function speeds(): HTMLSelectElement {
  const options = SPEEDS.map((speed) => h("option", { value: String(speed) }, `${speed}/s`));
  return h("select", { class: "wb-select", "aria-label": "Speed of the walk", title: "Steps a second while the cursor walks" }, ...options);
}

/** Choose a speed, also one that is not among those offered. */
function choose(select: HTMLSelectElement, speed: number): void {
  if (![...select.options].some((option) => option.value === String(speed))) select.append(h("option", { value: String(speed) }, `${speed}/s`));
  select.value = String(speed);
}
