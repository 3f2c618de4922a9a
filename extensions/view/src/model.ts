/** `Model`: what all pictures of one view share — its runs, and where their messages come from.  A second picture costs nothing. */

import type { RunView } from "./app.js";
import { whenOver } from "./dom.js";
import { Link, type AnyModel, type Reply } from "./link.js";
import { Pool } from "./pool.js";
import { type Stored, store } from "./stored.js";
import { Gap, Tape } from "./tape.js";
import type { Frame, RunInfo, Status, Why } from "./wire.js";

const VERSION = 1;
const ACK_FRAMES = 10; // each answer costs the kernel as much as a frame
const ASK_AGAIN_MS = 1000; // a lost snapshot is asked for again

type Shared = { -readonly [key in keyof RunView]: RunView[key] };

export class Model {
  readonly runs: Shared[] = [];
  /** What stands in the way of showing anything; empty if nothing does. */
  trouble = "";
  readonly link: Link | undefined;
  readonly #listeners = new Set<() => void>();
  #seq = -1; // of the last frame taken in; -1 before the first snapshot
  #asked = 0; // when a snapshot was last asked for
  readonly #explaining = new Map<string, number>(); // run and step asked for -> length of its tape then

  /** A model over a kernel, or without one for a saved page, which `take` fills. */
  constructor(
    source?: AnyModel,
    signal: AbortSignal = new AbortController().signal,
  ) {
    if (source === undefined) return;
    this.link = new Link(source, signal);
    const listener = (content: unknown, buffers: readonly DataView[]): void => this.#message(content as Message, buffers, source);
    source.on("msg:custom", listener);
    whenOver(signal, () => source.off("msg:custom", listener));
    this.#hello();
  }

  /** Call `listener` after every change, until `signal` aborts. */
  listen(listener: () => void, signal: AbortSignal): void {
    this.#listeners.add(listener);
    whenOver(signal, () => this.#listeners.delete(listener));
  }

  #message(content: Message, buffers: readonly DataView[], source: AnyModel): void {
    if (content.kind === "reply") this.link?.take(content);
    else if (content.kind === "frame") this.#frame(content, buffers);
    else if (content.kind === "parted") this.#parted(content);
    else if (content.kind === "result") store(source.widget_manager?.context?.model, content);
  }

  /** A frame is taken in if it is the next one, or a snapshot for us; anything else that is newer shows that one was lost. */
  #frame(frame: Frame, buffers: readonly DataView[]): void {
    if (frame.to !== undefined && frame.to !== this.link?.client) return;
    const begins = frame.to !== undefined || (this.#seq < 0 && frame.runs !== undefined && frame.seq === 0);
    if (!begins) {
      if (frame.seq <= this.#seq) return;
      if (this.#seq < 0 || frame.seq > this.#seq + 1) return this.#hello();
    }
    this.#seq = frame.seq;
    try {
      this.take(frame, buffers);
    } catch (error) {
      if (!(error instanceof Gap)) throw error;
      this.#seq = -1;
      return this.#hello();
    }
    this.#ack();
  }

  /** Take in what a frame holds, whatever its number. */
  take(frame: Frame, buffers: readonly (DataView | ArrayBuffer)[]): void {
    for (const info of frame.runs ?? []) this.#run(info);
    for (const part of frame.parts) {
      const run = this.runs[part.run];
      if (run === undefined) continue;
      run.status = merged(run.status, part.status);
      if (part.tape === undefined) continue;
      const cuts = run.tape.cuts.length;
      run.tape.append(part.tape, buffers[part.tape.buffer]!);
      if (run.tape.cuts.length > cuts) this.#forgetWhys(run, run.tape.firstStep + part.tape.at);
    }
    this.changed();
  }

  /** Ask for the explanation of a step, unless that was done since the tape last grew. */
  explain(run: RunView, step: number): void {
    const key = `${run.run}:${step}`;
    if (this.link === undefined || !run.live || this.#explaining.get(key) === run.tape.length) return;
    const { length } = run.tape;
    this.#explaining.set(key, length);
    this.link.ask("why", run.run, { step }).then(
      (why) => {
        if (run.tape.length < length) return; // taken back meanwhile
        run.whys.set(step, why as Why);
        this.changed();
      },
      () => this.#explaining.delete(key),
    );
  }

  changed(): void {
    for (const listener of this.#listeners) listener();
  }

  #run(info: RunInfo): void {
    if (info.meta.version > VERSION) {
      this.trouble = `This trace was packed by a newer workbench (version ${info.meta.version}, this one reads ${VERSION}): upgrade to see it.`;
      return;
    }
    const known = this.runs[info.run];
    if (known !== undefined) {
      Object.assign(known, info);
      return;
    }
    const tape = new Tape(info.meta.first_step);
    const forkStep = info.fork_step === undefined ? {} : { forkStep: info.fork_step };
    this.runs[info.run] = { ...info, ...forkStep, tape, pool: new Pool(tape), status: { state: "paused" }, whys: new Map() };
  }

  #parted({ run, position, sentence }: Parted): void {
    const known = this.runs[run];
    if (known === undefined) return;
    if (sentence === "") delete known.parted;
    else known.parted = { position, sentence };
    this.changed();
  }

  #forgetWhys(run: RunView, from: number): void {
    for (const step of [...run.whys.keys()]) if (step >= from) run.whys.delete(step);
    this.#explaining.clear();
  }

  #hello(): void {
    const now = performance.now();
    if (this.#asked !== 0 && now - this.#asked < ASK_AGAIN_MS) return;
    this.#asked = now;
    this.link?.tell("hello", { have: this.#seq });
  }

  #ack(): void {
    if (this.#seq % ACK_FRAMES === 0) this.link?.tell("ack", { seq: this.#seq });
  }
}

/** Where a branch and its parent part, found some time after the branch began. */
interface Parted {
  readonly kind: "parted";
  readonly run: number;
  readonly position: number;
  readonly sentence: string;
}

type Message = Frame | Reply | Parted | Stored;

const merged = (before: Status, now: Status): Status => ({ ...(before.config && !now.config ? { config: before.config } : {}), ...now });
