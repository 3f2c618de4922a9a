/** `Chart`: one run's strips over a common x-axis.  What does not depend on the cursor is painted once and kept. */

import { isOver } from "../actions.js";
import type { App, RunView } from "../app.js";
import { Canvas } from "../canvas.js";
import { box, h, hide, setText } from "../dom.js";
import { number, whole } from "../format.js";
import { drawTimes, drawTokens, ROOM, timeTop, tokenTop } from "./bars.js";
import { Digest } from "./digest.js";
import { Arrangement, type RowKind, drawRows } from "./lanes.js";
import { Hatching } from "./looks.js";
import { drawAxis, drawCursor, drawFailure, drawFlags, drawLine } from "./marks.js";
import { type Box, type Pen, type Scale, write } from "./scale.js";
import { LIMIT, TIME } from "./totals.js";
import { summary } from "./words.js";

const TOKENS_HEIGHT = 64;
const TIMES_HEIGHT = 46;
const AXIS_HEIGHT = 18;

type Strip = "head" | "tokens" | "rows" | "times" | "flags" | "axis";
const STRIPS: readonly Strip[] = ["head", "tokens", "rows", "times", "flags", "axis"];

/** What lies under a pointer. */
export interface Hit {
  readonly strip: Strip | "names" | "bar";
  readonly position: number; // a step that is there, or -1
  readonly place: number; // row, or -1
}

