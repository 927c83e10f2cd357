// A chart of one series over time, drawn in SVG: a line, perhaps with an area under it, perhaps in steps, with marks on both axes
// and a read-out for pointer and arrow keys. Whoever owns the figure says what it shows; the scale follows the values.

import { draw, write } from './dom.js';
import { mark, short } from './format.js';

const MARGIN = { top: 10, right: 12, bottom: 22, left: 46 };
/** Steps that people count time in. */
const TIME_STEPS_MS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
  1_209_600, 2_592_000, 7_776_000, 31_536_000].map((seconds) => seconds * 1_000);

/** The round number at or above `rough`: 1, 2 or 5 times a power of ten. */
function roundStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
}

/** The ends of a scale that holds the values, at round numbers, and its step. */
function scaleOf(values, { fromZero, isWhole }) {
  let least = fromZero ? 0 : Infinity;
  let most = fromZero ? 1 : -Infinity;
  for (const value of values) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  if (least > most) [least, most] = [0, 1];
  let step = roundStep((most - least || Math.abs(most) || 1) / 3);
  if (isWhole) step = Math.max(1, step);
  const low = Math.floor(least / step) * step;
  const high = Math.max(Math.ceil(most / step) * step, low + step);
  return { low, high, step };
}

export class Chart {
  #svg;
  #readout;
  #settings;
  #points = [];
  #fromMs = 0;
  #toMs = 1;
  #picked = null;
  #parts;
  #plot = null;

  /**
   * Settings: `read(point)` gives the text for a point; isArea, isStepped; `fromZero` and `isWhole` for the scale of the values;
   * `now`: the right edge is the present, and marks count back from it.
   */
  constructor(figure, settings) {
    this.#settings = settings;
    this.#svg = figure.querySelector('svg');
    this.#readout = figure.querySelector('output');
    this.#parts = {
      grid: draw('g', { class: 'grid' }),
      area: draw('path', { class: 'area' }),
      limit: draw('line', { class: 'limit', visibility: 'hidden' }),
      line: draw('path', { class: 'line' }),
      needle: draw('line', { class: 'needle', visibility: 'hidden' }),
      point: draw('circle', { class: 'point', r: 3.5, visibility: 'hidden' }),
    };
    this.#svg.append(...Object.values(this.#parts));
    this.#svg.addEventListener('pointermove', ({ offsetX }) => this.#pick(this.#nearest(offsetX)));
    this.#svg.addEventListener('pointerleave', () => this.#pick(null));
    this.#svg.addEventListener('blur', () => this.#pick(null));
    this.#svg.addEventListener('keydown', (event) => this.#step(event));
    new ResizeObserver(() => this.paint()).observe(this.#svg);
  }

  /**
   * `points` are {ms, value}, oldest first; a value of null is a gap. `limit` is a number to draw a line at, `summary` the text while
   * no point is picked, `description` what a screen reader says instead of the picture.
   */
  show({ points, fromMs, toMs, limit = null, summary, description }) {
    this.#points = points;
    this.#fromMs = fromMs;
    this.#toMs = Math.max(toMs, fromMs + 1);
    this.#settings.limit = limit;
    this.#settings.summary = summary;
    if (description !== undefined) this.#svg.setAttribute('aria-label', description);
    this.paint();
  }

  paint() {
    const { width, height } = this.#svg.getBoundingClientRect();
    if (width < 80 || height < 60) return;
    this.#svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    const { limit } = this.#settings;
    const values = this.#points.filter(({ value }) => value !== null).map(({ value }) => value);
    if (limit !== null && limit !== undefined && values.length > 0) values.push(limit);
    this.#plot = { width, height, right: width - MARGIN.right, bottom: height - MARGIN.bottom, scale: scaleOf(values, this.#settings) };
    this.#paintGrid();
    this.#paintLine();
    this.#paintPicked();
  }

  #x(ms) {
    const { right } = this.#plot;
    return MARGIN.left + ((ms - this.#fromMs) / (this.#toMs - this.#fromMs)) * (right - MARGIN.left);
  }

  #y(value) {
    const { bottom, scale: { low, high } } = this.#plot;
    return bottom - ((value - low) / (high - low)) * (bottom - MARGIN.top);
  }

  #paintGrid() {
    const { right, bottom, scale: { low, high, step } } = this.#plot;
    const parts = [];
    for (let value = low; value <= high + step / 2; value += step) {
      const y = Math.round(this.#y(value)) + 0.5;
      parts.push(draw('line', { x1: MARGIN.left, x2: right, y1: y, y2: y, class: Math.abs(value) < step / 1e3 ? 'zero' : '' }));
      parts.push(draw('text', { x: MARGIN.left - 8, y: y + 4, 'text-anchor': 'end' }, short(value)));
    }
    for (const { ms, label } of this.#timeMarks()) {
      const x = this.#x(ms);
      const anchor = x > right - 24 ? 'end' : x < MARGIN.left + 24 ? 'start' : 'middle';
      parts.push(draw('text', { x, y: bottom + 16, 'text-anchor': anchor }, label));
    }
    this.#parts.grid.replaceChildren(...parts);
  }

