/** The race: two to six calls replayed on one clock, side by side. */

import { Answer } from "./answer.js";
import { ask } from "./ask.js";
import { controls } from "./controls.js";
import { make, say, TapeElement } from "./element.js";
import { callOf } from "./events.js";
import { duration, exact, MARKS, plural } from "./format.js";
import { firstToken, rate } from "./numbers.js";
import { paced, Player, TEXT_MS } from "./player.js";
import { streamPicture } from "./stream.js";

const LEAST = 2;
const MOST = 6;
const PLACES = ["1st", "2nd", "3rd", "4th", "5th", "6th"];
const RECENT = 50;
/** Addresses are not rewritten more often than this. */
const REWRITE_MS = 400;

/** Several calls as one track: all their events in the order they came. */
class Together extends EventTarget {
  at = new Float64Array(0);
  count = 0;
  /** @type {import("./events.js").Call[]} */
  #calls = [];

  set calls(calls) {
    this.#calls = calls;
    this.merge();
  }

  get durationMs() {
    return Math.max(0, ...this.#calls.map((call) => call.durationMs));
  }

  get running() {
    return this.#calls.some((call) => call.running);
  }

  merge() {
    this.count = this.#calls.reduce((sum, call) => sum + call.count, 0);
    this.at = new Float64Array(this.count);
    let from = 0;
    for (const { at, count } of this.#calls) {
      this.at.set(at.subarray(0, count), from);
      from += count;
    }
    this.at.sort();
    this.dispatchEvent(new Event("change"));
  }
}

class TapeRace extends TapeElement {
  /** @type {Map<string, any>} by uid */
  lanes = new Map();

