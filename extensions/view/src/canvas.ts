/** `Canvas`: a 2D canvas as wide as its place, sharp on every screen. */

import { aria } from "./dom.js";

export class Canvas {
  readonly el = document.createElement("canvas");
  readonly context = this.el.getContext("2d")!;
  width = 0; // CSS pixels
  height = 0;

  constructor(cls: string) {
    this.el.className = cls;
    this.el.setAttribute("role", "img");
  }

  /** Fit to the width of its place and the given height, and clear unless told to `keep`; false while it has no place on the page. */
  begin(height: number, keep = false): boolean {
    const width = Math.floor(this.el.parentElement?.clientWidth ?? 0);
    if (width === 0) return false;
    const ratio = window.devicePixelRatio || 1;
    if (this.width !== width || this.height !== height || this.el.width !== Math.round(width * ratio)) {
      this.width = width;
      this.height = height;
      this.el.width = Math.round(width * ratio);
      this.el.height = Math.round(height * ratio);
      this.el.style.width = `${width}px`;
      this.el.style.height = `${height}px`;
    }
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (!keep) this.context.clearRect(0, 0, width, height);
    return true;
  }

  /** What the canvas shows, in words, for those who do not see it. */
  describe(text: string): void {
    aria(this.el, "label", text);
  }

  /** Where a pointer event lies, in CSS pixels. */
  place(event: MouseEvent): readonly [x: number, y: number] {
    const box = this.el.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }
}
