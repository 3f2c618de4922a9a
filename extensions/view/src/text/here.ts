/** A place in a run: what the parts of the text panel look things up by. */

import type { Tape } from "../tape.js";
import type { Outputs } from "./output.js";

export interface Here {
  readonly tape: Tape;
  readonly outputs: Outputs;
  readonly position: number;
}

/** The first place to show of `[since, end)`: all of it up to `most`, else without its beginning, cut in strides, so that lines rarely move. */
export function firstShown(since: number, end: number, most: number, stride: number): number {
  return since + Math.max(0, Math.ceil((end - since - most) / stride)) * stride;
}
