// What arrived differently from how it departed, by route; a route unfolds to its products and a product to its weeks. The service
// tells sums by week, route and product; the sums over them are made here.

import { draw, make } from './dom.js';
import { counted, name, number, week } from './format.js';
import { empty, table } from './lists.js';

const WEEKS = 12;
const WEEK_MS = 7 * 86_400_000;
const COLUMNS = [['Route, product, week'], ['Last 12 weeks', 'wide'], ['Short', 'number wide'], ['Units short', 'number'], ['Over', 'number wide'], ['Units over', 'number']];
const NOTHING = { short: 0, units_short: 0, over: 0, units_over: 0 };

const add = (sum, entry) => {
  for (const key of Object.keys(NOTHING)) sum[key] += entry[key];
};
const largestFirst = (a, b) => b.units_short + b.units_over - (a.units_short + a.units_over);

/** Routes with their sums, each with its products, each of them with its weeks. */
function fold(entries) {
  const routes = new Map();
  for (const entry of entries) {
    const key = `${entry.warehouse_id_from} ${entry.warehouse_id_to}`;
    const title = `${name(entry.warehouse_from ?? '?')} → ${name(entry.warehouse_to ?? '?')}`;
    const route = grow(routes, key, { key, title, kind: 'route' });
    const product = grow(route.parts, entry.product_id, { key: `${key} ${entry.product_id}`, title: entry.product_name ?? name(entry.product), kind: 'product' });
    const weekly = grow(product.parts, entry.week, { key: `${key} ${entry.product_id} ${entry.week}`, title: `week of ${week(entry.week)}`, kind: 'week' });
    for (const sum of [route, product, weekly]) {
      add(sum, entry);
      sum.weeks.set(entry.week, (sum.weeks.get(entry.week) ?? 0) + entry.units_short + entry.units_over);
    }
  }
  return [...routes.values()].sort(largestFirst);
}

function grow(parts, key, fresh) {
  if (!parts.has(key)) parts.set(key, { ...fresh, ...NOTHING, weeks: new Map(), parts: new Map() });
  return parts.get(key);
}

/** The Monday in UTC that is so many weeks ago, as the service writes it. */
function monday(weeksAgo) {
  const now = new Date();
  const daysSince = (now.getUTCDay() + 6) % 7;
  return new Date(now.getTime() - daysSince * 86_400_000 - weeksAgo * WEEK_MS).toISOString().slice(0, 10);
}

/** A bar a week, this week on the right: whether it is getting better. The numbers are in the weeks' own rows. */
function bars(weeks) {
  const most = Math.max(...weeks.values());
  const picture = draw('svg', { class: 'bars', viewBox: `0 0 ${WEEKS * 7} 18`, width: WEEKS * 7, height: 18, 'aria-hidden': 'true' });
  for (let ago = WEEKS - 1; ago >= 0; ago -= 1) {
    const units = weeks.get(monday(ago)) ?? 0;
    const height = units === 0 ? 1 : Math.max(3, (units / most) * 18);
    picture.append(draw('rect', { x: (WEEKS - 1 - ago) * 7, y: 18 - height, width: 5, height, class: units === 0 ? 'none' : '' }));
  }
  return picture;
}

export class Differences {
  everyMs = 15_000;
  #unfolded = new Set();
  #entries = [];
  #isCut = false;
  #onFold;

  /** `onFold` is called when something was folded or unfolded, with the new content. */
  constructor(onFold) {
    this.#onFold = onFold;
  }

  path() {
    return `api/differences?weeks=${WEEKS}&limit=200`;
  }

  build({ differences, next_cursor: next }) {
    this.#entries = differences;
    this.#isCut = Boolean(next);
    return this.#content();
  }

  #content() {
    const routes = fold(this.#entries);
    if (routes.length === 0) return { content: empty(`No differences in the last ${WEEKS} weeks.`), count: 0, note: '' };
    const note = this.#isCut ? `newest ${number(this.#entries.length)} sums of ${WEEKS} weeks` : `${counted(routes.length, 'route')} in ${WEEKS} weeks`;
    return { content: table('Differences by route', COLUMNS, routes.flatMap((route) => this.#rows(route))), count: routes.length, note };
  }

  #rows(sum) {
    const isUnfolded = this.#unfolded.has(sum.key);
    const row = make('tr', { class: `fold-${sum.kind}` },
      make('th', { scope: 'row' }, sum.kind === 'week' ? make('span', { class: 'leaf' }, sum.title) : this.#button(sum, isUnfolded)),
      make('td', { class: 'wide' }, sum.kind === 'week' ? null : bars(sum.weeks)),
      make('td', { class: 'number wide' }, number(sum.short)),
      make('td', { class: 'number' }, number(sum.units_short)),
      make('td', { class: 'number wide' }, number(sum.over)),
      make('td', { class: 'number' }, number(sum.units_over)));
    const order = sum.kind === 'route' ? largestFirst : (a, b) => (a.key < b.key ? 1 : -1);
    return isUnfolded ? [row, ...[...sum.parts.values()].sort(order).flatMap((part) => this.#rows(part))] : [row];
  }

  #button(sum, isUnfolded) {
    const button = make('button', { type: 'button', class: 'fold', 'aria-expanded': String(isUnfolded), 'data-fold': sum.key }, sum.title);
    button.addEventListener('click', () => {
      if (isUnfolded) this.#unfolded.delete(sum.key);
      else this.#unfolded.add(sum.key);
      this.#onFold(this.#content());
    });
    return button;
  }
}
