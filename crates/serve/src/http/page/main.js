// The page: header, list of relations, and what is shown of them.

import { Chart, sparkline } from './chart.js';
import { bytes, compact, count, h, lag, millis, quoteName, setText } from './format.js';
import { SqlBox, render as renderAnswer } from './sql.js';
import { Store, fullName, runSql } from './store.js';
import { LiveTable, defaultSort } from './table.js';

/** How many views the first page shows as cards. */
const CARDS = 12;

/** How often a relation without live changes is asked for again. */
const POLL = 2000;

const store = new Store();
const box = new SqlBox();
const $ = (id) => document.getElementById(id);

/** What fills the content area: has `element`, and may have `status()`, `rows(name)` and `close()`. */
let screen = null;

// ---- Header

function paintHeader() {
  const s = store.status;
  if (!s) return;
  setText($('rate'), compact(store.total.current));
  setText($('latency'), s.epochs_with_rows ? `${millis(s.latency_p50_ms)} · ${millis(s.latency_p99_ms)}` : '–');
  setText($('rows-in'), s.rows_in < 1e6 ? count(s.rows_in) : compact(s.rows_in));
  setText($('memory'), s.resident_bytes ? bytes(s.resident_bytes) : '–');
  sparkline($('rate-line'), store.total.points);
}

function paintLink() {
  const words = { live: 'live', lost: 'reconnecting', waiting: 'connecting' };
  $('link').className = `link ${store.link}`;
  setText($('link'), words[store.link]);
}

// ---- The list of relations

const GROUPS = [
  ['Sources', (r) => r.kind === 'source'],
  ['Tables', (r) => r.kind === 'table'],
  ['Views', (r) => r.kind === 'materialized view'],
  ['Plain views', (r) => r.kind === 'view'],
  ['Others', (r) => !['source', 'table', 'materialized view', 'view', 'system'].includes(r.kind)],
];

const visible = (relation) => relation.kind !== 'system';

function paintSide() {
  const relations = [...store.relations.values()].filter(visible);
  const parts = [];
  for (const [title, belongs] of GROUPS) {
    const members = relations.filter(belongs);
    if (members.length) parts.push(h('h2', { text: title }), ...members.map(sideEntry));
  }
  const sinks = store.status.sinks ?? [];
  if (sinks.length) parts.push(h('h2', { text: 'Sinks' }), ...sinks.map(sinkEntry));
  const focused = document.activeElement?.closest?.('#side a')?.getAttribute('href');
  $('side').replaceChildren(...(parts.length ? parts : [h('p', { class: 'empty', text: 'No tables, sources or views yet.' })]));
  if (focused) [...$('side').querySelectorAll('a')].find((a) => a.getAttribute('href') === focused)?.focus();
}

/** A sink has nothing to open: what it delivered is said right here. */
function sinkEntry(sink) {
  return h('div', { class: 'sink', title: sink.reason ?? sink.sql },
    h('span', { class: `dot ${sink.reason ? 'stopped' : ''}` }), h('span', { class: 'name', text: sink.name }), h('span', { class: 'num', text: compact(sink.rows) }),
    h('span', { class: 'sub' }, h('span', { text: sink.reason ?? `up to epoch ${count(sink.epoch)}` })));
}

function sideEntry(relation) {
  const name = fullName(relation);
  const rate = store.rate(name);
  const amount = relation.kind === 'source' ? relation.rows_in : relation.rows;
  const left = [rate >= 0.5 ? `${compact(rate)}/s` : null, relation.bytes ? bytes(relation.bytes) : null];
  const entry = h('a', { href: `#/r/${encodeURIComponent(name)}`, 'aria-current': location.hash === hashOf(name) ? 'page' : null, title: relation.reason ?? relation.state },
    h('span', { class: `dot ${dotOf(relation, rate)}` }), h('span', { class: 'name', text: name }), h('span', { class: 'num', text: compact(amount) }),
    h('span', { class: 'sub' }, h('span', { text: left.filter(Boolean).join(' · ') }), troubles(relation)));
  if (relation.bytes_total > relation.bytes_read) {
    const fill = h('i');
    fill.style.transform = `scaleX(${relation.bytes_read / relation.bytes_total})`;
    entry.append(h('span', { class: 'bar' }, fill));
  }
  return entry;
}

