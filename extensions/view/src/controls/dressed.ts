/** `Dressed`: a button that knows when it makes sense, says why it does not, and shows that it is at work. */

import { aria, button, hide, leave, put, setText } from "../dom.js";
import { type Icon, showIcon } from "../icons.js";

export interface Dress {
  readonly name: string; // what it does; its name for those who do not see it
  readonly hint?: string; // more about it
  readonly off?: string; // why it cannot be pressed now; empty or left out if it can
  readonly busy?: boolean;
  readonly face?: string;
  readonly icon?: Icon;
}

export class Dressed {
  readonly el: HTMLButtonElement;
  readonly #icon = document.createElement("span");
  readonly #face = document.createElement("span");

  constructor(act: () => void, cls = "") {
    this.el = button("", "", () => this.el.getAttribute("aria-busy") === "true" || act(), cls);
    this.el.append(this.#icon, this.#face);
  }

  wear({ name, hint = "", off = "", busy = false, face = "", icon }: Dress): void {
    this.#disable(off !== "");
    aria(this.el, "label", name);
    put(this.el, "title", [name, off || hint].filter(Boolean).join(": "));
    aria(this.el, "busy", busy);
    if (icon !== undefined) showIcon(this.#icon, icon);
    setText(this.#face, face);
  }

  show(shown: boolean): void {
    hide(this.el, !shown);
  }

  /** A disabled button loses the focus, and keys with it: the view takes it over. */
  #disable(off: boolean): void {
    if (this.el.disabled === off) return;
    const held = off && this.el.matches(":focus");
    this.el.disabled = off;
    if (held) leave(this.el);
  }
}
