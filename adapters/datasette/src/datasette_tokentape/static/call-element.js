/** An element of the call page: all of a page share the call that `data-call` names, and its player. */

import { TapeElement } from "./element.js";
import { callOf } from "./events.js";
import { Player } from "./player.js";

/** @type {WeakMap<object, Player>} */
const players = new WeakMap();

/** A subclass has `made()`, which returns its nodes, and `changed()`, called then and whenever the call changed. */
export class CallElement extends TapeElement {
  async build() {
    const call = (this.call = await callOf(this, this.dataset.call));
    if (!players.has(call)) players.set(call, new Player(call));
    this.player = players.get(call);
    const nodes = this.made();
    call.addEventListener("change", () => this.changed());
    this.changed();
    return nodes;
  }
}
