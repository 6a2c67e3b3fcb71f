// The console in a real browser against the real binary: creates a table and views from the empty
// page, sends rows, and sees cells change without a reload.
//
//   npm ci && node console.mjs
//
// TIDEMILL names the binary, CHROMIUM the browser; screenshots go to SHOTS (a folder), if set.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const target = process.env.CARGO_TARGET_DIR ?? path.join(root, 'target');
const binary = process.env.TIDEMILL ?? ['release', 'debug'].map((p) => path.join(target, p, 'tidemill')).find(existsSync);
const browserPath = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);

/** Starts the server on free ports; answers its process and address. */
function startServer() {
  const server = spawn(binary, ['serve', '--in-memory', '--http', '127.0.0.1:0', '--pg', '127.0.0.1:0', '--workers', '1']);
  return new Promise((resolve, reject) => {
    let output = '';
    const hear = (data) => {
      output += data;
      const url = output.match(/http:\/\/[0-9.:]+/)?.[0];
      if (url) resolve({ server, url });
    };
    server.stdout.on('data', hear);
    server.stderr.on('data', hear);
    server.on('exit', (code) => reject(new Error(`the server ended with ${code}: ${output}`)));
  });
}

async function shot(page, name) {
  if (!process.env.SHOTS) return;
  mkdirSync(process.env.SHOTS, { recursive: true });
  await page.screenshot({ path: path.join(process.env.SHOTS, `${name}.png`) });
}

/** A page that reports its own errors, and refuses to ask anything of another server. */
async function openPage(browser, url, colorScheme) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, colorScheme });
  const problems = [];
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('request', (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith('data:')) problems.push(`asked ${request.url()}`);
  });
  await page.goto(`${url}/`);
  return { page, problems };
}

async function ingest(url, table, rows) {
  const body = rows.map((r) => (typeof r === 'string' ? r : JSON.stringify(r))).join('\n');
  const response = await fetch(`${url}/v1/ingest/${table}?wait=published`, { method: 'POST', body });
  assert.equal(response.status, 200, await response.clone().text());
  return response.json();
}

/** The text of the first cell of a row that begins with this label, in the table on screen. */
const cell = (page, label, column) =>
  page.locator('main tbody tr', { hasText: label }).first().locator('td').nth(column);

async function fromNothing(page) {
  await page.getByRole('heading', { name: 'Create your first table' }).waitFor();
  await shot(page, 'empty');
  await page.getByRole('button', { name: 'Create it and send some rows' }).click();
  await page.locator('article[data-view="totals"] .tile b').first().waitFor();
  await page.locator('article[data-view="revenue"] .barrow').nth(2).waitFor();
  const first = await page.locator('article[data-view="totals"] .tile b').first().textContent();
  await page.waitForFunction(
    (before) => document.querySelector('article[data-view="totals"] .tile b').textContent !== before, first, { timeout: 10_000 });
  await page.waitForTimeout(3000);
  await shot(page, 'dashboard');
}

async function liveTable(page, url) {
  await page.locator('#side a', { hasText: 'revenue' }).click();
  await page.getByRole('heading', { name: 'revenue', exact: true }).waitFor();
  await ingest(url, 'orders', [{ id: 1_000_001, item: 'sake', price: 9.5 }]);
  await cell(page, 'sake', 1).waitFor();
  assert.equal(await cell(page, 'sake', 1).textContent(), '1');
  await ingest(url, 'orders', [{ id: 1_000_002, item: 'sake', price: 0.5 }]);
  await page.waitForFunction(() =>
    [...document.querySelectorAll('main tbody tr')].some((tr) => tr.textContent.startsWith('sake') && tr.children[1].textContent === '2'));
  assert.match(await cell(page, 'sake', 1).getAttribute('class'), /up/, 'the changed cell flashes');
  await shot(page, 'view');
}

async function sideTables(page, url) {
  const answer = await ingest(url, 'orders', ['{"id": "not a number"}']);
  assert.equal(answer.refused, 1);
  await page.locator('#side a', { hasText: 'orders' }).first().click();
  await page.locator('.side-tables a', { hasText: 'orders$bad: 1' }).click();
  await page.locator('main tbody tr', { hasText: 'not a number' }).first().waitFor();
  await shot(page, 'bad');
}

async function sqlBox(page) {
  await page.keyboard.press('/');
  await page.locator('#sql-text').fill('SELECT 1;\nSELECT item, nothing FROM orders');
  await page.keyboard.press('Control+Enter');
  await page.locator('.problem .caret').waitFor();
  const lines = (await page.locator('.problem pre').textContent()).split('\n');
  assert.equal(lines[1].indexOf('^'), lines[0].indexOf('nothing'), 'the caret is below the word');
  await shot(page, 'sql-error');
  await page.locator('#sql-text').fill("SELECT item, count(*) AS n FROM orders WHERE item = 'sake' GROUP BY item");
  await page.keyboard.press('Control+Enter');
  await page.locator('#sql-output td', { hasText: 'sake' }).waitFor();
  await shot(page, 'sql');
}

const { server, url } = await startServer();
const browser = await chromium.launch({ executablePath: browserPath, args: ['--no-sandbox', '--disable-background-networking'] });
try {
  const { page, problems } = await openPage(browser, url, 'light');
  await fromNothing(page);
  await liveTable(page, url);
  await sideTables(page, url);
  await sqlBox(page);
  const dark = await openPage(browser, url, 'dark');
  await dark.page.locator('article .tile b').first().waitFor();
  await dark.page.waitForTimeout(1500);
  await shot(dark.page, 'dark');
  assert.deepEqual([...problems, ...dark.problems], []);
  console.log('the console works');
} finally {
  await browser.close();
  server.removeAllListeners('exit');
  server.kill();
}
