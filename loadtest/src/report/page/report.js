'use strict';
const R = JSON.parse(document.getElementById('report').textContent);
const page = document.getElementById('page'), tip = document.getElementById('tip');

// Numbers as people read them.
const group = (v, d = 0) => v.toLocaleString('en', { minimumFractionDigits: d, maximumFractionDigits: d });
const time = us => us < 1000 ? group(us) + ' µs' : us < 1e4 ? group(us / 1e3, 2) + ' ms' : us < 1e6 ? group(us / 1e3, 1) + ' ms' : group(us / 1e6, 2) + ' s';
const percent = (v, d = 0) => group(v * 100, d) + ' %';
const bytes = b => b < 1e4 ? group(b) + ' B' : b < 1e6 ? group(b / 1e3, 1) + ' kB' : group(b / 1048576) + ' MiB';
const sum = list => list.reduce((a, b) => a + b, 0);

// Elements. Text is always set as text: nothing in a report is markup.
function el(name, attributes, ...children) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attributes || {})) e.setAttribute(k, v);
  e.append(...children.filter(c => c != null));
  return e;
}
function svg(name, attributes, text) {
  const e = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [k, v] of Object.entries(attributes || {})) e.setAttribute(k, v);
  if (text != null) e.textContent = text;
  return e;
}
const box = (title, say, ...rest) => el('section', { class: 'box' }, el('h2', {}, title), say ? el('p', { class: 'say' }, say) : null, ...rest);
const key = (...pairs) => el('div', { class: 'key' }, ...pairs.map(([name, color, how]) => el('span', { class: how || '', style: `--c: var(${color})` }, name)));
function table(head, rows) {
  const cell = (tag, c) => typeof c === 'object' && c !== null && !(c instanceof Node) ? el(tag, { class: c.class || 'n' }, c.class === 'wrap' ? el('div', {}, c.text) : c.text) : el(tag, {}, c);
  return el('div', { class: 'scroll' }, el('table', {},
    el('thead', {}, el('tr', {}, ...head.map(h => cell('th', h)))), el('tbody', {}, ...rows.map(r => el('tr', {}, ...r.map(c => cell('td', c)))))));
}
const n = text => ({ text: String(text), class: 'n' });

// A chart is drawn anew for the width it has, so that its letters keep their size on a phone.
const charts = [];
function chart(height, draw) {
  const holder = el('div', {});
  charts.push({ holder, height, draw, width: 0 });
  return holder;
}
function drawAll() {
  for (const c of charts) {
    const width = Math.max(260, Math.floor(c.holder.clientWidth));
    if (width === c.width) continue;
    c.width = width;
    const s = svg('svg', { viewBox: `0 0 ${width} ${c.height}`, role: 'img' });
    c.holder.replaceChildren(s);
    c.draw(s, width, c.height);
  }
}
function niceStep(span, count) {
  const raw = span / Math.max(1, count), ten = 10 ** Math.floor(Math.log10(raw)), part = raw / ten;
  return (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10) * ten;
}
const M = { left: 58, right: 14, top: 30, bottom: 26 };
const duration = Math.max(...R.segments.map(s => s.start_s + s.duration_s), 0.1);

// What was done to the service: numbered, so that a narrow graph needs no room for words. The list of them stands above the graphs.
const marks = R.events.map((event, i) => ({ ...event, number: i + 1 }));

