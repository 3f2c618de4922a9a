/** What stands in a field as a knob's value, and what is wrong with it: the sentences of `workbench/_knobs.py`. */

import type { Knob, KnobValue } from "../wire.js";

type Input = HTMLInputElement | HTMLSelectElement;

/** The value in a field; only for a field without a problem. */
export function read(knob: Knob, input: Input): KnobValue {
  if (knob.type === "bool") return (input as HTMLInputElement).checked;
  if (input.value.trim() === "" && knob.optional) return null;
  return isNumber(knob) ? Number(input.value) : input.value;
}

/** What is wrong with what stands in a field, as a sentence; empty when it may be sent. */
export function problemWith(knob: Knob, input: Input): string {
  if (!isNumber(knob)) return "";
  if (input.validity.badInput) return article(knob);
  if (input.value.trim() === "") return knob.optional ? "" : "must be given";
  const value = Number(input.value);
  if (!Number.isFinite(value) || (knob.type === "int" && !Number.isSafeInteger(value))) return article(knob);
  if (knob.ge !== null && value < knob.ge) return `must be at least ${knob.ge}`;
  if (knob.gt !== null && value <= knob.gt) return `must be greater than ${knob.gt}`;
  if (knob.le !== null && value > knob.le) return `must be at most ${knob.le}`;
  return "";
}

/** "≥ 1, ≤ 4096". */
export function rangeOf(knob: Knob): string {
  const low = knob.ge !== null ? `≥ ${knob.ge}` : knob.gt !== null ? `> ${knob.gt}` : "";
  const high = knob.le !== null ? `≤ ${knob.le}` : "";
  return [low, high].filter(Boolean).join(", ");
}

const isNumber = (knob: Knob): boolean => knob.choices.length === 0 && (knob.type === "int" || knob.type === "float");

const article = (knob: Knob): string => (knob.type === "int" ? "must be a whole number" : "must be a number");
