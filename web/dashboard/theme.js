// The choice of colours: as the system has it, light, or dark. This is no module on purpose: it runs before the first paint, so
// that a page that is to be dark does not flash in white.
'use strict';

(() => {
  const KEPT_AS = 'stockyard.theme';
  const root = document.documentElement;

  // A browser may refuse storage altogether; then the choice lasts as long as the page.
  const kept = () => {
    try { return localStorage.getItem(KEPT_AS); } catch { return null; }
  };
  const keep = (theme) => {
    try { localStorage.setItem(KEPT_AS, theme); } catch { /* It is not kept. */ }
  };

  const theme = kept();
  if (theme === 'light' || theme === 'dark') root.dataset.theme = theme;

  document.addEventListener('DOMContentLoaded', () => {
    const choice = document.getElementById('theme');
    choice.value = root.dataset.theme ?? 'auto';
    choice.addEventListener('change', () => {
      if (choice.value === 'auto') delete root.dataset.theme;
      else root.dataset.theme = choice.value;
      keep(choice.value);
    });
  });
})();