function timeAxis(s, w, h, unit) {
  const x = t => M.left + Math.min(1, Math.max(0, t / duration)) * (w - M.left - M.right), bottom = h - M.bottom;
  s.append(svg('text', { x: 0, y: 12, class: 'unit' }, unit));
  for (const [i, segment] of R.segments.entries()) {
    const a = x(segment.start_s), b = x(segment.start_s + segment.duration_s);
    if (!segment.measured) s.append(svg('rect', { x: a, y: M.top, width: b - a, height: bottom - M.top, class: 'segment' }));
    if (i) s.append(svg('line', { x1: a, x2: a, y1: M.top, y2: bottom, class: 'grid' }));
    if (R.segments.length <= 12 && b - a > segment.name.length * 7.5 + 8 && (a + b) / 2 - segment.name.length * 3.7 > unit.length * 7) s.append(svg('text', { x: (a + b) / 2, y: 12, 'text-anchor': 'middle' }, segment.name));
  }
  const step = niceStep(duration, (w - M.left) / 80);
  for (let t = 0; t <= duration + 1e-9; t += step) s.append(svg('text', { x: x(t), y: h - 8, 'text-anchor': 'middle' }, +t.toFixed(3) + ' s'));
  for (const mark of marks) if (mark.until_s != null) s.append(svg('rect', { x: x(mark.at_s), y: M.top, width: Math.max(1, x(mark.until_s) - x(mark.at_s)), height: bottom - M.top, class: 'band' }));
  return x;
}
// Over the curves, so that none hides them; beside each other where they are close.
function eventMarks(s, h, x) {
  let last = -1e9;
  for (const mark of marks) {
    const at = x(mark.at_s), place = Math.max(at, last + 17);
    last = place;
    s.append(svg('line', { x1: at, x2: at, y1: M.top + 8, y2: h - M.bottom, class: 'event' }));
    s.append(svg('circle', { cx: place, cy: M.top, r: 8, class: 'mark' }));
    s.append(svg('text', { x: place, y: M.top + 4, 'text-anchor': 'middle', class: 'number' }, mark.number));
  }
}
function linearAxis(s, w, h, top, format) {
  const y = v => h - M.bottom - v / top * (h - M.top - M.bottom);
  const step = niceStep(top, (h - M.top - M.bottom) / 42);
  for (let v = 0; v <= top * 1.0001; v += step) {
    s.append(svg('line', { x1: M.left, x2: w - M.right, y1: y(v), y2: y(v), class: 'grid' }));
    s.append(svg('text', { x: M.left - 8, y: y(v) + 4, 'text-anchor': 'end' }, format(v)));
  }
  return y;
}
function logAxis(s, w, h, low, high) {
  const a = Math.log10(low), b = Math.log10(high);
  const y = v => h - M.bottom - (Math.log10(Math.min(Math.max(v, low), high)) - a) / (b - a) * (h - M.top - M.bottom);
  const label = v => v >= 1e6 ? +(v / 1e6).toPrecision(3) + ' s' : v >= 1e3 ? +(v / 1e3).toPrecision(3) + ' ms' : +v.toPrecision(3) + ' µs';
  // Within two powers of ten the steps between are named too.
  const named = b - a <= 2.01 ? [1, 2, 5] : [1];
  for (let d = Math.floor(a - 1e-9); d <= b + 1e-9; d++) for (const digit of named) {
    const v = digit * 10 ** d;
    if (v < low * .999 || v > high * 1.001) continue;
    s.append(svg('line', { x1: M.left, x2: w - M.right, y1: y(v), y2: y(v), class: digit === 1 ? 'grid' : 'grid fine' }));
    s.append(svg('text', { x: M.left - 8, y: y(v) + 4, 'text-anchor': 'end' }, label(v)));
  }
  return y;
}
const decades = values => {
  const present = values.filter(v => v > 0);
  if (!present.length) return [100, 10000];
  const down = v => { const ten = 10 ** Math.floor(Math.log10(v)); return ten * (v / ten >= 5 ? 5 : v / ten >= 2 ? 2 : 1); };
  const up = v => { const ten = 10 ** Math.floor(Math.log10(v)), part = v / ten; return ten * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10); };
  const low = down(Math.min(...present)), high = up(Math.max(...present));
  return high >= low * 5 ? [low, high] : [low, low * 10];
};
function line(s, points, color, extra) {
  let d = '', open = false;
  for (const [x, y] of points) {
    if (y == null) { open = false; continue; }
    d += (open ? 'L' : 'M') + x.toFixed(1) + ' ' + y.toFixed(1);
    open = true;
  }
  s.append(svg('path', { d, fill: 'none', stroke: `var(${color})`, 'stroke-width': 1.8, 'stroke-linejoin': 'round', ...extra }));
}
function area(s, points, floor, color) {
  const d = points.map(([x, y], i) => (i ? 'L' : 'M') + x.toFixed(1) + ' ' + y.toFixed(1)).join('') + `L${points[points.length - 1][0]} ${floor}L${points[0][0]} ${floor}Z`;
  s.append(svg('path', { d, fill: `var(${color})`, 'fill-opacity': .22 }));
}
// Says what lies under the pointer.
function hover(s, w, h, at) {
  const hair = svg('line', { y1: M.top, y2: h - M.bottom, class: 'hair', visibility: 'hidden' });
  s.append(hair);
  const area = svg('rect', { x: M.left, y: 0, width: w - M.left - M.right, height: h, fill: 'transparent' });
  area.addEventListener('pointermove', e => {
    const px = (e.clientX - s.getBoundingClientRect().left) * w / s.getBoundingClientRect().width;
    const found = at(px);
    if (!found) return;
    hair.setAttribute('x1', found.x); hair.setAttribute('x2', found.x); hair.setAttribute('visibility', 'visible');
    tip.textContent = found.text; tip.hidden = false;
    const wide = tip.offsetWidth;
    tip.style.left = Math.min(innerWidth - wide - 6, Math.max(6, e.clientX + (e.clientX > innerWidth / 2 ? -wide - 14 : 14))) + 'px';
    tip.style.top = Math.max(6, e.clientY - 30) + 'px';
  });
  area.addEventListener('pointerleave', () => { hair.setAttribute('visibility', 'hidden'); tip.hidden = true; });
  s.append(area);
}

