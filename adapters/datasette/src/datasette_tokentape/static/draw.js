/** Drawing on a canvas, again when size or colours change. */

/** Variable of the colour of each kind of event, of each cause. */
export const KIND_COLOURS = {
  text: "--rate-3",
  reasoning: "--think",
  tool_args: "--tool",
  refusal: "--bad",
  audio_transcript: "--rate-2",
};
export const CAUSE_COLOURS = { upstream: "--wait", blocked: "--blocked", own: "--own", unknown: "--soft" };

const LOOKS = ["(prefers-color-scheme: dark)", "(prefers-contrast: more)", "(forced-colors: active)"];
const FONT = "11.5px system-ui, 'DejaVu Sans', sans-serif";

/**
 * Makes a canvas and keeps it drawn; `redraw` draws in the next frame.
 * @param {string} label what it shows, for whoever does not see it
 * @param {number} height in CSS pixels
 * @param {(context: any, width: number, colour: (variable: string) => string) => void} draw
 */
export function sketch(label, height, draw) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  canvas.style.cssText = `display:block;width:100%;height:${height}px`;
  const context = canvas.getContext("2d");
  let asked = 0;
  let width = 0;
  // Asking for a style can cost a layout.
  const colours = new Map();
  const colour = (name) => {
    if (!colours.has(name)) colours.set(name, getComputedStyle(canvas).getPropertyValue(name).trim());
    return colours.get(name);
  };
  const paint = () => {
    asked = 0;
    if (!width) return;
    const ratio = devicePixelRatio;
    const size = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = FONT;
    draw(context, width, colour);
  };
  const redraw = () => {
    asked ||= requestAnimationFrame(paint);
  };
  const look = () => {
    colours.clear();
    redraw();
  };
  new ResizeObserver(([entry]) => {
    width = entry.contentRect.width;
    redraw();
  }).observe(canvas);
  for (const query of LOOKS) matchMedia(query).addEventListener("change", look);
  return { canvas, redraw };
}

/** What stays while something moves on top of it: drawn again when `look` differs. */
export function still(draw) {
  let known = "";
  const copy = new OffscreenCanvas(1, 1);
  return (context, width, colour, look) => {
    const { width: across, height: down } = context.canvas;
    const now = [across, down, colour("--ink"), colour("--card"), look].join();
    if (now !== known) {
      known = now;
      [copy.width, copy.height] = [across, down];
      const to = copy.getContext("2d");
      to.setTransform(context.getTransform());
      to.font = FONT;
      draw(to, width, colour);
    }
    context.drawImage(copy, 0, 0, width, (down * width) / across);
  };
}

/** The next round number: 1, 2 or 5 with zeros. */
export function nice(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-3)));
  return ([1, 2, 5].find((step) => step * power >= value * 0.999) ?? 10) * power;
}

/** An axis of time below `y`, `width` wide, marks about `room` pixels apart. */
export function axis(context, colour, { ms, width, y, room = 90 }) {
  const step = nice((ms * room) / width);
  const [unit, name] = step < 100 ? [1, "ms"] : [1000, "s"];
  context.fillStyle = colour("--soft");
  context.textAlign = "left";
  for (let at = 0; at <= ms; at += step) {
    const x = (at / ms) * width;
    const label = `${(at / unit).toFixed(step < 1000 && unit > 1 && at ? 1 : 0)} ${name}`;
    context.fillRect(Math.round(x), y, 1, 5);
    if (x + 3 + context.measureText(label).width <= width + 16) context.fillText(label, x + 3, y + 15);
  }
}

/** Hatchings on a square of 6, to tell causes without colour. */
const HATCHES = {
  upstream: "M-6 6 6-6M0 6 6 0M0 12 12 0",
  own: "M0-6 12 6M0 0 6 6M-6 0 6 12",
  blocked: "M2 0V6M3 0V6",
  unknown: "M2 3H4M2 4H4",
};

const patterns = new Map();

/** The pattern of a cause. */
export function hatch(context, cause, colour) {
  const [paper, ink] = [colour("--faint"), colour(CAUSE_COLOURS[cause])];
  const look = [cause, paper, ink, devicePixelRatio].join();
  if (patterns.has(look)) return patterns.get(look);
  const size = Math.round(6 * devicePixelRatio);
  const tile = new OffscreenCanvas(size, size);
  const to = tile.getContext("2d");
  to.scale(size / 6, size / 6);
  to.fillStyle = paper;
  to.fillRect(0, 0, 6, 6);
  to.strokeStyle = ink;
  to.lineWidth = cause === "own" ? 1.8 : 1;
  to.stroke(new Path2D(HATCHES[cause]));
  const pattern = context.createPattern(tile, "repeat");
  pattern.setTransform(new DOMMatrix().scale(6 / size));
  patterns.set(look, pattern);
  return pattern;
}

/** A box for a time in which nothing came, hatched by its cause. */
export function silence(context, x, y, width, height, cause, colour) {
  context.fillStyle = hatch(context, cause, colour);
  context.fillRect(x, y, width, height);
  context.strokeStyle = colour(CAUSE_COLOURS[cause]);
  context.lineWidth = 0.8;
  context.strokeRect(x + 0.4, y + 0.4, Math.max(0, width - 0.8), height - 0.8);
}
