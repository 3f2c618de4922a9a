/** The map of KV blocks: every block a cell, as it stood after the step under the cursor was planned. */

import type { App, MakePanel, Panel } from "../app.js";
import { Canvas } from "../canvas.js";
import { whole } from "../format.js";
import { aria, box, button, h, leave, mark, on, section, setText, take } from "../dom.js";
import { type Facts, factsOf, ownerOf, ownersOf, requestOf } from "../blocks/facts.js";
import { type Grid, type Order, blockAt, gridOf } from "../blocks/grid.js";
import { LARGE, paintMap } from "../blocks/paint.js";
import { Summary, countsAt, inWords } from "../blocks/summary.js";
import { tellBlock } from "../blocks/words.js";
import { same } from "../plot.js";

const HEIGHT = 243; // CSS pixels at most; a larger map scrolls

export const blocks: MakePanel = (app, signal) => new BlocksPanel(app, signal);

class BlocksPanel implements Panel {
  readonly el: HTMLElement;
  readonly #note: HTMLElement;
  readonly #canvas = new Canvas("wb-blocks-canvas");
  readonly #tall = box("wb-blocks-tall", this.#canvas.el);
  readonly #map = box("wb-blocks-map", this.#tall);
  readonly #empty = box("wb-empty", "No steps yet: the blocks appear with the first one.");
  readonly #spoken = h("div", { class: "wb-unseen", role: "status" });
  readonly #summary = new Summary();
  readonly #orders: ReadonlyMap<Order, HTMLButtonElement>;
  #order: Order = "id";
  #grid: Grid | undefined;
  #hovered = 0; // block under the pointer, or under the keys
  #top = 0; // CSS pixels that the map is scrolled by
  #looks: string[] = []; // of small cells, while
  #kept: readonly unknown[] = []; // this stays as it was