  async build() {
    const asked = new URLSearchParams(location.search);
    this.track = new Together();
    this.player = new Player(this.track);
    const where = () => `${exact(this.player.time)} / ${exact(this.track.durationMs)}`;
    const { bar, scrub, rest } = controls(this, this.player, where);
    this.place = make("div", { class: "lanes" });
    this.said = make("p", { class: "tape-note", role: "status" });
    const uids = (this.dataset.calls ?? "").split(",").filter(Boolean).slice(0, MOST);
    const calls = await Promise.all(uids.map((uid) => callOf(this, uid)));
    for (const call of calls) this.#add(call);
    this.#changed();
    if (asked.has("speed")) this.player.set({ speed: Number(asked.get("speed")) });
    if (asked.has("t")) this.player.seek(Number(asked.get("t")));
    if (this.track.running) {
      this.player.seek(this.track.durationMs);
      this.player.play();
    }
    paced(this.player, TEXT_MS, () => this.#show());
    this.player.addEventListener("move", () => this.player.playing || this.#rewrite());
    this.player.addEventListener("state", () => this.#rewrite());
    this.#show();
    return [bar, scrub, this.place, await this.#chooser(), this.said, ...rest];
  }

  /** A field to add a call with: a uid, or one of the newest calls. */
  async #chooser() {
    const list = make("datalist", { id: "race-calls" });
    const field = make("input", { type: "text", required: true, autocomplete: "off", size: 30 });
    field.setAttribute("list", list.id);
    const link = make("button", { type: "button", onclick: () => this.#copyLink() }, "Copy link");
    const form = make(
      "form",
      { class: "race-add" },
      make("label", {}, make("span", {}, "another call"), field),
      make("button", {}, "Add"),
      link,
      list,
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#join(field.value.trim()).then(
        () => (field.value = ""),
        (error) => say(this.said, `Not added: ${error.message}.`),
      );
    });
    const { calls } = await ask(this, "/llm-calls", { limit: RECENT });
    for (const call of calls) {
      const label = [call.name, call.status, firstToken(call)].filter(Boolean).join(" · ");
      list.append(make("option", { value: call.uid, label }));
    }
    return form;
  }

  async #join(uid) {
    if (this.lanes.size >= MOST) throw new Error(`${MOST} calls are the most`);
    const call = await callOf(this, uid);
    if (this.lanes.has(call.info.uid)) throw new Error("it is here already");
    this.#add(call);
    this.#changed();
    this.#rewrite();
    say(this.said, `${call.info.name} joined.`);
  }

  #add(call) {
    const { info } = call;
    if (this.lanes.has(info.uid)) return;
    const query = this.dataset.query ? `?${this.dataset.query}` : "";
    const now = make("span", { class: "lane-now" });
    const numbers = make("p", { class: "lane-numbers" });
    const answer = new Answer(call, `Answer of ${info.name}`);
    const { canvas } = streamPicture(call, this.player, { top: 6, band: 18, height: 34, words: false });
    canvas.setAttribute("aria-label", `${plural(call.count, "event")} of ${info.name} on the clock of all`);
    const remove = make("button", { type: "button", onclick: () => this.#remove(info.uid) }, "✕");
    remove.setAttribute("aria-label", `Remove ${info.name}`);
    const link = make("a", { href: `${this.dataset.pages}/calls/${info.uid}${query}` }, info.name);
    const head = make("h2", {}, link, now, remove);
    const lane = make("article", { class: "lane card" }, head, canvas, answer.box, numbers);
    this.place.append(lane);
    const changed = () => {
      this.track.merge();
      say(numbers, this.#numbers(call));
    };
    call.addEventListener("change", changed);
    this.lanes.set(info.uid, { call, lane, now, answer, changed });
    say(numbers, this.#numbers(call));
  }

  #numbers(call) {
    const { info } = call;
    const count = call.cameWith(call.count);
    const perEvent = info.token_count && count ? info.token_count / count : 0;
    const tokens = info.token_count;
    const amount = tokens == null ? plural(info.event_count ?? count, "event") : plural(tokens, "token");
    const words = [firstToken(info), rate(info), amount, perEvent > 1.05 && `${perEvent.toFixed(1)} tokens an event`];
    return words.filter(Boolean).join(" · ");
  }

  #remove(uid) {
    const { call, lane, changed } = this.lanes.get(uid);
    call.removeEventListener("change", changed);
    lane.remove();
    this.lanes.delete(uid);
    say(this.said, `${call.info.name} left.`);
    this.#changed();
    this.#rewrite();
    this.querySelector(".is-main").focus();
  }

  #changed() {
    this.track.calls = [...this.lanes.values()].map(({ call }) => call);
    this.classList.toggle("is-short", this.lanes.size < LEAST);
    if (this.lanes.size < LEAST) say(this.said, "A race needs two calls: add one.");
    this.#show();
  }

  #show() {
    const { time } = this.player;
    const finished = [...this.lanes.values()].filter(({ call }) => call.status === "completed");
    const ends = finished.map(({ call }) => call.durationMs).sort((a, b) => a - b);
    for (const { call, now, answer } of this.lanes.values()) {
      const count = call.countAt(time);
      answer.show(count, time);
      const over = !call.running && time >= call.durationMs;
      const place = PLACES[ends.indexOf(call.durationMs)] ?? call.status;
      const ended = `${MARKS[call.status]} ${place}, ${duration(call.durationMs)}`;
      say(now, over ? ended : count ? plural(count, "event") : "waiting");
    }
  }

  /** The address of what is seen. */
  #link() {
    const url = new URL(location.href);
    url.searchParams.set("calls", [...this.lanes.keys()].join(","));
    url.searchParams.set("t", String(Math.round(this.player.time)));
    url.searchParams.set("speed", String(this.player.speed));
    return url.href.replaceAll("%2C", ",");
  }

  #rewrite() {
    this.waiting ||= setTimeout(() => {
      this.waiting = 0;
      if (!this.player.playing) history.replaceState(null, "", this.#link());
    }, REWRITE_MS);
  }

  async #copyLink() {
    const link = this.#link();
    history.replaceState(null, "", link);
    await navigator.clipboard.writeText(link).then(
      () => say(this.said, "Copied: it opens the race as it stands here."),
      () => say(this.said, "The browser did not allow copying; the address above is the link."),
    );
  }
}

customElements.define("tape-race", TapeRace);
