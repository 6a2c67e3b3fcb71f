// How numbers, times and values are shown, and how elements are made.

/** Makes an element: tag, attributes (`class`, `text`, `on...` and others), children. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'text') element.textContent = value;
    else if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((c) => c !== null && c !== undefined));
  return element;
}

/** Sets text only when it differs, so that nothing is laid out for nothing. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat('en-US', { notation: 'compact', maximumFractionDigits: 1 });

/** 12,345 */
export const count = (n) => whole.format(n);

/** 12.3K */
export const compact = (n) => (Math.abs(n) < 1000 ? String(Math.round(n * 10) / 10) : short.format(n));

/** 3.4 MB */
export function bytes(n) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) {
    n /= 1000;
    unit += 1;
  }
  return `${n < 10 && unit > 0 ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}

/** 0.4 ms, 12 ms, 1.2 s */
export function millis(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** How far one moment is behind another, in words; the moment itself when that is far. */
export function lag(watermark, now) {
  const seconds = (now - watermark) / 1000;
  if (seconds > 86400 || seconds < -86400) return new Date(watermark).toISOString().slice(0, 16).replace('T', ' ');
  if (seconds < 1) return `${Math.max(0, Math.round(seconds * 1000))} ms behind`;
  if (seconds < 90) return `${seconds.toFixed(1)} s behind`;
  return `${Math.round(seconds / 60)} min behind`;
}

export const isTime = (type) => /^(timestamp|date)/.test(type);
export const isNumber = (type) => /^(smallint|integer|bigint|real|double precision|numeric)/.test(type);
export const isText = (type) => /^(text|boolean|time$)/.test(type);

/** Columns that name things rather than measure them. */
export const isNaming = (name) => /(^|_)(id|key|code|no|number|rank|position|year|month|day|hour|zip)$/i.test(name);

/** A timestamp without the digits that say nothing. */
export function time(text) {
  return String(text).replace('T', ' ').replace(/Z$/, '').replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '');
}

/** A number as people read it: few digits after the point, thousands apart. */
export function number(value, naming = false) {
  if (typeof value !== 'number') return String(value);
  if (naming) return String(value);
  const size = Math.abs(value);
  // Four digits need no help, and are often a year or a number that names something.
  if (Number.isInteger(value)) return size < 10000 ? String(value) : whole.format(value);
  if (size >= 1e15 || (size < 1e-4 && size > 0)) return value.toExponential(3);
  const digits = size >= 1000 ? 1 : size >= 1 ? 2 : 4;
  return value.toLocaleString('en-US', { maximumFractionDigits: digits, minimumFractionDigits: Math.min(digits, 2) });
}

/** A value of a column as text. */
export function show(value, column) {
  if (value === null || value === undefined) return 'null';
  if (isTime(column.type)) return time(value);
  if (isNumber(column.type)) return number(value, isNaming(column.name));
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

/** Orders two values; nulls come last whatever the direction. */
export function compare(a, b, descending) {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1;
  if (b === null || b === undefined) return -1;
  return (a < b ? -1 : 1) * (descending ? -1 : 1);
}

/** An identifier as SQL wants it. */
export const quoteName = (name) => (/^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`);
