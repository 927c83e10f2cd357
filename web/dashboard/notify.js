// Notifications of the browser about low stock, for who asked for them: permission is requested by a click and never otherwise. At
// most one comes in ten seconds; what happened meanwhile is summed up in the next.

import { describe } from './alerts.js';
import { find, write } from './dom.js';
import { counted } from './format.js';

const EVERY_MS = 10_000;
const LINES_MAX = 4;
const KEPT_AS = 'stockyard.notify';
const WORTHY = new Set(['low_stock_alert', 'reorder_needed']);

export class Notifier {
  #warehouses;
  #button = find('#notify');
  #isWanted = false;
  /** The first alerts that wait to be told, and how many there are in all. */
  #waiting = [];
  #waitingCount = 0;
  #shownMs = -Infinity;
  #timer = null;

  constructor(warehouses) {
    this.#warehouses = warehouses;
    try { this.#isWanted = localStorage.getItem(KEPT_AS) === 'on'; } catch { /* Without storage it is asked anew. */ }
    this.#button.addEventListener('click', () => this.#toggle());
    this.#paint();
  }

  tell(frame) {
    if (!this.#isOn || !WORTHY.has(frame.type)) return;
    this.#waitingCount += 1;
    if (this.#waiting.length < LINES_MAX) this.#waiting.push(frame);
    if (this.#timer !== null) return;
    const waitMs = Math.max(0, this.#shownMs + EVERY_MS - performance.now());
    this.#timer = setTimeout(() => this.#show(), waitMs);
  }

  get #isPossible() {
    return 'Notification' in window && window.isSecureContext;
  }

  get #isOn() {
    return this.#isWanted && this.#isPossible && Notification.permission === 'granted';
  }

  async #toggle() {
    const wasOn = this.#isOn;
    if (!wasOn && Notification.permission === 'default') await Notification.requestPermission();
    this.#isWanted = !wasOn;
    try { localStorage.setItem(KEPT_AS, this.#isOn ? 'on' : 'off'); } catch { /* It lasts as long as the page. */ }
    this.#paint();
  }

  #paint() {
    const isDenied = this.#isPossible && Notification.permission === 'denied';
    this.#button.disabled = !this.#isPossible || isDenied;
    this.#button.ariaPressed = String(this.#isOn);
    write(this.#button.querySelector('span'), this.#isOn ? 'Notifying of low stock' : 'Notify me of low stock');
    this.#button.title = isDenied ? 'Notifications are blocked for this page in the browser.'
      : this.#isPossible ? '' : 'Browsers allow notifications only over HTTPS or on this machine.';
  }

  #show() {
    this.#timer = null;
    this.#shownMs = performance.now();
    const { title, body } = this.#sumUp();
    try {
      const notification = new Notification(title, { body, tag: 'stockyard' });
      notification.onclick = () => { focus(); notification.close(); };
    } catch {
      // Browsers on phones show notifications of installed pages only.
      this.#isWanted = false;
      this.#button.disabled = true;
      this.#button.title = 'This browser does not let pages show notifications.';
    }
  }

  #sumUp() {
    const told = this.#waiting.map((frame) => describe(frame, this.#warehouses));
    const count = this.#waitingCount;
    this.#waiting = [];
    this.#waitingCount = 0;
    const [{ what, where, how, label }] = told;
    if (count === 1) return { title: `${what}: ${label}`, body: `${where}: ${how}` };
    const lines = told.map((each) => `${each.what} ${each.label}, ${each.where}: ${each.how}`);
    if (count > told.length) lines.push(`and ${count - told.length} more`);
    return { title: counted(count, 'stock alert'), body: lines.join('\n') };
  }
}
