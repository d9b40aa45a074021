/** What is in flight, in any process: calls appear by themselves, grow as they stream, and stay a while when they have ended. */

import { ask } from "./ask.js";
import { make, say, TapeElement } from "./element.js";
import { plural } from "./format.js";
import { Card } from "./live-card.js";

const TICK_MS = 100;
const AGAIN_MS = 1_000;
/** How many calls stay that have ended. */
const KEPT = 12;

class TapeLive extends TapeElement {
  /** @type {Map<string, Card>} by uid */
  cards = new Map();
  paused = false;
  away = false;
  /** What came while it was paused. */
  #held = [];
  #position = null;
  #asked = 0;

  async build() {
    // Where the API fails the table stays: the stream itself does not say why.
    await ask(this, "/runs", { limit: 1 });
    this.note = make("p", { class: "tape-note" });
    this.said = make("p", { class: "hidden", role: "status" });
    this.flight = make("ul", { class: "live-list", "aria-label": "Calls in flight" });
    this.ended = make("ul", { class: "live-list", "aria-label": "Calls that ended lately" });
    this.nothing = make("p", { class: "soft" });
    this.pause = make("button", { type: "button", "aria-pressed": "false", onclick: () => this.#pause() }, "Pause");
    this.clear = make("button", { type: "button", onclick: () => this.#clear() }, "Clear those that ended");
    this.lately = make("div", { hidden: true }, make("h2", {}, "Ended lately"), this.ended);
    const stream = this.#connect();
    await new Promise((go) => ["open", "error"].forEach((name) => stream.addEventListener(name, go, { once: true })));
    setInterval(() => this.#tick(), TICK_MS);
    this.#tick();
    const tools = make("div", { class: "live-tools" }, this.pause, this.clear, this.note);
    return [tools, this.said, this.nothing, this.flight, this.lately];
  }

  #connect() {
    const query = new URLSearchParams(this.dataset.query);
    if (this.#position !== null) query.set("after", this.#position);
    const stream = new EventSource(`${this.dataset.api}/live?${query}`);
    for (const name of ["call", "tokens", "finished"]) {
      stream.addEventListener(name, (event) => {
        this.#position = event.lastEventId;
        const data = JSON.parse(event.data);
        if (this.paused) this.#held.push([name, data]);
        else this.#take(name, data);
      });
    }
    stream.addEventListener("open", () => (this.away = false));
    stream.addEventListener("error", () => {
      this.away = true;
      if (stream.readyState !== EventSource.CLOSED) return;
      // An answer that is no stream ends it for good: begin anew, where it broke off.
      setTimeout(() => this.#connect(), AGAIN_MS);
    });
    return stream;
  }

  #take(name, data) {
    if (name === "call") this.#begin(data);
    else if (name === "tokens") this.cards.get(data.call_uid)?.take(data);
    else this.#finish(data);
    this.#asked ||= requestAnimationFrame(() => this.#show());
  }

  #begin(info) {
    this.cards.get(info.uid)?.element.remove();
    const { pages, query } = this.dataset;
    const link = (kind, uid) => uid && `${pages}/${kind}/${encodeURIComponent(uid)}${query ? `?${query}` : ""}`;
    const card = new Card(info, { call: link("calls", info.uid), run: link("runs", info.run_uid) });
    this.cards.set(info.uid, card);
    const around = this.cards.get(info.parent_uid);
    around?.moveText();
    card.element.classList.toggle("is-below", Boolean(around));
    if (around) around.element.after(card.element);
    else this.flight.append(card.element);
    say(this.said, `${info.name} began`);
  }

  #finish(info) {
    const card = this.cards.get(info.uid);
    if (!card) return;
    card.finish(info);
    card.show();
    const around = this.cards.get(info.parent_uid);
    // What is being read does not move away from under its reader.
    const held = card.element.contains(document.activeElement);
    const before = around?.element.parentNode === this.ended ? around.element.nextSibling : this.ended.firstChild;
    this.ended.insertBefore(card.element, before);
    if (held) card.box.focus({ preventScroll: true });
    for (const old of [...this.ended.children].slice(KEPT)) this.#forget(old);
    say(this.said, `${info.name} ${card.state.textContent}`);
  }

  #forget(element) {
    this.cards.delete(element.dataset.uid);
    element.remove();
  }

  #show() {
    this.#asked = 0;
    for (const card of this.cards.values()) card.show();
    const { childElementCount: count } = this.flight;
    say(this.nothing, count ? "" : "No call is in flight. One that begins appears here by itself.");
    this.lately.hidden = this.clear.hidden = !this.ended.childElementCount;
    const held = this.paused ? `, ${plural(this.#held.length, "message")} held back` : "";
    const away = "The server cannot be reached; what was missed comes when it is back.";
    say(this.note, this.away ? away : `${plural(count, "call")} in flight${held}`);
  }

  #tick() {
    if (!document.hidden) this.#show();
  }

  #pause() {
    this.paused = !this.paused;
    this.pause.setAttribute("aria-pressed", String(this.paused));
    if (this.paused) return;
    for (const [name, data] of this.#held.splice(0)) this.#take(name, data);
  }

  #clear() {
    for (const element of [...this.ended.children]) this.#forget(element);
    this.#show();
    this.pause.focus();
  }
}

customElements.define("tape-live", TapeLive);
