// Which rows the table lists, and in which order. Invariant: `count` is always exact; the order is calm. Numbers that change
// thousands of times a second would make rows dance, so the list is sorted again at most every two seconds, and not at all while
// somebody points at it or moves in it: rows must not slip away under a click.

import { state } from './model.js';

const SORT_EVERY_MS = 2_000;

const SEVERITY = { '': 0, low: 1, negative: 2 };

/** What a column is sorted by, and whether that changes with every update. */
const COLUMNS = {
  product: { of: (row) => row.product.order },
  warehouse: { of: (row) => row.place.order },
  on_hand: { of: (row) => row.on_hand, isMoving: true },
  reserved: { of: (row) => row.reserved, isMoving: true },
  available: { of: (row) => row.available, isMoving: true },
  min_stock: { of: (row) => row.product.min_stock ?? -1 },
  state: { of: (row) => SEVERITY[state(row)], isMoving: true },
  changed: { of: (row) => row.changedAt, isMoving: true },
};

const SHOWS = {
  low: (row) => state(row) === 'low' || (state(row) === 'negative' && row.product.min_stock !== null),
  negative: (row) => row.on_hand < 0,
  reserved: (row) => row.reserved > 0,
};

const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

export class Order {
  list = [];
  count = 0;
  column = 'product';
  isDescending = false;
  /** Something would stand elsewhere or not at all, were the order not held. */
  isPaused = false;
  /** Rows stand elsewhere since the last update. */
  hasMoved = false;
  #model;
  #words = [];
  #show = null;
  #warehouse = null;
  #isAsked = true;
  #isUnsorted = false;
  #hasLeavers = false;
  #sortedMs = 0;

  constructor(model) {
    this.#model = model;
  }

  /** What is to be listed; every word of `text` must be in the names of product or warehouse. */
  filter({ text, show, warehouse }) {
    this.#words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.#show = SHOWS[show] ?? null;
    this.#warehouse = warehouse || null;
    this.#isAsked = true;
  }

  sort(column, isDescending) {
    this.column = column in COLUMNS ? column : 'product';
    this.isDescending = isDescending;
    this.#isAsked = true;
  }

  /** Takes in what the model took in. Returns the rows whose numbers changed, or null if everything may look different. */
  update(nowMs, isHeld) {
    const { isReplaced, changed } = this.#model.take();
    this.hasMoved = false;
    if (isReplaced || this.#isAsked) {
      this.#rebuild(nowMs);
      return null;
    }
    for (const row of changed) this.#place(row);
    if (changed.size > 0 && COLUMNS[this.column].isMoving) this.#isUnsorted = true;
    this.isPaused = isHeld && (this.#isUnsorted || this.#hasLeavers);
    if (isHeld) return changed;
    if (this.#hasLeavers) this.#sweep();
    if (this.#isUnsorted && nowMs - this.#sortedMs >= SORT_EVERY_MS) this.#sortList(nowMs);
    return changed;
  }

  #matches(row) {
    if (row.isGone) return false;
    if (this.#warehouse !== null && row.place.id !== this.#warehouse) return false;
    if (this.#show !== null && !this.#show(row)) return false;
    return this.#words.every((word) => row.product.text.includes(word) || row.place.text.includes(word));
  }

  #place(row) {
    const isMatching = this.#matches(row);
    if (isMatching === row.isMatching) return;
    row.isMatching = isMatching;
    this.count += isMatching ? 1 : -1;
    if (!isMatching) {
      this.#hasLeavers = true;
    } else if (!row.isListed) {
      row.isListed = true;
      this.list.push(row);
      this.#isUnsorted = true;
    }
  }

  #sweep() {
    for (const row of this.list) row.isListed = row.isMatching;
    this.list = this.list.filter((row) => row.isListed);
    this.#hasLeavers = false;
    this.hasMoved = true;
  }

  #rebuild(nowMs) {
    this.list = [];
    for (const row of this.#model.rows.values()) {
      row.isMatching = this.#matches(row);
      row.isListed = row.isMatching;
      if (row.isMatching) this.list.push(row);
    }
    this.count = this.list.length;
    this.#isAsked = false;
    this.#hasLeavers = false;
    this.isPaused = false;
    this.#sortList(nowMs);
  }

  #sortList(nowMs) {
    const { of } = COLUMNS[this.column];
    const sign = this.isDescending ? -1 : 1;
    // Equal rows stand by name, so that an order means the same for everybody who looks.
    this.list.sort((a, b) => sign * compare(of(a), of(b))
      || compare(a.product.order, b.product.order) || compare(a.place.order, b.place.order) || compare(a.key, b.key));
    this.#sortedMs = nowMs;
    this.#isUnsorted = false;
    this.hasMoved = true;
  }
}
