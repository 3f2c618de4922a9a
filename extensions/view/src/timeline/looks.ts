/** How what a request does in a step looks, and what it is called; the words of `workbench/render/palette.py`. */

import { type LaneState, STATES } from "../tape.js";
import { COLOURS } from "../theme.js";

/** States from the least telling to the most: of the steps that share a column, the most telling is drawn.  0: not there. */
export const RANKED: readonly (LaneState | "")[] = ["", "held", "idle", "waiting", "decode", "verify", "prefill", "preempted"];

/** Rank by the code of the `lanes.state` column. */
export const RANK: readonly number[] = STATES.map((state) => RANKED.indexOf(state));

export const LABELS: Readonly<Record<LaneState, string>> = {
  prefill: "prefill",
  decode: "decode",
  verify: "verify drafts",
  waiting: "waiting",
  idle: "running, not in this step",
  held: "done, held by its batch",
  preempted: "preempted",
};

/** Fills of what is computed. */
export const FILLS: Readonly<Partial<Record<LaneState | "", string>>> = { prefill: COLOURS.prefill, decode: COLOURS.decode, verify: COLOURS.verify };

/** Diagonal lines, anchored at the canvas's corner, so that neighbouring cells join without a seam.  Each pattern is made once. */
export class Hatching {
  readonly #made = new Map<string, CanvasPattern>();

  of(colour: string, ratio: number): CanvasPattern {
    const key = `${colour} ${ratio}`;
    const found = this.#made.get(key) ?? hatching(colour, ratio);
    this.#made.set(key, found);
    return found;
  }
}

function hatching(colour: string, ratio: number): CanvasPattern {
  const size = Math.max(3, Math.round(5 * ratio));
  const tile = document.createElement("canvas");
  tile.width = tile.height = size;
  const pen = tile.getContext("2d")!;
  pen.strokeStyle = colour;
  pen.lineWidth = ratio;
  for (const shift of [-size, 0, size]) {
    pen.moveTo(shift - 1, size + 1);
    pen.lineTo(shift + size + 1, -1);
  }
  pen.stroke();
  const pattern = pen.createPattern(tile, "repeat")!;
  pattern.setTransform(new DOMMatrix().scale(1 / ratio));
  return pattern;
}
