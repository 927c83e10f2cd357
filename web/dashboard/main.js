// Brings the parts of the page together: frames of the feed go into the model, four times a second what changed is painted, and what
// is read over HTTP is read while the feed is connected and somebody looks. The only file that knows all the others.

import { demandKey, ticketed } from './access.js';
import { readAddress, writeAddress } from './address.js';
import { Alerts, isAlert } from './alerts.js';
import { create } from './api.js';
import { Differences } from './differences.js';
import { announce, complain, find, write } from './dom.js';
import { Feed, SILENCE_LIMIT_MS } from './feed.js';
import { age, counted, number } from './format.js';
import { History } from './history.js';
import { Panel, lowSource, transitSource } from './lists.js';
import { Model } from './model.js';
import { Notifier } from './notify.js';
import { Order } from './order.js';
import { Scope } from './scope.js';
import { Summary } from './summary.js';
import { Table } from './table.js';

const PAINT_EVERY_MS = 250;
const READ_CHECK_EVERY_MS = 1_000;
/** A changed sku asks for a new picture; a catalogue that is being filled asks for one, not for thousands. */
const RESNAPSHOT_AFTER_MS = 2_000;
/** Low stock is read again so soon after an alert. */
const LOW_AFTER_ALERT_MS = 1_000;

const root = document.documentElement;
const address = readAddress();
const model = new Model();
const order = new Order(model);
const alerts = new Alerts(model.warehouses);
const notifier = new Notifier(model.warehouses);
const history = new History();
const table = new Table(order, (row, opener) => history.open(row, opener));

const summary = new Summary((totals) => { if (scope.hasOutgrown(totals)) feed.restart(); });
const scope = new Scope(model, { warehouse: address.warehouse, product: address.product }, (totals) => summary.take(totals));
const overdueOnly = find('#overdue-only');
const known = () => summary.document;
const transit = new Panel(find('#in-transit'), transitSource({ isOverdueOnly: () => overdueOnly.checked, summary: known }));
const low = new Panel(find('#low-stock'), lowSource({ summary: known }));
const differing = new Differences((built) => differences.show(built));
const differences = new Panel(find('#differences'), differing);
const feed = new Feed({ prepare: ask, onFrame: receive, onPhase: enterPhase });

async function ask() {
  try {
    return await ticketed(await scope.query(), create);
  } catch (error) {
    // The page is about all warehouses: a key that is limited to some cannot open it.
    if (error.status === 403) demandKey(error.message);
    throw error;
  }
}

// What comes over the feed.

let resnapshotTimer = null;
function resnapshotSoon() {
  resnapshotTimer ??= setTimeout(() => {
    resnapshotTimer = null;
    feed.restart();
  }, RESNAPSHOT_AFTER_MS);
}

let isPictured = false;
function receive(frame) {
  if (frame.type === 'update') {
    history.follow(model.update(frame.data));
  } else if (frame.type === 'snapshot') {
    if (model.snapshot(frame)) takePicture();
  } else if (frame.type === 'catalogue') {
    const { product, warehouse } = frame.data;
    if (warehouse) {
      model.learnWarehouse(warehouse, frame.version);
      scope.paintChooser(chooser.value);
    }
    if (product && model.learnProduct(product, frame.version)) resnapshotSoon();
  } else if (isAlert(frame.type) && alerts.add(frame)) {
    notifier.tell(frame);
    readAt.set(low, Math.min(readAt.get(low), performance.now() + LOW_AFTER_ALERT_MS));
  }
}

function takePicture() {
  isPictured = true;
  scope.paintChooser(scope.warehouse ?? scope.resolve(address.warehouse));
  applyFilter();
  history.renew(model.rows);
}

let wasLost = false;
async function enterPhase(phase) {
  if (phase !== 'live') model.dropUnfinished();
  if (phase === 'waiting') {
    if (!wasLost) announce(`${feed.reason}. Reconnecting.`);
    wasLost = true;
    summary.outdate();
  }
  paintState();
  if (phase !== 'live') return;
  if (wasLost) announce('Connected again.');
  wasLost = false;
  for (const reader of readAt.keys()) readAt.set(reader, 0);
  try {
    if (await scope.readNames()) resnapshotSoon();
  } catch {
    // Names come with the next connection; frames of the catalogue bring those that change.
    return;
  }
}

// What is read again and again, and when next.

const readAt = new Map([summary, transit, low, differences].map((reader) => [reader, 0]));

function readWhatIsDue() {
  if (document.visibilityState !== 'visible') return;
  for (const panel of [transit, low, differences]) panel.tick();
  summary.paint();
  history.tick();
  if (feed.phase !== 'live') return;
  const nowMs = performance.now();
  for (const [reader, dueMs] of readAt) {
    if (nowMs < dueMs) continue;
    // A little early rather than a whole turn late: timers are not exact.
    readAt.set(reader, nowMs + reader.everyMs - READ_CHECK_EVERY_MS / 2);
    reader.refresh();
  }
}

// What is painted.

const STATES = { connecting: 'Connecting', resuming: 'Resuming', live: 'Live' };

