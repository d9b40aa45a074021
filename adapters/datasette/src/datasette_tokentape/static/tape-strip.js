/** The token strip: every event of a call a mark at its arrival, with the head of the replay; a click goes there. */

import { keys } from "./controls.js";
import { hatch, KIND_COLOURS, sketch } from "./draw.js";
import { make, say, TapeElement } from "./element.js";
import { callOf } from "./events.js";
import { CAUSES, duration, exact, KINDS, plural, visible, whole } from "./format.js";
import { playerOf } from "./player.js";
import { markersOf, silencesOf, streamPicture } from "./stream.js";

const HINT = "Click or drag to go there.";

class TapeStrip extends TapeElement {
  purpose = "The strip";

  async build() {
    const call = (this.call = await callOf(this, this.dataset.call));
    const player = playerOf(call);
    const { canvas, momentAt } = streamPicture(call, player, { top: 34, band: 36, height: 94, labels: true });
    this.canvas = canvas;
    canvas.tabIndex = 0;
    this.at = make("p", { class: "strip-at soft number" }, HINT);
    this.legend = make("ul", { class: "legend" });
    canvas.addEventListener("pointermove", (event) => say(this.at, this.#under(momentAt(event))));
    canvas.addEventListener("pointerleave", () => say(this.at, HINT));
    call.addEventListener("grow", () => this.#describe());
    call.addEventListener("finish", () => this.#describe());
    this.#describe();
    keys(this, player);
    return [canvas, make("div", { class: "strip-below" }, this.legend, this.at)];
  }

  /** What there is at a moment. */
  #under(ms) {
    const { call } = this;
    const silent = silencesOf(call).find(({ start_ms, end_ms }) => start_ms < ms && ms < end_ms);
    const row = call.countAt(ms) - 1;
    const words = [exact(Math.max(0, ms))];
    if (row >= 0) words.push(`event ${whole(row + 1)}/${whole(call.count)}`);
    if (silent) words.push(`${duration(silent.end_ms - silent.start_ms)} ${CAUSES[silent.cause]}`);
    else if (row >= 0 && call.token[row]) words.push(visible(call.token[row].slice(0, 40)));
    return words.join(" · ");
  }

  /** Text of the picture, and what its colours and hatchings mean: of those that occur. */
  #describe() {
    const { call, canvas } = this;
    const causes = [...new Set(silencesOf(call).map(({ cause }) => cause))];
    const markers = markersOf(call).slice(0, 20);
    const words = markers.map(({ ms, label }) => `${label} at ${duration(ms)}`);
    const all = `${plural(call.count, "event")} in ${duration(call.durationMs)}`;
    canvas.setAttribute("aria-label", [all, ...words].join("; "));
    this.legend.replaceChildren(
      ...call.kinds.map((kind) => swatch(KINDS[kind] ?? kind, "", KIND_COLOURS[kind])),
      ...causes.map((cause) => swatch(CAUSES[cause] ?? cause, cause, "")),
    );
  }
}

/** A small picture and what it stands for. */
function swatch(words, cause, variable) {
  const { canvas } = sketch("", 12, (context, width, height, colour) => {
    context.fillStyle = cause ? hatch(context, cause, colour) : colour(variable);
    context.fillRect(0, 0, width, height);
  });
  canvas.style.width = cause ? "26px" : "8px";
  canvas.setAttribute("aria-hidden", "true");
  return make("li", {}, canvas, words);
}

customElements.define("tape-strip", TapeStrip);