function dotOf(relation, rate) {
  if (/catching|rebuilding|retrying/.test(relation.state)) return 'busy';
  if (relation.reason) return 'stopped';
  return rate >= 0.5 ? '' : 'quiet';
}

function troubles(relation) {
  const parts = [];
  if (relation.late) parts.push(`${compact(relation.late)} late`);
  if (relation.bad) parts.push(`${compact(relation.bad)} bad`);
  if (parts.length) return h('b', { text: parts.join(', ') });
  return h('span', { text: relation.watermark === null ? '' : lag(relation.watermark, store.status.now) });
}

const watchable = (relation) => [fullName(relation), defaultSort(relation.columns)?.column];

const hashOf = (name) => `#/r/${encodeURIComponent(name)}`;

// ---- Cards

/** One view as a chart, or as a small table when no chart fits. */
class Card {
  constructor(relation) {
    this.name = fullName(relation);
    this.chart = new Chart(relation.columns);
    this.table = new LiveTable({ columns: relation.columns, key: relation.primary_key, limit: 12, mini: true });
    this.facts = h('span', { class: 'facts' });
    this.body = h('div', { class: 'body' }, h('p', { class: 'empty', text: 'waiting for rows…' }));
    const title = h('h2', {}, h('a', { href: hashOf(this.name), text: this.name }));
    this.element = h('article', { class: 'card', 'data-view': this.name }, h('header', {}, title, this.facts), this.body);
  }

  rows() {
    const watched = store.views.get(this.name);
    if (watched?.error) return this.show(h('p', { class: 'empty', text: watched.error.message }));
    if (!watched?.ready) return undefined;
    const rows = watched.list();
    if (!rows.length) return this.show(h('p', { class: 'empty', text: 'No rows yet. They will appear here as they come.' }));
    // A chart lays itself out by the space it has, so it must be in place before it draws.
    const previous = this.body.firstChild;
    this.show(this.chart.element);
    if (this.chart.update(rows)) return undefined;
    this.show(previous === this.table.element ? previous : this.table.element);
    return this.table.update(rows);
  }

  show(element) {
    if (this.body.firstChild !== element) this.body.replaceChildren(element);
  }

  status() {
    const relation = store.relations.get(this.name);
    if (!relation) return;
    const rate = store.rate(this.name);
    setText(this.facts, `${count(relation.rows)} rows${rate >= 0.5 ? ` · ${compact(rate)}/s` : ''}`);
  }
}

class Dashboard {
  constructor() {
    this.cards = new Map();
    this.grid = h('div', { class: 'cards' });
    this.others = h('p', { class: 'others' });
    this.element = h('div', {}, this.grid, this.others);
  }

  status() {
    const all = [...store.relations.values()].filter(visible);
    if (!all.length) return this.welcome();
    const views = all.filter((r) => r.kind === 'materialized view').sort((a, b) => a.id - b.id);
    const shown = (views.length ? views : all.filter((r) => r.kind === 'table')).slice(0, CARDS);
    const names = shown.map((r) => `${fullName(r)} ${r.sql}`).join('\n');
    if (names !== this.names) this.build(shown, names);
    if (this.element.firstChild !== this.grid) this.element.replaceChildren(this.grid, this.others);
    setText(this.others, views.length > CARDS ? `${views.length - CARDS} more views are in the list on the left.` : '');
    if (!shown.length) this.others.replaceChildren(noViews(all));
    for (const card of this.cards.values()) card.status();
  }

  build(relations, names) {
    this.names = names;
    this.cards = new Map(relations.map((r) => [fullName(r), new Card(r)]));
    this.grid.replaceChildren(...[...this.cards.values()].map((c) => c.element));
    store.watch(relations.map(watchable));
    for (const card of this.cards.values()) card.rows();
  }

  welcome() {
    if (this.names === '') return;
    this.names = '';
    this.cards.clear();
    store.watch([]);
    this.element.replaceChildren(welcome());
  }

  rows(name) {
    this.cards.get(name)?.rows();
  }
}

