/** The tabs of a header: a letter, the name and the difference of every run, and where it parted from the other. */

import type { App, RunView } from "../app.js";
import { aria, box, button, h, hide, on, setText, span, take } from "../dom.js";
import type { KnobValue } from "../wire.js";

const NOTED = 3; // knobs named in a tab

export class RunTabs {
  readonly #list = h("div", { class: "wb-run-tabs", role: "tablist", "aria-label": "Runs" });
  readonly #words = span("");
  readonly #go = button("go there", "Put the cursor on the first step that differs", () => this.#goThere(), "wb-small");
  readonly #parted = h("p", { class: "wb-parted wb-hidden" }, this.#words, " ", this.#go);
  readonly el = box("wb-runs wb-hidden", this.#list, this.#parted);

  constructor(
    private readonly app: App,
    signal: AbortSignal,
  ) {
    on(this.#list, "keydown", (event) => this.#pressed(event), signal);
  }

  draw(): void {
    const { runs, focus } = this.app;
    hide(this.el, runs.length < 2);
    if (runs.length < 2) return;
    while (this.#list.children.length < runs.length) this.#list.append(this.#makeTab());
    while (this.#list.children.length > runs.length) this.#list.lastChild!.remove();
    runs.forEach((run, place) => drawTab(this.#list.children[place] as HTMLButtonElement, run, place, this.app));
    const parted = this.#partedRun();
    hide(this.#parted, parted === undefined);
    setText(this.#words, parted?.parted?.sentence ?? "");
    const position = parted?.parted?.position ?? 0;
    hide(this.#go, this.app.state.position === position || position >= focus.tape.length);
  }

  #makeTab(): HTMLButtonElement {
    const parts = ["wb-letter", "wb-run-tab-name", "wb-run-tab-note"].map((cls) => span(cls));
    const tab = h("button", { type: "button", role: "tab", class: "wb-run-tab" }, ...parts);
    tab.addEventListener("click", () => this.#choose([...this.#list.children].indexOf(tab)));
    return tab;
  }

  #choose(place: number): void {
    const run = this.app.runs[place];
    if (run !== undefined) this.app.set({ focus: run.run });
  }

  /** Arrow keys go from tab to tab, and no further: the cursor stays. */
  #pressed(event: KeyboardEvent): void {
    const tabs = [...this.#list.children] as HTMLElement[];
    const now = this.app.runs.indexOf(this.app.focus);
    const places: Readonly<Record<string, number>> = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: tabs.length - 1 };
    const place = places[event.key];
    if (place === undefined) return;
    take(event);
    const next = (place + tabs.length) % tabs.length;
    this.#choose(next);
    tabs[next]!.focus();
  }

  /** The run whose parting is told: the focused one, or, when that is the base, the last that parted from it. */
  #partedRun(): RunView | undefined {
    const { runs, focus } = this.app;
    return focus.parted !== undefined ? focus : runs.filter((run) => run.parted !== undefined && (run.parent ?? 0) === focus.run).at(-1);
  }

  #goThere(): void {
    const parted = this.#partedRun()?.parted;
    if (parted !== undefined) this.app.go(parted.position);
  }
}

function drawTab(tab: HTMLButtonElement, run: RunView, place: number, app: App): void {
  const chosen = run === app.focus;
  const [letter, name, note] = [...tab.children];
  aria(tab, "selected", chosen);
  tab.tabIndex = chosen ? 0 : -1;
  setText(letter!, letterOf(place));
  setText(name!, run.name);
  const words = noteOf(run, app.runs);
  setText(note!, words);
  tab.title = [`${letterOf(place)}: ${run.name}`, words, chosen ? "" : "Click to let the panels speak of it"].filter(Boolean).join("\n");
}

/** a, b, … z, then numbers: as comparisons call them. */
export const letterOf = (place: number): string => (place < 26 ? String.fromCharCode(97 + place) : String(place + 1));

/** "from step 41 · max_num_seqs 3 instead of 16". */
function noteOf(run: RunView, runs: readonly RunView[]): string {
  const base = runs.find((other) => other.run === run.parent) ?? runs[0]!;
  if (base === run) return "";
  const from = run.forkStep === undefined ? [] : [`from step ${run.forkStep}`];
  return [...from, ...differences(run, base)].join(" · ");
}

/** Knobs that the two engines have set differently now, or, of a branch, other than when it parted; the first few by name. */
function differences(run: RunView, base: RunView): string[] {
  const [own, now] = [run, base].map((each) => ({ ...each.meta.config, ...each.status.config })) as [Config, Config];
  const others = run.fork_config ?? now;
  const names = Object.keys(own).filter((name) => name in others && own[name] !== others[name]);
  const words = names.slice(0, NOTED).map((name) => `${name} ${inWords(own[name]!)} instead of ${inWords(others[name]!)}`);
  return names.length > NOTED ? [...words, `${names.length - NOTED} more`] : words;
}

type Config = Readonly<Record<string, KnobValue>>;

const inWords = (value: KnobValue): string => (value === null ? "auto" : typeof value === "boolean" ? (value ? "on" : "off") : String(value));
