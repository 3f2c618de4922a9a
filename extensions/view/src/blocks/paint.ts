/** Draws the map: the rows of cells that are in sight, each in the way that its size allows. */

import { type Brush, type Cells } from "./cells.js";
import type { Grid } from "./grid.js";
import { LargeCells } from "./large.js";
import { SmallCells } from "./small.js";

export const LARGE = 10; // CSS pixels from cell to cell, from which cells have round corners and marks

/** Draw the rows of `grid` that lie in `[top, top + height)` of it, `top` at the canvas's upper edge. */
export function paintMap(brush: Brush, grid: Grid, top: number, height: number): void {
  const { ids, pitch, columns } = grid;
  const cells: Cells = pitch >= LARGE ? new LargeCells(brush) : new SmallCells(brush);
  const end = Math.min(ids.length, Math.ceil((top + height) / pitch) * columns);
  for (let place = Math.floor(top / pitch) * columns; place < end; place++) {
    cells.draw(ids[place]!, (place % columns) * pitch, Math.floor(place / columns) * pitch - top, place);
  }
  brush.context.globalAlpha = 1;
}
