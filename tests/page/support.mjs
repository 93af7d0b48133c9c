// A running server, a browser, and models with other class names.

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";
import axe from "axe-core";
import { chromium } from "playwright-core";

export const OUT = fileURLToPath(new URL("out/", import.meta.url));
export const MODEL = `${OUT}run/model.safetensors`;
mkdirSync(OUT, { recursive: true });

export const PHONE = { width: 390, height: 844 };
export const DESKTOP = { width: 1280, height: 900 };

const running = new Set();

/** Starts `sdpoint serve` and waits until its models are loaded. */
export async function serve(models = [`shapes=${MODEL}`], options = []) {
  const listen = ["--listen", "127.0.0.1:0", "--grpc", "off", "--metrics", "off"];
  const child = spawn(process.env.SDPOINT, ["serve", ...models, "--objective", "100ms",
    ...(options.includes("--listen") ? ["--grpc", "off", "--metrics", "off"] : listen), ...options],
  { stdio: ["ignore", "pipe", "inherit"] });
  running.add(child);
  const [line] = await new Promise((resolve) => createInterface(child.stdout).once("line", (l) => resolve([l])));
  const address = line.split(/\s+/)[1];
  for (let tries = 0; ; tries++) {
    const ready = await fetch(`${address}/v2/health/ready`).catch(() => null);
    if (ready?.status === 200) break;
    assert.ok(tries < 600, "the server is not ready");
    await sleep(100);
  }
  const stop = async () => {
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    await ended;
    running.delete(child);
  };
  return { address, stop };
}

export const sleep = (time) => new Promise((done) => setTimeout(done, time));

let browser = null;

/** A page in a browser of its own, which fails the test on errors and on requests elsewhere. */
export async function open(url, { viewport = DESKTOP, scheme = "light", scale = 1, expected = [], ...more } = {}) {
  browser ??= await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
  });
  const context = await browser.newContext({
    viewport, colorScheme: scheme, deviceScaleFactor: scale, ...more,
  });
  context.setDefaultTimeout(15_000);
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => {
    const text = message.text();
    if (message.type() === "error" && !expected.some((part) => text.includes(part))) problems.push(text);
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(new URL(url).origin) && !/^(blob|data|file):/.test(request.url())) {
      problems.push(`a request to ${request.url()}`);
    }
  });
  page.on("dialog", (dialog) => {
    problems.push(`a dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  await page.goto(url);
  const done = async () => {
    await context.close();
    assert.deepEqual(problems, []);
  };
  return { page, context, done };
}

/** Closes the browser, and the servers of tests that failed. */
export async function close() {
  await browser?.close();
  running.forEach((child) => child.kill());
}

/** Waits until pane A (or another) shows an answer to what it was asked last. */
export async function answered(page, pane = "a") {
  await page.locator(`#pane-${pane}[data-state="answered"]`).waitFor();
  return {
    classes: await page.locator(`#pane-${pane} .answers .class`).allTextContents(),
    by: await tile(page, pane, "answered by"),
    chosen: await page.locator(`#pane-${pane} .chosen`).textContent(),
  };
}

export async function tile(page, pane, label) {
  return page.locator(`#pane-${pane} .tiles div`, { hasText: label }).locator("dd").textContent();
}

/** A screenshot for people to look at; of the whole page unless told otherwise. */
export async function picture(page, name, whole = true) {
  await page.evaluate(() => scrollTo({ top: 0, behavior: "instant" }));
  await page.screenshot({ path: `${OUT}${name}`, fullPage: whole });
}

/** Waits until something is so. */
export async function until(what, test, time = 30_000) {
  const end = Date.now() + time;
  for (;;) {
    const found = await test();
    if (found) return found;
    assert.ok(Date.now() < end, `not in time: ${what}`);
    await sleep(100);
  }
}

/** Fails on barriers that axe-core finds, even moderate ones. */
export async function noBarriers(page, what) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const told = violations.filter(({ impact }) => impact !== "minor").map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join("\n  ")}`);
  assert.deepEqual(told, [], what);
}

/** Fails if the page is wider than its window. */
export async function fits(page, what) {
  const [wide, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= window, `${what}: ${wide} pixels in ${window}`);
}

/** The focused element, in words. */
export function focused(page) {
  return page.evaluate(() => {
    const element = document.activeElement;
    return `${element.tagName} ${element.id} ${element.getAttribute("aria-label") ?? element.textContent.trim()}`;
  });
}

/** Presses Tab until the focused element's words contain a text. */
export async function tabTo(page, text, most = 60) {
  for (let i = 0; i < most; i++) {
    if ((await focused(page)).includes(text)) return;
    await page.keyboard.press("Tab");
  }
  assert.fail(`Tab does not reach ${text}`);
}

/** A copy of the model with other class names, and a right checksum. */
export function renamed(path, rename) {
  return edited(path, (document) => (document.classes = document.classes.map(rename)));
}

/** A copy of the model whose document is changed, with a right checksum. */
export function edited(path, change) {
  const file = readFileSync(MODEL);
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + length));
  const document = JSON.parse(header.__metadata__.sdpoint);
  change(document);
  document.sha256 = "0".repeat(64);
  header.__metadata__.sdpoint = JSON.stringify(document);
  let text = Buffer.from(JSON.stringify(header));
  text = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, " ")]);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  const whole = Buffer.concat([size, text, file.subarray(8 + length)]);
  const digest = createHash("sha256").update(whole).digest("hex");
  whole.write(digest, whole.indexOf("0".repeat(64)), "ascii");
  writeFileSync(path, whole);
  return path;
}
