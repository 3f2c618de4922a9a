/** Pointer and wheel over a chart.  A plain wheel is the page's; drawing on a column moves the cursor, on the step numbers the stretch. */

import type { Chart, Hit } from "./chart.js";
import { on } from "../dom.js";

/** What a gesture may do. */
export interface Hands {
  zoom(factor: number, around: number): void;
  pan(steps: number): void;
  /** The pointer is down on a chart, for the first time or on its way. */
  point(chart: Chart, hit: Hit, pressed: boolean): void;
  /** The pointer hovers. */
  hover(chart: Chart, hit: Hit, event: PointerEvent): void;
  leave(): void;
  redraw(): void;
}

type Drag = { readonly kind: "scrub" | "pan" | "rows"; x: number; y: number };

export function listen(chart: Chart, hands: Hands, signal: AbortSignal): void {
  const { canvas } = chart;
  const { el } = canvas;
  const fingers = new Map<number, number>(); // x by pointer
  let drag: Drag | undefined;

  const press = (event: PointerEvent): void => {
    if (event.button !== 0) return;
    const [x, y] = canvas.place(event);
    fingers.set(event.pointerId, x);
    el.setPointerCapture(event.pointerId);
    const hit = chart.hit(x, y);
    drag = fingers.size > 1 ? undefined : { kind: hit.strip === "bar" ? "rows" : hit.strip === "axis" || event.shiftKey ? "pan" : "scrub", x, y };
    if (drag?.kind === "scrub") hands.point(chart, hit, true);
    if (hit.strip === "names") drag = undefined;
  };

  const move = (event: PointerEvent): void => {
    const [x, y] = canvas.place(event);
    const hit = chart.hit(x, y);
    if (fingers.size === 2 && fingers.has(event.pointerId)) pinch(event.pointerId, x);
    else if (drag === undefined) el.style.cursor = hit.strip === "axis" ? "ew-resize" : hit.strip === "names" ? "pointer" : "default";
    else if (drag.kind === "scrub") hands.point(chart, hit, false);
    else if (drag.kind === "pan") hands.pan((drag.x - x) / chart.scale.step);
    else if (chart.scroll(((y - drag.y) * (chart.plan.height + chart.plan.hidden)) / chart.plan.height)) hands.redraw();
    if (drag !== undefined) [drag.x, drag.y] = [x, y];
    if (event.pointerType !== "touch") hands.hover(chart, hit, event);
  };

  const pinch = (id: number, x: number): void => {
    const other = [...fingers].find(([each]) => each !== id)![1];
    const factor = Math.abs(fingers.get(id)! - other) / Math.max(1, Math.abs(x - other));
    fingers.set(id, x);
    hands.zoom(factor, chart.scale.position((x + other) / 2));
  };

  const release = (event: PointerEvent): void => {
    fingers.delete(event.pointerId);
    drag = undefined;
  };

  const wheel = (event: WheelEvent): void => {
    const pixels = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    const [dx, dy] = [event.deltaX * pixels, event.deltaY * pixels];
    const [x, y] = canvas.place(event);
    if (event.ctrlKey || event.metaKey) hands.zoom(Math.exp(Math.max(-50, Math.min(50, dy)) / 100), chart.scale.position(x));
    else if (event.shiftKey || Math.abs(dx) > Math.abs(dy)) hands.pan((dx || dy) / chart.scale.step);
    else if (chart.hit(x, y).strip === "names" && chart.scroll(dy)) hands.redraw();
    else return;
    event.preventDefault();
  };

  on(el, "pointerdown", press, signal);
  on(el, "pointermove", move, signal);
  on(el, "pointerup", release, signal);
  on(el, "pointercancel", release, signal);
  on(el, "pointerleave", () => hands.leave(), signal);
  el.addEventListener("wheel", wheel, { signal, passive: false });
}
