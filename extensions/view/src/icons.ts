/** The signs on the buttons that move the cursor, drawn: as characters, some systems show them as coloured pictures. */

import { aria } from "./dom.js";

const PATHS = {
  home: "M3 3h2v10H3zM13 3v10L6 8z",
  back: "M10 3v10L3.5 8zM11 3h2.5v10H11z",
  play: "M4.5 2.5v11l9-5.5z",
  pause: "M4 3h3v10H4zM9 3h3v10H9z",
  forward: "M2.5 3H5v10H2.5zM6 3v10l6.5-5z",
  end: "M3 3v10l7-5zM11 3h2v10h-2z",
} as const;

export type Icon = keyof typeof PATHS;

const SVG = "http://www.w3.org/2000/svg";

/** Put the sign into `place`, instead of what is there, unless it is there already. */
export function showIcon(place: HTMLElement, icon: Icon): void {
  if (place.dataset["icon"] === icon) return;
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 16 16");
  aria(picture, "hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[icon]);
  picture.append(path);
  place.dataset["icon"] = icon;
  place.replaceChildren(picture);
}
