/** Drawing on a canvas: sharp at every pixel ratio, in the page's colours, again when size or colours change. */

/** Variable of the colour of each kind of event, and of each cause of a stall. */
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
 * Puts a canvas in the page and keeps it drawn.
 * @param {string} label what it shows, for whoever does not see it
 * @param {number} height in CSS pixels
 * @param {(context: CanvasRenderingContext2D, width: number, height: number, colour: (name: string) => string) => void} draw
 * @returns {{canvas: HTMLCanvasElement, redraw: () => void}} `redraw` draws in the next frame, however often it is called
 */
export function sketch(label, height, draw) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  canvas.style.cssText = `display:block;width:100%;height:${height}px`;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  let asked = 0;
  let width = 0;
  /** @type {Map<string, string>} asking the page's style costs a layout */
  const colours = new Map();
  const colour = (name) => {
    if (!colours.has(name)) colours.set(name, getComputedStyle(canvas).getPropertyValue(name).trim());
    return /** @type {string} */ (colours.get(name));
  };
  const paint = () => {
    asked = 0;
    if (!width) return;
    const ratio = devicePixelRatio;
    const [across, down] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = FONT;
    draw(context, width, height, colour);
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

/**
 * A drawing of what stays, on which something moves: it is drawn once, and copied, until `look` says that it would differ.
 * @param {(context: any, ...given: any[]) => void} draw
 */
export function kept(draw) {
  let known = "";
  const copy = new OffscreenCanvas(1, 1);
  return (context, width, height, colour, look) => {
    const { width: across, height: down } = context.canvas;
    const now = [across, down, colour("--ink"), colour("--card"), look].join();
    if (now !== known) {
      known = now;
      [copy.width, copy.height] = [across, down];
      const to = /** @type {any} */ (copy.getContext("2d"));
      to.setTransform(context.getTransform());
      to.font = FONT;
      draw(to, width, height, colour);
    }
    context.drawImage(copy, 0, 0, width, height);
  };
}

/**
 * Times for the marks of an axis, from 0, about `room` pixels apart, each with its label.
 * @param {number} durationMs
 * @param {number} width
 * @returns {{ms: number, label: string}[]}
 */
export function ticks(durationMs, width, room = 90) {
  if (!(durationMs > 0)) return [{ ms: 0, label: "0" }];
  const step = nice((durationMs * room) / width);
  const minutes = step >= 60_000;
  const unit = minutes ? 60_000 : step >= 100 ? 1000 : 1;
  const places = unit === 1000 && step < 1000 ? 1 : 0;
  const name = minutes ? "min" : unit === 1 ? "ms" : "s";
  const found = [];
  for (let ms = 0; ms <= durationMs; ms += step) {
    found.push({ ms, label: `${(ms / unit).toFixed(ms ? places : 0)} ${name}` });
  }
  return found;
}

const STEPS = [60_000, 120_000, 300_000, 600_000, 1_200_000, 3_600_000];

/** The next round number: 1, 2 or 5 with zeros; from half a minute on, whole minutes. @param {number} value */
export function nice(value) {
  if (value > 20_000) return STEPS.find((step) => step >= value) ?? Math.ceil(value / 3_600_000) * 3_600_000;
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-6)));
  const found = [1, 2, 5, 10].find((step) => step * power >= value * 0.999) ?? 10;
  return Math.max(found * power, 1);
}

/** @type {Record<string, (context: CanvasRenderingContext2D, size: number) => void>} lines of each cause, on a square */
const HATCHES = {
  upstream: (to, size) => slanted(to, size, 1),
  own: (to, size) => slanted(to, size, -1),
  blocked: (to, size) => to.fillRect(size / 4, 0, size / 2, size),
  unknown: (to, size) => to.fillRect(size / 3, size / 3, size / 3, size / 3),
};

function slanted(to, size, direction) {
  to.beginPath();
  for (const shift of [-size, 0, size]) {
    to.moveTo(shift, direction > 0 ? size : 0);
    to.lineTo(shift + size, direction > 0 ? 0 : size);
  }
  to.stroke();
}

/**
 * A pattern that says the cause of a silence without its colour: `/` provider or network, `\` own code, `|` event loop, dots unknown.
 * @param {CanvasRenderingContext2D} context
 * @param {string} cause
 * @param {(name: string) => string} colour
 */
export function hatch(context, cause, colour) {
  const size = 6;
  const ratio = devicePixelRatio;
  const tile = new OffscreenCanvas(Math.round(size * ratio), Math.round(size * ratio));
  const to = /** @type {any} */ (tile.getContext("2d"));
  to.scale(tile.width / size, tile.height / size);
  to.fillStyle = colour("--faint");
  to.fillRect(0, 0, size, size);
  to.fillStyle = to.strokeStyle = colour(CAUSE_COLOURS[cause] ?? "--soft");
  to.lineWidth = cause === "own" ? 1.8 : 1;
  (HATCHES[cause] ?? HATCHES.unknown)(to, size);
  const pattern = /** @type {CanvasPattern} */ (context.createPattern(tile, "repeat"));
  pattern.setTransform(new DOMMatrix().scale(size / tile.width));
  return pattern;
}

/** An open box between two times, hatched by its cause. */
export function silence(context, x, y, width, height, cause, colour) {
  context.fillStyle = hatch(context, cause, colour);
  context.fillRect(x, y, width, height);
  context.strokeStyle = colour(CAUSE_COLOURS[cause] ?? "--soft");
  context.lineWidth = 0.8;
  context.setLineDash([3, 2]);
  context.strokeRect(x + 0.4, y + 0.4, Math.max(0, width - 0.8), height - 0.8);
  context.setLineDash([]);
}

/** Marks and labels of an axis of time below `y`. */
export function axis(context, colour, times, scale, y, width) {
  context.fillStyle = colour("--soft");
  context.textAlign = "left";
  for (const { ms, label } of times) {
    const x = scale(ms);
    context.fillRect(Math.round(x), y, 1, 5);
    const wide = context.measureText(label).width;
    if (x + 3 + wide <= width) context.fillText(label, x + 3, y + 15);
  }
}
