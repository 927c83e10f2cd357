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
  #waiting = [];
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
    this.#waiting.push(frame);
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
    write(this.#button, this.#isOn ? 'Notifying of low stock' : 'Notify me of low stock');
    this.#button.title = isDenied ? 'Notifications are blocked for this page in the browser.'
      : this.#isPossible ? '' : 'Browsers allow notifications only over HTTPS or on this machine.';
  }

  #show() {
    this.#timer = null;
    this.#shownMs = performance.now();
    const told = this.#waiting.map((frame) => describe(frame, this.#warehouses));
    this.#waiting = [];
    const lines = told.slice(0, LINES_MAX).map(({ label, what, where, how }) => `${label}: ${what}, ${where}: ${how}`);
    if (told.length > LINES_MAX) lines.push(`and ${told.length - LINES_MAX} more`);
    const [{ what, where, how, label }] = told;
    const [title, body] = told.length === 1 ? [`${what}: ${label}`, `${where}: ${how}`] : [counted(told.length, 'stock alert'), lines.join('\n')];
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
}
