/** What a panel may see and do.  One `App` per picture of a view; the tapes behind it are shared by all pictures of one model. */

import type { Pool } from "./pool.js";
import type { Tape } from "./tape.js";
import type { Theme } from "./theme.js";
import type { Tooltip } from "./tooltip.js";
import type { KnobValue, Meta, Status, Why } from "./wire.js";

/** One run on the screen: the first is the base, the others are its branches, or what it is compared with. */
export interface RunView {
  readonly run: number;
  readonly name: string;
  readonly live: boolean; // an engine stands behind it
  readonly meta: Meta;
  readonly tape: Tape;
  readonly pool: Pool;
  readonly status: Status;
  readonly parent?: number;
  readonly forkStep?: number;
  readonly fork_config?: Readonly<Record<string, KnobValue>>; // its parent's settings before that step
  readonly parted?: { readonly position: number; readonly sentence: string };
  /** Explanations by step number, as far as they are here. */
  readonly whys: Map<number, Why>;
}

export interface State {
  readonly position: number; // under the cursor; the same in all runs (position 0 is the first step that each shows)
  readonly follow: boolean; // the cursor stays on the newest step
  readonly playing: boolean; // the cursor walks by itself
  readonly speed: number; // steps a second while it walks
  readonly focus: number; // run that the panels speak of
  readonly request: number | null; // selected request
  readonly first: number; // visible stretch of positions [first, last), fractions while zooming
  readonly last: number;
}

export interface App {
  readonly runs: readonly RunView[];
  readonly focus: RunView;
  readonly state: State;
  readonly theme: Theme;
  readonly tooltip: Tooltip;
  /** Room that the timeline takes at its left for names, and how wide it is: what is below it lines up. */
  gutter: { readonly left: number; readonly width: number };
  /** A kernel answers `ask`; false in a saved page. */
  readonly live: boolean;
  /** Change the state and draw once, in the next animation frame. */
  set(change: Partial<State>): void;
  /** Put the cursor on a position of the focused run, kept in range; stops following unless it is the newest. */
  go(position: number): void;
  /** Select the request and, if given, go to a position. */
  select(request: number | null, position?: number): void;
  /** Ask the kernel; rejects with an Error that may be shown as it is. */
  ask(op: string, args?: Readonly<Record<string, unknown>>): Promise<unknown>;
  /** The explanation of a step of the focused run: at once if it is here, else undefined and a draw once it has come. */
  why(step: number): Why | undefined;
  /** Draw again in the next animation frame. */
  redraw(): void;
  /** Say something in the status line, as an error if so. */
  say(text: string, isError?: boolean): void;
}

export interface Panel {
  readonly el: HTMLElement;
  /** Bring `el` in step with the app.  Called at most once a frame, and only when something changed. */
  draw(): void;
}

/** Makes a panel; it takes its listeners away when `signal` aborts. */
export type MakePanel = (app: App, signal: AbortSignal) => Panel;
