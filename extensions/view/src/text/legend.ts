/** `Legend`: the marks that occur in what is shown, and no others. */

import { h } from "../dom.js";
import { ORIGINS } from "../tape.js";
import type { Prompt } from "./prompt.js";
import { ORIGIN_CLASSES } from "./strip.js";

const WORDS: Readonly<Record<(typeof ORIGINS)[number], string>> = { decoded: "decoded", accepted: "accepted draft", corrected: "corrected", bonus: "bonus" };
const NO_PROMPT: Prompt["counts"] = [0, 0, 0];

export class Legend {
  readonly el = h("div", { class: "wb-legend wb-text-legend" });
  #shown = "";

  /** Counts of prompt tokens by mark, of output tokens by origin, and of refused drafts. */
  show(origins: Int32Array, refused: number, prompt: Prompt["counts"] = NO_PROMPT): void {
    const entries: [cls: string, words: string, n: number][] = [
      ["wb-computed", "prompt", prompt[2]],
      ["wb-cached", "prompt from cache", prompt[1]],
      ["wb-later", "not computed yet", prompt[0]],
      ...ORIGINS.map((origin, i): [string, string, number] => [ORIGIN_CLASSES[i]!, WORDS[origin], origins[i]!]),
      ["wb-refused", "refused draft", refused],
    ];
    const found = entries.filter(([, , n]) => n > 0);
    const key = found.map(([, words]) => words).join();
    if (key === this.#shown) return;
    this.#shown = key;
    this.el.replaceChildren(...found.map(([cls, words]) => h("span", { class: cls.trim() }, words)));
  }
}
