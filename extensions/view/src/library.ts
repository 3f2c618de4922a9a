/** uPlot, which draws the series, comes as a file of its own: the rest of the view need not wait for it, and a page loads it once. */

import type UPlot from "uplot";

type Library = typeof UPlot;

const KEY = Symbol.for("inference-workbench uPlot");
const page = globalThis as { [KEY]?: Promise<Library> };
let found: Library | undefined;

/** uPlot, once it is here. */
export const library = (): Library | undefined => found;

/** Load uPlot from the text of its module, unless the page has it already; panels that wait for it draw with the next frame. */
export async function bring(text: string): Promise<void> {
  page[KEY] ??= load(text);
  found = await page[KEY];
}

async function load(text: string): Promise<Library> {
  const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  try {
    return ((await import(/* @vite-ignore */ address)) as { default: Library }).default;
  } finally {
    URL.revokeObjectURL(address);
  }
}
