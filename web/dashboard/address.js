// The part of the page's state that lives in its address, so that a view can be sent to somebody else: filter, warehouse, what is
// shown, order. Parameters that are not ours stay as they are.

const NAMES = ['q', 'warehouse', 'product', 'show', 'sort', 'dir'];

/** The state the address says, empty text for what it does not say. */
export function readAddress() {
  const query = new URLSearchParams(location.search);
  return Object.fromEntries(NAMES.map((name) => [name, query.get(name) ?? '']));
}

/** Puts `changes` into the address. The history of the browser does not grow with every letter typed. */
export function writeAddress(changes) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  const text = query.toString();
  const address = `${location.pathname}${text ? `?${text}` : ''}${location.hash}`;
  // Browsers bound how often this may be called; the address is then late, and nothing else.
  try {
    history.replaceState(history.state, '', address);
  } catch {
    return;
  }
}
