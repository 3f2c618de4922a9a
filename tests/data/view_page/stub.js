// The browser's half of the harness in tests/view_page.py: the built view on a model as anywidget 0.11 gives it, the kernel's side in the test's hands.

import view from "/view.js";

class StubModel {
  #state = new Map();
  #listeners = [];

  get(name) {
    return this.#state.get(name);
  }

  set(name, value) {
    if (Object.is(this.#state.get(name), value)) return;
    this.#state.set(name, value);
    this.emit(`change:${name}`, value);
    this.emit("change");
  }

  save_changes() {
    window.saved.push(Object.fromEntries(this.#state));
  }

  on(names, callback) {
    for (const name of names.split(" ")) this.#listeners.push({ name, callback });
  }

  off(name, callback) {
    const goes = (each) => (name == null || each.name === name) && (callback == null || each.callback === callback);
    this.#listeners = this.#listeners.filter((each) => !goes(each));
  }

  get listening() {
    return this.#listeners.length;
  }

  emit(name, ...given) {
    for (const each of [...this.#listeners]) if (each.name === name) each.callback(...given);
  }

  // What travels is JSON, as on the wire: what JSON cannot hold does not arrive.
  send(content, _callbacks, buffers = []) {
    const message = JSON.parse(JSON.stringify(content));
    window.sent.push(message);
    window.sentBuffers.push(buffers.map((each) => each.byteLength));
    setTimeout(() => answer(message));
  }
}

// Replies by op: a value, or {error}; an op that is not here is not answered, as from a kernel that is busy.
window.answers = { hello: null, ack: null };
window.sent = [];
window.sentBuffers = [];
window.saved = [];

const model = new StubModel();
const life = new AbortController();
const pictures = [];
let greeting = null; // what a hello is answered with: {header, buffers}

function answer({ kind, id, client, op }) {
  if (kind !== "ask" || !(op in window.answers)) return;
  const { error, ...rest } = window.answers[op] ?? {};
  const value = "value" in rest ? rest.value : window.answers[op];
  const reply = error === undefined ? { kind: "reply", id, client, ok: true, value } : { kind: "reply", id, client, ok: false, error };
  model.emit("msg:custom", reply, []);
  if (op === "hello" && greeting) model.emit("msg:custom", { ...greeting.header, to: client }, greeting.buffers);
}

// Buffers arrive as DataViews into a larger buffer; `shift` moves them off the alignment that typed arrays ask for.
async function views(encoded, shift) {
  const read = async (text) => {
    const bytes = new Uint8Array(await (await fetch(`data:application/octet-stream;base64,${text}`)).arrayBuffer());
    const room = new Uint8Array(bytes.length + shift);
    room.set(bytes, shift);
    return new DataView(room.buffer, shift, bytes.length);
  };
  return Promise.all(encoded.map(read));
}

window.harness = {
  model,
  // As JupyterLab does when the user picks another theme.
  theme(name) {
    document.body.dataset.jpThemeLight = String(name !== "dark");
    const link = document.querySelector("link[href$='theme.css']");
    return new Promise((done) => {
      link.addEventListener("load", done, { once: true });
      link.href = `/${name}/theme.css`;
    });
  },
  async greet(header, encoded, shift) {
    greeting = { header, buffers: await views(encoded, shift) };
  },
  async push(content, encoded, shift) {
    model.emit("msg:custom", content, await views(encoded, shift));
  },
  async initialize() {
    model.set("_uplot", await (await fetch("/uplot.js")).text());
    this.definition = typeof view === "function" ? await view() : view;
    await this.definition.initialize?.({ model, signal: life.signal });
  },
  // Another picture of the same model, as when the widget is shown in a second output.
  async render(width) {
    const el = document.createElement("div");
    el.className = "picture";
    el.style.width = width;
    document.body.append(el);
    const end = new AbortController();
    const signal = AbortSignal.any([life.signal, end.signal]);
    const cleanup = await this.definition.render({ model, el, signal });
    signal.addEventListener("abort", () => (cleanup?.(), el.remove()));
    pictures.push(end);
    return pictures.length - 1;
  },
  close: (picture) => pictures[picture].abort(),
  destroy: () => life.abort(),
};