function noViews(relations) {
  const name = quoteName(relations[0].name);
  const sql = `CREATE MATERIALIZED VIEW my_view AS\nSELECT count(*) AS n FROM ${name};`;
  return h('div', { class: 'welcome' }, h('h1', { text: 'Ask something that stays answered' }),
    h('p', { text: 'A materialized view is a question whose answer is kept current while rows come in.' }),
    h('pre', { class: 'code', text: sql }), h('div', { class: 'row' }, openIn(sql)));
}

// ---- The first visit

const FIRST = `CREATE TABLE orders (
  id BIGINT PRIMARY KEY,
  item TEXT,
  price DOUBLE PRECISION,
  at TIMESTAMP
);

CREATE MATERIALIZED VIEW revenue AS
SELECT item, count(*) AS orders, sum(price) AS revenue
FROM orders GROUP BY item;

CREATE MATERIALIZED VIEW totals AS
SELECT count(*) AS orders, sum(price) AS revenue, max(price) AS dearest
FROM orders;`;

function welcome() {
  const answer = h('div');
  const create = h('button', { class: 'primary', type: 'button', onclick: () => tryOut(create, answer) }, 'Create it and send some rows');
  const ingest = `curl ${location.origin}/v1/ingest/orders -d '{"id": 1, "item": "tea", "price": 4.5}'`;
  return h('div', { class: 'welcome' }, h('h1', { text: 'Create your first table' }),
    h('p', { class: 'muted', text: 'Nothing is here yet. A table takes rows in, and views over it are current at every moment. For example:' }),
    h('pre', { class: 'code', text: FIRST }),
    h('div', { class: 'row' }, create, openIn(FIRST), copy(FIRST)), answer,
    h('p', { class: 'muted', text: 'Rows can come from any program:' }), h('pre', { class: 'code', text: ingest }),
    h('div', { class: 'row' }, copy(ingest)));
}

const openIn = (sql) => h('button', { class: 'plain', type: 'button', onclick: () => { box.put(sql); location.hash = '#/sql'; } }, 'Open in the SQL box');

function copy(text) {
  const button = h('button', { class: 'plain', type: 'button' }, 'Copy');
  button.addEventListener('click', async () => {
    await navigator.clipboard?.writeText(text);
    setText(button, 'Copied');
    setTimeout(() => setText(button, 'Copy'), 1500);
  });
  return button;
}

async function tryOut(button, output) {
  button.disabled = true;
  const answer = await runSql(FIRST).catch((e) => ({ results: [], notices: [], error: { message: e.message } }));
  if (answer.error) {
    output.replaceChildren(...renderAnswer(answer, FIRST));
    button.disabled = false;
    return;
  }
  sendOrders(0);
}

/** A minute of made-up orders, so that there is something to look at. */
async function sendOrders(sent) {
  const items = ['tea', 'coffee', 'cocoa', 'juice', 'water', 'milk'];
  const rows = Array.from({ length: 1 + Math.floor(Math.random() * 6) }, (_, i) => {
    const item = Math.floor(Math.random() ** 2 * items.length);
    const at = new Date().toISOString().slice(0, -1);
    return JSON.stringify({ id: sent + i + 1, item: items[item], price: Math.round((2 + item + Math.random() * 4) * 100) / 100, at });
  });
  const response = await fetch('/v1/ingest/orders', { method: 'POST', headers: { 'content-type': 'application/x-ndjson' }, body: rows.join('\n') }).catch(() => null);
  if (response?.ok && sent < 1000) setTimeout(() => sendOrders(sent + rows.length), 200);
}

// ---- One relation

class Detail {
  constructor(name) {
    this.name = name;
    this.title = h('div', { class: 'title' });
    this.stats = h('dl', { class: 'stats' });
    this.aside = h('div', { class: 'side-tables' });
    this.trouble = h('div');
    this.content = h('div');
    this.code = h('div');
    this.element = h('section', { class: 'detail' }, this.title, this.stats, this.aside, this.trouble, this.content, this.code);
  }

