// The key by which the page proves who it is for, where the service asks for one. It is kept for this tab, and forgotten with it.

import { complain, find } from './dom.js';

const STORED_AS = 'stockyard-key';
const key = sessionStorage.getItem(STORED_AS);

/** The header that goes with every request. */
export const proof = () => (key === null ? {} : { authorization: `Bearer ${key}` });

/** `query` with a ticket for one connection, because a browser sends no header of its own with a WebSocket. */
export async function ticketed(query, ask) {
  if (key === null) return query;
  try {
    const { document: { ticket } } = await ask('api/tickets');
    query.set('ticket', ticket);
  } catch (error) {
    // Nobody has to prove who they are any more.
    if (error.status !== 404) throw error;
  }
  return query;
}

const dialog = find('#access');
const field = find('#access-key');

/** Asks for a key, once however often it is called, and begins anew with it. */
export function demandKey(why) {
  complain(find('#access-problem'), key === null ? null : why);
  if (!dialog.open) dialog.showModal();
}

function enter() {
  if (!field.value.trim()) return;
  sessionStorage.setItem(STORED_AS, field.value.trim());
  location.reload();
}
find('#access-enter').addEventListener('click', enter);
field.addEventListener('keydown', (event) => event.key === 'Enter' && enter());