const S = R.series, slices = S.offered.length;
// Under half a second per slice a constant rate looks ragged: curves take several slices together.
// The last of them takes what is left over: a sliver of time has no rate worth drawing.
const fold = Math.max(1, Math.round(0.5 / S.slice_s)), folds = Math.max(1, Math.round(duration / S.slice_s / fold));
const folded = list => Array.from({ length: folds }, (_, i) => sum(list.slice(i * fold, i === folds - 1 ? undefined : i * fold + fold)));
const foldSeconds = i => i === folds - 1 ? Math.max(S.slice_s, duration - i * fold * S.slice_s) : fold * S.slice_s;
const middle = i => i * fold * S.slice_s + foldSeconds(i) / 2;
const rates = list => folded(list).map((v, i) => v / foldSeconds(i));

function throughput() {
  const offered = rates(S.offered), sealed = rates(S.sealed), failed = rates(S.failed);
  const ceiling = R.ceiling ? R.ceiling.sign_per_s : 0;
  const top = Math.max(...offered, ...sealed, ...failed, ceiling, 1) * 1.08;
  return box('Throughput', 'Requests the plan asked for, seals that came back, and the token by itself in the same run.',
    chart(230, (s, w, h) => {
      const x = timeAxis(s, w, h, 'per second'), y = linearAxis(s, w, h, top, v => group(v));
      if (ceiling) line(s, [[M.left, y(ceiling)], [w - M.right, y(ceiling)]], '--token', { 'stroke-dasharray': '6 4' });
      line(s, offered.map((v, i) => [x(middle(i)), y(v)]), '--soft', { 'stroke-width': 1.3, opacity: .8 });
      line(s, sealed.map((v, i) => [x(middle(i)), y(v)]), '--rate', { 'stroke-width': 2.2 });
      if (sum(failed)) {
        area(s, failed.map((v, i) => [x(middle(i)), y(v)]), y(0), '--bad');
        line(s, failed.map((v, i) => [x(middle(i)), y(v)]), '--bad', { 'stroke-dasharray': '2 2' });
      }
      eventMarks(s, h, x);
      hover(s, w, h, px => {
        const i = Math.min(folds - 1, Math.floor((px - M.left) / (w - M.left - M.right) * duration / S.slice_s / fold));
        return i >= 0 && i < folds ? { x: x(middle(i)), text: `${group(middle(i), 1)} s\nasked   ${group(offered[i])}/s\nsealed  ${group(sealed[i])}/s\nfailed  ${group(failed[i])}/s` } : null;
      });
    }),
    key(['asked for', '--soft'], ['sealed', '--rate'], ...(sum(failed) ? [['failed or not sent', '--bad', 'filled']] : []), ...(ceiling ? [['token alone', '--token', 'dashed']] : [])));
}

