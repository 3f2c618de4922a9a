/** What a token looks like, and what can be said of it. */

import { once } from "../follow.js";
import { ORIGINS, type Tape } from "../tape.js";
import type { Here } from "./here.js";

/** A token on the screen: of a prompt, of what came out (`place` counts the rows of `Outputs`), or a draft that was refused in a step. */
export interface Token {
  readonly request: number;
  readonly kind: "prompt" | "output" | "draft";
  readonly place: number;
  readonly id: number;
  readonly origin?: number; // code in `ORIGINS`
}

/** The id of the token at a place of a text. */
export type TokenAt = (place: number) => number | undefined;

export interface Face {
  readonly text: string;
  readonly cls: string;
}

const SPECIAL = /^(?:<\|[^|]*\|>|<\/?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>|\[\/?INST\])$/;
const BREAK = /^[ \t]*[\r\n]+[ \t]*$/;
const BYTE = /<0x([89A-F][\dA-F])>/; // part of a character, as `Tokenizer.token_text` writes it
const facesOf = once((_: Tape) => new Map<number, Face>());

/** Text and class of the token at a place; its id where the trace has no text for it. */
export function faceOf(tape: Tape, { id, place }: Token, at: TokenAt): Face {
  const known = facesOf(tape);
  const found = known.get(id);
  if (found !== undefined) return found;
  if (!hasText(tape, id)) return { text: `${nameless(id)} `, cls: "wb-tok wb-id" };
  const text = tape.textOf(id);
  if (BYTE.test(text)) return dressed(added(tape, place, at));
  const made = dressed(text);
  known.set(id, made);
  return made;
}

function dressed(text: string): Face {
  const mark = text === "" || SPECIAL.test(text) ? " wb-special" : BREAK.test(text) ? " wb-break" : "";
  return { text: text || "·", cls: `wb-tok${mark}` };
}

/** What a token adds to the text before it, as `workbench/detokenize.py` has it: a character of several tokens stands whole in its last. */
function added(tape: Tape, place: number, at: TokenAt): string {
  const read = (places: readonly number[]): string =>
    new TextDecoder().decode(Uint8Array.from(places.flatMap((each) => bytesOf(tape.textOf(at(each)!)))), { stream: true });
  const before = [place - 3, place - 2, place - 1]; // a character has four bytes at most
  return read([...before, place]).slice(read(before).length);
}

/** The bytes of a token's text, those among them that are written out. */
const bytesOf = (text: string): number[] =>
  text.split(BYTE).flatMap((part, i) => (i % 2 === 1 ? parseInt(part, 16) : [...new TextEncoder().encode(part)]));

/** Whether the trace knows the text of a token; where it does not, a tape has ⟨id⟩ in its place. */
export function hasText(tape: Tape, id: number): boolean {
  const text = tape.vocab.get(id);
  return text !== undefined && text !== `⟨${id}⟩`;
}

/** What stands for a token whose text is not known; for a draft, not even its id may be. */
const nameless = (id: number): string => (id === UNKNOWN_DRAFT ? "?" : String(id));
const UNKNOWN_DRAFT = 2 ** 32 - 1;

/** Text of tokens on one line: line breaks as ↵, at most `limit` characters, of which the end is cut. */
export function oneLine(tape: Tape, ids: Iterable<number>, limit: number): string {
  let text = "";
  for (const id of ids) {
    text += hasText(tape, id) ? tape.vocab.get(id)! : `${nameless(id)} `;
    if (text.length > 2 * limit) break;
  }
  const flat = text.replace(/\r?\n/g, "↵");
  return flat.length > limit ? `${flat.slice(0, limit - 1)}…` : flat;
}

const quoted = (tape: Tape, id: number): string => (hasText(tape, id) ? `“${oneLine(tape, [id], 40)}”` : `token ${nameless(id)}`);

const ORIGIN_WORDS: Readonly<Record<(typeof ORIGINS)[number], string>> = {
  decoded: "decoded: the model chose it, one token in one step",
  accepted: "accepted draft: guessed beforehand, and the model agreed",
  corrected: "corrected: the model chose it in place of a refused draft",
  bonus: "bonus: all drafts were right, so one more token came for free",
};

/** Lines of a tooltip: which token, where it came from, how likely it was, and what else could have stood there. */
export function tellToken(here: Here, token: Token): string {
  const { tape, position } = here;
  if (token.kind === "draft") return `${quoted(tape, token.id)}\nrefused draft · id ${token.id} · step ${tape.firstStep + position}`;
  return token.kind === "prompt" ? tellPrompt(here, token) : tellOutput(here, token);
}

function tellPrompt({ tape, outputs, position }: Here, { request, place, id }: Token): string {
  const at = outputs.computedAt(request, place, position);
  const cached = place < outputs.promptCached(request, position);
  const step = tape.firstStep + at;
  const how = at < 0 ? "not computed yet" : cached ? `found in the prefix cache at step ${step}` : `computed at step ${step}`;
  return `${quoted(tape, id)}\ntoken ${place + 1} of the prompt · id ${id}\n${how}`;
}

function tellOutput({ tape, outputs, position }: Here, { request, place, id }: Token): string {
  const row = outputs.rows(request)[place]!;
  const step = tape.firstStep + tape.positionOfRow("tokens", row);
  const which = `token ${place - outputs.since(request, position) + 1} of the output · id ${id} · step ${step}`;
  const lines = [quoted(tape, id), which, ORIGIN_WORDS[ORIGINS[tape.column("tokens.origin")[row]!] ?? "decoded"]];
  const logprob = tape.column("tokens.logprob")[row] ?? NaN;
  const rank = tape.column("tokens.rank")[row] ?? 0;
  if (!Number.isNaN(logprob)) lines.push(`logprob ${signed(logprob)}${rank > 0 ? ` · rank ${rank}` : ""}`);
  const others = alternatives(tape, row).filter((other) => other.id !== id);
  if (others.length > 0) lines.push(`alternatives: ${others.map((other) => `${quoted(tape, other.id)} ${signed(other.logprob)}`).join(" · ")}`);
  return lines.join("\n");
}

const signed = (value: number): string => value.toFixed(2).replace("-", "−");

/** The likeliest tokens of a row of `tokens`, where they were asked for. */
export function alternatives(tape: Tape, row: number): { readonly id: number; readonly logprob: number }[] {
  const position = tape.positionOfRow("tokens", row);
  const counts = tape.column("tokens.tops");
  let first = tape.rows("tops", position)[0];
  for (let before = tape.rows("tokens", position)[0]; before < row; before++) first += counts[before] ?? 0;
  const ids = tape.column("tops.id");
  const logprobs = tape.column("tops.logprob");
  return Array.from({ length: counts[row] ?? 0 }, (_, i) => ({ id: ids[first + i]!, logprob: logprobs[first + i]! }));
}

/** Drafts of a request that a position's step refused, in the order in which they were proposed. */
export function refusedDrafts(tape: Tape, request: number, position: number): number[] {
  const owners = tape.column("rounds.request");
  const proposed = tape.column("rounds.proposed");
  let first = tape.rows("drafts", position)[0];
  const [from, to] = tape.rows("rounds", position);
  for (let row = from; row < to; row++) {
    const end = first + proposed[row]!;
    if (owners[row] === request) return Array.from(tape.column("drafts.id").subarray(first + tape.column("rounds.accepted")[row]!, end));
    first = end;
  }
  return [];
}
