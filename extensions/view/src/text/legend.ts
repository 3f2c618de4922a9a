/** `Legend`: the marks that occur in what is shown, and no others. */

import { box, h } from "../dom.js";

const MARKS = [
  ["computed", "prompt"],
  ["cached", "prompt from cache"],
  ["later", "not computed yet"],
  ["decoded", "decoded"],
  ["accepted", "accepted draft"],
  ["corrected", "corrected"],
  ["bonus", "bonus"],
  ["refused", "refused draft"],
] as const;

export class Legend {
  readonly el = box("wb-legend wb-text-legend");
  #shown = "";

  /** `counts`: how many tokens have each mark. */
  show(counts: readonly number[]): void {
    const found = MARKS.filter((_, mark) => counts[mark]! > 0);
    const key = found.join();
    if (key === this.#shown) return;
    this.#shown = key;
    this.el.replaceChildren(...found.map(([cls, words]) => h("span", { class: `wb-${cls}` }, words)));
  }
}
