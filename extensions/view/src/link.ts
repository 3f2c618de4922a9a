/** `Link`: asks the kernel and waits for its answers.
 *
 * Comm messages reach Python on the shell channel, which a running cell blocks.  Where the front end lets us (JupyterLab, Notebook) and the
 * kernel listens, asks travel on the control channel instead, which nothing blocks; the answers always come back over the comm.
 */

import { whenOver } from "./dom.js";
import type { Notebook } from "./stored.js";

/** What anywidget gives to a view: the part that is used here. */
export interface AnyModel {
  get(name: string): unknown;
  on(name: "msg:custom", callback: (content: unknown, buffers: readonly DataView[]) => void): void;
  off(name: "msg:custom", callback: (content: unknown, buffers: readonly DataView[]) => void): void;
  send(content: unknown): void;
  readonly widget_manager?: { readonly kernel?: Kernel | null; readonly context?: { readonly model: Notebook } };
}

interface Kernel {
  readonly clientId?: string;
  sendControlMessage?(message: unknown, expectReply: boolean, disposeOnDone: boolean): { readonly done: Promise<unknown> };
}

export interface Reply {
  readonly kind: "reply";
  readonly id: number;
  readonly client: string;
  readonly ok: boolean;
  readonly value?: unknown;
  readonly error?: string;
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

const PATIENCE_MS = 120_000; // a fork far back computes its steps again

export class Link {
  readonly client = unique();
  readonly #waiting = new Map<number, Waiting>();
  #asks = 0;

  constructor(
    private readonly model: AnyModel,
    private readonly signal: AbortSignal,
  ) {
    whenOver(signal, () => this.#failAll("the view was closed"));
  }

  /** Ask, and wait for the answer; rejects with an `Error` whose message may be shown as it is. */
  ask(op: string, run: number, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    if (this.signal.aborted) return Promise.reject(new Error("the view was closed: run.view() opens another"));
    const id = ++this.#asks;
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => this.#answered(id)?.reject(new Error(TOO_LATE)), PATIENCE_MS);
      const settled = <T>(then: (value: T) => void) => (value: T): void => (clearTimeout(late), then(value));
      this.#waiting.set(id, { resolve: settled(resolve), reject: settled(reject) });
      this.#send({ ...args, kind: "ask", id, client: this.client, op, run });
    });
  }

  /** Tell something that is not answered. */
  tell(op: string, args: Readonly<Record<string, unknown>> = {}): void {
    if (!this.signal.aborted) this.#send({ ...args, kind: "ask", id: 0, client: this.client, op, run: 0 });
  }

  /** Take an answer in, if it is one of ours. */
  take(reply: Reply): void {
    if (reply.client !== this.client) return;
    const waiting = this.#answered(reply.id);
    if (reply.ok) waiting?.resolve(reply.value);
    else waiting?.reject(new Error(reply.error ?? "the kernel gave no reason"));
  }

  #answered(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    return waiting;
  }

  #send(content: Readonly<Record<string, unknown>>): void {
    try {
      if (!this.#control(content)) this.model.send(content);
    } catch (error) {
      this.#answered(content["id"] as number)?.reject(new Error(`the kernel cannot be reached: ${String(error)}`));
    }
  }

  /** Send over the control channel, if there is one and the kernel has said that it listens; false if not. */
  #control(content: Readonly<Record<string, unknown>>): boolean {
    const address = this.model.get("_control");
    const kernel = this.model.widget_manager?.kernel;
    if (typeof address !== "string" || address === "" || typeof kernel?.sendControlMessage !== "function") return false;
    const header = {
      msg_id: unique(),
      msg_type: "workbench_request",
      username: "",
      session: kernel.clientId ?? this.client,
      date: new Date().toISOString(),
      version: "5.3",
    };
    const message = { header, parent_header: {}, metadata: {}, content: { ...content, view: address }, buffers: [], channel: "control" };
    kernel.sendControlMessage(message, true, true).done.catch(() => undefined);
    return true;
  }

  #failAll(why: string): void {
    for (const id of [...this.#waiting.keys()]) this.#answered(id)?.reject(new Error(why));
  }
}

/** Pages that are not secure have no `randomUUID`. */
const unique = (): string => crypto.randomUUID?.() ?? String(Math.random()).slice(2);

const TOO_LATE = "no answer for two minutes: the kernel may be busy, or gone";
