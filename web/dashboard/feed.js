// The live feed: one WebSocket that is kept alive. Invariant: `cursor` is that of a frame whose data has been handed on, so coming
// back with `since=<cursor>` never leaves a change out. What frames mean is not known here, except for their cursor.

/** The first wait after a lost connection, doubled up to the longest; each is shortened at random so that clients do not return in step. */
const BACK_OFF_FIRST_MS = 500;
const BACK_OFF_LONGEST_MS = 15_000;
/** After "too many connections" or "not authorised" trying soon would only add to it. */
const BACK_OFF_REFUSED_MS = 45_000;
/** A connection that held this long ends the count of failures. */
const PROVEN_AFTER_MS = 10_000;
/** Heartbeats come every 5 s: after more than two missed ones nobody is there. */
export const SILENCE_LIMIT_MS = 12_000;
/** A large first picture is one long frame, and nothing can come before it. */
const FIRST_FRAME_LIMIT_MS = 30_000;

const CLOSED = {
  1001: 'The service was shut down',
  4001: 'Not authorised',
  4008: 'This page was too slow',
  4029: 'Too many connections to the service',
};

export class Feed {
  cursor = null;
  version = null;
  /** connecting, resuming, live or waiting. */
  phase = 'connecting';
  /** Why there is no connection, for people. */
  reason = '';
  retryAtMs = 0;
  /** The last connection was given up because nothing came. */
  isSilent = false;
  /** When the last frame with a cursor came: up to then everything is known. */
  freshMs = null;
  #prepare;
  #onFrame;
  #onPhase;
  #socket = null;
  #attempt = null;
  #failures = 0;
  #signMs = 0;
  #liveSinceMs = 0;
  #isRefused = false;

  /** `prepare` says what to ask for (a promise of URLSearchParams), anew for every attempt. */
  constructor({ prepare, onFrame, onPhase }) {
    this.#prepare = prepare;
    this.#onFrame = onFrame;
    this.#onPhase = onPhase;
    addEventListener('online', () => this.#hurry());
    document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && this.#hurry());
  }

  /** Connects now, whatever was under way; goes on from the cursor if there is one. */
  async connect() {
    this.#abandon();
    const attempt = Symbol('attempt');
    this.#attempt = attempt;
    this.#isRefused = false;
    this.#signMs = performance.now();
    this.#enter(this.cursor === null ? 'connecting' : 'resuming');
    let query;
    try {
      query = await this.#prepare();
    } catch (error) {
      if (attempt === this.#attempt) this.#wait(error.message);
      return;
    }
    if (attempt === this.#attempt) this.#open(query);
  }

  /** Forgets what is known and asks for a whole picture. */
  restart() {
    this.cursor = null;
    this.#failures = 0;
    return this.connect();
  }

  /** To be called several times a second: everything that is a matter of time. */
  tick() {
    const nowMs = performance.now();
    if (this.phase === 'waiting') {
      if (nowMs >= this.retryAtMs) this.connect();
      return;
    }
    if (this.#socket === null) return;
    const isFirstToCome = this.phase !== 'live' && this.#socket.readyState === WebSocket.OPEN;
    if (nowMs - this.#signMs <= (isFirstToCome ? FIRST_FRAME_LIMIT_MS : SILENCE_LIMIT_MS)) return;
    if (this.phase === 'live') {
      this.isSilent = true;
      this.connect();
    } else {
      this.#wait('The service does not answer');
    }
  }

  #open(query) {
    if (this.cursor !== null) query.set('since', this.cursor);
    const address = new URL(`ws?${query}`, document.baseURI);
    address.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
    this.#signMs = performance.now();
    const socket = new WebSocket(address);
    this.#socket = socket;
    socket.onopen = () => { this.#signMs = performance.now(); };
    socket.onmessage = ({ data }) => this.#receive(data);
    // An error is always followed by a close, which says more.
    socket.onclose = ({ code, reason }) => this.#lose(code, reason);
  }

  #receive(text) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return;
    }
    const nowMs = performance.now();
    this.#signMs = nowMs;
    this.#onFrame(frame);
    if (frame.type === 'resync') this.cursor = null;
    if (!frame.cursor) return;
    this.cursor = frame.cursor;
    this.version = Number.parseInt(frame.cursor, 10);
    this.freshMs = nowMs;
    if (this.phase === 'live') return;
    this.#liveSinceMs = nowMs;
    this.isSilent = false;
    this.#enter('live');
  }

  #lose(code, reason) {
    this.#isRefused = code === 4029 || code === 4001;
    const wasProven = this.phase === 'live' && performance.now() - this.#liveSinceMs > PROVEN_AFTER_MS;
    if (wasProven) this.#failures = 0;
    // A service that stops says when to come back, to each another time.
    const toldMs = reason.match(/retry_ms=(\d{1,5})$/)?.[1];
    this.#wait(CLOSED[code] ?? (navigator.onLine ? 'Connection lost' : 'Offline'), toldMs && Number(toldMs));
  }

  #wait(reason, toldMs) {
    this.#abandon();
    this.isSilent = false;
    // It becomes part of a sentence.
    this.reason = reason.replace(/\.$/, '');
    const longest = this.#isRefused
      ? BACK_OFF_REFUSED_MS
      : Math.min(BACK_OFF_LONGEST_MS, BACK_OFF_FIRST_MS * 2 ** this.#failures);
    this.#failures += 1;
    this.retryAtMs = performance.now() + (toldMs ?? longest * (0.5 + Math.random() / 2));
    this.#enter('waiting');
  }

  /** The network is back, or somebody looks again: the wait has lost its reason. */
  #hurry() {
    if (this.phase === 'waiting' && !this.#isRefused) this.connect();
  }

  #abandon() {
    this.#attempt = null;
    const socket = this.#socket;
    this.#socket = null;
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #enter(phase) {
    this.phase = phase;
    this.#onPhase(phase);
  }
}
