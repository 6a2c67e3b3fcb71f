// The SQL box: ctrl-enter runs, errors point at their place, notices are shown.

import { count, h } from './format.js';
import { runSql } from './store.js';
import { plainTable } from './table.js';

const KEPT = 'tidemill.sql';

const EXAMPLE = 'SHOW VIEWS;';

export class SqlBox {
  constructor() {
    this.text = h('textarea', {
      spellcheck: 'false', autocomplete: 'off', autocapitalize: 'off', 'aria-label': 'SQL', id: 'sql-text',
      onkeydown: (e) => this.key(e),
    });
    this.text.value = localStorage.getItem(KEPT) ?? EXAMPLE;
    this.button = h('button', { class: 'primary', type: 'button', id: 'sql-run', onclick: () => this.run() }, 'Run');
    this.took = h('span', { role: 'status' });
    this.output = h('div', { id: 'sql-output', 'aria-live': 'polite' });
    const bar = h('div', { class: 'bar' }, this.button, h('span', {}, h('kbd', {}, 'Ctrl'), ' ', h('kbd', {}, 'Enter')), this.took);
    this.element = h('section', { class: 'sql' }, h('div', { class: 'panel editor' }, this.text, bar), this.output);
  }

  focus() {
    this.text.focus();
  }

  /** Puts a statement into the box. */
  put(sql) {
    this.text.value = sql;
    localStorage.setItem(KEPT, sql);
  }

  key(event) {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.run();
    } else if (event.key === 'Escape') {
      this.text.blur();
    }
  }

  async run() {
    const sql = this.text.value;
    if (!sql.trim() || this.button.disabled) return;
    localStorage.setItem(KEPT, sql);
    this.button.disabled = true;
    this.took.textContent = 'running…';
    const began = performance.now();
    try {
      const answer = await runSql(sql);
      this.output.replaceChildren(...render(answer, sql));
      this.took.textContent = `${(performance.now() - began).toFixed(1)} ms`;
    } catch (error) {
      this.output.replaceChildren(problem({ message: `the server did not answer: ${error.message}` }, sql));
      this.took.textContent = '';
    } finally {
      this.button.disabled = false;
    }
  }
}

/** Results, notices and the error of an answer as elements. */
export function render(answer, sql) {
  const out = answer.results.map(result);
  for (const n of answer.notices) out.push(h('p', { class: 'notice' }, n.message, n.hint ? h('span', { class: 'muted' }, ` ${n.hint}`) : null));
  if (answer.error) out.push(problem(answer.error, sql));
  if (!out.length) out.push(h('p', { class: 'muted', text: 'Nothing to run.' }));
  return out;
}

function result(r) {
  if (!r.columns) return h('p', { class: 'panel foot result', text: r.tag });
  const rows = r.truncated ? `first ${count(r.rows.length)} of ${count(r.row_count)} rows` : `${count(r.rows.length)} ${r.rows.length === 1 ? 'row' : 'rows'}`;
  return h('div', { class: 'panel result' }, plainTable(r.columns, r.rows), h('div', { class: 'foot', text: `${r.tag} · ${rows}` }));
}

/** An error, with the line it is about and a caret below the place. */
function problem(error, sql) {
  const box = h('div', { class: 'problem', role: 'alert' }, h('b', { text: error.code ? `${error.code} ` : '' }), error.message);
  if (error.position) box.append(place(sql, error.position));
  if (error.detail) box.append(h('p', { class: 'muted', text: error.detail }));
  if (error.hint) box.append(h('p', { text: `Hint: ${error.hint}` }));
  return box;
}

function place(sql, position) {
  const before = [...sql].slice(0, position - 1).join('');
  const lines = before.split('\n');
  const column = [...lines[lines.length - 1]].length;
  const line = sql.split('\n')[lines.length - 1] ?? '';
  const gutter = `${lines.length} | `;
  const caret = h('span', { class: 'caret', text: `${' '.repeat(gutter.length + column)}^` });
  return h('pre', {}, `${gutter}${line}\n`, caret);
}
