/** What colours and hatchings mean, in words beside them. */

import { CAUSE_COLOURS, hatch, sketch } from "./draw.js";
import { make } from "./element.js";
import { CAUSES } from "./format.js";

/** A small picture and what it stands for, as an item of a list. `fill(colour, context)` gives its colour or pattern. */
export function swatch(words, wide, fill) {
  const { canvas } = sketch("", 12, (context, width, colour) => {
    context.fillStyle = fill(colour, context);
    context.fillRect(0, 0, width, 12);
  });
  canvas.style.width = `${wide}px`;
  canvas.setAttribute("aria-hidden", "true");
  return make("li", {}, canvas, words);
}

/** The hatching of a cause. */
export const hatched = (cause, words = CAUSES[cause]) =>
  swatch(words, 26, (colour, context) => hatch(context, cause, colour));

/** All causes. */
export const causes = () => Object.keys(CAUSE_COLOURS).map((cause) => hatched(cause));