  #timeMarks() {
    const span = this.#toMs - this.#fromMs;
    const room = Math.max(2, Math.floor(this.#plot.width / 72));
    // Seen from now, "-2 min" says more than a time; the marks then stand still while the line moves.
    if (this.#settings.now) {
      const minutes = Math.round(span / 60_000);
      const each = minutes > room ? 2 : 1;
      const marks = [];
      for (let ago = 0; ago <= minutes; ago += each) marks.push({ ms: this.#toMs - ago * 60_000, label: ago === 0 ? 'now' : `-${ago} min` });
      return marks;
    }
    const step = TIME_STEPS_MS.find((ms) => span / ms <= room) ?? TIME_STEPS_MS.at(-1);
    // Marks of days begin at midnight here, not in Greenwich.
    const offset = new Date(this.#fromMs).getTimezoneOffset() * 60_000;
    const marks = [];
    for (let ms = Math.ceil((this.#fromMs - offset) / step) * step + offset; ms <= this.#toMs; ms += step) marks.push({ ms, label: mark(ms, step) });
    return marks;
  }

  #paintLine() {
    const { isStepped, isArea, limit } = this.#settings;
    const { bottom, right, scale } = this.#plot;
    let line = '';
    let area = '';
    let start = null;
    let last = null;
    const close = () => {
      if (start !== null) area += `V${bottom}H${start}Z`;
      start = null;
    };
    for (const { ms, value } of this.#points) {
      if (value === null) { close(); continue; }
      const x = this.#x(ms).toFixed(1);
      const y = this.#y(value).toFixed(1);
      const part = start === null ? `M${x} ${y}` : isStepped ? `H${x}V${y}` : `L${x} ${y}`;
      if (start === null) start = x;
      line += part;
      area += part;
      last = value;
    }
    // A level stays what it is until it changes: the last step reaches to the edge.
    if (isStepped && last !== null) { line += `H${right}`; area += `H${right}`; }
    close();
    this.#parts.line.setAttribute('d', line);
    this.#parts.area.setAttribute('d', isArea ? area : '');
    const isLimited = limit !== null && limit !== undefined && limit >= scale.low && limit <= scale.high;
    this.#parts.limit.setAttribute('visibility', isLimited ? 'visible' : 'hidden');
    if (isLimited) this.#set(this.#parts.limit, { x1: MARGIN.left, x2: right, y1: this.#y(limit), y2: this.#y(limit) });
  }

  #set(element, attributes) {
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  }

  #nearest(x) {
    if (this.#plot === null) return null;
    let best = null;
    for (const point of this.#points) {
      if (point.value === null) continue;
      const px = this.#x(point.ms);
      if (this.#settings.isStepped && px > x && best !== null) break;
      if (best === null || Math.abs(px - x) <= Math.abs(this.#x(best.ms) - x) || this.#settings.isStepped) best = point;
    }
    return best;
  }

  #step(event) {
    const known = this.#points.filter(({ value }) => value !== null);
    const at = this.#picked === null ? known.length : known.indexOf(this.#picked);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: known.length - 1 }[event.key];
    if (to === undefined || known.length === 0) return;
    event.preventDefault();
    // Only a point asked for with a key is spoken: the text beside it changes every second.
    this.#readout.ariaLive = 'polite';
    this.#pick(known[Math.max(0, Math.min(known.length - 1, to))]);
  }

  #pick(point) {
    if (point === null) this.#readout.ariaLive = 'off';
    this.#picked = point;
    this.#paintPicked();
  }

  #paintPicked() {
    // The point may have left the chart since; then there is nothing to read out.
    if (this.#picked !== null && !this.#points.includes(this.#picked)) this.#picked = null;
    const { needle, point: spot } = this.#parts;
    const point = this.#picked;
    const visibility = point === null || this.#plot === null ? 'hidden' : 'visible';
    needle.setAttribute('visibility', visibility);
    spot.setAttribute('visibility', visibility);
    write(this.#readout, point === null ? this.#settings.summary ?? '' : this.#settings.read(point));
    this.#readout.classList.toggle('picked', point !== null);
    if (visibility === 'hidden') return;
    const x = this.#x(point.ms);
    this.#set(needle, { x1: x, x2: x, y1: MARGIN.top, y2: this.#plot.bottom });
    this.#set(spot, { cx: x, cy: this.#y(point.value) });
  }
}
