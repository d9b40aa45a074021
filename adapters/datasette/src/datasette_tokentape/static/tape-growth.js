/** How many events had come, over time. */

import { CallElement } from "./call-element.js";
import { axis, sketch, still } from "./draw.js";
import { duration, plural } from "./format.js";
import { paced, TEXT_MS } from "./player.js";
import { spanOf } from "./stream.js";

const HEIGHT = 150;
const TOP = 20;
const BASE = HEIGHT - 24;
const END = 8;

class TapeGrowth extends CallElement {
  made() {
    const { call, player } = this;
    const stays = still((...given) => this.#drawStill(...given));
    this.picture = sketch("", HEIGHT, (context, width, colour) => {
      stays(context, width, colour, [call.count, call.status, spanOf(call)]);
      context.fillStyle = colour("--ink");
      context.beginPath();
      context.arc(this.#x(player.time, width), this.#y(player.count), 3.5, 0, 7);
      context.fill();
    });
    paced(player, TEXT_MS, this.picture.redraw);
    return [this.picture.canvas];
  }

  changed() {
    const { call, picture } = this;
    const words = [0.25, 0.5, 0.75, 1].map((share) => {
      const ms = call.durationMs * share;
      return `${plural(call.cameWith(call.countAt(ms)), "event")} after ${duration(ms)}`;
    });
    picture.canvas.setAttribute("aria-label", words.join(", "));
    picture.redraw();
  }

  #x(ms, width) {
    return (ms / spanOf(this.call)) * (width - END);
  }

  #y(count) {
    const came = (rows) => this.call.cameWith(rows);
    return BASE - (came(count) / Math.max(1, came(this.call.count))) * (BASE - TOP);
  }

  #drawStill(context, width, colour) {
    const { call } = this;
    const span = spanOf(call);
    context.fillStyle = colour("--line");
    context.fillRect(0, BASE, width, 1);
    axis(context, colour, { ms: span, width: width - END, y: BASE, room: 110 });
    context.fillText(plural(call.cameWith(call.count), "event"), 0, 12);
    context.strokeStyle = colour("--accent");
    context.lineWidth = 1.75;
    context.lineJoin = "round";
    context.beginPath();
    context.moveTo(0, BASE);
    const end = this.#x(call.durationMs, width);
    for (let x = 0; x < end; x += 0.5) context.lineTo(x, this.#y(call.countAt((x / (width - END)) * span)));
    context.lineTo(end, this.#y(call.count));
    context.stroke();
  }
}

customElements.define("tape-growth", TapeGrowth);