function latency() {
  const [low, high] = decades([...S.p50_us, ...S.p99_us]);
  return box('Latency over time', 'From the moment a request was due, not from when it was sent: what waits in front of a stall is counted.',
    chart(230, (s, w, h) => {
      const x = timeAxis(s, w, h, 'latency'), y = logAxis(s, w, h, low, high), at = i => x((i + .5) * S.slice_s);
      line(s, S.p99_us.map((v, i) => [at(i), v == null ? null : y(v)]), '--p99');
      line(s, S.p50_us.map((v, i) => [at(i), v == null ? null : y(v)]), '--p50', { 'stroke-dasharray': '5 3' });
      eventMarks(s, h, x);
      hover(s, w, h, px => {
        const i = Math.floor((px - M.left) / (w - M.left - M.right) * duration / S.slice_s);
        return i >= 0 && i < slices && S.p50_us[i] != null ? { x: at(i), text: `${group((i + .5) * S.slice_s, 1)} s\np50  ${time(S.p50_us[i])}\np99  ${time(S.p99_us[i])}` } : null;
      });
    }), key(['p99', '--p99'], ['p50', '--p50', 'dashed']));
}

function heat() {
  let first = S.heat_us.length, last = 0, most = 1;
  for (const slice of S.heat) slice.forEach((v, row) => { if (v) { first = Math.min(first, row); last = Math.max(last, row); most = Math.max(most, v); } });
  if (first > last) return null;
  const low = S.heat_us[first], high = S.heat_us[last + 1] || S.heat_us[last] * 2;
  const mix = share => {
    const get = name => getComputedStyle(document.documentElement).getPropertyValue(name).split(',').map(Number);
    const a = get('--heat0'), b = get('--heat1');
    return `rgb(${a.map((v, i) => Math.round(v + (b[i] - v) * share)).join()})`;
  };
  return box('Latency heat map', 'Every seal, by when it was due and how long it took; the stronger the colour, the more. Two ways of answering show as two bands.',
    chart(230, (s, w, h) => {
      const x = timeAxis(s, w, h, 'latency'), y = logAxis(s, w, h, low, high);
      const colors = Array.from({ length: 17 }, (_, i) => mix(.12 + .88 * i / 16));
      S.heat.forEach((slice, i) => slice.forEach((v, row) => {
        if (!v) return;
        const up = y(S.heat_us[row + 1] || S.heat_us[row] * 2), down = y(S.heat_us[row]);
        const from = x(i * S.slice_s), to = x((i + 1) * S.slice_s);
        if (to > from) s.append(svg('rect', { x: from, y: up, width: to - from + .4, height: Math.max(1, down - up + .3), fill: colors[Math.round(16 * Math.sqrt(v / most))] }));
      }));
      eventMarks(s, h, x);
      hover(s, w, h, px => {
        const i = Math.floor((px - M.left) / (w - M.left - M.right) * duration / S.slice_s);
        return i >= 0 && i < slices ? { x: x((i + .5) * S.slice_s), text: `${group((i + .5) * S.slice_s, 1)} s\n${group(sum(S.heat[i] || []))} seals` } : null;
      });
    }), el('div', { class: 'scale' }, el('span', {}, 'few'), el('i', {}), el('span', {}, `many: ${group(most)} seals in ${group(S.slice_s * 1e3)} ms`)));
}

