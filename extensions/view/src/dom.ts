/** Small helpers to build elements; text is always text, never markup. */

type Attributes = Readonly<Record<string, string>>;

export function h<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A `div` of a class. */
export const box = (cls: string, ...children: (Node | string)[]): HTMLDivElement => h("div", { class: cls }, ...children);

/** A `span` of a class, or of none. */
export const span = (cls: string, ...children: (Node | string)[]): HTMLSpanElement => h("span", cls === "" ? {} : { class: cls }, ...children);

/** Say something about an element to those who do not see it, if it is news: `aria(toggle, "expanded", true)`. */
export const aria = (el: Element, name: string, value: unknown): void => put(el, `aria-${name}`, String(value));

/** Set an attribute only when it changed, so that screen readers are left in peace. */
export function put(el: Element, name: string, value: string): void {
  if (el.getAttribute(name) !== value) el.setAttribute(name, value);
}

/** Give a button its tooltip, which is also its name for those who do not see it. */
export function entitle(el: HTMLElement, title: string): void {
  el.title = title;
  aria(el, "label", title);
}

/** What is done with an event is done here: neither the browser nor the page has a use for it. */
export function take(event: Event): void {
  event.preventDefault();
  event.stopPropagation();
}

/** Give the keys back to the view that an element is in. */
export const leave = (el: Element): void => el.closest<HTMLElement>(".wb-view")?.focus({ preventScroll: true });

/** Give an element a class, or take it away. */
export const mark = (el: Element, cls: string, on: boolean): boolean => el.classList.toggle(cls, on);

/** A real button; `title` is both its tooltip and its name for those who do not see it. */
export function button(face: string, title: string, act: () => void, cls = ""): HTMLButtonElement {
  const made = h("button", { type: "button", title, "aria-label": title, class: `wb-button ${cls}` }, face);
  made.addEventListener("click", act);
  return made;
}

/** Hear an element's events until `signal` aborts. */
export function on<Type extends keyof HTMLElementEventMap>(
  el: HTMLElement,
  type: Type,
  act: (event: HTMLElementEventMap[Type]) => void,
  signal: AbortSignal,
): void {
  el.addEventListener(type, act, { signal });
}

export const whenOver = (signal: AbortSignal, act: () => void): void => signal.addEventListener("abort", act);

export const hide = (el: Element, hidden: boolean): boolean => el.classList.toggle("wb-hidden", hidden);

/** Set text only when it changed, so that selections and screen readers are left in peace. */
export function setText(el: Element, text: string): void {
  if (el.textContent !== text) el.textContent = text;
}

/** A panel's frame: a heading, a note at its right, and its body. */
export function section(cls: string, title: string, note = ""): { el: HTMLElement; title: HTMLElement; note: HTMLElement; body: HTMLElement } {
  const name = h("span", {}, title);
  const beside = h("em", {}, note);
  const body = box("wb-body");
  return { el: h("section", { class: `wb-panel ${cls}`, "aria-label": title }, h("h4", {}, name, beside), body), title: name, note: beside, body };
}