  constructor(
    private readonly app: App,
    signal: AbortSignal,
  ) {
    const frame = section("wb-blocks", "KV blocks");
    this.el = frame.el;
    this.#note = frame.note;
    this.#orders = new Map((["id", "request"] as const).map((order) => [order, this.#orderButton(order)]));
    frame.note.before(h("span", { class: "wb-orders", role: "group", "aria-label": "Order of the blocks" }, ...this.#orders.values()));
    frame.body.append(this.#empty, this.#map, this.#spoken, this.#summary.el);
    this.#listen(signal);
  }

  draw(): void {
    const facts = this.#now();
    mark(this.el, "wb-bare", facts === undefined);
    this.#grid = undefined;
    if (facts === undefined) return setText(this.#note, "");
    this.#paint(facts); // before anything is written, as it measures its place
    const counts = countsAt(facts.run, facts.position);
    setText(this.#note, `${whole(counts.in_use + counts.cached + counts.free)} × ${facts.size} tokens`);
    for (const [order, el] of this.#orders) aria(el, "pressed", order === this.#order);
    this.#summary.draw(facts);
  }

  /** Looked up each time: the pool's arrays hold another position as soon as somebody asks for one. */
  #now(): Facts | undefined {
    const run = this.app.focus;
    const position = Math.min(this.app.state.position, run.tape.length - 1);
    return position < 0 ? undefined : factsOf(run, position);
  }

  #tell(id: number): string {
    const facts = id === 0 ? undefined : this.#now();
    return facts === undefined || id > facts.blocks.count ? "" : tellBlock(facts, id);
  }

  #paint(facts: Facts): void {
    const width = this.#tall.clientWidth;
    if (width === 0) return;
    const grid = (this.#grid = gridOf(facts, this.#order, width, HEIGHT));
    const whole = grid.rows * grid.pitch;
    this.#tall.style.height = `${whole}px`;
    const height = Math.min(HEIGHT, whole);
    const top = Math.max(0, Math.min(this.#top, whole - height));
    const { theme } = this.app;
    const kept = [theme, facts.run, grid.pitch, grid.ids.length, width, height, top, devicePixelRatio];
    const keep = grid.pitch < LARGE && same(kept, this.#kept);
    if (!keep) this.#looks = [];
    this.#kept = kept;
    this.#canvas.begin(height, keep);
    const { request } = this.app.state;
    const owner = this.#hovered > 0 ? ownerOf(facts, this.#hovered, request) : -1;
    const emphasis = { selected: request, pointed: owner < 0 ? null : owner, hovered: this.#hovered };
    paintMap({ context: this.#canvas.context, theme, facts, emphasis, pitch: grid.pitch, looks: this.#looks }, grid, top, height);
    this.#canvas.describe(inWords(facts));
  }

  #orderButton(order: Order): HTMLButtonElement {
    const title = order === "id" ? "Blocks in the order of their ids" : "Blocks of a request side by side, then cached as they will be evicted, then free";
    return button(`by ${order}`, title, () => ((this.#order = order), this.app.redraw()), "wb-tab");
  }

  // -- pointer and keys ----------------------------------------------------------------------------------------------

  #listen(signal: AbortSignal): void {
    const { el } = this.#canvas;
    el.tabIndex = 0;
    on(el, "pointermove", (event) => this.#hover(this.#at(event), event), signal);
    on(el, "pointerleave", () => this.#hover(0), signal);
    on(el, "mousedown", (event) => this.#keepFocus(event), signal);
    on(el, "click", (event) => this.#choose(this.#at(event)), signal);
    on(el, "keydown", (event) => this.#key(event), signal);
    on(el, "blur", () => this.#hover(0), signal);
    on(this.#map, "scroll", () => this.#scrolled(), signal);
  }

  #at(event: MouseEvent): number {
    const [x, y] = this.#canvas.place(event);
    return this.#grid === undefined ? 0 : blockAt(this.#grid, x, y + this.#map.scrollTop);
  }

  #hover(id: number, event?: Pick<MouseEvent, "clientX" | "clientY">): void {
    if (event !== undefined) this.app.tooltip.show(this.#tell(id), event);
    else this.app.tooltip.hide();
    if (id === this.#hovered) return;
    this.#hovered = id;
    this.app.redraw();
  }

  /** A click does not bring the keys here: ← and → go on moving the cursor. */
  #keepFocus(event: MouseEvent): void {
    event.preventDefault();
    leave(this.el);
  }

  /** Select a block's request; on a shared block the next of its holders each time. */
  #choose(id: number): void {
    const facts = this.#now();
    if (facts === undefined || id === 0) return this.app.select(null);
    const owners = ownersOf(facts, id).filter((owner) => owner >= 0);
    const place = owners.indexOf(this.app.state.request ?? -1);
    const request = owners.length > 0 ? owners[(place + 1) % owners.length]! : requestOf(facts, id);
    this.app.select(request < 0 ? null : request);
  }

  #key(event: KeyboardEvent): void {
    const grid = this.#grid;
    if (grid === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grid.columns, ArrowDown: grid.columns }[event.key];
    if (step !== undefined) this.#walk(grid, step);
    else if (event.key === "Enter") this.#choose(this.#hovered);
    else if (event.key === "Escape") this.#hover(0);
    else return;
    take(event);
  }

  #walk(grid: Grid, step: number): void {
    const here = grid.ids.indexOf(this.#hovered);
    const place = here < 0 ? 0 : Math.min(grid.ids.length - 1, Math.max(0, here + step));
    const y = Math.floor(place / grid.columns) * grid.pitch;
    if (y < this.#map.scrollTop || y + grid.pitch > this.#map.scrollTop + this.#canvas.height) this.#map.scrollTop = y - this.#canvas.height / 2;
    const { left, top } = this.#canvas.el.getBoundingClientRect();
    const id = grid.ids[place]!;
    this.#hover(id, { clientX: left + (place % grid.columns) * grid.pitch, clientY: top + y - this.#map.scrollTop });
    setText(this.#spoken, this.#tell(id).replaceAll("\n", " · "));
  }

  #scrolled(): void {
    this.#top = this.#map.scrollTop;
    this.app.redraw();
  }
}