function curve() {
  if (R.curve.length < 3) return null;
  const values = R.curve.flatMap(p => [p.latency_us, p.service_us]), [low, high] = decades(values);
  const nines = q => -Math.log10(Math.max(1 - q, 1e-9));
  const widest = nines(R.curve[R.curve.length - 2].quantile) || 1;
  const say = R.latency_loop === 'open' ? `Segment “${R.latency_segment}”, open loop. Where the two curves part, requests waited before they could be sent.` : `Segment “${R.latency_segment}”, closed loop: callers that wait hide stalls from those who would have come.`;
  return box('Percentiles', say,
    chart(250, (s, w, h) => {
      const x = q => M.left + Math.min(1, nines(q) / widest) * (w - M.left - M.right), y = logAxis(s, w, h, low, high);
      s.append(svg('text', { x: 0, y: 12, class: 'unit' }, 'latency'), svg('text', { x: w - M.right, y: 12, 'text-anchor': 'end', class: 'unit' }, 'share of the requests'));
      for (const [q, label] of [[0, '0'], [.5, '50 %'], [.9, '90 %'], [.99, '99 %'], [.999, '99.9 %'], [.9999, '99.99 %']]) if (nines(q) <= widest) {
        s.append(svg('line', { x1: x(q), x2: x(q), y1: M.top, y2: h - M.bottom, class: 'grid' }));
        if (q || x(.5) - x(0) > 34) s.append(svg('text', { x: x(q), y: h - 8, 'text-anchor': q ? 'middle' : 'start' }, label));
      }
      line(s, R.curve.map(p => [x(p.quantile), y(p.service_us)]), '--p50', { 'stroke-dasharray': '5 3' });
      line(s, R.curve.map(p => [x(p.quantile), y(p.latency_us)]), '--p99', { 'stroke-width': 2.2 });
      hover(s, w, h, px => {
        const p = R.curve.reduce((a, b) => Math.abs(x(b.quantile) - px) < Math.abs(x(a.quantile) - px) ? b : a);
        return { x: x(p.quantile), text: `${group(p.quantile * 100, p.quantile > .99 ? 3 : 1)} %\nlatency  ${time(p.latency_us)}\nservice  ${time(p.service_us)}` };
      });
    }), key(['latency, from when it was due', '--p99'], ['service time, from when it was sent', '--p50', 'dashed']));
}

function cpu() {
  const server = R.server;
  if (!server || !server.cpu.length) return null;
  const top = Math.max(...server.cpu.map(p => p[1]), .1) * 1.1;
  return box('CPU of the service', 'CPUs used, by its own metrics: in all, and inside the token’s calls.',
    chart(250, (s, w, h) => {
      const x = timeAxis(s, w, h, 'CPUs'), y = linearAxis(s, w, h, top, v => group(v, top < 3 ? 1 : 0));
      line(s, server.cpu.map(p => [x(p[0]), y(p[1])]), '--rate', { 'stroke-width': 2.2 });
      line(s, server.cpu.map(p => [x(p[0]), y(p[2])]), '--token', { 'stroke-dasharray': '6 4' });
      eventMarks(s, h, x);
      hover(s, w, h, px => {
        const p = server.cpu.reduce((a, b) => Math.abs(x(b[0]) - px) < Math.abs(x(a[0]) - px) ? b : a);
        return { x: x(p[0]), text: `${group(p[0], 1)} s\nservice  ${group(p[1], 2)} CPU\ntoken    ${group(p[2], 2)} CPU` };
      });
    }), key(['service', '--rate'], ['of that, in the token', '--token', 'dashed']));
}