  status() {
    const relation = store.relations.get(this.name);
    if (!relation && !this.begun) return this.begin(null);
    if (!relation) return undefined;
    if (this.begun !== relation.sql) this.begin(relation);
    this.stats.replaceChildren(...facts(relation, this.name).map(([k, v]) => h('div', {}, h('dt', { text: k }), h('dd', { text: v }))));
    const stopped = relation.reason ? [h('p', { class: 'problem' }, h('b', { text: `${relation.state[0].toUpperCase()}${relation.state.slice(1)}: ` }), relation.reason)] : [];
    this.trouble.replaceChildren(...stopped);
    this.paintSideTables(relation);
    return this.note();
  }

  begin(relation) {
    this.begun = relation?.sql ?? 'unknown';
    this.close();
    const kind = relation && relation.kind !== 'system' ? relation.kind : 'side table';
    this.title.replaceChildren(h('h1', { text: this.name }), h('span', { class: 'tag', text: kind }));
    if (relation && ['materialized view', 'table'].includes(relation.kind)) this.beginLive(relation);
    else if (relation?.kind === 'source') this.content.replaceChildren(h('p', { class: 'muted', text: 'A source is not stored: its rows flow into the views that read it.' }));
    else this.beginPolling();
    const parts = relation?.sql ? [h('details', { open: relation.kind === 'source' }, h('summary', { text: 'Definition' }), h('pre', { class: 'code', text: relation.sql }))] : [];
    if (relation?.kind === 'materialized view') parts.push(dataflow(this.name));
    this.code.replaceChildren(...parts);
  }

  beginLive(relation) {
    this.chart = new Chart(relation.columns, { bars: 10 });
    this.table = new LiveTable({ columns: relation.columns, key: relation.primary_key });
    this.picker = h('select', { 'aria-label': 'measure', onchange: () => { this.chart.measure = this.picker.value; this.rows(this.name); } });
    this.plot = h('div', { class: 'panel plot', hidden: true }, h('div', { class: 'plot-head' }, h('label', {}, 'Measure ', this.picker)), this.chart.element);
    this.foot = h('div', { class: 'foot' });
    this.content.replaceChildren(this.plot, h('div', { class: 'panel rows' }, this.table.element, this.foot));
    this.content.className = 'detail';
    store.watch([watchable(relation)]);
    this.rows(this.name);
  }

  rows(name) {
    const watched = store.views.get(name);
    if (name !== this.name || !this.table) return;
    if (watched?.error) this.trouble.replaceChildren(h('p', { class: 'problem', text: watched.error.message }));
    if (!watched?.ready) return;
    const rows = watched.list();
    this.plot.hidden = false;
    const drawn = this.chart.update(rows);
    this.plot.hidden = !drawn || this.chart.plan.kind === 'tiles';
    const values = this.chart.plan?.values ?? [];
    if (this.picker.options.length !== values.length) this.picker.replaceChildren(...values.map((v) => h('option', { value: v, text: v })));
    this.table.update(rows);
    this.note();
  }

  note() {
    const watched = store.views.get(this.name);
    if (!this.table || !watched?.ready) return;
    const total = store.relations.get(this.name)?.rows ?? watched.rows.size;
    setText(this.foot, `${this.table.note(Math.max(total, watched.rows.size), watched.cut)} · epoch ${count(watched.epoch)}`);
  }

  /** Late and bad rows are tables of their own. */
  paintSideTables(relation) {
    const links = [['late', relation.late], ['bad', relation.bad]]
      .filter(() => ['source', 'table'].includes(relation.kind))
      .map(([what, n]) => h('a', { class: 'tag', href: hashOf(`${this.name}$${what}`), text: `${this.name}$${what}: ${count(n)}` }));
    if (this.sideTables === links.map((l) => l.textContent).join()) return;
    this.sideTables = links.map((l) => l.textContent).join();
    this.aside.replaceChildren(...links);
  }

  beginPolling() {
    store.watch([]);
    const ask = async () => {
      const sql = `SELECT * FROM ${this.name.split('.').map(quoteName).join('.')}`;
      const answer = await runSql(sql).catch((e) => ({ results: [], error: { message: e.message } }));
      if (screen !== this) return;
      this.trouble.replaceChildren(...(answer.error ? [h('p', { class: 'problem', text: answer.error.message })] : []));
      if (answer.results[0]?.columns) this.takePolled(answer.results[0]);
    };
    this.timer = setInterval(ask, POLL);
    ask();
  }

