/** Which stretch of a run is in sight: zooming, panning, following.  Pure functions of positions. */

export interface Stretch {
  readonly first: number;
  readonly last: number;
}

/** Stands for the whole run, however long it grows. */
export const WHOLE: Stretch = { first: 0, last: 0 };

export interface Situation {
  readonly length: number; // steps of the longest run
  readonly newest: number; // steps of the focused run
  readonly room: number; // steps that can be shown without crowding
  readonly follow: boolean;
  readonly cursor: number;
  readonly moved: boolean; // the cursor is elsewhere than when this was asked last
}

/** A stretch put right: the whole run stays whole while it grows, unless it is followed and outgrows the room; a moved cursor stays in sight. */
export function settle(stretch: Stretch, whole: boolean, now: Situation): Stretch {
  const crowded = now.follow && now.length > now.room;
  const span = whole ? (crowded ? now.room : now.length) : stretch.last - stretch.first;
  if (span >= now.length) return { first: 0, last: Math.max(1, now.length) };
  if (now.follow) return within(now.newest - span, span, now.length);
  const { first } = stretch;
  if (!now.moved) return within(first, span, now.length);
  return within(Math.min(now.cursor, Math.max(first, now.cursor + 1 - span)), span, now.length);
}

/** Show `factor` times as many steps, `around` staying where it is; never less than `least`. */
export function zoom(shown: Stretch, factor: number, around: number, least: number, length: number): Stretch {
  const span = shown.last - shown.first;
  const wanted = Math.max(Math.min(least, length), span * factor);
  return wanted >= length ? WHOLE : within(around - ((around - shown.first) * wanted) / span, wanted, length);
}

export function pan(shown: Stretch, steps: number, length: number): Stretch {
  const span = shown.last - shown.first;
  return span >= length ? WHOLE : within(shown.first + steps, span, length);
}

/** From one position to another, at least `least` steps. */
export function stretchOf(first: number, last: number, least: number, length: number): Stretch {
  const span = Math.max(Math.min(least, length), last - first);
  return span >= length ? WHOLE : within(first, span, length);
}

function within(first: number, span: number, length: number): Stretch {
  const start = Math.max(0, Math.min(length - span, first));
  return { first: start, last: start + span };
}
