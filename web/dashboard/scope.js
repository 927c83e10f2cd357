// How much of the stock the page asks for. Up to 20,000 levels it takes everything and filters here; of more it takes one warehouse,
// or one product everywhere, and says so. The choosers for both live here as well.

import { pages, read } from './api.js';
import { find, make, write } from './dom.js';
import { counted, name } from './format.js';

/** Levels the page takes whole: a picture of some megabytes, sorted in tens of milliseconds. */
const WHOLE_MAX = 20_000;
/** A database that was small when the page was opened may grow; so far it is still shown whole. */
const GROWN_MAX = 40_000;
const CATALOGUE_PAGE = 1_000;
const WAREHOUSE_PAGES_MAX = 5;
const PRODUCT_PAGES_MAX = 20;
/** Suggestions beyond this help nobody to find anything. */
const SUGGESTED_MAX = 1_000;

export class Scope {
  /** Null until the summary said how much there is. */
  isLarge = null;
  /** What the feed is limited to, if it is: a warehouse's UUID, or a product as shown. */
  warehouse = null;
  product = null;
  /** What the address or a chooser asked for. */
  wanted;
  /** Why something that was asked for is not shown. */
  problem = null;
  #model;
  #onSummary;
  #query = null;
  #isSuggested = false;

  constructor(model, wanted, onSummary) {
    this.#model = model;
    this.wanted = wanted;
    this.#onSummary = onSummary;
  }

  /** Asks for something else from the next connection on. */
  choose(wanted) {
    this.wanted = wanted;
    this.problem = null;
    this.#query = null;
  }

  /** What to ask the feed for. Found out once: a connection that is lost comes back without other questions. Throws if nobody answers. */
  async query() {
    this.#query ??= await this.#find();
    return new URLSearchParams(this.#query);
  }

  async #find() {
    this.warehouse = null;
    this.product = null;
    if (this.isLarge === null) await this.#measure();
    if (!this.isLarge) return {};
    await this.#readWarehouses();
    if (this.wanted.product && await this.#hasProduct(this.wanted.product)) {
      this.product = this.wanted.product;
      return { product: this.product };
    }
    this.warehouse = this.resolve(this.wanted.warehouse) ?? this.#warehouses()[0]?.id ?? null;
    return this.warehouse === null ? {} : { warehouse: this.warehouse };
  }

  /** True if the database has outgrown being shown whole. */
  hasOutgrown({ keys }) {
    if (this.isLarge !== false || !(keys > GROWN_MAX)) return false;
    this.isLarge = true;
    this.#query = null;
    return true;
  }

  /** A warehouse's UUID from its code or UUID. */
  resolve(wanted) {
    if (!wanted) return null;
    for (const place of this.#model.warehouses.values()) if (place.id === wanted || place.shown === wanted) return place.id;
    return null;
  }

  /** Says in words what is shown. */
  paint() {
    find('#product-box').hidden = !this.isLarge;
    const count = counted(this.#model.warehouses.size, 'warehouse');
    let text = '';
    if (this.product !== null) text = `showing ${name(this.product)} in all warehouses`;
    else if (this.warehouse !== null) text = `showing ${name(this.#model.warehouses.get(this.warehouse)?.shown ?? this.warehouse)} of ${count}`;
    write(find('#scope'), text);
    find('#warehouse').options[0].disabled = this.isLarge === true;
  }

  /** Fills the chooser with the warehouses that are known by now. */
  paintChooser(chosen) {
    const chooser = find('#warehouse');
    const label = ({ shown, name: title }) => (title === null ? name(shown) : `${name(shown)}, ${title}`);
    const options = this.#warehouses().map((place) => make('option', { value: place.id }, label(place)));
    chooser.replaceChildren(chooser.options[0], ...options);
    chooser.value = chosen ?? '';
  }

  /** Reads the names of warehouses and products. Returns true if levels are known by another id now. */
  async readNames() {
    let isOther = false;
    await this.#readWarehouses();
    for await (const { document: page, version, isLast } of pages(`api/products?limit=${CATALOGUE_PAGE}`, PRODUCT_PAGES_MAX)) {
      for (const product of page.products) isOther = this.#model.learnProduct(product, version ?? 0) || isOther;
      if (!this.#isSuggested) this.#suggest(page.products);
      this.#model.isCatalogueWhole ||= isLast;
    }
    return isOther;
  }

  /** Only what people would type: an id that is a UUID is no help. */
  #suggest(products) {
    const known = products.filter(({ sku }) => sku).slice(0, SUGGESTED_MAX);
    const options = known.map(({ sku, name: title }) => make('option', { value: sku }, title ?? ''));
    find('#products').replaceChildren(...options);
    this.#isSuggested = true;
  }

  async #measure() {
    let keys = null;
    try {
      const { document: summary } = await read('summary');
      keys = summary.keys;
      this.#onSummary(summary);
    } catch (error) {
      // A service that is away is waited for; one that answers but does not know how much there is gets the careful question.
      if (error.status === 0) throw error;
    }
    this.isLarge = !(keys <= WHOLE_MAX) || keys === null;
  }

  async #readWarehouses() {
    for await (const { document: page, version } of pages(`api/warehouses?limit=${CATALOGUE_PAGE}`, WAREHOUSE_PAGES_MAX)) {
      for (const place of page.warehouses) this.#model.learnWarehouse(place, version ?? 0);
    }
  }

  /** The feed refuses a product that nobody knows, and a refused socket does not say why: so it is asked for here. */
  async #hasProduct(product) {
    try {
      await read(`inventory/${encodeURIComponent(product)}`);
      this.problem = null;
      return true;
    } catch (error) {
      if (error.status === 0) throw error;
      this.problem = `${product}: ${error.message}`;
      return false;
    }
  }

  #warehouses() {
    return [...this.#model.warehouses.values()].sort((a, b) => (a.order < b.order ? -1 : 1));
  }
}
