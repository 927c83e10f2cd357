// The dialog with one product's past in one warehouse: a line of what was on hand, drawn on by updates as they come, and the last
// entries of the ledger. Rows of one revision are one commit: the state after it stands in each of them.

import { read } from './api.js';
import { Chart } from './chart.js';
import { complain, find, make, write } from './dom.js';
import { counted, moment, name, number, signed, words } from './format.js';

const PAGE = 500;
/** Entries kept while a busy level is watched: more could not be told apart in the line. */
const KEPT_MAX = 5_000;
/** Entries in the table at first, how many more a click adds, and how many it holds at most: it is built anew with every change. */
const LISTED_FIRST = 100;
const LISTED_MORE = 300;
const LISTED_MAX = 1_000;

export class History {
  #dialog = find('#history');
  #row = null;
  #opener = null;
  /** Newest first, as the service tells them. */
  #entries = [];
  #next = null;
  #listed = LISTED_FIRST;
  #isDirty = false;
  #generation = 0;
  #chart = new Chart(find('#history-chart'), {
    isStepped: true,
    isWhole: true,
    read: ({ ms, value, entry }) => `${moment(ms)}  ${number(value)} on hand, after ${words(entry.kind)}`,
  });

  constructor() {
    find('#history-close').addEventListener('click', () => this.#dialog.close());
    find('#history-older').addEventListener('click', () => this.#showMore());
    // The dialog fills its own box: a click on the element itself is one beside its content.
    this.#dialog.addEventListener('click', (event) => event.target === this.#dialog && this.#dialog.close());
    this.#dialog.addEventListener('close', () => this.#leave());
  }

  open(row, opener) {
    this.#row = row;
    this.#opener = opener;
    this.#entries = [];
    this.#next = null;
    this.#generation += 1;
    const { product, place } = row;
    const title = product.name ?? name(product.shown);
    write(find('#history-title'), title);
    const where = place.name === null ? place.shown : `${place.name} (${place.shown})`;
    write(find('#history-place'), title === product.shown ? `in ${where}` : `${product.shown} in ${where}`);
    complain(find('#history-problem'), null);
    this.#listed = LISTED_FIRST;
    this.#isDirty = true;
    this.#dialog.showModal();
    this.paint();
    this.#load();
  }

  /** A new picture came: what is shown may have gaps, and is read anew. */
  renew(rows) {
    const row = this.#row === null ? undefined : rows.get(this.#row.key);
    if (row === undefined) return;
    this.#row = row;
    this.#entries = [];
    this.#next = null;
    this.#generation += 1;
    this.#load();
  }

  /** An update of any level; the one that is shown grows by it. */
  follow(row) {
    if (this.#row === null || row.key !== this.#row.key) return;
    this.#row = row;
    this.#isDirty = true;
    this.#extend();
  }

  /** Adds an entry for the row as it stands, if the newest entry is from before: made of what updates tell, which is not all. */
  #extend() {
    const { revision, on_hand, reserved, kind, changedAt } = this.#row;
    const [before] = this.#entries;
    if (before === undefined || kind === null || revision <= before.revision) return;
    const deltas = { on_hand_delta: on_hand - before.on_hand, reserved_delta: reserved - before.reserved };
    this.#entries.unshift({ revision, kind, on_hand, reserved, ...deltas, movement_id: null, recorded_at: changedAt });
    if (this.#entries.length > KEPT_MAX) this.#entries.length = KEPT_MAX;
  }

  /** To be called with every paint of the page. */
  paint() {
    if (this.#row === null || !this.#isDirty) return;
    this.#isDirty = false;
    for (const cell of this.#dialog.querySelectorAll('[data-fact]')) {
      const { fact } = cell.dataset;
      write(cell, number(fact === 'min_stock' ? this.#row.product.min_stock : this.#row[fact]));
    }
    this.#paintLine();
    this.#paintEntries();
  }

  /** Draws the line on while nothing happens. */
  tick() {
    if (this.#row !== null && this.#entries.length > 0) this.#paintLine();
  }

  #showMore() {
    this.#listed = Math.min(LISTED_MAX, this.#listed + LISTED_MORE);
    if (this.#entries.length < this.#listed && this.#next !== null) this.#load();
    this.#paintEntries();
  }

  async #load() {
    const generation = this.#generation;
    const { place, product } = this.#row;
    const more = this.#next === null ? '' : `&cursor=${encodeURIComponent(this.#next)}`;
    try {
      const level = `api/warehouses/${place.id}/products/${encodeURIComponent(product.shown)}`;
      const { document: page } = await read(`${level}/history?limit=${PAGE}${more}`);
      if (generation !== this.#generation) return;
      this.#entries.push(...page.history);
      this.#next = page.next_cursor ?? null;
      this.#extend();
      complain(find('#history-problem'), null);
    } catch (error) {
      if (generation !== this.#generation) return;
      complain(find('#history-problem'), error.message);
    }
    this.#isDirty = true;
    this.paint();
  }

  #paintLine() {
    const points = [];
    let revision = null;
    for (const entry of this.#entries) {
      if (entry.revision === revision) continue;
      revision = entry.revision;
      points.push({ ms: Date.parse(entry.recorded_at), value: entry.on_hand, entry });
    }
    points.reverse();
    const first = points[0]?.ms ?? Date.now() - 60_000;
    const toMs = Math.max(Date.now(), points.at(-1)?.ms ?? 0);
    const values = points.map(({ value }) => value);
    const range = values.length === 0 ? 'no entries' : `${counted(values.length, 'change')}, from ${number(Math.min(...values))} to ${number(Math.max(...values))}`;
    this.#chart.show({
      points,
      fromMs: Math.min(first, toMs - 60_000),
      toMs,
      limit: this.#row.product.min_stock,
      summary: range,
      description: `On hand over time: ${range}${values.length > 0 ? `, ${number(values.at(-1))} now` : ''}`,
    });
  }

  #paintEntries() {
    const rows = this.#entries.slice(0, this.#listed).map((entry) => make('tr', {},
      make('td', {}, make('time', { datetime: entry.recorded_at }, moment(Date.parse(entry.recorded_at)))),
      make('td', {}, words(entry.kind)),
      make('td', { class: 'number' }, entry.on_hand_delta === 0 ? '' : signed(entry.on_hand_delta)),
      make('td', { class: 'number' }, entry.reserved_delta === 0 ? '' : signed(entry.reserved_delta)),
      make('td', { class: 'number strong' }, number(entry.on_hand)),
      make('td', { class: 'wide', title: entry.movement_id }, entry.movement_id ? name(entry.movement_id) : '')));
    this.#dialog.querySelector('tbody').replaceChildren(...rows);
    const hasMore = this.#entries.length > this.#listed || this.#next !== null;
    find('#history-older').hidden = !hasMore || this.#listed >= LISTED_MAX;
  }

  #leave() {
    this.#row = null;
    this.#entries = [];
    this.#generation += 1;
    if (this.#opener?.isConnected) this.#opener.focus({ preventScroll: true });
  }
}
