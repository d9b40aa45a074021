/** A call while it happens: what it waits for and for how long, and its text as it comes. */

import { Answer } from "./answer.js";
import { make, say } from "./element.js";
import { Call } from "./events.js";
import { duration, MARKS, plural } from "./format.js";
import { firstToken, rate } from "./numbers.js";

/** Nearer than this to its end a text is followed. */
const NEAR_PX = 8;

/** The card of a call that the stream of events told of; `links` are those of its call and its run. */
export class Card {
  following = true;
  #dirty = true;
  #seen = 0;

  constructor(info, links) {
    this.call = new Call({ ...info, stalls: [], parts: [] });
    this.heard = this.call.began + (info.running_for_ms ?? 0) - (info.silent_for_ms ?? 0);
    this.answer = new Answer(this.call, `Text of ${info.name}`);
    this.box = this.answer.box;
    this.sign = make("span", { "aria-hidden": "true" });
    this.state = make("p", { class: "live-state" });
    this.follow = make("button", { type: "button", hidden: true, onclick: () => this.#goOn() }, "Follow");
    const facts = [...new Set([info.model, info.provider, info.adapter])].filter(Boolean).join(" · ");
    const name = make("a", { href: links.call }, make("bdi", {}, info.name));
    const where = make("p", { class: "live-where" }, make("bdi", {}, facts));
    if (links.run) where.append(" · in ", make("a", { href: links.run }, make("bdi", {}, info.run_name)));
    const head = make("h3", {}, this.sign, " ", name);
    const text = make("div", { class: "live-text" }, this.box, this.follow);
    this.element = make("li", { class: "live-card", "data-uid": info.uid }, head, where, text, this.state);
    this.box.addEventListener("scroll", () => this.#scrolled());
    this.#tellSign();
  }

  /** Events came. */
  take({ after, parts, ...columns }) {
    const { call } = this;
    const known = call.count ? call.index[call.count - 1] : -1;
    // The stream goes on where it broke off: what it told before does not come again, but from another server.
    if (after < known) return;
    call.take({ status: "running", parts, ...columns });
    this.heard = Math.min(performance.now(), call.began + call.at[call.count - 1]);
    this.#dirty = true;
  }

  /** The call has ended. */
  finish(info) {
    this.call.info = { ...info, stalls: [], parts: [] };
    this.call.status = info.status;
    this.#dirty = true;
    this.#tellSign();
    this.element.classList.add("is-finished");
  }

  /** Its text is that of a call it made, which has a card of its own. */
  moveText() {
    this.box.hidden = true;
    this.outer = true;
  }

  /** Shows what came since it was shown last, and how long nothing did. */
  show() {
    const { call } = this;
    if (this.#dirty && !this.outer) {
      this.#dirty = false;
      this.answer.show(call.count, call.durationMs);
      if (this.following) this.box.scrollTop = this.box.scrollHeight;
      this.#seen = this.box.scrollTop;
    }
    say(this.state, call.running ? this.#waits() : this.#ended());
  }

  #waits() {
    const { call, heard } = this;
    const now = performance.now();
    const what = call.count ? `event ${call.count + 1}` : "the first token";
    const below = this.outer ? " · its text is below" : "";
    return `waits for ${what}, for ${duration(Math.max(0, now - heard))} · runs for ${duration(now - call.began)}${below}`;
  }

  #ended() {
    const { info, count } = this.call;
    const tokens = info.token_count == null ? plural(info.event_count || count, "event") : plural(info.token_count, "token");
    const words = [info.status, info.error_type, info.duration_ms == null ? null : `after ${duration(info.duration_ms)}`];
    const numbers = [words.filter(Boolean).join(" "), firstToken(info), tokens, rate(info)];
    if (info.stall_count) numbers.push(plural(info.stall_count, "stall"));
    return numbers.filter(Boolean).join(" · ");
  }

  #tellSign() {
    const { status } = this.call;
    this.sign.className = `status status-${status}`;
    say(this.sign, MARKS[status] ?? "·");
  }

  /** Somebody who scrolls back reads: the text grows below, and stays where it is. */
  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.box;
    if (scrollHeight - clientHeight - scrollTop < NEAR_PX) this.following = true;
    else if (scrollTop < this.#seen) this.following = false;
    this.#seen = scrollTop;
    this.follow.hidden = this.following;
  }

  #goOn() {
    this.following = true;
    this.follow.hidden = true;
    this.box.scrollTop = this.box.scrollHeight;
    this.box.focus();
  }
}
