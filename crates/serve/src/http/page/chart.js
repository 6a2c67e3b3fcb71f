// Charts by hand: lines over time on a canvas, rankings as bars that change places, single rows as tiles.

import { compact, compare, h, isNaming, isNumber, isText, isTime, number, setText, show, time } from './format.js';

/** The most lines in one chart. */
const SERIES_LIMIT = 6;

/** How many pixels a bar with its label needs. */
const PITCH = 25;

/** The most moments in one chart: the newest ones. */
const MOMENTS = 240;

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** The measures of a relation, the likeliest to be looked at first. */
export function measures(columns) {
  const numbers = columns.filter((c) => isNumber(c.type));
  const real = numbers.filter((c) => !isNaming(c.name));
  const rank = (c) => {
    if (/(^|_)(min|max|least|most|greatest|longest|lowest|highest|first|last|place)(_|$)/i.test(c.name)) return 2;
    return /(avg|average|mean|rate|pct|percent|share|ratio|revenue|amount|total|sum|score)/i.test(c.name) ? 0 : 1;
  };
  return (real.length ? real : numbers.slice(1)).sort((a, b) => rank(a) - rank(b)).map((c) => c.name);
}

/** Which chart fits: `{ kind: 'lines' | 'bars' | 'tiles', ... }`, or null for none. */
export function chooseChart(columns, rows) {
  const values = measures(columns);
  if (!values.length) return null;
  const texts = columns.filter((c) => isText(c.type)).map((c) => c.name);
  const timeColumn = columns.find((c) => c.name === 'window_end' || c.name === 'window_start') ?? columns.find((c) => isTime(c.type));
  if (rows.length === 1 && !timeColumn) return { kind: 'tiles' };
  if (timeColumn && linesFit(rows, timeColumn.name, texts)) return { kind: 'lines', x: timeColumn.name, labels: texts, values };
  const labels = texts.length ? texts : columns.filter((c) => isNaming(c.name) || !isNumber(c.type)).map((c) => c.name);
  if (timeColumn && rows.length > 60) return null;
  return labels.length && rows.length > 1 ? { kind: 'bars', labels, values } : null;
}

/** Lines need several moments and several points each, else they say nothing. */
function linesFit(rows, x, labels) {
  const moments = new Set();
  const series = new Set();
  for (const row of rows.slice(0, 4000)) {
    moments.add(row[x]);
    series.add(labels.map((l) => row[l]).join(' · '));
  }
  const points = Math.min(rows.length, 4000);
  return moments.size >= 3 && points / series.size >= 2.5;
}

/** A chart that follows its rows. */
export class Chart {
  constructor(columns, { bars = 10 } = {}) {
    this.columns = columns;
    this.bars = bars;
    this.measure = null;
    this.kind = null;
    this.painter = null;
    this.element = h('div', { class: 'chart' });
  }

  /** Draws; answers whether there is anything to draw. */
  update(rows) {
    const plan = chooseChart(this.columns, rows);
    this.plan = plan;
    if (!plan) return false;
    if (plan.kind !== this.kind) {
      this.kind = plan.kind;
      this.painter = plan.kind === 'lines' ? new Lines() : plan.kind === 'bars' ? new Bars(this.bars) : new Tiles();
      this.element.replaceChildren(...this.painter.elements);
    }
    const value = this.measure && plan.values?.includes(this.measure) ? this.measure : plan.values?.[0];
    this.painter.update(rows, { ...plan, value, columns: this.columns });
    return true;
  }
}

/** Numbers of a single row. */
class Tiles {
  constructor() {
    this.box = h('div', { class: 'tiles' });
    this.elements = [this.box];
  }

  update(rows, { columns }) {
    if (this.box.children.length !== columns.length) {
      this.box.replaceChildren(...columns.map((c) => h('div', { class: 'tile' }, h('b'), h('span', { text: c.name }))));
    }
    columns.forEach((c, i) => setText(this.box.children[i].firstChild, show(rows[0][c.name], c)));
  }
}

/** A ranking. */
class Bars {
  constructor(limit) {
    this.limit = limit;
    this.entries = new Map();
    this.caption = h('div', { class: 'measure' });
    this.box = h('div', { class: 'bars', role: 'img' });
    this.elements = [this.caption, this.box];
  }