export class Chart {
  readonly heading = h("button", { type: "button", class: "wb-tl-name" });
  readonly canvas = new Canvas("wb-tl-canvas");
  readonly #place = box("wb-tl-place", this.canvas.el);
  readonly #empty = box("wb-empty wb-hidden");
  readonly el = box("wb-tl-run", this.heading, this.#empty, this.#place);
  readonly digest: Digest;
  scale!: Scale;
  plan!: Arrangement;
  #boxes!: Readonly<Record<Strip, Box>>;
  #height = 0;
  #scroll = 0; // pixels, fractions of rows while they are scrolled
  #scrolled = false; // by hand: following no longer moves the rows
  #selected = -1;
  readonly #hatching = new Hatching();
  #named = { key: "", width: 0 };
  readonly #layer = h("canvas"); // all but the cursor, once it is drawn twice
  #drawn = "";
  #kept = "";

  constructor(public run: RunView) {
    this.digest = new Digest(run.tape);
  }

  /** Columns that the run takes: its steps, and the one that failed. */
  get extent(): number {
    return Math.max(this.run.tape.length, this.failedAt + 1);
  }

  /** Position of the step that failed, or -1. */
  get failedAt(): number {
    const error = this.run.status.error;
    return error === undefined ? -1 : Math.max(0, error.step - this.run.meta.first_step);
  }

  /** Position before which a branch shares its parent's steps; 0 if it is none. */
  get forkAt(): number {
    return this.run.forkStep === undefined ? 0 : this.run.forkStep - this.run.meta.first_step;
  }

  /** Take in what is new and lay out the strips within `bound` pixels of rows. */
  update(run: RunView, kind: RowKind, bound: number): void {
    this.run = run;
    this.digest.update();
    this.plan = new Arrangement(run, this.digest, kind, bound);
    const marked = this.forkAt > 0 || run.parted !== undefined || this.failedAt >= 0;
    const heights: Readonly<Record<Strip, number>> = {
      head: marked ? 14 : this.#beyond ? 7 : 0,
      tokens: TOKENS_HEIGHT + 9,
      rows: this.plan.height + 8,
      times: (this.digest.totals.whole()[TIME] ?? 0) > 0 ? TIMES_HEIGHT : 0,
      flags: this.digest.commands.length > 0 ? 14 : 0,
      axis: AXIS_HEIGHT,
    };
    let y = 0;
    this.#boxes = Object.fromEntries(STRIPS.map((strip) => [strip, { top: y, bottom: (y += heights[strip]) }])) as Record<Strip, Box>;
    this.#height = y;
    const empty = this.extent === 0;
    hide(this.#empty, !empty);
    hide(this.#place, empty);
    if (empty) setText(this.#empty, run.live ? "no step yet: press ▶ or step" : "this run has no steps");
  }

  /** Pixels that the names at the left need, at most `most`. */
  gutter(app: App, most: number): number {
    const { context } = this.canvas;
    const { plan } = this;
    const key = `${plan.kind} ${plan.indices.length} ${app.theme.font}`;
    if (key !== this.#named.key) {
      context.font = `bold 11px ${app.theme.font}`;
      const widths = plan.indices.slice(0, 200).map((_, place) => context.measureText(plan.name(place)).width);
      this.#named = { key, width: Math.max(0, ...widths) + 15 };
    }
    return Math.min(most, this.#named.width);
  }

  draw(app: App, scale: Scale, selected: number): void {
    this.scale = scale;
    if (this.extent === 0 || !this.canvas.begin(this.#height)) return;
    this.#keepInSight(app, selected);
    const { context } = this.canvas;
    this.#still(app, selected);
    const at = Math.min(app.state.position, this.run.tape.length - 1);
    const box = { top: this.#boxes.tokens.top, bottom: this.#boxes.axis.top };
    const pen = this.#pen(app, context);
    drawAxis(pen, box.bottom, this.run.meta.first_step, this.extent, at);
    if (at >= 0) drawCursor(pen, at, box, this.run.meta.first_step + at);
    this.canvas.describe([this.#gone, summary(this.run, at)].filter(Boolean).join("; "));
  }

  /** What lies at a place of the canvas. */
  hit(x: number, y: number): Hit {
    const strip = STRIPS.find((each) => y < this.#boxes[each].bottom) ?? "axis";
    const position = Math.max(-1, Math.min(this.run.tape.length - 1, Math.floor(Math.max(0, this.scale.position(x)))));
    const place = Math.floor((y - this.#boxes.rows.top + this.#offset) / this.plan.rowHeight);
    if (strip !== "rows" || place >= this.plan.indices.length) return { strip, position, place: -1 };
    if (this.plan.hidden > 0 && x > this.scale.right) return { strip: "bar", position, place: -1 };
    return { strip: x < this.scale.left ? "names" : strip, position, place };
  }

  /** Move the rows by pixels; false if they are at their end. */
  scroll(pixels: number): boolean {
    const wanted = Math.max(0, Math.min(this.plan.hidden, this.#scroll + pixels));
    if (wanted === this.#scroll) return false;
    this.#scroll = wanted;
    this.#scrolled = true;
    return true;
  }

  /** The budget lies above the scale of tokens. */
  get #beyond(): boolean {
    const { totals } = this.digest;
    return (totals.whole()[LIMIT] ?? 0) > tokenTop(totals);
  }

  /** Pixels that the rows are scrolled by: whole rows. */
  get #offset(): number {
    return Math.round(this.#scroll / this.plan.rowHeight) * this.plan.rowHeight;
  }

  /** A request that was just selected comes into sight; so do, while following, the rows that run now. */
  #keepInSight(app: App, selected: number): void {
    const { plan } = this;
    if (selected !== this.#selected) {
      this.#selected = selected;
      if (plan.kind === "requests") this.#reveal(plan.indices.indexOf(selected));
    } else if (app.state.follow && !this.#scrolled && plan.hidden > 0) this.#reveal(plan.lastActive());
    this.#scroll = Math.max(0, Math.min(plan.hidden, this.#scroll));
  }

  #reveal(place: number): void {
    if (place < 0) return;
    const y = place * this.plan.rowHeight;
    this.#scroll = Math.min(y, Math.max(this.#scroll, y + this.plan.rowHeight - this.plan.height));
  }

  /** Draw what does not depend on the cursor.  It is kept as a picture when it is asked for again unchanged, so that panning draws once. */
  #still(app: App, selected: number): void {
    const { run, scale, plan } = this;
    const { context, width, height } = this.canvas;
    const look = [selected, this.#offset, plan.kind, plan.rowHeight, run.forkStep, run.parted?.position, run.status.state, run.status.error?.message, run.tape.version];
    const key = JSON.stringify([look, scale, width, height, app.theme]);
    if (key !== this.#drawn) this.#strips(this.#pen(app, context), selected);
    else {
      if (key !== this.#kept) this.#keep(app, selected);
      context.drawImage(this.#layer, 0, 0, width, height);
      this.#kept = key;
    }
    this.#drawn = key;
  }

  #pen(app: App, context: CanvasRenderingContext2D): Pen {
    return { context, scale: this.scale, theme: app.theme, hatching: this.#hatching };
  }

  #keep(app: App, selected: number): void {
    const { el } = this.canvas;
    this.#layer.width = el.width;
    this.#layer.height = el.height;
    const context = this.#layer.getContext("2d")!;
    context.scale(this.scale.ratio, this.scale.ratio);
    this.#strips(this.#pen(app, context), selected);
  }

  #strips(pen: Pen, selected: number): void {
    const { head, tokens, rows, times, flags, axis } = this.#boxes;
    const { totals } = this.digest;
    const bars = { top: tokens.top, bottom: tokens.bottom - 9 };
    const waits = { top: times.top, bottom: times.bottom - 2 };
    drawTokens(pen, totals, bars);
    if (this.#beyond) this.#label(pen, `${number(totals.whole()[LIMIT]!)}↑`, bars.top);
    this.#label(pen, number(tokenTop(totals)), bars.top + (this.#beyond ? ROOM + 4 : ROOM));
    this.#label(pen, "tok", bars.bottom - 5);
    drawRows(pen, this.plan, rows, { selected, scroll: this.#offset });
    if (times.bottom > times.top) {
      drawTimes(pen, totals, waits, this.digest.usualMs());
      this.#label(pen, number(timeTop(totals, this.digest.usualMs())), waits.top + 11);
      this.#label(pen, "ms", waits.bottom - 5);
    }
    const all = { top: head.top, bottom: axis.top };
    this.#veil(pen, all);
    if (flags.bottom > flags.top) drawFlags(pen, this.digest.commands, this.run.meta.first_step, flags.top + 2);
    this.#lines(pen, all);
    const gone = this.#gone;
    if (gone) write(pen, `← ${gone}`, pen.scale.left + 6, (rows.top + rows.bottom) / 2, pen.theme.ink, "left", "12px");
  }

  /** Where the run ended that lies to the left of what is shown, as when a longer branch is followed; empty if some of it is in sight. */
  get #gone(): string {
    const { run, scale } = this;
    if (this.extent > scale.first) return "";
    return `${isOver(run) ? "ended with" : "stands at"} step ${whole(run.meta.first_step + run.tape.length - 1)}`;
  }

  /** A branch's steps that its parent has too are paler. */
  #veil(pen: Pen, box: Box): void {
    const { context, scale, theme } = pen;
    if (this.forkAt <= 0) return;
    context.fillStyle = theme.background;
    context.globalAlpha = 0.6;
    context.fillRect(scale.left, box.top, scale.edge(this.forkAt) - scale.left, box.bottom - box.top);
    context.globalAlpha = 1;
  }

  #lines(pen: Pen, box: Box): void {
    const { parted, status } = this.run;
    const both = parted?.position === this.forkAt;
    if (this.forkAt > 0 && !both) drawLine(pen, this.forkAt, box, "fork", pen.theme.select, "right");
    if (parted !== undefined) drawLine(pen, parted.position, box, `▲ ${both ? "fork, " : ""}first difference`, pen.theme.ink);
    if (status.error !== undefined) drawFailure(pen, this.failedAt, box, `${status.error.type}: ${status.error.message}`);
  }

  #label(pen: Pen, text: string, y: number): void {
    write(pen, text, pen.scale.left - 6, y, pen.theme.dim, "right");
  }
}
