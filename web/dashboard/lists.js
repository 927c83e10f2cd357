// The lists beside the table: a panel that reads its list again and again while the feed is connected, says how old it is when it
// cannot, and keeps the last good one; then what the panels of movements in transit and of low stock show in it.

import { read } from './api.js';
import { complain, make, write } from './dom.js';
import { age, counted, duration, name, number } from './format.js';

/** A list is called old when it missed its turn so many times. */
const MISSED_TURNS = 3;
const PAGE = 50;
const SHOWN_MAX = 500;

/** A section of the page with a list of its own. */
export class Panel {
  section;
  everyMs;
  #source;
  #limit = PAGE;
  #readMs = null;
  #isReading = false;
  #isOutdated = false;

  /** `source`: read(limit) -> a promise of a document, build(document) -> {content, count, note}, everyMs, isPaged. */
  constructor(section, source) {
    this.section = section;
    this.everyMs = source.everyMs;
    this.#source = source;
  }

  async refresh() {
    // A question that is asked while another is under way may be a new one: it is asked again after it.
    if (this.#isReading) { this.#isOutdated = true; return; }
    this.#isReading = true;
    try {
      const answer = await this.#source.read(this.#limit);
      this.#readMs = performance.now();
      complain(this.#part('problem'), null);
      this.show(this.#source.build(answer), Boolean(answer.next_cursor));
    } catch (error) {
      complain(this.#part('problem'), error.message);
    }
    this.#isReading = false;
    this.tick();
    if (!this.#isOutdated) return;
    this.#isOutdated = false;
    this.refresh();
  }

  /** Greys what is too old to be trusted, and says how old it is. */
  tick() {
    if (this.#readMs === null) return;
    const oldMs = performance.now() - this.#readMs;
    const isOld = oldMs > this.everyMs * MISSED_TURNS;
    this.section.classList.toggle('old', isOld);
    if (isOld) write(this.#part('note'), `as of ${age(oldMs / 1_000)} ago`);
  }

  /** Puts in the list's place what was built of it. */
  show({ content, count, note }, hasMore = false) {
    const body = this.#part('content');
    this.section.dataset.count = count;
    write(this.#part('note'), note);
    const hadFocus = body.contains(document.activeElement) ? document.activeElement.dataset.fold ?? 'more' : null;
    const { scrollTop } = body;
    body.replaceChildren(content);
    if (hasMore && this.#source.isPaged && this.#limit < SHOWN_MAX) body.append(this.#more());
    body.scrollTop = scrollTop;
    // The list is built anew: whoever was on a button of it finds themselves on the same one.
    if (hadFocus !== null) body.querySelector(`[data-fold="${CSS.escape(hadFocus)}"]`)?.focus({ preventScroll: true });
  }

  #more() {
    const button = make('button', { type: 'button', class: 'more', 'data-fold': 'more' }, 'Show more');
    button.addEventListener('click', () => {
      this.#limit = Math.min(SHOWN_MAX, this.#limit * 2);
      this.refresh();
    });
    return button;
  }

  #part(part) {
    return this.section.querySelector(`[data-${part}]`);
  }
}

export const empty = (text) => make('p', { class: 'empty' }, text);

/** A table with a caption for those who do not see the heading. Columns: [title, class]. */
export function table(caption, columns, rows) {
  const heads = columns.map(([title, kind]) => make('th', { scope: 'col', class: kind }, title));
  return make('table', {}, make('caption', { class: 'unseen' }, caption), make('thead', {}, make('tr', {}, ...heads)), make('tbody', {}, ...rows));
}

/** A product by its name, with its sku beside it. */
export function productCell(product, productName, ...more) {
  const code = productName == null ? null : make('span', { class: 'code' }, name(product));
  return make('th', { scope: 'row', title: product }, make('span', { class: 'name' }, productName ?? name(product)), ' ', code, ...more);
}

const list = async (path) => (await read(path)).document;

/** `isOverdueOnly` and `summary` are asked anew for every reading. */
export function transitSource({ isOverdueOnly, summary }) {
  const row = (movement) => {
    const from = movement.warehouse_from && name(movement.warehouse_from);
    const to = movement.warehouse_to && name(movement.warehouse_to);
    const route = `${from ?? '?'}${to ? ` → ${to}` : ''}`;
    return make('tr', { 'data-tone': movement.overdue ? 'overdue' : null, 'data-movement': movement.id },
      productCell(movement.product, movement.product_name, make('span', { class: 'place' }, route)),
      make('td', { class: 'wide', title: movement.warehouse_from }, route),
      make('td', { class: 'number' }, number(movement.departure?.quantity ?? movement.quantity_diff)),
      make('td', { class: 'number' }, duration(movement.under_way_seconds)),
      make('td', { class: 'number wide' }, duration(movement.usual_seconds)),
      make('td', { class: 'states' }, movement.overdue ? make('span', { class: 'pill', 'data-tone': 'overdue' }, 'overdue') : null));
  };
  const columns = [['Product'], ['From', 'wide'], ['Units', 'number'], ['Under way', 'number'], ['Usually', 'number wide'], ['State', 'states']];
  return {
    everyMs: 5_000,
    isPaged: true,
    read: (limit) => list(`api/movements?status=in_transit${isOverdueOnly() ? '&overdue=true' : ''}&limit=${limit}`),
    build({ movements, next_cursor: next }) {
      const known = isOverdueOnly() ? summary()?.overdue : summary()?.in_transit;
      const count = next ? Math.max(known ?? 0, movements.length) : movements.length;
      const content = movements.length > 0 ? table('Movements in transit, longest under way first', columns, movements.map(row))
        : empty(isOverdueOnly() ? 'Nothing is overdue.' : 'Nothing is in transit.');
      return { content, count, note: movements.length < count ? `longest ${number(movements.length)} of ${number(count)}` : counted(count, 'movement') };
    },
  };
}

const numbersRow = (data, head, ...values) => make('tr', data, head, ...values.map((value) => make('td', { class: 'number' }, number(value))));

export function lowSource({ summary }) {
  const low = (level) => numbersRow({ 'data-key': `${level.warehouse_id} ${level.product_id}` },
    productCell(String(level.product_id), level.product_name, make('span', { class: 'place' }, name(level.warehouse))),
    level.current_quantity, level.min_stock);
  const reorder = (product) => numbersRow({ 'data-product': product.product_id },
    productCell(String(product.product_id), product.product_name, make('span', { class: 'place' }, 'all warehouses')),
    product.available_stock, product.reorder_point);
  return {
    everyMs: 10_000,
    isPaged: true,
    read: (limit) => list(`inventory/low-stock?limit=${limit}`),
    build({ low_stock: levels, reorder_needed: products = [], next_cursor: next }) {
      const count = next ? Math.max(summary()?.low ?? 0, levels.length) : levels.length;
      const content = document.createDocumentFragment();
      if (products.length > 0) {
        content.append(table('Products to reorder', [['To reorder'], ['Available', 'number'], ['Reorder at', 'number']], products.map(reorder)));
      }
      if (levels.length > 0) content.append(table('Levels at or below their minimum', [['Product'], ['Left', 'number'], ['Minimum', 'number']], levels.map(low)));
      if (content.childElementCount === 0) content.append(empty('Nothing is low.'));
      return { content, count, note: levels.length < count ? `first ${number(levels.length)} of ${number(count)}` : counted(count, 'level') };
    },
  };
}
