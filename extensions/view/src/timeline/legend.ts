/** The legend: only what occurs in the runs on the screen. */

import { h } from "../dom.js";
import type { Chart } from "./chart.js";
import { LABELS, RANKED } from "./looks.js";
import { CACHED, FORWARD, PLAN, SAMPLE } from "./totals.js";

const ORDER = ["prefill", "cache", "decode", "verify", "waiting", "idle", "held", "preempted", "plan", "forward", "sample", "peak", "stop", "length", "abort"] as const;
type Kind = (typeof ORDER)[number];

const WORDS: Readonly<Record<Kind, string>> = {
  ...LABELS,
  cache: "spared by the prefix cache",
  plan: "plan, prepare",
  forward: "forward",
  sample: "sample, draft, commit",
  peak: "pale: the most in a column of steps",
  stop: "end: stop",
  length: "end: length",
  abort: "end: abort",
};
const FIELDS_OF: readonly (readonly [Kind, number])[] = [
  ["cache", CACHED],
  ["plan", PLAN],
  ["forward", FORWARD],
  ["sample", SAMPLE],
];

/** Fill `el` with the entries of what occurs, if they changed. */
export function drawLegend(el: HTMLElement, charts: readonly Chart[]): void {
  const found = new Set(charts.flatMap(kindsOf));
  const kinds = ORDER.filter((kind) => found.has(kind));
  if (el.dataset["kinds"] === kinds.join(" ")) return;
  el.dataset["kinds"] = kinds.join(" ");
  el.replaceChildren(...kinds.map((kind) => h("span", { class: "wb-tl-key", "data-kind": kind }, WORDS[kind])));
}

function kindsOf(chart: Chart): string[] {
  const { requests, totals, finished } = chart.digest;
  const states = RANKED.filter((_, rank) => requests.counts[rank]! > 0);
  const sums = FIELDS_OF.filter(([, field]) => (totals.whole()[field] ?? 0) > 0).map(([kind]) => kind);
  const ends = finished.map((event) => event.reason);
  return [...states, ...sums, ...ends, chart.scale !== undefined && chart.scale.level > 0 ? "peak" : ""];
}
