/** The two doors of the view: an anywidget over a kernel, and `play` for a saved page. */

import { bring } from "./library.js";
import type { AnyModel } from "./link.js";
import { Model } from "./model.js";
import { inhabit } from "./place.js";
import { Screen } from "./screen.js";
import type { Frame, Why } from "./wire.js";

interface Place {
  readonly model: AnyModel;
  readonly el: HTMLElement;
  readonly signal: AbortSignal;
}

export default (): object => {
  let model: Model | undefined;
  return {
    initialize({ model: source, signal }: Place): void {
      const made = (model = new Model(source, signal));
      void bring(String(source.get("_uplot"))).then(() => made.changed(), warn);
    },
    render({ model: source, el, signal }: Place): void {
      model ??= new Model(source, signal);
      new Screen(model, el, signal);
    },
  };
};

/** What a saved page holds besides its columns: one frame, and explanations by run. */
export interface Saved {
  readonly frame: Frame;
  readonly whys: readonly (readonly Why[])[];
}

const warn = (error: unknown): void => console.warn("workbench: the series are not drawn, as uPlot could not be loaded:", error);

/** Show a saved run at `el`: the same screen without a kernel.  `uplot` is the text of uPlot's module, which is awaited: what is drawn
 *  out of sight is drawn once. */
export async function play(el: HTMLElement, saved: Saved, buffers: readonly ArrayBuffer[], uplot: string): Promise<void> {
  await bring(uplot).catch(warn);
  const model = new Model();
  model.take(saved.frame, buffers);
  saved.whys.forEach((whys, run) => whys.forEach((why) => model.runs[run]?.whys.set(why.step, why)));
  inhabit(el, model);
}
