/** Time of a replay: where it is, how fast it goes, what long silences shrink to. Knows no page, only a track of events. */

import { upTo } from "./events.js";

export const SPEEDS = [0.25, 0.5, 1, 2, 5, 10, 20];
/** How long a silence lasts when pauses are squeezed. */
export const SQUEEZED_MS = 400;
const MOST_STEP_MS = 5_000;
/** A frame that comes later than this was not shown meanwhile: the replay stood still. */
const LONGEST_FRAME_MS = 250;

/**
 * Maps the time of a call to the time it takes to play it, and back. A silence longer than SQUEEZED_MS takes just that long,
 * at even speed; everything else takes as long as it did.
 */
export class Squeeze {
  #starts = [0];
  #ends = [0];
  /** Played time at the start of each silence. */
  #played = [0];

  /** @param {ArrayLike<number>} at when something happened: sorted milliseconds @param {number} count @param {number} end of it all */
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
 * Plays a track: anything with `at` and `count` (sorted milliseconds), `durationMs` and `running`; it says `change`.
 * Dispatches `move` when the position changed and `state` when it started, stopped, or is played in another way.
 */
export class Player extends EventTarget {
  /** Milliseconds since the start, and how many events are shown. */
  time = 0;
  count = 0;
  playing = false;
  speed = 1;
  squeeze = false;
  #squeezed = new Squeeze([], 0, 0);
  #frame = 0;
  #before = 0;

  /** @param {EventTarget & {at: ArrayLike<number>, count: number, durationMs: number, running: boolean}} track */
  constructor(track) {
    super();
    this.track = track;
    track.addEventListener("change", () => this.#grown());
    this.#grown();
  }

  #grown() {
    const { at, count, durationMs, running } = this.track;
    // While it runs nobody knows how long the silence at its end will be.
    this.#squeezed = new Squeeze(at, count, running ? 0 : durationMs);
    this.dispatchEvent(new Event("move"));
  }

  /** Whether everything that came so far is shown. */
  get ended() {
    return this.time >= this.track.durationMs && this.count >= this.track.count;
  }

  play() {
    if (this.playing) return;
    if (this.ended && !this.track.running) this.seek(0);
    this.playing = true;
    this.#before = performance.now();
    this.#frame = requestAnimationFrame((now) => this.#tick(now));
    this.#changed();
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    cancelAnimationFrame(this.#frame);
    this.#changed();
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  /** @param {number} ms */
  seek(ms) {
    this.time = Math.min(Math.max(0, ms), this.track.durationMs);
    this.count = upTo(this.track.at, this.track.count, this.time);
    this.dispatchEvent(new Event("move"));
  }

  /** To the moment at which exactly `count` events have come, the last of them just now. @param {number} count */
  seekEvent(count) {
    this.count = Math.min(Math.max(0, count), this.track.count);
    this.time = this.count ? this.track.at[this.count - 1] : 0;
    this.dispatchEvent(new Event("move"));
  }

  /** Forward or back by events; stands still there. @param {number} by */
  step(by) {
    this.pause();
    this.seekEvent(this.count + by);
  }

  /** Forward or back by a twentieth of the whole, 5 s at the most. @param {number} direction 1 or -1 */
  skip(direction) {
    this.seek(this.time + direction * Math.min(MOST_STEP_MS, this.track.durationMs / 20));
  }

  /** @param {number} speed one of SPEEDS, or the nearest */
  setSpeed(speed) {
    this.speed = SPEEDS.reduce((best, one) => (Math.abs(one - speed) < Math.abs(best - speed) ? one : best));
    this.#changed();
  }

  /** @param {number} by 1 faster, -1 slower */
  shift(by) {
    const at = SPEEDS.indexOf(this.speed) + by;
    if (SPEEDS[at]) this.setSpeed(SPEEDS[at]);
  }

  /** @param {boolean} on */
  setSqueeze(on) {
    this.squeeze = on;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("state"));
  }

  #tick(now) {
    const passed = Math.min(Math.max(0, now - this.#before), LONGEST_FRAME_MS) * this.speed;
    this.#before = now;
    const squeezed = this.#squeezed;
    this.seek(this.squeeze ? squeezed.moment(squeezed.played(this.time) + passed) : this.time + passed);
    if (this.ended && !this.track.running) this.pause();
    if (this.playing) this.#frame = requestAnimationFrame((next) => this.#tick(next));
  }
}
