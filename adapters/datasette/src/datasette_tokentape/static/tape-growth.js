/** How many events had come, over time. */

import { axis, kept, sketch, ticks } from "./draw.js";
import { TapeElement } from "./element.js";
import { callOf } from "./events.js";
import { duration, plural, whole } from "./format.js";
import { playerOf } from "./player.js";
import { spanOf } from "./stream.js";

const HEIGHT = 150;
const TOP = 20;
const BASE = HEIGHT - 24;

class TapeGrowth extends TapeElement {
  purpose = "The count over time";

  async build() {
    const call = (this.call = await callOf(this, this.dataset.call));
    this.player = playerOf(call);
    this.still = kept((...given) => this.#drawStill(...given));
    const picture = sketch("", HEIGHT, (...given) => this.#draw(...given));
    let shown = -1;
    this.player.addEventListener("move", () => {
      const moved = Math.abs(this.player.time - shown) / call.durationMs;
      if (moved * picture.canvas.width < 1 && this.player.playing) return;
      shown = this.player.time;
      picture.redraw();
    });
    const changed = () => {
      picture.canvas.setAttribute("aria-label", this.#words());
      picture.redraw();
    };
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

  /** How milliseconds and counts become pixels. */
  #scales(width) {
    const whole_ms = spanOf(this.call.durationMs, this.call.running);
    const right = width - 8;
    const x = (ms) => (ms / whole_ms) * right;
    const y = (count) => BASE - (count / Math.max(1, this.call.count)) * (BASE - TOP);
    return { x, y, right, whole_ms };
  }

  #drawStill(context, width, height, colour) {
    const { call } = this;
    const { x, y, right, whole_ms } = this.#scales(width);
    context.fillStyle = colour("--line");
    context.fillRect(0, BASE, width, 1);
    axis(context, colour, ticks(whole_ms, right, 110), x, BASE, width);
    context.fillStyle = colour("--soft");
    context.fillText(plural(call.count, "event"), 0, 12);
    context.strokeStyle = colour("--accent");
    context.lineWidth = 1.75;
    context.lineJoin = "round";
    context.beginPath();
    context.moveTo(0, BASE);
    const end = x(call.durationMs);
    for (let at = 0; at <= end; at += 0.5) context.lineTo(at, y(call.countAt((at / right) * whole_ms)));
    context.lineTo(end, y(call.count));
    context.stroke();
  }

  #draw(context, width, height, colour) {
    const { call, player } = this;
    this.still(context, width, height, colour, [call.count, call.status, this.#scales(width).whole_ms]);
    const { x, y } = this.#scales(width);
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
