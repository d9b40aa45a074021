/** The replay: the answer appears as it came. */

import { Answer, waitedFor } from "./answer.js";
import { controls, keys, markScrubber, position } from "./controls.js";
import { make, say, TapeElement } from "./element.js";
import { callOf } from "./events.js";
import { duration, plural } from "./format.js";
import { playerOf } from "./player.js";
import { markersOf } from "./stream.js";

/** So many stalls get a button of their own, the longest. */
const JUMPS = 8;

class TapeReplay extends TapeElement {
  purpose = "The replay";

  async build() {
    const call = (this.call = await callOf(this, this.dataset.call));
    const player = (this.player = playerOf(call));
    this.answer = new Answer(call);
    this.note = make("p", { class: "tape-note", hidden: true });
    this.silent = make("p", { class: "replay-silence" });
    const text = make("div", { class: "replay-text", tabIndex: 0, role: "region", "aria-label": "The answer as it came" });
    text.append(make("div", {}, this.answer.element, this.silent));
    this.jumps = make("ul", { class: "jumps", "aria-label": "Jump to" });
    this.controls = controls(player, () => this.#where());
    keys(this, player, this.controls.help);

    player.addEventListener("move", () => this.#show());
    player.addEventListener("state", () => this.classList.toggle("is-playing", player.playing));
    call.addEventListener("grow", () => this.#marked());
    call.addEventListener("finish", () => this.#marked());
    this.#marked();
    player.seek(call.durationMs);
    if (call.running) player.play();
    const { bar, scrub, said, help } = this.controls;
    return [this.note, text, scrub, bar, this.jumps, said, help];
  }

  #where() {
    const { call, player } = this;
    return position(player.count, call.count, player.time, call.durationMs);
  }

  #show() {
    const { call, player } = this;
    this.answer.show(player.count);
    say(this.silent, waitedFor(call, player.time));
  }

  #marked() {
    const { call, player } = this;
    const left = whatIsLeft(call);
    this.note.hidden = !left;
    say(this.note, left);
    const markers = markersOf(call);
    markScrubber(this.controls.marks, markers, call.durationMs);
    const stalls = markers.filter(({ kind }) => kind === "stall");
    const longest = new Set([...stalls].sort((a, b) => b.end_ms - b.ms - (a.end_ms - a.ms)).slice(0, JUMPS));
    const shown = markers.filter((marker) => marker.kind !== "stall" || longest.has(marker));
    this.jumps.replaceChildren(
      ...shown.map(({ ms, label, kind }) => {
        const words = kind === "stall" ? label : `${label} ${duration(ms)}`;
        const jump = make("button", { type: "button", class: `is-${kind}`, onclick: () => player.seek(ms) }, words);
        return make("li", {}, jump);
      }),
    );
    if (stalls.length > JUMPS) this.jumps.append(make("li", {}, `${stalls.length - JUMPS} shorter stalls are in the list`));
    this.#show();
  }
}

/** Why there is less to play than there was to hear, in a sentence; empty where nothing is missing. */
export function whatIsLeft(call) {
  const { info } = call;
  const lost = plural(info.dropped_count ?? 0, "event");
  const said = {
    sampled_out: "Only the numbers of this call were kept: its token events were left out by sampling.",
    dropped: `${lost} could not be written: what was kept is shown.`,
    packed: "The token events of this call were packed: their times are kept more coarsely.",
    aggregated: "The token events of this call were taken away to make room: its numbers and stalls are left.",
  }[info.events_kept];
  if (said) return said;
  if (!call.count && !call.running) return "No token event came.";
  if (!call.hasText) return "The text was not recorded, only when each event came: ▪ is one event.";
  return "";
}

customElements.define("tape-replay", TapeReplay);
