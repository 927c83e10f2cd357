// The stock table: a real table of which only the rows in or near the visible part exist, so that a million levels scroll like
// twenty. One button a row opens its history; arrow keys move between rows. Cells are written only where their text changed.

import { find, make, write } from './dom.js';
import { name, number, signed, words } from './format.js';
import { state } from './model.js';

/** Rows kept ready above and below what is visible, for scrolling without gaps. */
const SPARE_ROWS = 6;
/** With more of the visible rows than this changing at once, flashing would be flicker. */
const FLASH_SHARE_MAX = 0.2;
const NUMBERS = ['on_hand', 'reserved', 'available', 'min_stock'];
const STATES = { low: 'low', negative: 'below zero', '': '' };

/** The elements of one row, and which level they show. */
class Line {
  row = null;
  constructor() {
    this.open = make('button', { type: 'button', class: 'open', tabindex: '-1' });
    // The spaces are for who hears the names one after the other.
    this.open.append(make('span', { class: 'name' }), ' ', make('span', { class: 'code' }), ' ', make('span', { class: 'place' }));
    this.warehouse = make('td', { 'data-column': 'warehouse' });
    this.numbers = NUMBERS.map((column) => make('td', { 'data-column': column, class: 'number' }));
    this.pill = make('span', { class: 'pill' });
    this.changed = make('td', { 'data-column': 'changed' });
    this.tr = make('tr', {}, make('th', { scope: 'row', 'data-column': 'product' }, this.open), this.warehouse, ...this.numbers,
      make('td', { 'data-column': 'state' }, this.pill), this.changed);
  }

  show(row, index, flashes) {
    if (this.row !== row) this.#name(row);
    const position = String(index + 2);
    if (this.tr.ariaRowIndex !== position) this.tr.ariaRowIndex = position;
    NUMBERS.forEach((column, at) => this.#count(this.numbers[at], column === 'min_stock' ? row.product.min_stock : row[column], flashes));
    const now = state(row);
    if (this.pill.dataset.tone !== now) {
      this.pill.dataset.tone = now;
      this.tr.dataset.tone = now;
    }
    write(this.pill, STATES[now]);
    write(this.changed, row.kind === null ? '' : `${row.change === 0 ? '' : `${signed(row.change)} `}${words(row.kind)}`);
    this.tr.classList.toggle('leaving', !row.isMatching);
  }

  /** Names change seldom: they are written when the line is given to a row, or after the catalogue changed. */
  #name(row) {
    const { product, place } = row;
    this.row = row;
    this.tr.dataset.key = row.key;
    const [title, code, where] = this.open.children;
    write(title, product.name ?? name(product.shown));
    write(code, product.name === null ? '' : name(product.shown));
    write(where, place.name ?? name(place.shown));
    this.open.title = product.shown;
    write(this.warehouse, place.name === null ? name(place.shown) : `${place.name} `);
    if (place.name !== null) this.warehouse.append(make('span', { class: 'code' }, name(place.shown)));
    this.warehouse.title = place.shown;
    for (const cell of this.numbers) {
      delete cell.dataset.flash;
      delete cell.dataset.value;
    }
  }

  #count(cell, value, flashes) {
    const bare = value === null ? '' : String(value);
    const before = cell.dataset.value;
    if (before === bare) return;
    cell.dataset.value = bare;
    write(cell, value === null ? '' : number(value));
    // Two names for one animation: another name starts it again without asking for the layout.
    if (flashes && before !== undefined) cell.dataset.flash = cell.dataset.flash === 'a' ? 'b' : 'a';
  }

  forget() {
    this.row = null;
  }
}

export class Table {
  #order;
  #onOpen;
  #scroller = find('#scroller');
  #table = find('#scroller table');
  #body = find('#scroller tbody');
  #above = make('tr', { class: 'spacer', 'aria-hidden': 'true' }, make('td'));
  #below = make('tr', { class: 'spacer', 'aria-hidden': 'true' }, make('td'));
  #lines = new Map();
  #idle = [];
  #activeKey = null;
  #rowHeight = 36;
  #headHeight = 36;
  #isPointedAt = false;
  /** The rows were last reached with the keyboard: a button that has the focus from a click holds nothing. */
  #isKeyed = false;
  #isFrameAsked = false;

