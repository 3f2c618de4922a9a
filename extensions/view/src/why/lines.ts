/** The lines of the why panel: one per request, and one for all that merely did the same in full. */

import type { RunView } from "../app.js";
import { nameOf } from "../blocks/words.js";
import { count, whole } from "../format.js";
import type { Tape } from "../tape.js";
import type { Why, WhyRow } from "../wire.js";
import { type Lane, labelOf, lanesAt, reasonOf } from "./words.js";

export interface Line {
  readonly requests: readonly number[]; // several when they did the same
  readonly label: string;
  readonly sentence: string;
  readonly more: readonly string[];
  readonly changes: WhyRow["changes"];
  /** A change of one knob was looked for, and there is none. */
  readonly hopeless: boolean;
}

/** Lines of a step, those that were cut first, then what ran, what waited, and what was preempted; from `why` as far as it is here. */
export function linesOf(run: RunView, position: number, why: Why | undefined, selected: number | null): Line[] {
  const { tape } = run;
  const lanes = lanesAt(tape, position);
  const told = new Map(why?.rows.map((row) => [row.request, row]));
  const common = (lane: Lane): boolean => lane.request !== selected && isPlain(lane, run);
  const groups = [lanes.filter((lane) => common(lane) && lane.state === "decode"), lanes.filter((lane) => common(lane) && lane.state === "verify")];
  const together = new Set(groups.filter((group) => group.length > 1).flat());
  const alone = lanes.filter((lane) => !together.has(lane));
  const found = alone.map((lane) => [rank(lane), single(run, lane, told.get(nameOf(tape, lane.request)))] as const);
  for (const group of groups) if (group.length > 1) found.push([rank(group[0]!), merged(group, run, told)]);
  const lines = found.sort(([a], [b]) => a - b).map(([, line]) => line);
  return [...lines, ...unseen(tape, lanes, why)];
}

/** It computed all that it could, and there is nothing more to say. */
function isPlain(lane: Lane, { meta }: RunView): boolean {
  return lane.verdict === "scheduled" && meta.reasons[lane.number("reason")] === "full" && (lane.state === "decode" || lane.state === "verify");
}

const RANKS = ["prefill", "verify", "decode", "idle", "waiting", "preempted", "held"] as const;

const rank = (lane: Lane): number => (lane.verdict === "partial" || lane.verdict === "rejected" ? -1 : RANKS.indexOf(lane.state));

function single(run: RunView, lane: Lane, row: WhyRow | undefined): Line {
  const { request } = lane;
  if (row !== undefined) return fromRow(row, [request]);
  const sentence = reasonOf(lane, run.meta);
  return { requests: [request], label: labelOf(lane), sentence, more: [], changes: [], hopeless: false };
}

function fromRow(row: WhyRow, requests: readonly number[]): Line {
  const { label, sentence, more, changes, verdict, tried } = row;
  return { requests, label, sentence, more, changes, hopeless: tried && changes.length === 0 && WAITED.includes(verdict) };
}

const WAITED: readonly string[] = ["deferred", "preempted"];

function merged(group: readonly Lane[], { tape }: RunView, told: ReadonlyMap<string, WhyRow>): Line {
  const requests = group.map((lane) => lane.request);
  const [label, sentence] = group[0]!.state === "decode" ? ["decode", "One token each."] : verifications(group);
  const more = requests.flatMap((request) => told.get(nameOf(tape, request))?.sentence ?? []);
  return { requests, label, sentence, more, changes: [], hopeless: false };
}

const FEW = 4; // numbers that are read one by one; of more, only their sum says something

function verifications(group: readonly Lane[]): readonly [label: string, sentence: string] {
  const drafts = group.map((lane) => lane.number("drafts"));
  const accepted = group.map((lane) => Math.max(0, lane.number("accepted")));
  const same = drafts.every((one) => one === drafts[0]);
  const sum = (values: readonly number[]): number => values.reduce((total, one) => total + one, 0);
  const label = same ? `verify ${drafts[0]}` : "verify";
  if (group.length > FEW) return [label, `${count(sum(drafts), "draft")}, ${whole(sum(accepted))} of them accepted.`];
  return [label, `${same ? `${count(drafts[0]!, "draft")} each` : `${listed(drafts)} drafts`}; ${listed(accepted)} accepted.`];
}

const listed = (values: readonly number[]): string => `${values.slice(0, -1).join(", ")} and ${values.at(-1)}`;

/** What is explained of requests that are not in sight: those that are still to arrive, in one line if they are several. */
function unseen(tape: Tape, lanes: readonly Lane[], why: Why | undefined): Line[] {
  const seen = new Set(lanes.map((lane) => nameOf(tape, lane.request)));
  const index = (row: WhyRow): number => tape.requests.findIndex(({ id }) => id === row.request);
  const rows = (why?.rows ?? []).filter((row) => !seen.has(row.request) && index(row) >= 0);
  if (rows.length < 2) return rows.map((row) => fromRow(row, [index(row)]));
  const more = rows.map((row) => row.sentence);
  return [{ requests: rows.map(index), label: rows[0]!.label, sentence: "Still to come.", more, changes: [], hopeless: false }];
}