function hero() {
  const cards = [];
  const card = (label, big, unit, note, extra) => cards.push(el('div', { class: 'box' }, el('div', { class: 'label' }, label), el('div', { class: 'big' }, big, el('small', {}, unit)), extra, note ? el('p', {}, note) : null));
  const bar = parts => el('div', { class: 'bar' }, ...parts.map(([share, color]) => el('i', { style: `width: ${Math.max(0, Math.min(100, share * 100))}%; background: var(${color})` })));
  const segment = R.segments.find(s => s.name === R.latency_segment);
  card('Throughput', group(R.achieved_per_s), 'seals/s', R.ceiling ? `${percent(R.ratio_to_ceiling)} of the token’s own ${group(R.ceiling.sign_per_s)} signatures/s with ${R.ceiling.sessions} sessions` : 'the token was not measured by itself', R.ceiling ? bar([[R.ratio_to_ceiling, '--rate']]) : null);
  const loop = R.latency_loop === 'open' ? `open loop at ${group(segment.offered_per_s)} requests/s` : `closed loop, ${segment.concurrency} callers`;
  const p99 = time(R.latency_us.p99).split(' ');
  card('Latency, 99 %', p99[0], p99[1], `p50 ${time(R.latency_us.p50)} · p99.9 ${time(R.latency_us.p999)} · max ${time(R.latency_us.max)}; ${loop}`);
  const failed = sum(Object.values(R.errors));
  card('Sealed', group(R.sealed), '', `${group(failed)} failed, ${group(R.missed_sends)} not sent; ${R.verify_failures ? `${group(R.verify_failures)} of the verified seals are wrong` : R.verified ? `${group(R.verified)} verified, all good` : 'none verified'}`);
  if (R.server && R.server.cpu_us_per_seal != null) {
    const { cpu_us_per_seal: all, token_cpu_us_per_seal: token } = R.server;
    card('CPU per seal', group(all), 'µs', token != null ? `${group(token)} µs in the token, ${group(Math.max(0, all - token))} µs in the service` : 'user and system', token != null ? bar([[token / all, '--token'], [1 - token / all, '--rate']]) : null);
  }
  return el('div', { class: 'hero' }, ...cards);
}