function paintState() {
  const nowMs = performance.now();
  const ageMs = feed.freshMs === null ? null : nowMs - feed.freshMs;
  const isOld = ageMs !== null && ageMs > SILENCE_LIMIT_MS;
  let state = feed.phase === 'live' ? 'live' : 'reconnecting';
  if (feed.freshMs === null && feed.phase === 'connecting' && !wasLost) state = 'connecting';
  if (feed.isSilent || (feed.phase === 'live' && isOld)) state = 'stale';
  if (root.dataset.state !== state) root.dataset.state = state;
  root.classList.toggle('old', isOld);
  const title = state === 'live' ? 'Stockyard' : `Stockyard (${state})`;
  if (document.title !== title) document.title = title;
  const waitS = Math.max(0, Math.ceil((feed.retryAtMs - nowMs) / 1_000));
  let text = STATES[feed.phase] ?? `${feed.reason}, reconnecting in ${waitS} s`;
  if (feed.phase === 'connecting' && wasLost) text = 'Reconnecting';
  if (state === 'stale') text = feed.isSilent ? 'Nothing came, reconnecting' : 'Stale';
  write(find('#state'), text);
  find('#now').hidden = feed.phase !== 'waiting';
  write(find('#version'), feed.version === null ? '' : String(feed.version));
  write(find('#age'), ageMs === null ? '–' : `${age(ageMs / 1_000)} ago`);
}

function paintTable() {
  const changed = order.update(performance.now(), table.isHeld);
  find('#paused').hidden = !order.isPaused;
  if (changed !== null && changed.size === 0 && !order.hasMoved) return;
  table.paint(changed);
  const count = find('#count');
  count.dataset.count = order.count;
  const all = counted(model.rows.size, 'level');
  if (isPictured) write(count, order.count === model.rows.size ? all : `${number(order.count)} of ${all}`);
  const emptiness = find('#stock-empty');
  emptiness.hidden = order.count > 0;
  if (!isPictured) return;
  write(emptiness, model.rows.size > 0 ? 'No level matches the filter.'
    : 'Nothing stands anywhere yet. As soon as a first movement is recorded, it appears here.');
}

function paint() {
  feed.tick();
  paintState();
  if (document.visibilityState !== 'visible') return;
  paintTable();
  scope.paint();
  if (chooser.options.length !== model.warehouses.size + 1) scope.paintChooser(chooser.value);
  complain(find('#stock-problem'), scope.problem);
  alerts.paint(performance.now());
  history.paint();
}

// What people choose.

const filter = find('#filter');
const show = find('#show');
const chooser = find('#warehouse');
const productBox = find('#product');

function applyFilter() {
  const warehouse = scope.isLarge ? null : chooser.value;
  order.filter({ text: filter.value, show: show.value, warehouse });
  paintTable();
}

function filterAnew() {
  const place = model.warehouses.get(chooser.value);
  address.warehouse = place?.shown ?? '';
  writeAddress({ q: filter.value.trim(), show: show.value, warehouse: address.warehouse });
  applyFilter();
  table.toTop();
  announce(`${counted(order.count, 'level')} shown.`);
}

function chooseScope(wanted) {
  scope.choose(wanted);
  writeAddress(wanted);
  feed.restart();
}

function sortBy(column, isDescending) {
  order.sort(column, isDescending);
  for (const head of document.querySelectorAll('#scroller th[data-column][scope="col"]')) {
    if (head.dataset.column === order.column) head.ariaSort = isDescending ? 'descending' : 'ascending';
    else head.removeAttribute('aria-sort');
  }
}

filter.value = address.q;
show.value = address.show;
if (show.selectedIndex < 0) show.value = '';
productBox.value = address.product;
sortBy(address.sort || 'product', address.dir === 'desc');

find('#filters').addEventListener('submit', (event) => event.preventDefault());
filter.addEventListener('input', filterAnew);
show.addEventListener('change', filterAnew);
chooser.addEventListener('change', () => {
  if (!scope.isLarge) return filterAnew();
  productBox.value = '';
  return chooseScope({ warehouse: model.warehouses.get(chooser.value)?.shown ?? '', product: '' });
});
productBox.addEventListener('change', () => chooseScope({ ...scope.wanted, product: productBox.value.trim() }));
find('#scroller thead').addEventListener('click', ({ target }) => {
  const { sort } = target.closest('button')?.dataset ?? {};
  if (sort === undefined) return;
  // Of names the beginning is looked for first, of numbers that change the largest; stock that may be missing the smallest.
  const isFirstDescending = ['reserved', 'state', 'changed'].includes(sort);
  const isDescending = order.column === sort ? !order.isDescending : isFirstDescending;
  sortBy(sort, isDescending);
  writeAddress({ sort, dir: isDescending ? 'desc' : '' });
  paintTable();
  table.toTop();
});
find('#figures').addEventListener('click', ({ target }) => {
  const { show: wanted, overdue } = target.closest('button')?.dataset ?? {};
  if (wanted !== undefined) {
    show.value = show.value === wanted ? '' : wanted;
    filterAnew();
    find('#stock').scrollIntoView({ block: 'nearest' });
  } else if (overdue !== undefined) {
    overdueOnly.checked = true;
    transit.refresh();
    find('#in-transit').scrollIntoView({ block: 'nearest' });
  }
});
find('#weeks').addEventListener('change', ({ target }) => {
  differing.weeks = Number(target.value);
  differences.refresh();
});
overdueOnly.addEventListener('change', () => transit.refresh());
find('#now').addEventListener('click', () => feed.connect());
document.addEventListener('visibilitychange', paint);

setInterval(paint, PAINT_EVERY_MS);
setInterval(readWhatIsDue, READ_CHECK_EVERY_MS);
feed.connect();
