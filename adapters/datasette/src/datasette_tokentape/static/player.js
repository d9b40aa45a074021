/** Time of a replay. */

import { upTo } from "./events.js";

export const SPEEDS = [0.25, 0.5, 1, 2, 5, 10, 20];
/** Text in every other frame looks just as smooth. */
export const TEXT_MS = 30;
/** How long a silence lasts when pauses are squeezed. */
const SQUEEZED_MS = 400;
const MOST_STEP_MS = 5_000;
/** After a longer pause nobody was looking. */
const LONGEST_FRAME_MS = 250;

/** Maps time to the time it takes to play it, and back. */
export class Squeeze {
  #starts = [0];
  #ends = [0];
  /** Played time at the start of each silence. */
  #played = [0];

  constructor(at, count, end) {
    let last = 0;
    for (let i = 0; i <= count; i++) {
      const ms = i < count ? at[i] : end;
      if (ms - last > SQUEEZED_MS) {
        this.#played.push(this.played(last));
        this.#starts.push(last);
        this.#ends.push(ms);
      }
      last = ms;
    }
  }

  /** Played milliseconds until a moment of the call. */
  played(ms) {
    const k = upTo(this.#starts, this.#starts.length, ms) - 1;
    const [start, end, played] = [this.#starts[k], this.#ends[k], this.#played[k]];
    if (ms >= end) return played + (k && SQUEEZED_MS) + (ms - end);
    return played + ((ms - start) / (end - start)) * SQUEEZED_MS;
  }

  /** The moment of the call after so many played milliseconds. */
  moment(played) {
    const k = upTo(this.#played, this.#played.length, played) - 1;
    const [start, end] = [this.#starts[k], this.#ends[k]];
    const into = played - this.#played[k];
    if (!k) return into;
    return into < SQUEEZED_MS ? start + (into / SQUEEZED_MS) * (end - start) : end + (into - SQUEEZED_MS);
  }
}

/**
 * Plays a track: something with `at` and `count` (sorted milliseconds), `durationMs` and `running`, that says `change`.
 * Says `move` when the position changed and `state` when how it is played did.
 */
export class Player extends EventTarget {
  /** Milliseconds since the start, and how many events have come by then. */
  time = 0;
  count = 0;
  playing = false;
  speed = 1;
  squeeze = false;
  #squeezed = new Squeeze([], 0, 0);
  #frame = 0;
  #before = 0;

  constructor(track) {
    super();
    this.track = track;
    track.addEventListener("change", () => this.#grown());
    this.#grown();
  }

  #grown() {
    const { at, count, durationMs, running } = this.track;
    // While it runs the silence at its end may grow.
    this.#squeezed = new Squeeze(at, count, running ? 0 : durationMs);
    this.seek(this.time);
  }

  /** Whether there is nothing more to play, nor will be. */
  get ended() {
    const { durationMs, count, running } = this.track;
    return !running && this.time >= durationMs && this.count >= count;
  }

  play() {
    if (this.playing) return;
    if (this.ended) this.seek(0);
    this.playing = true;
    this.#before = performance.now();
    this.#frame = requestAnimationFrame((now) => this.#tick(now));
    this.#say("state");
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    cancelAnimationFrame(this.#frame);
    this.#say("state");
  }

  toggle() {
    this.playing ? this.pause() : this.play();
  }

  stop() {
    this.pause();
    this.seek(0);
  }

  seek(ms) {
    this.time = Math.min(Math.max(0, ms), this.track.durationMs);
    this.count = upTo(this.track.at, this.track.count, this.time);
    this.#say("move");
  }

  /** To the moment at which the last of the first `count` events came. */
  seekEvent(count) {
    this.count = Math.min(Math.max(0, count), this.track.count);
    this.time = this.count ? this.track.at[this.count - 1] : 0;
    this.#say("move");
  }

  /** By events, forward or back. */
  step(by) {
    this.pause();
    this.seekEvent(this.count + by);
  }

  /** Forward (1) or back (-1) by a twentieth of the whole, 5 s at the most. */
  skip(direction) {
    this.seek(this.time + direction * Math.min(MOST_STEP_MS, this.track.durationMs / 20));
  }

  set({ speed = this.speed, squeeze = this.squeeze }) {
    if (SPEEDS.includes(speed)) this.speed = speed;
    this.squeeze = squeeze;
    this.#say("state");
  }

  /** Faster (1) or slower (-1). */
  shift(by) {
    this.set({ speed: SPEEDS[SPEEDS.indexOf(this.speed) + by] });
  }

  #say(what) {
    this.dispatchEvent(new Event(what));
  }

  #tick(now) {
    const passed = Math.min(Math.max(0, now - this.#before), LONGEST_FRAME_MS) * this.speed;
    this.#before = now;
    const squeezed = this.#squeezed;
    this.seek(this.squeeze ? squeezed.moment(squeezed.played(this.time) + passed) : this.time + passed);
    if (this.ended) this.pause();
    if (this.playing) this.#frame = requestAnimationFrame((next) => this.#tick(next));
  }
}

/** Acts when a player moved, at most every so many milliseconds. */
export function paced(player, ms, act) {
  let last = 0;
  const moved = () => {
    const now = performance.now();
    if (player.playing && now - last < ms) return;
    last = now;
    act();
  };
  player.addEventListener("move", moved);
  player.addEventListener("state", moved);
}
