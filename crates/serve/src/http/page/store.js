// What the page knows: the engine's state each second, and the rows of the views it watches.
// Both come over one connection, as browsers allow only few to a server.

import { compare } from './format.js';

/** The most distinct rows kept of one view; beyond, the half that matters least goes. */
const ROW_LIMIT = 4000;

/** How many seconds the rate lines show. */
const SECONDS = 60;

/** The rows of one watched view: a multiset, as rows may occur more than once. */
class Watched {
  constructor(name, order) {
    this.name = name;
    this.order = order;
    this.rows = new Map();
    this.epoch = 0;
    this.ready = false;
    this.cut = false;
    this.error = null;
  }

  apply(event) {
    if (event.snapshot) {
      this.rows.clear();
      this.cut = false;
    }
    this.cut ||= event.total > event.rows.length;
    event.rows.forEach((row, i) => this.add(row, event.diffs[i]));
    if (this.rows.size > ROW_LIMIT) this.shrink();
    this.epoch = event.epoch;
    this.ready = true;
    this.error = null;
  }

  /** Keeps the rows with the largest values of the order column. */
  shrink() {
    const entries = [...this.rows.entries()];
    if (this.order) entries.sort((a, b) => compare(a[1].row[this.order], b[1].row[this.order], true));
    else entries.reverse();
    this.rows = new Map(entries.slice(0, ROW_LIMIT / 2));
    this.cut = true;
  }

  add(row, diff) {
    const key = JSON.stringify(row);
    const known = this.rows.get(key);
    if (known) {
      known.n += diff;
      if (known.n <= 0) this.rows.delete(key);
    } else if (diff > 0) {
      // A row taken back that was never sent belongs to the part that was cut off.
      this.rows.set(key, { row, n: diff });
    }
  }

  /** All rows, repeated as often as they occur. */
  list() {
    const out = [];
    for (const { row, n } of this.rows.values()) for (let i = 0; i < n; i += 1) out.push(row);
    return out;
  }
}

/** Rates of something counted, each second. */
class Rate {
  constructor() {
    this.points = [];
    this.last = null;
  }

  add(total, now) {
    if (this.last && now > this.last.now) {
      const rate = Math.max(0, ((total - this.last.total) * 1000) / (now - this.last.now));
      this.points.push(rate);
      if (this.points.length > SECONDS) this.points.shift();
    }
    this.last = { total, now };
  }

  get current() {
    return this.points.length ? this.points[this.points.length - 1] : 0;
  }
}

/** The name that every request takes. */
export const fullName = (relation) => (relation.namespace === 'public' ? relation.name : `${relation.namespace}.${relation.name}`);

/** Fires `status`, `rows` (detail: the view's name), `epoch` and `link` events. */
export class Store extends EventTarget {
  constructor() {
    super();
    this.status = null;
    this.relations = new Map();
    this.views = new Map();
    this.total = new Rate();
    this.rates = new Map();
    this.epoch = 0;
    this.link = 'waiting';
    this.source = null;
    this.retry = null;
  }

  /** Watches exactly these views: pairs of a name and the column that says which rows matter most. */
  watch(wanted) {
    const same = this.source && wanted.length === this.views.size && wanted.every(([name]) => this.views.has(name));
    if (same) return;
    this.views = new Map(wanted.map(([name, order]) => [name, this.views.get(name) ?? new Watched(name, order)]));
    this.open();
  }

  open() {
    clearTimeout(this.retry);
    this.source?.close();
    const query = new URLSearchParams();
    for (const { name, order } of this.views.values()) {
      query.append('view', name);
      if (order) query.append('order', order);
    }
    const source = new EventSource(`/v1/live?${query}`);
    this.source = source;
    source.onopen = () => this.setLink('live');
    source.onerror = () => {
      this.setLink('lost');
      // After an answer that is not a stream the browser does not try again by itself.
      if (source.readyState === EventSource.CLOSED) this.retry = setTimeout(() => this.open(), 2000);
    };
    source.addEventListener('status', (e) => this.takeStatus(JSON.parse(e.data)));
    source.addEventListener('rows', (e) => this.takeRows(JSON.parse(e.data)));
    source.addEventListener('lost', (e) => this.takeLoss(JSON.parse(e.data)));
  }

  setLink(link) {
    if (this.link === link) return;
    this.link = link;
    this.dispatchEvent(new Event('link'));
  }

  takeStatus(status) {
    if (this.status && status.uptime_seconds < this.status.uptime_seconds) {
      this.rates.clear();
      this.total = new Rate();
    }
    this.status = status;
    this.relations = new Map(status.relations.map((r) => [fullName(r), r]));
    this.total.add(status.rows_in, status.now);
    for (const [name, relation] of this.relations) {
      const counted = relation.kind === 'materialized view' ? relation.changes : relation.rows_in;
      if (!this.rates.has(name)) this.rates.set(name, new Rate());
      this.rates.get(name).add(counted, status.now);
    }
    for (const name of this.rates.keys()) if (!this.relations.has(name)) this.rates.delete(name);
    this.takeEpoch(status.epoch);
    this.dispatchEvent(new Event('status'));
  }

  takeRows(event) {
    const view = this.views.get(event.view);
    if (!view) return;
    view.apply(event);
    this.takeEpoch(event.epoch);
    this.dispatchEvent(new CustomEvent('rows', { detail: event.view }));
  }

  takeLoss(event) {
    const view = this.views.get(event.view);
    if (!view) return;
    view.error = event.error;
    this.dispatchEvent(new CustomEvent('rows', { detail: event.view }));
  }

  takeEpoch(epoch) {
    this.epoch = epoch;
    this.dispatchEvent(new Event('epoch'));
  }

  rate(name) {
    return this.rates.get(name)?.current ?? 0;
  }
}

/** Runs SQL; answers `{ results, notices, error }`. */
export async function runSql(sql, limit = 500) {
  const response = await fetch(`/v1/sql?limit=${limit}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ sql }),
  });
  const answer = await response.json();
  return { results: [], notices: [], ...answer };
}
