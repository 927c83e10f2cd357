// The list of what became low, at risk or well again since the page was opened, newest first, and what a screen reader is told of it.

import { announce, find, make } from './dom.js';
import { counted, name, number, timeOfDay } from './format.js';

const KEPT_MAX = 50;
/** Alerts after the last cursor are told again when a connection is resumed: so many are remembered to know them again. */
const REMEMBERED_MAX = 500;
/** Spoken news about alerts come at most so often; in between they are counted. */
const SPEAK_EVERY_MS = 10_000;

const TEXTS = {
  low_stock_alert: { label: 'low', says: (frame) => `${number(frame.current_quantity)} left, min ${number(frame.min_stock)}` },
  stock_recovered: { label: 'recovered', says: (frame) => `${number(frame.current_quantity)} again, min ${number(frame.min_stock)}` },
  reorder_needed: { label: 'reorder', says: (frame) => `${number(frame.available_stock)} available, reorder point ${number(frame.reorder_point)}` },
  reorder_recovered: { label: 'restocked', says: (frame) => `${number(frame.available_stock)} available, reorder point ${number(frame.reorder_point)}` },
  reservation_at_risk: { label: 'at risk', says: (frame) => `${number(frame.quantity)} reserved, not covered` },
  reservation_healed: { label: 'covered', says: (frame) => `${number(frame.quantity)} reserved, covered again` },
};

export const isAlert = (type) => Object.hasOwn(TEXTS, type);

/** An alert in the words of people: what of, where, and how it stands. `warehouses` knows the names by UUID. */
export function describe(frame, warehouses) {
  const { label, says } = TEXTS[frame.type];
  const place = frame.warehouse_id && (warehouses.get(frame.warehouse_id)?.name ?? name(frame.warehouse ?? frame.warehouse_id));
  return { label, what: frame.product_name ?? name(String(frame.product_id)), where: place || 'all warehouses', how: says(frame) };
}

export class Alerts {
  #warehouses;
  #list = find('#alerts');
  #fresh = [];
  #remembered = new Set();
  /** The newest alert that was not spoken of, and how many came before it. */
  #unspoken = null;
  #unspokenOthers = 0;
  #spokenMs = -Infinity;

  constructor(warehouses) {
    this.#warehouses = warehouses;
  }

  /** Takes an alert in; false if it is here already. */
  add(frame) {
    const identity = `${frame.type} ${frame.version} ${frame.product_id} ${frame.warehouse_id ?? ''} ${frame.reservation_id ?? ''}`;
    if (this.#remembered.has(identity)) return false;
    this.#remembered.add(identity);
    if (this.#remembered.size > REMEMBERED_MAX) this.#remembered.delete(this.#remembered.values().next().value);
    this.#fresh.push(frame);
    if (this.#fresh.length > KEPT_MAX) this.#fresh.shift();
    if (this.#unspoken !== null) this.#unspokenOthers += 1;
    this.#unspoken = frame;
    return true;
  }

  paint(nowMs) {
    this.#speak(nowMs);
    if (this.#fresh.length === 0) return;
    this.#list.prepend(...this.#fresh.reverse().map((frame) => this.#item(frame)));
    this.#fresh = [];
    while (this.#list.children.length > KEPT_MAX) this.#list.lastElementChild.remove();
    find('#alerts-empty').hidden = true;
  }

  #item(frame) {
    const { label, what, where, how } = describe(frame, this.#warehouses);
    const at = Date.parse(frame.timestamp);
    return make('li', { 'data-type': frame.type, 'data-product': frame.product_id },
      make('span', { class: 'pill', 'data-tone': frame.type }, label),
      make('span', { class: 'what', title: frame.product_id }, what),
      make('time', { datetime: frame.timestamp }, Number.isNaN(at) ? '' : timeOfDay(at)),
      make('span', { class: 'how', title: `${where}: ${how}` }, `${where}: ${how}`));
  }

  #speak(nowMs) {
    if (this.#unspoken === null || nowMs - this.#spokenMs < SPEAK_EVERY_MS) return;
    const { label, what, where, how } = describe(this.#unspoken, this.#warehouses);
    const others = this.#unspokenOthers;
    announce(`${label}: ${what}, ${where}, ${how}${others > 0 ? `, and ${counted(others, 'other alert')}` : ''}`);
    this.#unspoken = null;
    this.#unspokenOthers = 0;
    this.#spokenMs = nowMs;
  }
}
