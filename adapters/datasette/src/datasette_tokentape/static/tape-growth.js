/** How many events had come, over time. */

import { axis, sketch, ticks } from "./draw.js";
import { make, TapeElement } from "./element.js";
import { callOf } from "./events.js";
import { duration, plural, whole } from "./format.js";
import { playerOf } from "./player.js";

const HEIGHT = 150;
const TOP = 20;
const BOTTOM = 24;

class TapeGrowth extends TapeElement {
  purpose = "The count over time";

  async build() {
    const call = (this.call = await callOf(this, this.dataset.call));
    this.player = playerOf(call);
    const picture = sketch("", HEIGHT, (...given) => this.#draw(...given));
    const changed = () => {
      picture.canvas.setAttribute("aria-label", this.#words());
      picture.redraw();
    };
    this.player.addEventListener("move", picture.redraw);
    call.addEventListener("grow", changed);
    call.addEventListener("finish", changed);
    changed();
    return [picture.canvas];
  }

  #words() {
    const { call } = this;
    const quarters = [0.25, 0.5, 0.75, 1].map((part) => {
      const ms = call.durationMs * part;
      return `${plural(call.countAt(ms), "event")} after ${duration(ms)}`;
    });
    return quarters.join(", ");
  }

  #draw(context, width, height, colour) {
    const { call, player } = this;
    const whole_ms = Math.max(call.durationMs, 1);
    const base = height - BOTTOM;
    const right = width - 8;
    const x = (ms) => (ms / whole_ms) * right;
    const y = (count) => base - (count / Math.max(1, call.count)) * (base - TOP);
    context.fillStyle = colour("--line");
    context.fillRect(0, base, width, 1);
    axis(context, colour, ticks(whole_ms, right, 110), x, base, width);
    context.fillStyle = colour("--soft");
    context.fillText(plural(call.count, "event"), 0, 12);
    context.strokeStyle = colour("--accent");
    context.lineWidth = 1.75;
    context.lineJoin = "round";
    context.beginPath();
    context.moveTo(0, base);
    for (let at = 0; at <= right; at += 0.5) context.lineTo(at, y(call.countAt((at / right) * whole_ms)));
    context.stroke();
    context.fillStyle = colour("--ink");
    context.beginPath();
    context.arc(x(player.time), y(player.count), 3.5, 0, 7);
    context.fill();
    if (player.count < call.count) {
      const words = whole(player.count);
      const wide = context.measureText(words).width;
      context.fillText(words, Math.min(x(player.time) + 7, width - wide), Math.max(y(player.count) + 4, TOP + 8));
    }
  }
}

customElements.define("tape-growth", TapeGrowth);
