/** What travels between the kernel and the screen; `workbench/tape` writes it, and its docstrings say what each column means. */

export interface Part {
  readonly at: number; // steps that the receiver holds before this part
  readonly count: number;
  readonly buffer: number;
  readonly columns: readonly (readonly [name: string, dtype: Dtype, offset: number, length: number])[];
  readonly base: readonly [strings: number, ownerSets: number, requests: number]; // where the new entries of the next three lists belong
  readonly strings?: readonly string[];
  readonly owner_sets?: readonly (readonly number[])[];
  readonly vocab?: readonly [readonly number[], readonly string[]];
  readonly requests?: readonly RequestInfo[];
  readonly events?: readonly TapeEvent[];
}

export interface RequestInfo {
  readonly id: string;
  readonly prompt: readonly number[];
  readonly max_tokens: number;
  readonly priority: number;
  readonly uncached: boolean; // it never asks the prefix cache
}

export type TapeEvent =
  | { readonly step: number; readonly kind: "arrived"; readonly request: number; readonly at_s: number }
  | { readonly step: number; readonly kind: "restart"; readonly request: number; readonly prompt: readonly number[] }
  | { readonly step: number; readonly kind: "finished"; readonly request: number; readonly reason: string }
  | { readonly step: number; readonly kind: "preempted"; readonly request: number }
  | { readonly step: number; readonly kind: "command"; readonly text: string };

export interface Knob {
  readonly name: string;
  readonly type: string; // "int", "float", "bool", "str"
  readonly doc: string;
  readonly unit: string;
  readonly group: string;
  readonly ge: number | null;
  readonly gt: number | null;
  readonly le: number | null;
  readonly choices: readonly string[];
  readonly optional: boolean;
  readonly live: boolean;
  readonly fork: boolean;
  readonly value: KnobValue;
}

export type KnobValue = number | boolean | string | null;

export interface Meta {
  readonly version: number;
  readonly model: Readonly<Record<string, string | number>>;
  readonly block_size: number;
  readonly policy: string;
  readonly first_step: number;
  readonly fidelity: string;
  readonly config: Readonly<Record<string, KnobValue>>;
  readonly speculation: string; // "eagle, 4 drafts"; empty without
  readonly reasons: readonly string[];
  readonly reason_words: Readonly<Record<string, string>>;
  readonly events: readonly string[];
  readonly has_order: boolean;
  readonly knobs: readonly Knob[];
}

export type RunState = "paused" | "running" | "finished" | "stopped" | "failed";

export interface Status {
  readonly state: RunState;
  readonly error?: { readonly type: string; readonly message: string; readonly step: number };
  readonly config?: Readonly<Record<string, KnobValue>>;
}

export interface RunInfo {
  readonly run: number;
  readonly name: string;
  readonly live: boolean;
  readonly meta: Meta;
  readonly parent?: number;
  readonly fork_step?: number;
  readonly fork_config?: Readonly<Record<string, KnobValue>>;
  readonly parted?: { readonly position: number; readonly sentence: string };
}

export interface Frame {
  readonly kind: "frame";
  readonly seq: number;
  readonly to?: string;
  readonly runs?: readonly RunInfo[];
  readonly parts: readonly { readonly run: number; readonly status: Status; readonly tape?: Part }[];
}

export interface Why {
  readonly step: number;
  readonly summary: string;
  readonly commands: readonly string[];
  readonly rows: readonly WhyRow[];
}

export interface WhyRow {
  readonly request: string; // its id
  readonly verdict: string;
  readonly label: string;
  readonly sentence: string;
  readonly more: readonly string[];
  readonly changes: readonly { readonly label: string; readonly fork: Readonly<Record<string, unknown>> }[];
  readonly tried: boolean;
}

export type Dtype = "f8" | "f4" | "u4" | "i4" | "u2" | "i2" | "u1";
export type Numbers = Float64Array | Float32Array | Uint32Array | Int32Array | Uint16Array | Int16Array | Uint8Array;
type NumbersOf = new (buffer: ArrayBuffer, offset: number, length: number) => Numbers;

export const ARRAYS: Readonly<Record<Dtype, NumbersOf>> = {
  f8: Float64Array,
  f4: Float32Array,
  u4: Uint32Array,
  i4: Int32Array,
  u2: Uint16Array,
  i2: Int16Array,
  u1: Uint8Array,
};

/** The value of an i4 column where there is no number. */
export const NONE = -2147483648;
/** The code of a u1 column where there is none. */
export const NO_CODE = 255;

/** Read the columns of a part.  Copies when the buffer is not aligned as typed arrays need it. */
export function readColumns(part: Part, buffer: ArrayBuffer | DataView): ReadonlyMap<string, Numbers> {
  const view = buffer instanceof DataView ? buffer : new DataView(buffer);
  const whole = view.byteOffset % 8 === 0;
  const bytes = whole ? view.buffer : view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
  const base = whole ? view.byteOffset : 0;
  const found = new Map<string, Numbers>();
  for (const [name, dtype, offset, length] of part.columns) found.set(name, new ARRAYS[dtype](bytes as ArrayBuffer, base + offset, length));
  return found;
}
