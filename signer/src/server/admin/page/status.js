'use strict';
// Asks for the figures each second and shows them. Everything that comes from the service is text, never markup.
const STEP = 1000, PATIENCE = 3000, STALE = 3500, MINUTES = 300, LANES = 64;
const $ = id => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';

function el(name, cls, ...children) {
  const node = document.createElement(name);
  if (cls) node.className = cls;
  node.append(...children.filter(c => c != null));
  return node;
}
function draw(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}
const group = (value, digits = 0) => value.toLocaleString('en-GB', { minimumFractionDigits: digits, maximumFractionDigits: digits });
const few = value => group(value, value > 0 && value < 10 ? 1 : 0);
function time(ms) {
  if (ms == null) return ['–', ''];
  if (ms < 1) return [group(ms * 1000), 'µs'];
  return ms < 1000 ? [group(ms, ms < 10 ? 2 : ms < 100 ? 1 : 0), 'ms'] : [group(ms / 1000, 2), 's'];
}
const times = ms => time(ms).join(' ').trim();
function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  let unit = 0;
  while (n >= 1024 && unit < 3) { n /= 1024; unit++; }
  return `${unit ? group(n, n < 10 ? 1 : 0) : n} ${units[unit]}`;
}
function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
}
const ago = (now, then) => `${span((Date.parse(now) - Date.parse(then)) / 1000)} ago`;
const clock = date => date.toLocaleTimeString('en-GB');

// A part of the page is only touched where what it shows has changed: a selection in it stays, and nothing flickers.
const shown = new Map();
function put(id, data, render) {
  const text = JSON.stringify(data);
  if (shown.get(id) === text) return;
  shown.set(id, text);
  $(id).replaceChildren(...[render(data)].flat().filter(n => n != null));
}
const say = (id, text) => put(id, text, t => t);
const big = (id, value, unit) => put(id, [value, unit], () => [value, el('small', '', unit)]);

// Curves of the last minutes; the newest is at the right edge.
function chart(id, curves, unit) {
  put(id, curves, () => {
    const values = curves.flatMap(c => c.values).filter(v => v != null);
    const most = Math.max(0, ...values), top = most || 1;
    const svg = draw('svg', { viewBox: '0 0 300 58', preserveAspectRatio: 'none', role: 'img', 'aria-label': `the last 5 minutes, at most ${unit(most)}` });
    svg.append(draw('line', { class: 'base', x1: 0, x2: 300, y1: 57.5, y2: 57.5 }));
    for (const { values, name } of curves) {
      const x = i => 300 - (values.length - 1 - i) * 300 / (MINUTES - 1), y = v => 57 - v / top * 54;
      let line = '', fill = '', from = null, last = null;
      values.forEach((v, i) => {
        if (v == null) { if (from != null) fill += `L${x(last)},57L${x(from)},57Z`; from = null; return; }
        const to = `${from == null ? 'M' : 'L'}${x(i).toFixed(2)},${y(v).toFixed(2)}`;
        // A second by itself would be a line of no length.
        line += from == null ? `${to}h.1` : to; fill += to;
        if (from == null) from = i;
        last = i;
      });
      if (from != null) fill += `L${x(last)},57L${x(from)},57Z`;
      svg.append(draw('path', { class: `fill ${name}`, d: fill }), draw('path', { class: `curve ${name}`, d: line }));
    }
    const hair = draw('line', { class: 'hair', x1: 0, x2: 0, y1: 0, y2: 57, visibility: 'hidden' });
    svg.append(hair);
    const keys = curves.length > 1 ? curves.map(c => el('span', `key ${c.name}`, c.label)) : [];
    const ends = el('div', 'ends', el('span', '', '−5 min'), ...keys, el('span', '', 'now'));
    const highest = el('div', 'most', values.length ? `at most ${unit(most)}` : '');
    const read = event => {
      const box = svg.getBoundingClientRect(), share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      const back = Math.round((1 - share) * (MINUTES - 1));
      const at = curves.map(c => c.values[c.values.length - 1 - back]);
      hair.setAttribute('x1', share * 300); hair.setAttribute('x2', share * 300); hair.setAttribute('visibility', 'visible');
      highest.textContent = `${back ? span(back) + ' ago' : 'now'}: ${at.map(v => v == null ? '–' : unit(v)).join(' · ')}`;
    };
    svg.addEventListener('pointermove', read);
    svg.addEventListener('pointerleave', () => { hair.setAttribute('visibility', 'hidden'); highest.textContent = values.length ? `at most ${unit(most)}` : ''; });
    return [svg, ends, highest];
  });
}
// A few refusals now and then would be a row of needles: the mean of five seconds, as the figure above it.
const calm = values => values.map((_, i) => {
  const some = values.slice(Math.max(0, i - 4), i + 1);
  return some.reduce((a, b) => a + b, 0) / some.length;
});
function table(heads, rows, none) {
  if (!rows.length) return el('p', 'nothing', none);
  const cell = (tag, value) => {
    const { text, cls } = typeof value === 'object' && !(value instanceof Node) ? value : { text: value };
    return el(tag, cls, text);
  };
  return el('div', 'scroll', el('table', '',
    el('thead', '', el('tr', '', ...heads.map(h => cell('th', h)))),
    el('tbody', '', ...rows.map(row => el('tr', '', ...row.map(v => cell('td', v)))))));
}
const n = text => ({ text, cls: 'n' });
const STATES = { ready: 'good', recovering: 'warn', draining: 'warn', open: 'bad', latched: 'bad', 'not ready': 'bad' };
const NAMES = { open: 'out of service', latched: 'PIN latched' };

