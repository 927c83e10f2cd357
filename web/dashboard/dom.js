// Making elements. Text always becomes text, never markup, so what a name or a problem says cannot become part of the page.

/** An element; `properties` are attributes, a value that is null or false leaves the attribute out. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value == null || value === false) continue;
    element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

const SVG = 'http://www.w3.org/2000/svg';

export function draw(tag, properties = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Changes the text only if it is another one: most paints change little, and untouched text costs no layout. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const find = (selector) => document.querySelector(selector);

/** Shows what went wrong where the data would be, or hides it. */
export function complain(element, text) {
  element.hidden = !text;
  write(element, text ?? '');
}

let announcedMs = -Infinity;
let pending = null;
/** Between two announcements: a screen reader needs the time to say one. */
const ANNOUNCE_EVERY_MS = 4_000;

/** Says something to those who do not see the page; of several in a short time only the last. */
export function announce(text) {
  const isWaiting = pending !== null;
  pending = text;
  if (isWaiting) return;
  const waitMs = Math.max(0, announcedMs + ANNOUNCE_EVERY_MS - performance.now());
  setTimeout(() => {
    announcedMs = performance.now();
    write(find('#announcer'), pending);
    pending = null;
  }, waitMs);
}
