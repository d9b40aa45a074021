/** An element of the call page: all share one call and its player. */

import { TapeElement } from "./element.js";
import { callOf } from "./events.js";
import { Player } from "./player.js";

/** A subclass has `made()`, which returns its nodes, and `changed()`, for then and whenever the call changed. */
export class CallElement extends TapeElement {
  async build() {
    const call = (this.call = await callOf(this, this.dataset.call));
    this.player = call.player ??= new Player(call);
    const nodes = this.made();
    call.addEventListener("change", () => this.changed());
    this.changed();
    return nodes;
  }
}
