// What the page knows: levels by warehouse and product, and what both are called. Frames and pages of the catalogue go in, rows come
// out. Invariant: once a frame with a cursor is applied, `rows` is what the database held at that version. Nothing is painted here:
// whoever paints takes what changed since the last time.

/** Digits as numbers: "W-9" stands before "W-10". Comparing such texts is far cheaper than a collator, which matters at 20,000 rows. */
const sortable = (text) => text.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(12, '0'));

class Named {
  version = 0;
  constructor(id, shown) {
    this.id = id;
    this.rename(shown, null);
  }

  rename(shown, name) {
    this.shown = shown;
    this.name = name;
    this.text = `${shown} ${name ?? ''}`.toLowerCase();
    this.order = sortable(name ?? shown);
  }
}

export class Model {
  /** By product_id as frames have it: the sku, else the UUID. */
  products = new Map();
  /** By UUID. */
  warehouses = new Map();
  rows = new Map();
  /** What a product's UUID was shown as when it was last told of. */
  #shownAs = new Map();
  #staged = null;
  #changed = new Set();
  #isReplaced = false;
  isCatalogueWhole = false;

  /** What happened since the last call: the rows that changed (also those gone), or that everything may be different. */
  take() {
    const taken = { isReplaced: this.#isReplaced, changed: this.#changed };
    this.#isReplaced = false;
    this.#changed = new Set();
    return taken;
  }

  /** A picture, perhaps in parts: it replaces the rows when its last part is here. True if this was it. */
  snapshot({ version, data, part = 1, parts = 1 }) {
    if (part === 1 || this.#staged === null) this.#staged = new Map();
    for (const entry of data) {
      const product = this.#product(String(entry.product_id));
      this.#describe(product, entry, version);
      for (const level of entry.levels) {
        const place = this.#warehouse(level.warehouse_id, level.warehouse);
        const row = makeRow(product, place);
        this.#staged.set(row.key, Object.assign(row, amounts(level, level.available)));
      }
    }
    if (part < parts) return false;
    this.rows = this.#staged;
    this.#staged = null;
    this.#changed = new Set();
    this.#isReplaced = true;
    return true;
  }

  /** A picture that was under way when its connection ended will not be finished. */
  dropUnfinished() {
    this.#staged = null;
  }

  /** One level's newest state. Returns its row. */
  update(data) {
    const key = `${data.warehouse_id} ${data.product_id}`;
    let row = this.rows.get(key);
    // What clients are told as change is that of the quantity, which is never negative; here the stored number is shown.
    const change = row === undefined ? data.change : data.on_hand - row.on_hand;
    if (row === undefined) {
      row = makeRow(this.#product(String(data.product_id)), this.#warehouse(data.warehouse_id, data.warehouse));
      this.rows.set(key, row);
    }
    Object.assign(row, amounts(data, data.available_stock));
    row.change = change;
    row.kind = data.update_type;
    row.changedAt = data.timestamp;
    if (data.left) {
      row.isGone = true;
      this.rows.delete(key);
    }
    this.#changed.add(row);
    return row;
  }

  /** What the catalogue says of a product as of `version`. True if its rows are known by another id now: only a new picture helps. */
  learnProduct(entry, version) {
    const shown = entry.sku ?? entry.id;
    const before = this.#shownAs.get(entry.id);
    const isKnown = this.products.has(shown);
    this.#shownAs.set(entry.id, shown);
    this.#describe(this.#product(shown), entry, version);
    if (before !== undefined) return before !== shown;
    // Its former sku may be one of ours: unless the whole catalogue is known, that cannot be told.
    return !isKnown && (this.products.has(entry.id) || !this.isCatalogueWhole);
  }

  learnWarehouse({ id, code, name }, version) {
    if (version < this.warehouses.get(id)?.version) return;
    const place = this.#warehouse(id, code ?? id);
    place.version = version;
    if (place.name === (name ?? null)) return;
    place.rename(place.shown, name ?? null);
    this.#isReplaced = true;
  }

  #describe(product, { name = null, min_stock = null, reorder_point = null }, version) {
    if (version < product.version) return;
    product.version = version;
    const isOther = product.name !== name || product.min_stock !== min_stock;
    if (product.name !== name) product.rename(product.shown, name);
    product.min_stock = min_stock;
    product.reorder_point = reorder_point;
    this.#isReplaced ||= isOther;
  }

  #product(shown) {
    let product = this.products.get(shown);
    if (product === undefined) {
      product = Object.assign(new Named(shown, shown), { min_stock: null, reorder_point: null });
      this.products.set(shown, product);
    }
    return product;
  }

  #warehouse(id, shown) {
    let place = this.warehouses.get(id);
    if (place === undefined) {
      place = new Named(id, shown);
      this.warehouses.set(id, place);
    } else if (place.shown !== shown) {
      place.rename(shown, place.name);
      this.#isReplaced = true;
    }
    return place;
  }
}

function makeRow(product, place) {
  return {
    key: `${place.id} ${product.id}`,
    product,
    place,
    on_hand: 0,
    quantity: 0,
    reserved: 0,
    available: 0,
    revision: 0,
    change: null,
    kind: null,
    changedAt: '',
    isGone: false,
    isMatching: false,
    isListed: false,
  };
}

const amounts = ({ on_hand, quantity, reserved, revision }, available) => ({ on_hand, quantity, reserved, available, revision });

/** The state of a level that somebody may have to act on. Below zero is the worse of the two. */
export function state(row) {
  if (row.on_hand < 0) return 'negative';
  const { min_stock } = row.product;
  return min_stock !== null && row.quantity <= min_stock ? 'low' : '';
}