  constructor(order, onOpen) {
    this.#order = order;
    this.#onOpen = onOpen;
    this.#body.append(this.#above, this.#below);
    this.#scroller.addEventListener('scroll', () => this.#renderSoon(), { passive: true });
    // Touch has no hovering: a finger that left would hold the order for good.
    this.#scroller.addEventListener('pointerenter', ({ pointerType }) => { this.#isPointedAt = pointerType === 'mouse'; });
    this.#scroller.addEventListener('pointerleave', () => { this.#isPointedAt = false; });
    this.#body.addEventListener('click', ({ target }) => this.#open(target.closest('tr')?.dataset.key));
    this.#body.addEventListener('keydown', (event) => this.#move(event));
    this.#body.addEventListener('focusin', ({ target }) => {
      this.#isKeyed ||= target.matches(':focus-visible');
      this.#activate(target.closest('tr')?.dataset.key);
    });
    this.#scroller.addEventListener('pointerdown', () => { this.#isKeyed = false; });
    new ResizeObserver(() => this.#measure()).observe(this.#scroller);
  }

  /** Somebody points at the rows, or moves in them with the keyboard. */
  get isHeld() {
    return this.#isPointedAt || (this.#isKeyed && this.#body.contains(document.activeElement));
  }

  /** Paints what is visible. `changed`: the rows whose numbers changed, or null after which everything is written anew. */
  paint(changed) {
    if (changed === null) for (const line of this.#lines.values()) line.forget();
    let flashing = 0;
    if (changed !== null && changed.size > 0) for (const { row } of this.#lines.values()) if (changed.has(row)) flashing += 1;
    this.#render(flashing > 0 && flashing <= Math.max(2, this.#lines.size * FLASH_SHARE_MAX));
  }

  toTop() {
    this.#scroller.scrollTop = 0;
  }

  #measure() {
    this.#rowHeight = Number.parseFloat(getComputedStyle(this.#scroller).getPropertyValue('--row-height')) || 36;
    this.#headHeight = this.#table.tHead.offsetHeight;
    this.#renderSoon();
  }

  #renderSoon() {
    if (this.#isFrameAsked) return;
    this.#isFrameAsked = true;
    requestAnimationFrame(() => {
      this.#isFrameAsked = false;
      this.#render(false);
    });
  }

  #render(flashes) {
    const { list } = this.#order;
    const visible = Math.ceil(this.#scroller.clientHeight / this.#rowHeight);
    const { scrollTop } = this.#scroller;
    const top = Math.floor(scrollTop / this.#rowHeight);
    const first = Math.max(0, Math.min(top, list.length - visible) - SPARE_ROWS);
    const rows = list.slice(first, first + visible + 2 * SPARE_ROWS);
    const focused = document.activeElement;
    const hadFocus = this.#body.contains(focused);
    this.#release(new Set(rows.map((row) => row.key)));
    this.#above.firstChild.style.height = `${first * this.#rowHeight}px`;
    this.#below.firstChild.style.height = `${(list.length - first - rows.length) * this.#rowHeight}px`;
    this.#above.hidden = first === 0;
    let next = this.#above.nextSibling;
    rows.forEach((row, at) => {
      const line = this.#lineFor(row);
      line.show(row, first + at, flashes);
      if (line.tr === next) next = next.nextSibling;
      else this.#body.insertBefore(line.tr, next);
    });
    if (hadFocus) this.#keepFocus(focused, scrollTop);
    const rowCount = String(list.length + 1);
    if (this.#table.ariaRowCount !== rowCount) this.#table.ariaRowCount = rowCount;
    this.#markActive(rows);
  }

  /**
   * Who moves in the table must not notice that rows are taken out and moved. A focused row that is taken out makes the browser lay
   * the table out while rows are missing, and scroll back to what is left of it.
   */
  #keepFocus(focused, scrollTop) {
    if (!this.#body.contains(document.activeElement)) (this.#body.contains(focused) ? focused : this.#scroller).focus({ preventScroll: true });
    if (this.#scroller.scrollTop !== scrollTop) this.#scroller.scrollTop = scrollTop;
  }

  /** Lines that show nothing of what is visible now are taken out and kept for other rows. */
  #release(keys) {
    for (const [key, line] of this.#lines) {
      if (keys.has(key)) continue;
      line.tr.remove();
      line.forget();
      this.#lines.delete(key);
      this.#idle.push(line);
    }
  }

  #lineFor(row) {
    let line = this.#lines.get(row.key);
    if (line === undefined) {
      line = this.#idle.pop() ?? new Line();
      this.#lines.set(row.key, line);
    }
    return line;
  }

  /** Exactly one button can be reached with the tab key: that of the row last used, else the first. */
  #markActive(rows) {
    const active = this.#lines.has(this.#activeKey) ? this.#activeKey : rows[0]?.key;
    for (const [key, { open }] of this.#lines) {
      const tabIndex = key === active ? 0 : -1;
      if (open.tabIndex !== tabIndex) open.tabIndex = tabIndex;
    }
  }

  #activate(key) {
    if (key === undefined) return;
    this.#activeKey = key;
    this.#markActive([]);
  }

  #open(key) {
    const line = this.#lines.get(key);
    if (line !== undefined) this.#onOpen(line.row, line.open);
  }

  #move(event) {
    const { list } = this.#order;
    const from = list.indexOf(this.#lines.get(this.#activeKey)?.row);
    const page = Math.max(1, Math.floor((this.#scroller.clientHeight - this.#headHeight) / this.#rowHeight) - 1);
    const to = { ArrowDown: from + 1, ArrowUp: from - 1, PageDown: from + page, PageUp: from - page, Home: 0, End: list.length - 1 }[event.key];
    if (to === undefined || from < 0) return;
    event.preventDefault();
    this.#isKeyed = true;
    this.#focusOn(Math.max(0, Math.min(list.length - 1, to)));
  }

  #focusOn(index) {
    const top = index * this.#rowHeight;
    const room = this.#scroller.clientHeight - this.#headHeight - this.#rowHeight;
    const { scrollTop } = this.#scroller;
    if (top < scrollTop) this.#scroller.scrollTop = top;
    else if (top > scrollTop + room) this.#scroller.scrollTop = top - room;
    this.#render(false);
    this.#lines.get(this.#order.list[index].key)?.open.focus({ preventScroll: true });
  }
}
