/** The replay: the answer appears as it came. */

import { Answer } from "./answer.js";
import { CallElement } from "./call-element.js";
import { controls } from "./controls.js";
import { make, say } from "./element.js";
import { duration, exact, plural, whole } from "./format.js";
import { paced, TEXT_MS } from "./player.js";
import { markersOf, stallsIn } from "./stream.js";

/** So many stalls get a button of their own, the longest. */
const JUMPS = 8;

class TapeReplay extends CallElement {
  made() {
    const { call, player } = this;
    this.note = make("p", { class: "tape-note" });
    this.jumps = make("ul", { class: "jumps", "aria-label": "Jump to" });
    const answer = new Answer(call, "The answer as it came");
    this.show = () => answer.show(player.count, player.time);
    const where = () =>
      `Event ${whole(call.cameWith(player.count))}/${whole(call.cameWith(call.count))} · ${exact(player.time)} / ${exact(call.durationMs)}`;
    this.controls = controls(this, player, where);
    paced(player, TEXT_MS, this.show);
    player.addEventListener("state", () => this.classList.toggle("is-playing", player.playing));
    player.seek(call.durationMs);
    if (call.running) player.play();
    const { bar, scrub, rest } = this.controls;
    return [this.note, answer.box, scrub, bar, this.jumps, ...rest];
  }

  changed() {
    const { call, player } = this;
    const words = missing(call);
    this.note.hidden = !words;
    say(this.note, words);
    const markers = markersOf(call);
    const stalls = stallsIn(markers);
    this.controls.mark(markers.slice(0, 200));
    const shown = markers.filter((marker) => marker.kind !== "stall" || stalls.indexOf(marker) < JUMPS);
    const jumps = shown.map(({ ms, label, kind }) => {
      const text = kind === "stall" ? label : `${label} ${duration(ms)}`;
      return make("li", {}, make("button", { type: "button", onclick: () => player.seek(ms) }, text));
    });
    const more = stalls.length - JUMPS;
    if (more > 0) jumps.push(make("li", {}, `${plural(more, "shorter stall")} in the list`));
    this.jumps.replaceChildren(...jumps);
    this.jumps.hidden = !jumps.length;
    this.show();
  }
}

/** Why there is less to play than there was to hear; empty where nothing is missing. */
function missing(call) {
  const { info, count, running, hasText } = call;
  if (!hasText) return "Only when each event came was recorded, not its text: ▪ is one event.";
  if (count < call.cameWith(count)) return `${plural(count, "event")} of ${whole(info.event_count)} are kept: … is the others.`;
  if (count || running) return "";
  return info.event_count ? "Its events are not kept: there is nothing to play." : "No token event came.";
}

customElements.define("tape-replay", TapeReplay);
