// The page's parts that need no browser: which chart fits, what is sorted by, how values are shown.
//
//   node --test

import assert from 'node:assert/strict';
import test from 'node:test';

const page = '../../crates/serve/src/http/page';
const { chooseChart, measures, niceTicks } = await import(`${page}/chart.js`);
const { bytes, compact, compare, lag, number, quoteName, time } = await import(`${page}/format.js`);
const { defaultSort, identityColumns } = await import(`${page}/table.js`);

const column = (name, type) => ({ name, type });
const delays = [column('window_start', 'timestamp'), column('origin', 'text'), column('flights', 'bigint'), column('average_delay', 'double precision')];
const at = (i, origin) => ({ window_start: `2013-01-01T0${i}:00:00`, origin, flights: i, average_delay: i / 2 });

test('rows over time become lines, rankings bars, a single row tiles', () => {
  const rows = [0, 1, 2, 3].flatMap((i) => [at(i, 'EWR'), at(i, 'JFK')]);
  assert.deepEqual(chooseChart(delays, rows), { kind: 'lines', x: 'window_start', labels: ['origin'], values: ['average_delay', 'flights'] });
  const ranking = [column('airline', 'text'), column('n', 'bigint')];
  assert.equal(chooseChart(ranking, [{ airline: 'a', n: 1 }, { airline: 'b', n: 2 }]).kind, 'bars');
  assert.equal(chooseChart([column('n', 'bigint'), column('m', 'bigint')], [{ n: 1, m: 2 }]).kind, 'tiles');
  assert.equal(chooseChart([column('name', 'text')], [{ name: 'a' }, { name: 'b' }]), null);
});

test('averages and totals come before extremes, and identifiers are no measures', () => {
  const columns = ['id', 'least_delay', 'flights', 'average_delay'].map((n) => column(n, 'bigint'));
  assert.deepEqual(measures(columns), ['average_delay', 'flights', 'least_delay']);
});

test('the newest comes first, else the largest', () => {
  assert.deepEqual(defaultSort(delays), { column: 'window_start', descending: true });
  assert.deepEqual(defaultSort([column('name', 'text'), column('n', 'bigint')]), { column: 'n', descending: true });
  assert.equal(defaultSort([]), null);
  assert.deepEqual(identityColumns(delays), ['window_start', 'origin']);
  assert.deepEqual(identityColumns(delays, ['flights']), ['flights']);
});

test('values are shown as people read them', () => {
  assert.deepEqual([number(2013), number(1234567), number(0.5), number(12.3456)], ['2013', '1,234,567', '0.50', '12.35']);
  assert.deepEqual([compact(12), compact(12345), bytes(999), bytes(34e6)], ['12', '12.3K', '999 B', '34 MB']);
  assert.deepEqual([time('2013-01-01T05:15:00Z'), time('2013-01-01T05:15:00.250')], ['2013-01-01 05:15:00', '2013-01-01 05:15:00.25']);
  assert.equal(lag(1000, 3500), '2.5 s behind');
  assert.deepEqual([quoteName('orders'), quoteName('orders$bad'), quoteName('a"b')], ['orders', '"orders$bad"', '"a""b"']);
});

test('nulls come last whichever way one sorts', () => {
  for (const descending of [true, false]) assert.ok(compare(null, 1, descending) > 0);
  assert.ok(compare(1, 2, true) > 0 && compare(1, 2, false) < 0);
});

test('ticks are round', () => assert.deepEqual(niceTicks(0, 47, 4), [0, 20, 40]));
