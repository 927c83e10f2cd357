// What arrived differently from how it departed, by route. The sums of routes are read again and again; those of a route's products
// and their weeks only once it is unfolded, and then together with the others.

import { read } from './api.js';
import { draw, make } from './dom.js';
import { counted, name, number, week } from './format.js';
import { empty, table } from './lists.js';

/** Weeks that are shown as bars, however far back the sums go. */
const BARS = 12;
const DAY_MS = 86_400_000;
/** The longest page the service gives: of more routes or products the rest is left out, and the heading says so. */
const PAGE_MAX = 1_000;
const COLUMNS = [
  ['Route, product, week'],
  [`Last ${BARS} weeks`, 'wide'],
  ['Short', 'number wide'],
  ['Units short', 'number'],
  ['Over', 'number wide'],
  ['Units over', 'number'],
];
const NOTHING = { short: 0, units_short: 0, over: 0, units_over: 0 };

const largestFirst = (a, b) => b.units_short + b.units_over - (a.units_short + a.units_over);

/** Sums over entries that agree in `key`. `describe` says what is to be known of a group besides its numbers, from its first entry. */
function sum(entries, key, describe) {
  const groups = new Map();
  for (const entry of entries) {
    const id = key(entry);
    let group = groups.get(id);
    if (group === undefined) {
      group = { ...NOTHING, ...describe(entry), weeks: new Map(), entries: [] };
      groups.set(id, group);
    }
    for (const column of Object.keys(NOTHING)) group[column] += entry[column];
    if (entry.week !== null) group.weeks.set(entry.week, (group.weeks.get(entry.week) ?? 0) + entry.units_short + entry.units_over);
    group.entries.push(entry);
  }
  return [...groups.values()];
}

const routeOf = (entry) => `${entry.warehouse_id_from} ${entry.warehouse_id_to}`;

/** The Monday in UTC that is so many weeks ago, as the service writes it. */
function monday(weeksAgo) {
  const now = new Date();
  const daysSince = (now.getUTCDay() + 6) % 7;
  return new Date(now.getTime() - (daysSince + weeksAgo * 7) * DAY_MS).toISOString().slice(0, 10);
}

/** A bar a week, this week on the right: whether it is getting better. The numbers are in the weeks' own rows. */
function bars(weeks) {
  const shown = Array.from({ length: BARS }, (_, at) => weeks.get(monday(BARS - 1 - at)) ?? 0);
  const most = Math.max(...shown);
  if (most === 0) return null;
  const picture = draw('svg', { class: 'bars', viewBox: `0 0 ${BARS * 7} 18`, width: BARS * 7, height: 18, 'aria-hidden': 'true' });
  shown.forEach((units, at) => {
    const height = units === 0 ? 1 : Math.max(3, (units / most) * 18);
    picture.append(draw('rect', { x: at * 7, y: 18 - height, width: 5, height, class: units === 0 ? 'none' : '' }));
  });
  return picture;
}

export class Differences {
  everyMs = 15_000;
  #overview = { differences: [] };
  /** Routes by week are more than a page: then only their sums are read, without the bars. */
  #hasManyRoutes = false;
  #unfolded = new Set();
  /** Of the unfolded routes: their sums by product and week, or what went wrong. */
  #parts = new Map();
  #weeks = 12;
  #onFold;

  /** `onFold` is called with new content when something was folded or unfolded. */
  constructor(onFold) {
    this.#onFold = onFold;
  }

  /** How many weeks the sums go back, from the next reading on. */
  set weeks(weeks) {
    this.#weeks = weeks;
    this.#hasManyRoutes = false;
  }

