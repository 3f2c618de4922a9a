/** Colours, read from the page's theme, so that canvases look like the text around them. */

/** Okabe–Ito; the words and order of `workbench/render/palette.py`.  Always with a second channel. */
export const COLOURS = {
  prefill: "#0072b2",
  cache: "#56b4e9",
  decode: "#009e73",
  verify: "#cc79a7",
  preempted: "#d55e00",
  plan: "#e69f00",
} as const;

/** Fills for blocks and names of requests, by request index; beyond these they repeat with another mark. */
export const REQUEST_COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a90a", "#7d5ba6"] as const;

export const requestColour = (request: number): string => REQUEST_COLOURS[request % REQUEST_COLOURS.length]!;

export interface Theme {
  readonly dark: boolean;
  readonly background: string;
  readonly ink: string;
  readonly dim: string;
  readonly line: string;
  readonly soft: string;
  readonly wait: string;
  readonly select: string;
  readonly font: string; // of canvases, without a size
}

/** The theme as it is at `el` now: `known` itself if nothing changed.  A page may bring its style sheets later than the view. */
export function themeOf(el: HTMLElement, known?: Theme): Theme {
  const style = getComputedStyle(el);
  const colour = (name: string): string => style.getPropertyValue(name).trim();
  const background = colour("--wb-bg") || "#ffffff";
  const found = {
    dark: known?.background === background ? known.dark : isDark(background),
    background,
    ink: colour("--wb-ink"),
    dim: colour("--wb-dim"),
    line: colour("--wb-line"),
    soft: colour("--wb-soft"),
    wait: colour("--wb-wait"),
    select: colour("--wb-select"),
    font: style.fontFamily,
  };
  const same = known !== undefined && (Object.keys(found) as (keyof Theme)[]).every((name) => found[name] === known[name]);
  return same ? known : found;
}

function isDark(colour: string): boolean {
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true })!;
  probe.fillStyle = colour;
  probe.fillRect(0, 0, 1, 1);
  const [red, green, blue] = probe.getImageData(0, 0, 1, 1).data;
  return 0.299 * red! + 0.587 * green! + 0.114 * blue! < 128;
}
