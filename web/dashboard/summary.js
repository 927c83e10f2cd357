// The figures at the top and the two charts: both come from GET /summary, asked once a second. Events per second are the growth of
// a counter that begins anew when the service restarts, so a fall is a gap in the line, not a negative rate.

import { read } from './api.js';
import { Chart } from './chart.js';
import { complain, find, write } from './dom.js';
import { counted, figure, number, short, timeOfDay } from './format.js';

const SPAN_MS = 300_000;
/** Two answers further apart than this say nothing about the seconds between them (the page was hidden, the service away). */
const GAP_MS = 4_000;
/** Descriptions for screen readers need not follow every second. */
const DESCRIBE_EVERY_MS = 10_000;

function milliseconds(value) {
  if (value >= 10_000) return `${(value / 1_000).toFixed(1)} s`;
  return `${value < 10 ? value.toFixed(1) : number(Math.round(value))} ms`;
}

const perSecond = (value) => `${short(value)}/s`;

/** One line and what is said about it. */
class Series {
  points = [];
  #chart;
  #title;
  #unit;
  #describedMs = -Infinity;

  constructor(selector, title, unit, settings) {
    this.#title = title;
    this.#unit = unit;
    const tell = ({ ms, value }) => `${timeOfDay(ms)}  ${unit(value)}`;
    this.#chart = new Chart(find(selector), { read: tell, fromZero: true, now: true, ...settings });
  }

  add(ms, value) {
    // One gap is enough to break the line.
    if (value === null && this.points.at(-1)?.value === null) this.points.pop();
    this.points.push({ ms, value });
  }

  paint(nowMs) {
    while (this.points.length > 0 && this.points[0].ms < nowMs - SPAN_MS) this.points.shift();
    const values = this.points.filter(({ value }) => value !== null).map(({ value }) => value);
    const last = this.points.at(-1)?.value ?? null;
    let summary = '';
    let said = 'not known';
    if (values.length > 0) {
      const most = this.#unit(Math.max(...values));
      const mean = this.#unit(values.reduce((sum, value) => sum + value, 0) / values.length);
      summary = `${last === null ? '' : `${this.#unit(last)} now, `}${mean} on average, ${most} at most`;
      said = `${summary}, in the last five minutes`;
    }
    const isDue = nowMs - this.#describedMs >= DESCRIBE_EVERY_MS;
    if (isDue) this.#describedMs = nowMs;
    const description = isDue ? `${this.#title}: ${said}` : undefined;
    this.#chart.show({ points: this.points, fromMs: nowMs - SPAN_MS, toMs: nowMs, summary, description });
  }
}

export class Summary {
  everyMs = 1_000;
  /** The last answer, and null before the first. */
  document = null;
  #events = new Series('#events-chart', 'Events per second', perSecond, { isArea: true, isWhole: true });
  #lag = new Series('#lag-chart', 'Freshness, from commit to feed', milliseconds, {});
  #last = null;
  #onRead;

  constructor(onRead) {
    this.#onRead = onRead;
  }

  async refresh() {
    try {
      const { document: summary } = await read('summary');
      this.take(summary);
      complain(find('#summary-problem'), null);
      find('#figures').classList.remove('old');
    } catch (error) {
      complain(find('#summary-problem'), error.message);
      this.outdate();
    }
  }

  take(summary) {
    this.document = summary;
    this.#sample(summary.feed ?? {});
    this.#paintFigures(summary);
    this.#onRead(summary);
  }

  /** What is shown may no longer be true. */
  outdate() {
    if (this.document !== null) find('#figures').classList.add('old');
    this.#last = null;
    for (const series of [this.#events, this.#lag]) series.add(Date.now(), null);
  }

  paint() {
    const nowMs = Date.now();
    this.#events.paint(nowMs);
    this.#lag.paint(nowMs);
  }

  #sample({ changes_total: total = null, lag_seconds: lag = null }) {
    const atMs = performance.now();
    const before = this.#last;
    this.#last = total === null ? null : { total, atMs };
    const isJoined = before !== null && total !== null && total >= before.total && atMs - before.atMs <= GAP_MS && atMs > before.atMs;
    const nowMs = Date.now();
    this.#events.add(nowMs, isJoined ? ((total - before.total) * 1_000) / (atMs - before.atMs) : null);
    this.#lag.add(nowMs, lag === null ? null : lag * 1_000);
  }

  #paintFigures(summary) {
    const { short: less, over, arrival_only: arrivals } = summary;
    const differences = [less, over, arrivals].every((value) => value != null) ? less + over + arrivals : null;
    for (const cell of document.querySelectorAll('[data-figure]')) {
      const value = cell.dataset.figure === 'differences' ? differences : summary[cell.dataset.figure];
      write(cell, figure(value));
      cell.title = value == null ? '' : number(value);
      cell.parentElement.classList.toggle('some', value > 0);
    }
    const details = {
      units: `units, ${counted(summary.keys, 'level')}`,
      available: `${figure(summary.reserved)} reserved`,
      in_transit: `${figure(summary.units_in_transit)} units under way`,
      low: `${counted(summary.reorder, 'product')} to reorder`,
      differences: `${number(less)} short, ${number(over)} over, ${number(arrivals)} unannounced`,
    };
    for (const [key, text] of Object.entries(details)) write(find(`[data-detail="${key}"]`), text);
  }
}