function token(d, t) {
  const lanes = el('div', 'lanes');
  const kinds = [['busy', t.busy], ['lost', t.lost], ['idle', t.idle], ['gone', Math.max(0, t.cap - t.busy - t.lost - t.idle)]];
  for (const [kind, count] of kinds) for (let i = 0; i < Math.min(count, LANES); i++) lanes.append(el('i', kind));
  lanes.setAttribute('role', 'img');
  lanes.setAttribute('aria-label', `${t.busy} lanes busy, ${t.idle} idle, ${t.lost} lost`);
  const fact = (name, value, cls) => el('div', cls, el('span', '', `${name} `), value);
  return el('div', 'box token',
    el('div', 'top', el('h3', '', t.name), el('span', `pill ${STATES[t.state]}`, NAMES[t.state] || t.state), el('span', 'soft', t.device)),
    t.why ? el('p', STATES[t.state], t.why) : null, lanes,
    el('p', 'soft', `${t.busy} of ${t.cap} lanes busy${t.lost ? `, ${t.lost} lost in calls that hang` : ''} · cap ${t.cap}: ${t.cap_reason} · ${t.batch === 1 ? 'one job' : `${t.batch} jobs`} at a time: ${t.batch_reason}`),
    el('div', 'facts', fact('signatures', group(t.signatures)), fact('a call takes', times(t.call_ms)), fact('failed', group(t.failures), t.failures ? 'warn' : ''), t.wrong ? fact('wrong, none released', group(t.wrong), 'bad') : null),
    el('p', t.last_error ? '' : 'soft', t.last_error ? `last error ${ago(d.at, t.last_error.at)}: ${t.last_error.what}` : 'no error so far'));
}
function seals(d) {
  const { count, unusable, soonest } = d.seals;
  say('seals-note', `${group(count)} taxpayers${unusable ? `, ${group(unusable)} of whom cannot seal` : ''}${count > soonest.length ? `; the ${soonest.length} that expire first` : ''}.`);
  put('seals', soonest, () => table(['taxpayer', 'title', { text: 'key', cls: 'hide' }, { text: 'expires', cls: 'hide' }, n('days left')], soonest.map(s => {
    const cls = s.unusable || s.days < 7 ? 'bad' : s.days < 30 ? 'warn' : '';
    return [s.taxpayer, { text: s.unusable ? `${s.title} – ${s.unusable}` : s.title, cls: `wide ${s.unusable ? 'bad' : ''}` }, { text: s.key, cls: 'hide' },
      { text: s.not_after.slice(0, 10), cls: 'hide' }, { text: group(Math.floor(s.days)), cls: `n ${cls}` }];
  }), 'No token holds a seal.'));
}
function warnings(d) {
  const list = d.warnings.map(w => ({ ...w, ago: ago(d.at, w.at) }));
  put('warnings', list, () => list.length ? el('ul', 'warnings', ...list.map(w => el('li', '',
    el('span', w.level === 'ERROR' ? 'bad' : 'warn', w.level.toLowerCase() + (w.count > 1 ? ` ×${group(w.count)}` : '')), el('span', 'soft', w.ago), el('span', 'text', w.text)))) : el('p', 'nothing', 'None so far.'));
}
function queue(d) {
  const waiting = d.priorities.map(p => p.waiting), most = Math.max(1, ...waiting);
  put('queue', waiting, () => el('div', 'bars', ...d.priorities.flatMap(p => {
    const fill = el('i');
    fill.style.width = `${p.waiting / most * 100}%`;
    return [el('span', '', p.name), el('div', 'bar', fill), el('b', '', group(p.waiting))];
  })));
  const all = waiting.reduce((a, b) => a + b, 0);
  big('waiting', group(all), all === 1 ? 'document' : 'documents');
  say('waiting-note', `${group(d.in_flight)} unanswered, ${bytes(d.in_flight_bytes)}; ${group(d.waiting_for_lane)} wait for a lane`);
}
function show(d) {
  document.title = `${d.state === 'ready' ? '' : d.state + ' · '}${few(d.rate)}/s · Mühürdar`;
  $('state').className = `pill ${STATES[d.state]}`;
  say('state', d.state + (d.state === 'not ready' && d.why ? `: ${d.why}` : ''));
  say('about', `version ${d.version} · up ${span(d.uptime_s)} · ${group(d.sealed)} sealed`);
  big('rate', few(d.rate), 'a second');
  say('rate-note', `over 5 s; ${group(d.sealed)} since the start`);
  big('latency', ...time(d.latency_ms.p99));
  say('latency-note', `the last minute: half within ${times(d.latency_ms.p50)}, 90 % within ${times(d.latency_ms.p90)}`);
  big('refused', few(d.refused_rate), 'a second');
  say('refused-note', `over 5 s; ${group(d.refused)} since the start`);
  const c = d.curves;
  chart('rate-chart', [{ name: 'rate', values: c.rate }], v => `${few(v)}/s`);
  chart('latency-chart', [{ name: 'p99', label: '99 %', values: c.p99 }, { name: 'p50', label: 'half', values: c.p50 }], times);
  chart('refused-chart', [{ name: 'refused', values: calm(c.refused) }], v => `${few(v)}/s`);
  queue(d);
  put('tokens', d.tokens.map(t => [t, t.last_error && ago(d.at, t.last_error.at)]), () => d.tokens.map(t => token(d, t)));
  put('priorities', d.priorities, () => table(['priority', n('waiting'), n('sealed/s'), n('half in'), n('99 % in')],
    d.priorities.map(p => [p.name, n(group(p.waiting)), n(few(p.rate)), n(times(p.latency_ms.p50)), n(times(p.latency_ms.p99))]), ''));
  put('refusals', d.refusals, () => table(['reason', n('last minute'), n('since the start')],
    d.refusals.map(r => [r.reason, { text: group(r.lately), cls: `n ${r.lately ? 'warn' : ''}` }, n(group(r.count))]), 'Nothing was refused so far.'));
  seals(d);
  warnings(d);
}

let last = null, at = null, why = '';
function look() {
  const age = last == null ? performance.now() : performance.now() - last;
  const stale = age > STALE;
  document.body.classList.toggle('stale', stale && last != null);
  $('stale').hidden = !stale;
  if (!stale) return;
  const since = at == null ? 'No figures have come yet' : `These figures are old: they are of ${clock(at)}, ${span(age / 1000)} ago`;
  $('stale').textContent = `${since}. ${why}`;
  document.title = '⚠ no data · Mühürdar';
}
async function ask() {
  try {
    const response = await fetch('/status.json', { signal: AbortSignal.timeout(PATIENCE), cache: 'no-store' });
    if (!response.ok) throw new Error(`the service answers ${response.status}`);
    show(await response.json());
    [last, at, why] = [performance.now(), new Date(), ''];
    document.body.classList.remove('waiting');
  } catch (error) {
    why = error.name === 'TimeoutError' ? 'The service does not answer.' : error instanceof TypeError ? 'The service cannot be reached.' : `${error.message}.`;
  }
  look();
  setTimeout(ask, STEP);
}
setInterval(look, 500);
ask();