function meanwhile() {
  if (!marks.length) return null;
  return box('What was done meanwhile', null, el('ol', { class: 'marks' }, ...marks.map(mark =>
    el('li', {}, el('b', {}, String(mark.number)), el('span', { class: 'when' }, `${group(mark.at_s, 1)} s${mark.until_s == null ? '' : ` – ${group(mark.until_s, 1)} s`}`), el('span', {}, mark.what)))));
}
function agents() {
  if (!R.agents || !R.agents.length) return null;
  return box('Agents', 'The machines that made the load. Their clocks were compared with the controller’s; the bound is also how far apart they may have begun.', table(
    ['agent', n('asked'), n('sealed'), n('failed'), n('not sent'), n('clock off'), n('± at most'), n('drift'), n('late p99'), n('busiest thread'), 'machine'],
    R.agents.map(a => [a.name, n(group(a.offered)), n(group(a.sealed)), n(group(a.failed)), n(group(a.missed)), n(group(a.clock_offset_us / 1e3, 2) + ' ms'), n(group(a.clock_bound_us / 1e3, 2) + ' ms'), n(group(a.clock_drift_us / 1e3, 2) + ' ms'),
      n(time(a.generator.lag_us.p99)), n(percent(a.generator.busiest_thread)), `${a.machine.cpus} × ${a.machine.cpu}`])));
}
function segments() {
  const knee = R.knee && (R.knee.held_per_s == null ? `Not even the lowest rate was kept up with.` : `Kept up with ${group(R.knee.held_per_s)} requests/s, not with ${group(R.knee.lost_per_s)}.`);
  return box('The plan, piece by piece', knee, table(
    ['segment', 'loop', n('seconds'), n('asked/s'), n('sealed/s'), n('failed'), n('not sent'), n('p50'), n('p99'), n('p99.9'), n('max'), n('CPU/seal')],
    R.segments.map(s => [s.name + (s.measured ? '' : ' (not counted)'), s.concurrency ? `closed, ${s.concurrency}` : 'open', n(group(s.duration_s, 1)), n(group(s.offered_per_s)), n(group(s.achieved_per_s)), n(group(s.failed)), n(group(s.missed)),
      ...['p50', 'p99', 'p999', 'max'].map(q => n(s.sealed ? time(s.latency_us[q]) : '–')), n(s.server_cpu_us_per_seal == null ? '–' : group(s.server_cpu_us_per_seal) + ' µs')])));
}
function branches() {
  if (R.branches.length < 2) return null;
  const all = sum(R.branches.map(b => b.sealed)) || 1, asked = sum(R.branches.map(b => b.offered)) || 1;
  const widest = Math.max(...R.branches.flatMap(b => [b.sealed / all, b.offered / asked]), 1e-9);
  const fair = b => el('div', { class: 'fair', title: `asked ${percent(b.offered / asked, 1)}, sealed ${percent(b.sealed / all, 1)}` },
    el('i', { style: `width: ${b.sealed / all / widest * 100}%` }), el('b', { style: `left: ${b.offered / asked / widest * 100}%` }));
  return box('Branches', 'What each client certificate asked for (the mark) and got (the bar), as a share of all.', table(
    ['branch', 'priority', n('asked'), n('sealed'), '', n('seals'), n('failed'), n('not sent'), n('p50'), n('p99'), n('max')],
    R.branches.map(b => [b.name, b.priority, n(percent(b.offered / asked, 1)), n(percent(b.sealed / all, 1)), fair(b), n(group(b.sealed)), n(group(b.failed)), n(group(b.missed)), ...['p50', 'p99', 'max'].map(q => n(b.sealed ? time(b.latency_us[q]) : '–'))])));
}
function failures() {
  if (!R.failures.length) return null;
  // What the first said stands below its row: on a phone it would have no room beside it.
  const rows = R.failures.flatMap(f => [
    el('tr', { class: 'over' }, el('td', {}, f.code), el('td', {}, f.reason || '–'), el('td', { class: 'n' }, group(f.count))),
    el('tr', {}, el('td', { class: 'said', colspan: 3 }, f.example)),
  ]);
  return box('Failures', 'By code and reason, with what the first of each said.', el('table', {},
    el('thead', {}, el('tr', {}, el('th', {}, 'code'), el('th', {}, 'reason'), el('th', { class: 'n' }, 'count'))), el('tbody', {}, ...rows)));
}
function objective() {
  if (!R.slo) return null;
  const slo = R.slo, found = slo.holds_per_s == null ? 'no rate that was tried holds it' : `holds up to ${group(slo.holds_per_s)} requests/s`;
  const reached = slo.closed_loop_per_s == null ? '' : ` A closed loop reached ${group(slo.closed_loop_per_s)}/s.`;
  const say = `${slo.asked}: ${found}. ${slo.sure ? slo.sure[0].toUpperCase() + slo.sure.slice(1) + '.' : ''}${reached}`;
  const doubts = (slo.doubts || []).length ? el('ul', { class: 'doubts' }, ...slo.doubts.map(d => el('li', {}, d))) : null;
  // A rate's tries stand together below it, in the order in which they were made, and why one did not hold below that: on a phone there is no room beside.
  const num = text => el('td', { class: 'n' }, text);
  const tally = r => r ? `: ${r.held} of ${r.held + r.failed} tries held${r.untold ? `, ${r.untold} more say${r.untold > 1 ? '' : 's'} nothing` : ''}` : '';
  const row = t => [el('tr', { class: t.why ? 'over try' : 'try' }, el('td', {}, t.told === false ? 'says nothing' : t.held ? 'held' : 'failed'), num(time(t.p99_us)), num(group(t.achieved_per_s)), num(percent(t.errors, 2))),
    ...(t.why ? [el('tr', {}, el('td', { class: 'said', colspan: 4 }, t.why))] : [])];
  const rates = [...new Set(slo.tried.map(t => t.rate_per_s))].sort((a, b) => a - b);
  const rows = rates.flatMap(rate => [el('tr', {}, el('th', { colspan: 4, class: 'rate' }, `${group(rate)} requests/s${tally((slo.rates || []).find(r => r.rate_per_s === rate))}`)), ...slo.tried.filter(t => t.rate_per_s === rate).flatMap(row)]);
  return box('Objective', say, doubts, el('div', { class: 'scroll' }, el('table', {}, el('thead', {}, el('tr', {},
    el('th', {}, 'try'), ...['p99', 'sealed/s', 'not sealed'].map(h => el('th', { class: 'n' }, h)))), el('tbody', {}, ...rows))));
}
function environment() {
  const m = R.machine, g = R.generator, w = R.workload;
  const rows = [
    ['service', w.endpoint], ['documents', `${w.given_documents ? `${group(w.given_documents)} of the user’s own` : `${w.kinds.join(', ')}; ${w.size}`}: ${bytes(w.request_bytes)} each, ${bytes(w.answer_bytes)} back (${w.answer.replace('_', ' ')}); seed ${w.seed}`],
    ['travel', `${w.mode}, ${w.connections} connections per branch and thread${w.streams > 1 ? ` with ${w.streams} streams each` : ''}, at most ${group(w.max_in_flight)} in flight`],
    ['taxpayers', `${w.taxpayers}${w.zipf ? `, Zipf ${w.zipf}` : ', alike'}`],
    ['token alone', R.ceiling ? `${R.ceiling.token}: ${R.ceiling.measured_per_s.map(v => group(v)).join(' and ')} signatures/s, ${R.ceiling.sessions} sessions` : 'not measured'],
    ['memory of the service', R.server && R.server.rss_bytes ? bytes(R.server.rss_bytes) + ' resident at most' : 'not known'],
    ['generator', `${g.workers} thread${g.workers > 1 ? 's' : ''}, ${group(g.cpu_us_per_request, 1)} µs of CPU per request, busiest thread ${percent(g.busiest_thread)} of a CPU, waited ${percent(g.waited)} of the time for one`],
    ['its own lateness', g.lag_us.max ? `p50 ${time(g.lag_us.p50)}, p99 ${time(g.lag_us.p99)}, max ${time(g.lag_us.max)}` : 'no open segment'],
    ['verified', R.verified + R.verify_failures ? `${group(R.verified)} good, ${group(R.verify_failures)} wrong, by ${R.verification.by}` : 'none'],
    ...(Object.keys(R.config || {}).length ? [['configuration', Object.entries(R.config).map(([k, v]) => `${k} = ${v}`).join('; ')]] : []),
    ['machine', `${m.cpu}, ${m.cpus} CPUs, ${bytes(m.memory_bytes)}; load ${m.load_before} before, ${m.load_after} after${m.stolen == null ? '' : `; its host gave ${percent(m.stolen, 1)} of the CPU it wanted to others`}`], ['system', `${m.system}, ${m.kernel}`],
    ['command', el('code', {}, R.command.join(' '))],
  ];
  return box('Environment', null, el('table', { class: 'list' }, el('tbody', {}, ...rows.map(([a, b]) => el('tr', {}, el('td', {}, a), el('td', {}, b))))));
}

