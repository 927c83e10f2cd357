// How numbers, times and names are written, everywhere in the same way. Pure functions: nothing here looks at the page.

const whole = new Intl.NumberFormat('en');
const withSign = new Intl.NumberFormat('en', { signDisplay: 'exceptZero' });
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const oneDigit = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const minute = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
// The weeks of the service begin on Monday in UTC: in another zone the same date could read as Sunday.
const utcDay = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', timeZone: 'UTC' });
const utcDate = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', year: 'numeric', timeZone: 'UTC' });

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** What stands where a number is not known. */
export const UNKNOWN = '–';

export const number = (value) => (value == null ? UNKNOWN : whole.format(value));

export const signed = (value) => withSign.format(value);

/** Up to seven digits as they are, more in short: a figure has the same width whatever it counts. */
export const figure = (value) => (value != null && Math.abs(value) >= 1e7 ? compact.format(value) : number(value));

/** A measured number with no more digits than say something. */
export function short(value) {
  if (Math.abs(value) >= 10_000) return compact.format(value);
  return (Math.abs(value) >= 100 ? whole : oneDigit).format(Math.abs(value) >= 100 ? Math.round(value) : value);
}

/** "1 product", "2 products". */
export const counted = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

/** A code as it is; of a UUID the beginning and the end, by which people tell them apart. */
export const name = (id) => (UUID.test(id) ? `${id.slice(0, 8)}…${id.slice(-4)}` : id);

/** How old something is, in seconds: exact while it is fresh. */
export function age(seconds) {
  return seconds < 10 ? `${Math.max(0, seconds).toFixed(1)} s` : duration(seconds);
}

/** A span in its two largest units. */
export function duration(seconds) {
  if (seconds == null) return UNKNOWN;
  const total = Math.max(0, Math.round(seconds));
  if (total < 60) return `${total} s`;
  const minutes = Math.floor(total / 60);
  if (minutes < 60) return total % 60 && minutes < 10 ? `${minutes} min ${total % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 ? `${number(days)} d ${hours % 24} h` : `${number(days)} d`;
}

export const timeOfDay = (ms) => clock.format(ms);

/** The day a week begins on, with its year unless that is this year's. */
export function week(monday) {
  const at = new Date(`${monday}T00:00:00Z`);
  return (at.getUTCFullYear() === new Date().getUTCFullYear() ? utcDay : utcDate).format(at);
}

/** A moment as short as it can be said today: without the date if it was today. */
export function moment(ms) {
  const isToday = new Date(ms).toDateString() === new Date().toDateString();
  return isToday ? clock.format(ms) : `${day.format(ms)}, ${minute.format(ms)}`;
}

/** The label of a mark on a time axis whose marks are so far apart. */
export function mark(ms, stepMs) {
  const at = new Date(ms);
  if (stepMs >= 86_400_000 || (at.getHours() === 0 && at.getMinutes() === 0 && at.getSeconds() === 0)) return day.format(ms);
  return stepMs >= 60_000 ? minute.format(ms) : clock.format(ms);
}

/** `update_type` and ledger kinds are words with underscores. */
export const words = (kind) => kind.replaceAll('_', ' ');
