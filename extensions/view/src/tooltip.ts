/** One tooltip for all canvases of a view.
 *
 * It is a popover: notebooks contain the layout and the painting of a cell, which would shift and clip anything else that is fixed.
 */

import { h, hide, on, setText } from "./dom.js";

export class Tooltip {
  readonly el = h("div", { class: "wb-tip wb-hidden", role: "tooltip", popover: "manual" });

  /** Show `text` (lines) near a pointer; an empty text hides it. */
  show(text: string, event: Pick<MouseEvent, "clientX" | "clientY">): void {
    setText(this.el, text);
    this.#turn(text !== "");
    if (text === "") return;
    const { offsetWidth: width, offsetHeight: height } = this.el;
    const x = event.clientX + 14 + width > innerWidth ? event.clientX - width - 10 : event.clientX + 14;
    const y = event.clientY + 16 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 16;
    this.el.style.left = `${Math.max(4, x)}px`;
    this.el.style.top = `${Math.max(4, y)}px`;
  }

  hide(): void {
    this.#turn(false);
  }

  /** While the pointer is over an element, say `words` of its place; until `signal` aborts. */
  over(el: HTMLElement, words: (event: MouseEvent) => string, signal: AbortSignal): void {
    on(el, "mousemove", (event) => this.show(words(event), event), signal);
    on(el, "mouseleave", () => this.hide(), signal);
  }

  #turn(shown: boolean): void {
    hide(this.el, !shown);
    if (this.el.isConnected) this.el.togglePopover?.(shown);
  }
}