  update(rows, { labels, value }) {
    const ranked = rows.filter((r) => typeof r[value] === 'number').sort((a, b) => compare(a[value], b[value], true));
    const height = this.box.clientHeight || 230;
    const top = ranked.slice(0, Math.min(this.limit, Math.max(3, Math.floor(height / PITCH))));
    const pitch = Math.min(1.6 * PITCH, Math.max(PITCH, height / top.length));
    const most = Math.max(...top.map((r) => Math.abs(r[value])), Number.MIN_VALUE);
    setText(this.caption, value);
    const before = this.entries;
    this.entries = new Map();
    top.forEach((row, place) => {
      let name = labels.map((l) => row[l] ?? '–').join(' · ');
      while (this.entries.has(name)) name += ' ';
      const entry = before.get(name) ?? this.create(name);
      before.delete(name);
      this.entries.set(name, entry);
      entry.row.style.transform = `translateY(${place * pitch}px)`;
      entry.fill.style.transform = `scaleX(${Math.abs(row[value]) / most})`;
      entry.fill.classList.toggle('negative', row[value] < 0);
      setText(entry.number, number(row[value]));
    });
    for (const gone of before.values()) gone.row.remove();
    this.box.setAttribute('aria-label', `${value}: ${top.slice(0, 5).map((r) => `${labels.map((l) => r[l]).join(' ')} ${number(r[value])}`).join(', ')}`);
  }

  create(name) {
    const entry = { number: h('span'), fill: h('i') };
    entry.fill.style.transform = 'scaleX(0)';
    const label = h('div', { class: 'label' }, h('span', { text: name, title: name }), entry.number);
    entry.row = h('div', { class: 'barrow' }, label, h('div', { class: 'track' }, entry.fill));
    entry.row.style.transform = `translateY(${this.limit * PITCH}px)`;
    this.box.append(entry.row);
    // The bar starts empty and far below, so that its first place is reached by moving there.
    void entry.row.offsetWidth;
    return entry;
  }
}

/** Lines over time. */
class Lines {
  constructor() {
    this.legend = h('div', { class: 'legend' });
    this.canvas = h('canvas', { role: 'img' });
    this.tip = h('div', { class: 'tip', hidden: true });
    this.elements = [this.legend, this.canvas, this.tip];
    this.canvas.addEventListener('mousemove', (e) => this.hover(e.offsetX));
    this.canvas.addEventListener('mouseleave', () => this.hover(null));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  update(rows, plan) {
    this.value = plan.value;
    this.series = this.collect(rows, plan);
    const names = this.series.map((s) => s.name || plan.value);
    this.legend.replaceChildren(
      ...(plan.labels.length ? [h('span', { text: plan.value })] : []),
      ...names.map((name, i) => {
        const mark = h('i');
        mark.style.background = color(`--s${i}`);
        return h('span', {}, mark, name);
      }),
    );
    this.canvas.setAttribute('aria-label', `${plan.value} over time: ${names.join(', ')}`);
    this.draw();
  }

  /** The lines with the most rows and then the largest values. */
  collect(rows, { x, labels, value }) {
    const series = new Map();
    const moments = [...new Set(rows.map((row) => row[x]))].sort().slice(-MOMENTS);
    for (const row of rows) {
      const at = Date.parse(zoned(row[x]));
      if (row[x] < moments[0] || Number.isNaN(at) || typeof row[value] !== 'number') continue;
      const name = labels.map((l) => row[l] ?? '–').join(' · ');
      if (!series.has(name)) series.set(name, { name, weight: 0, points: [] });
      const one = series.get(name);
      one.points.push([at, row[value]]);
      one.weight += Math.abs(row[value]);
    }
    const chosen = [...series.values()].sort((a, b) => b.weight - a.weight).slice(0, SERIES_LIMIT);
    for (const one of chosen) one.points.sort((a, b) => a[0] - b[0]);
    return chosen.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const points = this.series?.flatMap((s) => s.points) ?? [];
    if (!width || !height || !points.length) return;
    const ratio = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio)) this.canvas.width = Math.round(width * ratio);
    if (this.canvas.height !== Math.round(height * ratio)) this.canvas.height = Math.round(height * ratio);
    const g = this.canvas.getContext('2d');
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    this.scale = scaleOf(points, width, height);
    this.axes(g, width, height);
    this.series.forEach((s, i) => this.line(g, s.points, color(`--s${i}`)));
    if (this.cursor !== null && this.cursor !== undefined) this.mark(g, height);
  }

  axes(g, width, height) {
    const { left, bottom, low, high, from, to, px, py } = this.scale;
    g.font = `11px ${color('--sans')}`;
    g.fillStyle = color('--muted');
    g.strokeStyle = color('--line');
    g.lineWidth = 1;
    g.textAlign = 'right';
    g.textBaseline = 'middle';
    for (const tick of niceTicks(low, high, Math.max(2, Math.floor(height / 60)))) {
      const y = Math.round(py(tick)) + 0.5;
      g.beginPath();
      g.moveTo(left, y);
      g.lineTo(width, y);
      g.stroke();
      g.fillText(compact(tick), left - 6, y);
    }
    g.textBaseline = 'top';
    const step = timeStep(to - from, Math.max(1, (width - left) / 72));
    for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
      const x = px(at);
      g.textAlign = x > width - 34 ? 'right' : x < left + 24 ? 'left' : 'center';
      g.fillText(timeLabel(at, step), x, height - bottom + 6);
    }
  }

  line(g, points, stroke) {
    const { px, py } = this.scale;
    g.strokeStyle = stroke;
    g.fillStyle = stroke;
    g.lineWidth = 1.8;
    g.lineJoin = 'round';
    g.beginPath();
    points.forEach(([x, y], i) => (i ? g.lineTo(px(x), py(y)) : g.moveTo(px(x), py(y))));
    g.stroke();
    const [x, y] = points[points.length - 1];
    g.beginPath();
    g.arc(px(x), py(y), 3, 0, 7);
    g.fill();
  }

  hover(x) {
    this.cursor = x;
    this.tip.hidden = x === null;
    this.draw();
  }

  /** A line under the pointer and the values there. */
  mark(g, height) {
    const { px, left, bottom } = this.scale;
    const near = nearest(this.series.flatMap((s) => s.points), (p) => Math.abs(px(p[0]) - this.cursor));
    const x = px(near[0]);
    g.strokeStyle = color('--muted');
    g.lineWidth = 1;
    g.beginPath();
    g.moveTo(x, 0);
    g.lineTo(x, height - bottom);
    g.stroke();
    const lines = this.series.flatMap((s) => {
      const at = s.points.filter((p) => p[0] === near[0]);
      return at.length ? [h('div', {}, `${s.name || this.value}: `, h('b', { text: number(at[0][1]) }))] : [];
    });
    this.tip.replaceChildren(h('div', { class: 'muted', text: time(new Date(near[0]).toISOString()) }), ...lines);
    const right = x > this.canvas.clientWidth / 2;
    this.tip.style.top = `${this.canvas.offsetTop + 4}px`;
    this.tip.style.left = right ? '' : `${Math.max(left, x) + 12}px`;
    this.tip.style.right = right ? `${this.canvas.clientWidth - x + 12}px` : '';
  }
}

