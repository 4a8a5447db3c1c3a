// Uses a page as a person would, in headless Chromium, and prints what it saw as JSON.
//
//     node page/test/browser.mjs PAGE.html CHROMIUM

import { chromium } from "playwright-core";

const [file, executablePath] = process.argv.slice(2);
const seen = { console: [], requests: [] };
const args = ["--no-sandbox", "--disable-gpu"];
const browser = await chromium.launch({ executablePath, args });
const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
page.on("console", (message) => seen.console.push(message.text()));
page.on("pageerror", (error) => seen.console.push(String(error)));
page.on("request", (request) => seen.requests.push(request.url()));

const hash = () => Object.fromEntries(new URLSearchParams(new URL(page.url()).hash.slice(1)));
const text = (selector) => page.locator(selector).first().innerText();
const place = () => page.locator("canvas.main").first().getAttribute("data-selected");
/** Waits until ten frames in a row show the chosen node at one place. */
const settle = () =>
  page.evaluate(async () => {
    const shown = () => document.querySelector("canvas.main")?.dataset.selected;
    for (let same = 0, last = shown(); same < 10; last = shown()) {
      await new Promise(requestAnimationFrame);
      same = shown() === last ? same + 1 : 0;
    }
  });

await page.goto(`file://${file}`);
await page.waitForSelector("body[data-ready]");
seen.title = await page.title();
seen.facts = await page.locator(".facts").innerText();

// The keyboard: to the graph, and from one pass that changed something to the next.
await page.keyboard.press("2");
seen.steps = [];
for (let i = 0; i < 3; i++) {
  await page.keyboard.press("ArrowRight");
  const { pass } = hash();
  const shown = page.locator(".passes .chosen");
  const weight = await shown.locator(".pass").evaluate((e) => getComputedStyle(e).fontWeight);
  seen.steps.push({ pass: Number(pass), name: await shown.locator(".pass").innerText(), weight });
}
await page.keyboard.press("Shift+ArrowRight");
const idle = page.locator(".passes .chosen .pass");
seen.idle = { name: await idle.innerText(), weight: await idle.evaluate((e) => getComputedStyle(e).fontWeight) };

// The slider, to a pass that changed something, and what that pass did.
const diff = Number(await page.locator(".passes li.changed .number").last().innerText());
await page.locator(".slider input").fill(String(diff));
seen.slid = { wanted: diff, pass: Number(hash().pass), title: await text(".pass-title") };
seen.changes = await page.locator(".right .changes li").count();
await page.locator(".right .changes .link").first().click();
seen.chosen = hash().node;

// A click on the canvas, on the node that is there, and beside it.
await settle();
const [x, y] = (await place()).split(" ").map(Number);
const box = await page.locator("canvas.main").first().boundingBox();
await page.keyboard.press("Escape");
seen.cleared = hash().node ?? "";
await page.mouse.click(box.x + x, box.y + y);
seen.clicked = hash().node;
seen.pane = await text(".right h2");
await settle();
seen.place = await place();
await page.mouse.move(box.x + 40, box.y + box.height - 60);
await page.mouse.down();
await page.mouse.move(box.x + 40, box.y + box.height - 160, { steps: 3 });
await page.mouse.up();
await settle();
seen.panned = await place();

// Search: every node that is found says the word; Enter goes from one to the next.
await page.keyboard.press("/");
await page.keyboard.type("linear");
seen.hits = await text(".hits");
await page.keyboard.press("Enter");
const first = hash().node;
await page.keyboard.press("Enter");
seen.found = [first, hash().node];
seen.foundPane = await text(".right h2");
await page.keyboard.press("Escape");
await page.keyboard.press("Escape");

// Every view by its address, light and dark, and on a phone.
seen.views = {};
for (const view of ["summary", "graph", "roofline", "memory", "timeline", "accuracy"]) {
  await page.evaluate((to) => (location.hash = to), `#view=${view}`);
  await page.waitForSelector(`.views [aria-selected="true"]:text-is("${view[0].toUpperCase()}${view.slice(1)}")`);
  seen.views[view] = (await page.locator(view === "graph" ? ".workbench" : "main").innerText()).length;
}
await page.evaluate((to) => (location.hash = to), `#pass=${diff}&node=${encodeURIComponent(seen.chosen)}&mode=split`);
await settle();
seen.pictures = await page.locator("canvas.main").count();
await page.setViewportSize({ width: 380, height: 740 });
await page.emulateMedia({ colorScheme: "dark" });
await settle();
seen.overflow = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
seen.background = await page.locator("#page").evaluate((e) => getComputedStyle(e).backgroundColor);

console.log(JSON.stringify(seen));
await browser.close();
