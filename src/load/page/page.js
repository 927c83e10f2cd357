// Asks once a second how the run is, and draws it.

const seconds = [];
const SHOWN = 600;
const edited = new Set();
const find = id => document.getElementById(id);
const form = find('change');

const cell = (text, isNumber) => {
  const td = document.createElement('td');
  td.textContent = text;
  if (isNumber) td.className = 'number';
  return td;
};

const rows = (id, list) => find(id).replaceChildren(...list.map(cells => {
  const tr = document.createElement('tr');
  tr.append(...cells.map((text, place) => cell(text, place > 0 && typeof text !== 'object')));
  return tr;
}));

// Lines over the last seconds, on one scale, with its largest value written at the top.
const draw = (id, lines) => {
  const svg = find(id);
  const [, , width, height] = svg.getAttribute('viewBox').split(' ').map(Number);
  const shown = seconds.slice(-SHOWN);
  const most = Math.max(1e-9, ...lines.flatMap(([, of]) => shown.map(of)));
  const make = (name, attributes, text) => {
    const element = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const x = place => 50 + place * (width - 60) / Math.max(1, shown.length - 1);
  const y = value => height - 8 - value * (height - 24) / most;
  svg.replaceChildren(
    make('line', { x1: 50, x2: width - 10, y1: y(0), y2: y(0), class: 'axis' }),
    make('line', { x1: 50, x2: width - 10, y1: y(most), y2: y(most), class: 'axis' }),
    make('text', { x: 44, y: y(most) + 4, 'text-anchor': 'end' }, most < 10 ? most.toFixed(1) : Math.round(most)),
    ...lines.map(([name, of]) => make('polyline', {
      class: name, points: shown.map((second, place) => `${x(place).toFixed(1)},${y(of(second)).toFixed(1)}`).join(' '),
    })),
  );
};

const show = state => {
  seconds.push(...state.seconds);
  const last = seconds.at(-1);
  const all = state.all;
  find('state').textContent = `${state.is_over ? 'Over' : 'Running'} for ${Math.round(state.elapsed_seconds)} s`
    + (last ? `: ${last.users} of ${state.users_wanted} users, ${last.requests} requests/s, p50 ${last.p50_ms.toFixed(1)} ms, p99 ${last.p99_ms.toFixed(1)} ms` : '')
    + `; ${all.failures} of ${all.requests} failed`
    + (last?.resident_bytes ? `; the service holds ${Math.round(last.resident_bytes / 2 ** 20)} MiB` : '');
  // What somebody is typing is left alone; everything else shows how it is.
  for (const [name, value] of [['users', state.users_wanted], ['spawn_rate', state.spawn_rate], ['rate', state.rate]]) {
    if (!edited.has(name)) form.elements[name].value = value;
  }
  draw('times', [['p99', s => s.p99_ms], ['p95', s => s.p95_ms], ['p50', s => s.p50_ms]]);
  draw('rates', [['ok', s => s.requests], ['p99', s => s.failures]]);
  draw('users', [['p50', s => s.users]]);
  const times = t => [t.requests, t.refusals, t.failures, t.mean_ms.toFixed(1), t.p50_ms.toFixed(1), t.p95_ms.toFixed(1), t.p99_ms.toFixed(1)];
  rows('operations', [...state.operations.map(o => [o.name, ...times(o)]), ['All requests over HTTP', ...times(all)]]);
  rows('promises', state.promises.filter(p => p.checked > 0).map(p => [p.words, p.checked, p.broken]));
  rows('failures', state.failures.map(f => [f.request, f.reason, f.times]));
};

const post = async (path, body) => {
  const answer = await fetch(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
  find('told').textContent = answer.ok ? 'Done.' : await answer.text();
};

form.addEventListener('submit', event => {
  event.preventDefault();
  const values = {};
  for (const name of edited) values[name] = Number(form.elements[name].value);
  edited.clear();
  post('/change', values);
});
form.addEventListener('input', event => edited.add(event.target.name));
find('stop').addEventListener('click', () => post('/stop', {}));

for (;;) {
  try {
    show(await (await fetch(`/state?since=${seconds.length}`)).json());
  } catch {
    find('state').textContent = 'The run is over; its report says how it ended.';
    break;
  }
  await new Promise(resolve => setTimeout(resolve, 1000));
}