document.title = `${R.label ? R.label + ' · ' : ''}${group(R.achieved_per_s)} seals/s · Mühürdar load test`;
const problems = R.problems.length ? el('section', { class: 'box warn' }, el('h2', {}, 'These figures are not valid'), el('ul', {}, ...R.problems.map(p => el('li', {}, p)), ...R.verification.examples.map(p => el('li', {}, p)))) : null;
const notes = R.notes.length ? el('section', { class: 'box' }, el('h2', {}, 'Before you read on'), el('ul', {}, ...R.notes.map(p => el('li', {}, p)))) : null;
page.append(...[
  el('header', {}, el('h1', {}, el('b', {}, 'Mühürdar'), ' load test'), el('span', { class: 'badge ' + (R.valid ? 'good' : 'bad') }, R.valid ? 'valid' : 'invalid'),
    el('div', { class: 'sub' }, [R.label, R.started_at.replace('T', ' '), `${group(sum(R.segments.filter(s => s.measured).map(s => s.duration_s)), 0)} s measured`].filter(Boolean).join(' · '))),
  problems, hero(), notes, objective(), meanwhile(), throughput(), el('div', { class: 'two' }, ...[latency(), heat()].filter(Boolean)),
  el('div', { class: 'two' }, ...[curve(), cpu()].filter(Boolean)), failures(), branches(), segments(), agents(), environment(),
  el('footer', {}, `muhurdar-loadtest ${R.version}. The same figures as JSON: report.json; for HdrHistogram’s plotters: latency.hgrm.`),
].filter(Boolean));
drawAll();
addEventListener('resize', drawAll);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { for (const c of charts) c.width = 0; drawAll(); });
