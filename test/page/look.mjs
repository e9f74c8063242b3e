// Looks at pages in Chromium and prints what it finds as JSON. The views are read as
// JSON from the standard input; see browser_test.go.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const { executable, views } = JSON.parse(readFileSync(0, 'utf8'));
const patience = 300_000; // on a busy machine too
const browser = await chromium.launch({ executablePath: executable, args: ['--no-sandbox'], timeout: patience });

// find runs on the page.
function find() {
	const root = document.documentElement;
	const attributes = new Set();
	const links = new Set();
	for (const element of document.querySelectorAll('*')) {
		for (const { name, value } of element.attributes) {
			attributes.add(name);
			if (['href', 'src', 'action', 'formaction', 'xlink:href'].includes(name)) links.add(value);
		}
	}
	return {
		text: document.body.innerText,
		tags: [...new Set([...document.querySelectorAll('*')].map((element) => element.localName))],
		attributes: [...attributes],
		links: [...links],
		overflow: root.scrollWidth - root.clientWidth,
		hidden: getComputedStyle(document.querySelector('main')).display === 'none',
		pwned: 'pwned' in window,
		headings: [...document.querySelectorAll('h1, h2, h3, h4')].map((h) => Number(h.localName[1])),
	};
}

// act does what a person would do: each step is [what, name, value].
async function act(page, [what, name, value]) {
	switch (what) {
		case 'fill': return page.getByLabel(name, { exact: true }).fill(value);
		case 'press': return page.keyboard.press(name);
		case 'check': return page.getByLabel(name, { exact: true }).check();
		case 'click': return page.getByRole(name, { name: value, exact: true }).first().click();
		case 'focused': {
			const text = await page.evaluate(() => document.activeElement.innerText);
			if (text !== name) throw new Error(`the focus is on ${JSON.stringify(text)}, not ${JSON.stringify(name)}`);
			return;
		}
		default: throw new Error(`unknown step ${what}`);
	}
}

async function look(view) {
	const context = await browser.newContext({
		viewport: { width: view.width, height: 900 }, colorScheme: view.scheme,
		bypassCSP: view.withoutPolicy, httpCredentials: view.credentials,
	});
	const found = { console: [], requests: [], dialogs: 0, violations: [], failed: '' };
	const page = await context.newPage();
	page.setDefaultTimeout(patience);
	page.on('console', (message) => found.console.push(message.text()));
	page.on('pageerror', (error) => found.console.push(String(error)));
	page.on('request', (request) => found.requests.push(request.url()));
	page.on('dialog', (dialog) => { found.dialogs++; dialog.dismiss(); });
	try {
		await page.goto(view.url);
		for (const step of view.steps ?? []) await act(page, step);
		if (view.address) await page.waitForURL(view.address);
		Object.assign(found, await page.evaluate(find));
		if (view.screenshot) await page.screenshot({ path: view.screenshot, fullPage: !view.cut });
		if (view.axe) {
			await page.evaluate(axe);
			const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
			found.violations = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 3).map((node) => node.html).join(' ')}`);
		}
	} catch (error) {
		found.failed = String(error);
	}
	await context.close();
	return found;
}

const results = [];
for (const view of views) results.push(await look(view));
await browser.close();
process.stdout.write(JSON.stringify(results));