  /** Keeps the table between two answers, so that it stays scrolled where it was. */
  takePolled({ columns, rows, row_count: total }) {
    if (!this.polled) {
      this.polled = new LiveTable({ columns });
      this.foot = h('div', { class: 'foot' });
      this.content.replaceChildren(h('div', { class: 'panel rows' }, this.polled.element, this.foot));
    }
    this.polled.update(rows.map((row) => Object.fromEntries(row.map((value, i) => [columns[i].name, value]))));
    setText(this.foot, this.polled.note(total, false));
  }

  close() {
    clearInterval(this.timer);
    this.table = null;
    this.polled = null;
  }
}

/** How a view is computed; asked for when it is opened. */
function dataflow(name) {
  const text = h('pre', { class: 'code', text: '…' });
  const details = h('details', {}, h('summary', { text: 'Dataflow' }), text);
  details.addEventListener('toggle', async () => {
    if (!details.open) return;
    const sql = `EXPLAIN MATERIALIZED VIEW ${name.split('.').map(quoteName).join('.')}`;
    const answer = await runSql(sql).catch((e) => ({ results: [], error: { message: e.message } }));
    setText(text, answer.error?.message ?? (answer.results[0]?.rows ?? []).map((row) => row.join('  ')).join('\n'));
  });
  return details;
}

function facts(relation, name) {
  const isView = relation.kind === 'materialized view';
  if (relation.kind === 'system') return [['rows', count(relation.rows)], ['last epoch', count(relation.last_epoch)]];
  const list = [['state', relation.state]];
  if (relation.kind !== 'source') list.push(['rows', count(relation.rows)]);
  list.push(isView ? ['changes', count(relation.changes)] : ['rows in', count(relation.rows_in)]);
  list.push([isView ? 'changes/s' : 'rows/s', compact(store.rate(name))]);
  if (!isView) list.push(['applied', count(relation.applied)], ['late', count(relation.late)], ['bad', count(relation.bad)]);
  if (relation.recomputations) list.push(['recomputed', count(relation.recomputations)]);
  if (relation.bytes) list.push(['state size', bytes(relation.bytes)]);
  if (relation.watermark !== null) list.push(['watermark', lag(relation.watermark, store.status.now)]);
  if (relation.bytes_total) list.push(['read', `${bytes(relation.bytes_read)} of ${bytes(relation.bytes_total)}`]);
  list.push(['last epoch', count(relation.last_epoch)]);
  return list;
}

// ---- Routes

function route() {
  const [, kind, name] = location.hash.split('/');
  screen?.close?.();
  if (kind === 'sql') screen = { element: box.element };
  else if (kind === 'r' && name) screen = new Detail(decodeURIComponent(name));
  else screen = new Dashboard();
  const current = kind === 'sql' ? 'tab-sql' : 'tab-views';
  for (const tab of ['tab-views', 'tab-sql']) {
    if (tab === current) $(tab).setAttribute('aria-current', 'page');
    else $(tab).removeAttribute('aria-current');
  }
  $('content').replaceChildren(screen.element);
  $('content').scrollTop = 0;
  if (kind === 'sql') box.focus();
  if (!store.source) store.watch([]);
  if (store.status) {
    screen.status?.();
    paintSide();
  }
}

function keys(event) {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? '');
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === '/') {
    event.preventDefault();
    location.hash = '#/sql';
    box.focus();
  } else if (event.key === 'Escape') {
    location.hash = '#/';
  }
}

// Rows may come faster than the screen is painted: mark what changed, draw once per frame.
const changed = new Set();
let framed = false;

function onRows(event) {
  changed.add(event.detail);
  if (framed) return;
  framed = true;
  requestAnimationFrame(() => {
    framed = false;
    for (const name of changed) screen?.rows?.(name);
    changed.clear();
  });
}

store.addEventListener('status', () => {
  paintHeader();
  paintSide();
  screen?.status?.();
});
store.addEventListener('rows', onRows);
store.addEventListener('epoch', () => setText($('epoch'), count(store.epoch)));
store.addEventListener('link', paintLink);
window.addEventListener('hashchange', route);
window.addEventListener('keydown', keys);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  for (const name of store.views.keys()) screen?.rows?.(name);
  paintHeader();
});
route();