  async read() {
    this.#overview = await this.#readRoutes();
    await Promise.all([...this.#parts.keys()].map((route) => this.#readParts(route)));
    return this.#overview;
  }

  build() {
    const routes = sum(this.#overview.differences, routeOf, (entry) => ({
      key: routeOf(entry),
      title: `${name(entry.warehouse_from ?? '?')} → ${name(entry.warehouse_to ?? '?')}`,
    })).sort(largestFirst);
    if (routes.length === 0) return { content: empty(`No differences in the last ${this.#weeks} weeks.`), count: 0, note: '' };
    const isCut = Boolean(this.#overview.next_cursor);
    const note = `${isCut ? 'the first ' : ''}${counted(routes.length, 'route')}`;
    return { content: table('Differences by route', COLUMNS, routes.flatMap((route) => this.#routeRows(route))), count: routes.length, note };
  }

  async #readRoutes() {
    const ask = async (groups) => (await read(`api/differences?weeks=${this.#weeks}&group=${groups}&limit=${PAGE_MAX}`)).document;
    if (!this.#hasManyRoutes) {
      const byWeek = await ask('route,week');
      if (!byWeek.next_cursor) return byWeek;
      this.#hasManyRoutes = true;
    }
    return ask('route');
  }

  async #readParts(route) {
    const [from, to] = route.split(' ');
    const ends = `warehouse_id_from=${from}&warehouse_id_to=${to}`;
    try {
      const { document: parts } = await read(`api/differences?weeks=${this.#weeks}&group=product,week&${ends}&limit=${PAGE_MAX}`);
      this.#parts.set(route, { entries: parts.differences, remark: parts.next_cursor ? 'older weeks are left out' : null });
    } catch (error) {
      this.#parts.set(route, { entries: this.#parts.get(route)?.entries ?? [], remark: error.message });
    }
  }

  #routeRows(route) {
    const row = this.#row('route', route, this.#button(route, () => this.#toggleRoute(route.key)));
    if (!this.#unfolded.has(route.key)) return [row];
    const { entries, remark } = this.#parts.get(route.key) ?? { entries: [], remark: 'Reading.' };
    const products = sum(entries, (entry) => entry.product_id, (entry) => ({
      key: `${route.key} ${entry.product_id}`,
      title: entry.product_name ?? name(entry.product),
    })).sort(largestFirst);
    const rows = [row, ...products.flatMap((product) => this.#productRows(product))];
    if (remark !== null) rows.push(make('tr', { class: 'fold-week' }, make('td', { colspan: COLUMNS.length }, remark)));
    return rows;
  }

  #productRows(product) {
    const row = this.#row('product', product, this.#button(product, () => this.#toggle(product.key)));
    if (!this.#unfolded.has(product.key)) return [row];
    const weeks = [...product.entries].sort((a, b) => (a.week < b.week ? 1 : -1));
    return [row, ...weeks.map((entry) => this.#row('week', entry, make('span', { class: 'leaf' }, `week of ${week(entry.week)}`)))];
  }

  #row(kind, sums, head) {
    return make('tr', { class: `fold-${kind}` },
      make('th', { scope: 'row' }, head),
      make('td', { class: 'wide' }, kind === 'week' ? null : bars(sums.weeks)),
      make('td', { class: 'number wide' }, number(sums.short)),
      make('td', { class: 'number' }, number(sums.units_short)),
      make('td', { class: 'number wide' }, number(sums.over)),
      make('td', { class: 'number' }, number(sums.units_over)));
  }

  #button({ key, title }, onClick) {
    const isUnfolded = this.#unfolded.has(key);
    const button = make('button', { type: 'button', class: 'fold', title, 'aria-expanded': String(isUnfolded), 'data-fold': key }, title);
    button.addEventListener('click', onClick);
    return button;
  }

  #toggle(key) {
    if (!this.#unfolded.delete(key)) this.#unfolded.add(key);
    this.#onFold(this.build());
  }

  async #toggleRoute(key) {
    this.#toggle(key);
    if (!this.#unfolded.has(key)) {
      this.#parts.delete(key);
      return;
    }
    await this.#readParts(key);
    // It may have been folded again in the meantime.
    if (this.#unfolded.has(key)) this.#onFold(this.build());
    else this.#parts.delete(key);
  }
}
