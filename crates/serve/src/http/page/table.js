// A live table: rows keep their place in the document, changed cells flash, headers sort.

import { compare, count, h, isNaming, isNumber, isTime, setText, show } from './format.js';

/** The columns that tell rows apart: the key, else everything that is not a measure. */
export function identityColumns(columns, key = []) {
  if (key.length) return key;
  const naming = columns.filter((c) => !isNumber(c.type) || isNaming(c.name)).map((c) => c.name);
  return naming.length ? naming : columns.slice(0, 1).map((c) => c.name);
}

/** What to sort by first: the newest time, or the largest measure. */
export function defaultSort(columns) {
  const window = columns.find((c) => c.name === 'window_end' || c.name === 'window_start');
  const time = window ?? columns.find((c) => isTime(c.type));
  if (time) return { column: time.name, descending: true };
  const measure = columns.find((c) => isNumber(c.type) && !isNaming(c.name));
  if (measure) return { column: measure.name, descending: true };
  return columns.length ? { column: columns[0].name, descending: false } : null;
}

export class LiveTable {
  /** `limit`: the most rows shown; `mini`: tighter, for cards. */
  constructor({ columns, key, limit = 500, mini = false }) {
    this.columns = columns;
    this.identity = identityColumns(columns, key);
    this.limit = limit;
    this.sort = defaultSort(columns);
    this.shown = new Map();
    this.ids = new WeakMap();
    this.first = true;
    this.body = h('tbody');
    this.heads = columns.map((c) => this.head(c));
    const table = h('table', { class: mini ? 'mini' : '' }, h('thead', {}, h('tr', {}, ...this.heads)), this.body);
    this.element = h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'rows' }, table);
    this.markSort();
  }

  head(column) {
    const button = h('button', { type: 'button', title: column.type, onclick: () => this.sortBy(column.name) }, column.name);
    return h('th', { scope: 'col', class: isNumber(column.type) ? 'right' : '' }, button);
  }

  sortBy(name) {
    const descending = this.sort?.column === name ? !this.sort.descending : true;
    this.sort = { column: name, descending };
    this.markSort();
    if (this.rows) this.update(this.rows);
  }

  markSort() {
    this.columns.forEach((column, i) => {
      if (this.sort?.column !== column.name) this.heads[i].removeAttribute('aria-sort');
      else this.heads[i].setAttribute('aria-sort', this.sort.descending ? 'descending' : 'ascending');
    });
  }

  /** Shows these rows. */
  update(rows) {
    this.rows = rows;
    const sorted = this.sort ? [...rows].sort((a, b) => this.order(a, b)) : rows;
    const visible = sorted.slice(0, this.limit);
    const before = this.shown;
    this.shown = new Map();
    let place = this.body.firstChild;
    for (const row of visible) {
      const id = this.unique(row);
      const entry = before.get(id) ?? this.create(row);
      before.delete(id);
      this.shown.set(id, entry);
      this.change(entry, row);
      if (entry.tr === place) place = place.nextSibling;
      else this.body.insertBefore(entry.tr, place);
    }
    for (const gone of before.values()) gone.tr.remove();
    this.first = false;
  }

  order(a, b) {
    const { column, descending } = this.sort;
    return compare(a[column], b[column], descending) || compare(this.id(a), this.id(b), false);
  }

  id(row) {
    let id = this.ids.get(row);
    if (id === undefined) {
      id = JSON.stringify(this.identity.map((name) => row[name]));
      this.ids.set(row, id);
    }
    return id;
  }

  unique(row) {
    const id = this.id(row);
    let candidate = id;
    for (let n = 2; this.shown.has(candidate); n += 1) candidate = `${id}#${n}`;
    return candidate;
  }

  create(row) {
    const cells = this.columns.map((c) => h('td', { class: isNumber(c.type) ? 'right' : '' }));
    const tr = h('tr', { class: this.first ? '' : 'fresh' }, ...cells);
    const entry = { tr, cells, values: {} };
    this.columns.forEach((c, i) => this.fill(cells[i], row[c.name], c));
    entry.values = row;
    return entry;
  }

  fill(cell, value, column) {
    const text = show(value, column);
    setText(cell, text);
    cell.classList.toggle('null', value === null || value === undefined);
    if (text.length > 40) cell.title = text;
  }

  change(entry, row) {
    if (entry.values === row) return;
    this.columns.forEach((column, i) => {
      const [old, now] = [entry.values[column.name], row[column.name]];
      if (old === now || (typeof now === 'object' && JSON.stringify(old) === JSON.stringify(now))) return;
      this.fill(entry.cells[i], now, column);
      flash(entry.cells[i], typeof old === 'number' && now < old ? 'down' : 'up');
    });
    entry.values = row;
  }

  /** What is left out, in words. */
  note(total, cut) {
    const shown = Math.min(this.limit, this.rows?.length ?? 0);
    if (cut) return `${count(shown)} rows shown of a part of ${count(total)}; ask with SQL for the others`;
    return total > shown ? `${count(shown)} of ${count(total)} rows` : `${count(shown)} ${shown === 1 ? 'row' : 'rows'}`;
  }
}

/** Starts the animation anew, also when one is running. */
function flash(cell, kind) {
  cell.classList.remove('up', 'down');
  void cell.offsetWidth;
  cell.classList.add(kind);
}

/** A table that does not change, for results of SQL. */
export function plainTable(columns, rows) {
  const head = columns.map((c) =>
    h('th', { scope: 'col', class: isNumber(c.type) ? 'right' : '' }, h('span', {}, c.name, h('small', { text: c.type }))),
  );
  const body = rows.map((row) =>
    h('tr', {}, ...row.map((value, i) => {
      const text = show(value, columns[i]);
      const kind = [isNumber(columns[i].type) ? 'right' : '', value === null ? 'null' : '', text.includes('\n') || columns.length === 1 ? 'multi' : ''];
      return h('td', { class: kind.join(' '), text });
    })),
  );
  const table = h('table', {}, h('thead', {}, h('tr', {}, ...head)), h('tbody', {}, ...body));
  return h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'result' }, table);
}
