/** A screen that lives while its place is on the page.
 *
 * Nobody tells a saved page's script that its output was cleared, or taken off the page for a while as notebooks do with cells out of sight.
 * The place itself shows it: its size is gone.
 */

import type { State } from "./app.js";
import type { Model } from "./model.js";
import { Screen } from "./screen.js";

/** Show `model` at `place`; what the screen listens to outside of it ends when it is taken away, and begins again when it is back. */
export function inhabit(place: HTMLElement, model: Model): void {
  let life: AbortController | undefined;
  let screen: Screen | undefined;
  let state: State | undefined;
  let height = 0;

  const moveIn = (): void => {
    life = new AbortController();
    screen = new Screen(model, place, life.signal);
    if (state !== undefined) screen.set(state);
    place.style.minHeight = "";
  };
  const moveOut = (): void => {
    state = screen?.state;
    life?.abort();
    life = screen = undefined;
    place.style.minHeight = `${height}px`; // the page keeps its length when the place is back, before the screen is
  };
  const look = (): void => {
    if (place.isConnected) height = place.offsetHeight;
    if (place.isConnected !== (life !== undefined)) place.isConnected ? moveIn() : moveOut();
  };
  new ResizeObserver(look).observe(place);
  look();
}
