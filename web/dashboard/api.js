// Reads over HTTP: documents, pages of them, and problem documents (RFC 9457) turned into errors that say what happened.

import { demandKey, proof } from './access.js';

/** A read that takes longer will not come; the next attempt may go another way. */
const READ_LIMIT_MS = 10_000;

/** An answer that is a refusal. Its message is the `detail` of the problem document. */
export class Problem extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function refusal(response) {
  const fallback = `The service answered ${response.status}.`;
  try {
    const { detail, title } = await response.json();
    return new Problem(detail || title || fallback, response.status);
  } catch {
    return new Problem(fallback, response.status);
  }
}

/** The document at `path` (relative to the page), and the version as of which it is true, if it says so. */
export const read = (path) => ask(path, 'GET');

/** The same of a document that is made by asking for it. */
export const create = (path) => ask(path, 'POST');

async function ask(path, method) {
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), {
      cache: 'no-store',
      method,
      headers: { accept: 'application/json', ...proof() },
      signal: AbortSignal.timeout(READ_LIMIT_MS),
    });
  } catch {
    throw new Problem('The service cannot be reached.', 0);
  }
  if (!response.ok) {
    const problem = await refusal(response);
    if (problem.status === 401) demandKey(problem.message);
    throw problem;
  }
  const version = Number.parseInt(response.headers.get('stock-version') ?? '', 10);
  try {
    return { document: await response.json(), version: Number.isNaN(version) ? null : version };
  } catch {
    throw new Problem('The answer of the service broke off.', 0);
  }
}

/** The pages of a list, one after the other, at most `most` of them. `isLast` says that there is nothing after this one. */
export async function* pages(path, most) {
  let cursor = null;
  for (let count = 0; count < most; count += 1) {
    const glue = path.includes('?') ? '&' : '?';
    const page = await read(cursor === null ? path : `${path}${glue}cursor=${encodeURIComponent(cursor)}`);
    cursor = page.document.next_cursor ?? null;
    yield { ...page, isLast: cursor === null };
    if (cursor === null) return;
  }
}
