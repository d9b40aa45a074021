/** The token strip: every event a mark at its arrival; a click goes there. */

import { CallElement } from "./call-element.js";
import { KIND_COLOURS } from "./draw.js";
import { make, say } from "./element.js";
import { CAUSES, duration, exact, KINDS, plural, visible, whole } from "./format.js";
import { hatched, swatch } from "./legend.js";
import { markersOf, silencesOf, streamPicture } from "./stream.js";

const HINT = "Click or drag to go there.";

class TapeStrip extends CallElement {
  made() {
    const size = { top: 34, band: 36, height: 94, words: true };
    const { canvas, momentAt } = streamPicture(this.call, this.player, size);
    this.canvas = canvas;
    canvas.tabIndex = 0;
    const at = make("p", { class: "strip-at" }, HINT);
    this.legend = make("ul", { class: "legend" });
    canvas.addEventListener("pointermove", (event) => say(at, this.#under(momentAt(event))));
    canvas.addEventListener("pointerleave", () => say(at, HINT));
    return [canvas, make("div", { class: "strip-below" }, this.legend, at)];
  }

  /** What there is at a moment. */
  #under(ms) {
    const { call } = this;
    const silent = silencesOf(call).find(({ start_ms, end_ms }) => start_ms < ms && ms < end_ms);
    const row = call.countAt(ms) - 1;
    const words = [exact(ms)];
    if (row >= 0) words.push(`event ${whole(call.index[row] + 1)}/${whole(call.cameWith(call.count))}`);
    if (silent) words.push(`${duration(silent.gap_ms)} ${CAUSES[silent.cause]}`);
    else if (row >= 0) words.push(visible(call.token[row]?.slice(0, 40) ?? ""));
    return words.join(" · ");
  }

  /** The picture in words, and what its colours and hatchings mean. */
  changed() {
    const { call, canvas } = this;
    const words = markersOf(call).map(({ ms, label }) => `${label} at ${duration(ms)}`);
    words.unshift(`${plural(call.cameWith(call.count), "event")} in ${duration(call.durationMs)}`);
    canvas.setAttribute("aria-label", words.slice(0, 20).join("; "));
    const causes = new Set(silencesOf(call).map(({ cause }) => cause));
    this.legend.replaceChildren(
      ...call.kinds.map((kind) => swatch(KINDS[kind], 8, (colour) => colour(KIND_COLOURS[kind]))),
      ...[...causes].map((cause) => hatched(cause)),
    );
  }
}

customElements.define("tape-strip", TapeStrip);
