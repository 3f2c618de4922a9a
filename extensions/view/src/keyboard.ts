/** The keys of a view: they work wherever the focus is inside of it, except where a field or a button uses the same key itself. */

import type { Actions } from "./actions.js";
import type { App } from "./app.js";
import { aria, button, h, leave, on, take } from "./dom.js";

const LARGE = 10; // steps with Shift

const HELP = [
  ["← →", "one step back or on; with Shift ten"],
  ["Home, End", "first and newest step"],
  ["Space", "play, pause, run on"],
  ["F", "stay on the newest step"],
  ["+ − 0", "zoom in, out, and all steps"],
  ["?", "these keys"],
] as const;

/** Listen on `root` until `signal` aborts.  A key that was used goes no further, so that the page's own shortcuts stay still. */
export function listenToKeys(root: HTMLElement, app: App, actions: Actions, signal: AbortSignal): void {
  root.tabIndex = 0;
  root.setAttribute("role", "group"); // not "application": that would take the reading keys of screen readers away
  aria(root, "keyshortcuts", "ArrowLeft ArrowRight Home End Space F + - 0 ?");
  root.dataset["lmSuppressShortcuts"] = "true";
  const help = new Help(root);
  const heard = (event: KeyboardEvent): void => (app.runs.length > 0 ? pressed(event, root, actions, help) : undefined);
  on(root, "keydown", heard, signal);
}

function pressed(event: KeyboardEvent, root: HTMLElement, actions: Actions, help: Help): void {
  if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (isTaken(event)) return event.stopPropagation();
  const act = verb(event, root, actions, help);
  if (act === undefined) return;
  take(event);
  act();
}

/** Whether the element in focus uses the key itself. */
function isTaken(event: KeyboardEvent): boolean {
  const target = event.composedPath()[0];
  if (!(target instanceof HTMLElement)) return false;
  const moves = event.key.startsWith("Arrow") || ["Home", "End", "PageUp", "PageDown"].includes(event.key);
  if (target instanceof HTMLInputElement && target.type === "range") return moves;
  if (target.matches("input, textarea, select") || target.isContentEditable) return true;
  return event.key === " " && target.matches("button, summary, a, [role=button]");
}

function verb(event: KeyboardEvent, root: HTMLElement, actions: Actions, help: Help): (() => void) | undefined {
  const steps = event.shiftKey ? LARGE : 1;
  switch (event.key) {
    case "ArrowLeft":
      return () => actions.back(steps);
    case "ArrowRight":
      return () => actions.forward(steps, event.repeat);
    case "Home":
      return () => actions.home();
    case "End":
      return () => actions.end();
    case " ":
      return () => event.repeat || actions.toggle();
    case "f":
    case "F":
      return () => actions.follow();
    case "+":
    case "=":
      return () => press(root, "show fewer steps");
    case "-":
    case "−":
      return () => press(root, "show more steps");
    case "0":
      return () => press(root, "show the whole run");
    case "?":
      return () => help.toggle();
    default:
      return undefined;
  }
}

/** Zooming belongs to the timeline: the key presses its button. */
function press(root: HTMLElement, label: string): void {
  root.querySelector<HTMLButtonElement>(`.wb-timeline button[aria-label="${label}"]`)?.click();
}

/** The list of keys, above everything else on the page. */
class Help {
  #el: HTMLElement | undefined;

  constructor(private readonly root: HTMLElement) {}

  toggle(): void {
    if (this.#el !== undefined) return this.#close();
    const rows = HELP.flatMap(([keys, meaning]) => [h("dt", {}, keys), h("dd", {}, meaning)]);
    const close = button("close", "Close the list of keys", () => this.#close());
    const el = h("div", { class: "wb-keys", role: "dialog", "aria-label": "Keys", popover: "auto" }, h("dl", {}, ...rows), close);
    el.addEventListener("toggle", (event) => (event as ToggleEvent).newState === "closed" && this.#close());
    this.root.append(el);
    this.#el = el;
    el.showPopover();
    close.focus();
  }

  #close(): void {
    const el = this.#el;
    this.#el = undefined;
    if (el === undefined) return;
    const held = el.matches(":focus-within");
    el.remove();
    if (held) leave(this.root);
  }
}
