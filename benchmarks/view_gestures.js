// What benchmarks/view_browser.py does on the page: load a long run, and move about in it, one move each animation frame.

const nextFrame = () => new Promise(requestAnimationFrame);

/** Call `move(i)` in every animation frame for a while; the times of the frames in milliseconds. */
async function frames(ms, move) {
  const times = [];
  const began = performance.now();
  for (let i = 0; performance.now() - began < ms; i++) {
    times.push(await nextFrame());
    move(i);
  }
  return times;
}

/** From 0 to 1 and back, `period` moves long. */
const swing = (i, period) => 1 - Math.abs(((i % period) / period) * 2 - 1);
const only = (selector) => document.querySelector(`.wb-view ${selector}`);

function wheel(deltaX, deltaY, keys) {
  const canvas = only(".wb-tl-canvas");
  const { left, top, width, height } = canvas.getBoundingClientRect();
  const place = { clientX: left + width * 0.6, clientY: top + height / 2 };
  canvas.dispatchEvent(new WheelEvent("wheel", { deltaX, deltaY, ...place, ...keys, bubbles: true, cancelable: true }));
}

function drag(canvas, type, share) {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  const place = { clientX: left + width * (0.12 + 0.85 * share), clientY: top + height / 2 };
  canvas.dispatchEvent(new PointerEvent(type, { ...place, pointerId: 1, button: 0, buttons: 1, bubbles: true, cancelable: true }));
}

const MOVES = {
  // The thumb of the slider, from end to end and back; all steps are in sight.
  slider: scrub,
  // The pointer pressed on the chart, drawn across it and back, with the words that it hovers over.
  drag: () => {
    const canvas = only(".wb-tl-canvas");
    canvas.setPointerCapture = () => {}; // there is no such pointer
    drag(canvas, "pointerdown", 0);
    return (i) => drag(canvas, "pointermove", swing(i, 240));
  },
  // → held down, faster than any keyboard repeats; one request is selected, and its text shown whole.
  arrow: () => {
    drag(only(".wb-tl-canvas"), "pointerup", 0);
    return () => press("ArrowRight");
  },
  // In to a few steps, out to all of them.
  zoom: () => (i) => wheel(0, i % 180 < 90 ? -10 : 10, { ctrlKey: true }),
  // Along the run, some hundred steps in sight.
  pan: () => {
    press("0");
    for (let i = 0; i < 45; i++) wheel(0, -10, { ctrlKey: true });
    return (i) => wheel(i % 120 < 60 ? -40 : 40, 0, {});
  },
  // The slider again, so that what is in sight jumps with it.
  jumps: scrub,
  // A running engine sends twenty frames a second, and the view follows.
  live: () => {
    const { rest } = window.long;
    press("f");
    return (i) => {
      const next = i % 3 === 0 ? rest.shift() : undefined;
      if (next !== undefined) window.harness.model.emit("msg:custom", next.frame, next.buffers);
    };
  },
};

function scrub() {
  const slider = only(".wb-slider");
  return (i) => {
    slider.value = String(Math.round(swing(i, 480) * Number(slider.max)));
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  };
}

function press(key) {
  const view = document.querySelector(".wb-view");
  view.focus();
  view.dispatchEvent(new KeyboardEvent("keydown", { key, repeat: true, bubbles: true, cancelable: true }));
}

window.long = {
  rest: [],
  /** Fetch the run; not part of what is timed. */
  async fetch() {
    const [told, bytes] = await Promise.all([fetch("/long.json").then((it) => it.json()), fetch("/long.bin").then((it) => it.arrayBuffer())]);
    const cut = ({ frame, spans }) => ({ frame, buffers: spans.map(([start, end]) => new DataView(bytes, start, end - start)) });
    [this.first, ...this.rest] = told.map(cut);
  },
  /** Hand it to the view; milliseconds until it was taken in, and until it was painted. */
  async load() {
    const began = performance.now();
    window.harness.model.emit("msg:custom", this.first.frame, this.first.buffers);
    const taken = performance.now() - began;
    await nextFrame();
    await nextFrame();
    return [taken, performance.now() - began];
  },
  /** The frames' times while a gesture is made. */
  move: (name, ms) => frames(ms, MOVES[name]()),
};