/** Times without a zone are shown as they are, so they are read as UTC and written as UTC. */
const zoned = (text) => (/[Zz]|T.*[+-]\d\d/.test(text ?? '') ? text : `${text}${String(text).includes('T') ? 'Z' : ''}`);

function nearest(points, distance) {
  return points.reduce((best, p) => (distance(p) < distance(best) ? p : best));
}

/** Where values stand on the canvas. */
function scaleOf(points, width, height) {
  const [left, bottom, top] = [46, 22, 8];
  let [from, to, low, high] = [Infinity, -Infinity, 0, 0];
  for (const [x, y] of points) {
    from = Math.min(from, x);
    to = Math.max(to, x);
    low = Math.min(low, y);
    high = Math.max(high, y);
  }
  if (high === low) high = low + 1;
  high += (high - low) * 0.06;
  const px = (x) => left + ((x - from) / (to - from || 1)) * (width - left - 6);
  const py = (y) => height - bottom - ((y - low) / (high - low)) * (height - bottom - top);
  return { left, bottom, from, to, low, high, px, py };
}

/** Round numbers within a range. */
export function niceTicks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough);
  const out = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) out.push(tick);
  return out;
}

const [SECOND, MINUTE, HOUR, DAY] = [1e3, 60e3, 3600e3, 86400e3];

/** A step of time that people count in, so that about as many labels as wanted fit. */
function timeStep(span, wanted) {
  const steps = [1, 5, 15, 30].map((n) => n * SECOND).concat([1, 5, 15, 30].map((n) => n * MINUTE), [1, 3, 6, 12].map((n) => n * HOUR));
  const days = [1, 2, 7, 14, 30, 90, 365, 3650].map((n) => n * DAY);
  return [...steps, ...days].find((s) => span / s <= wanted) ?? 36500 * DAY;
}

/** Midnight is said as its day. */
function timeLabel(at, step) {
  const text = new Date(at).toISOString();
  if (step >= DAY) return step >= 90 * DAY ? text.slice(0, 7) : text.slice(5, 10);
  if (at % DAY === 0) return text.slice(5, 10);
  return step >= MINUTE ? text.slice(11, 16) : text.slice(11, 19);
}

/** A line without axes. */
export function sparkline(canvas, points) {
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width) return;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const g = canvas.getContext('2d');
  g.scale(ratio, ratio);
  const most = Math.max(...points, 1);
  const px = (i) => 2 + (i * (width - 4)) / 59;
  const py = (v) => height - 2 - (v / most) * (height - 5);
  g.beginPath();
  points.forEach((v, i) => (i ? g.lineTo(px(i), py(v)) : g.moveTo(px(i), py(v))));
  g.strokeStyle = color('--accent');
  g.lineWidth = 1.6;
  g.lineJoin = 'round';
  g.stroke();
  if (!points.length) return;
  g.lineTo(px(points.length - 1), height);
  g.lineTo(px(0), height);
  g.globalAlpha = 0.15;
  g.fillStyle = color('--accent');
  g.fill();
}
