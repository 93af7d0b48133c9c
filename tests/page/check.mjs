// The page as people use it. `tests/page/run` runs this and `cases.mjs`.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { after, before, test } from "node:test";
import {
  DESKTOP, MODEL, OUT, PHONE, answered, close, fits, focused, noBarriers, open, picture, renamed, serve, sleep, tabTo,
  until,
} from "./support.mjs";

let server;
before(async () => {
  server = await serve();
});
after(async () => {
  await close();
  await server.stop();
});

const sample = async (index) => {
  const response = await fetch(`${server.address}/models/shapes/samples/${index}`);
  return Buffer.from(await response.arrayBuffer());
};

for (const [size, viewport, scale] of [["phone", PHONE, 2], ["desktop", DESKTOP, 1],
  // A window of 1280×900 at 200 % zoom.
  ["zoomed", { width: 640, height: 450 }, 2], ["narrow", { width: 320, height: 640 }, 2]]) {
  for (const scheme of ["light", "dark"]) {
    test(`${size}, ${scheme}: everything is there, fits, and has no barriers`, async () => {
      const { page, done } = await open(server.address, { viewport, scheme, scale });
      const { classes } = await answered(page);
      assert.equal(classes.length, 5);
      await page.locator("#plot .dot").first().waitFor();
      assert.equal(await page.locator("#sample-list button").count(), 12);
      await fits(page, "one pane");
      await noBarriers(page, "one pane");
      await picture(page, `${size}-${scheme}.png`);
      await page.click("#compare");
      await answered(page, "b");
      await page.locator("summary").click();
      await fits(page, "two panes");
      await noBarriers(page, "two panes");
      await picture(page, `${size}-${scheme}-two.png`);
      await done();
    });
  }
}

test("nothing moves while it loads and answers", async () => {
  const { page, done } = await open(server.address);
  await page.addInitScript(() => {
    globalThis.moved = [];
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        if (!entry.hadRecentInput) globalThis.moved.push(entry.value);
      }
    }).observe({ type: "layout-shift", buffered: true });
  });
  await page.reload();
  await answered(page);
  await page.locator("#sample-list button").nth(3).click();
  await answered(page);
  await sleep(1500);
  const moved = await page.evaluate(() => globalThis.moved.reduce((sum, value) => sum + value, 0));
  // The list of samples is unknown until the model is.
  assert.ok(moved < 0.1, `${moved}`);
  await done();
});

test("the slider answers as it moves, from the cheapest instance to beyond full", async () => {
  const { page, done } = await open(server.address);
  assert.equal((await answered(page)).by, "full");
  const slider = page.locator("#slider-a");
  await slider.focus();
  await page.keyboard.press("Home");
  await until("the cheapest", async () => (await answered(page)).by !== "full");
  const cheapest = await page.locator("#pane-a .chosen").textContent();
  assert.equal((await answered(page)).by, cheapest);
  const seen = new Set();
  const last = Number(await slider.getAttribute("max"));
  for (let i = 0; i <= last; i++) {
    const chosen = await page.locator("#pane-a .chosen").textContent();
    seen.add(chosen);
    assert.ok((await slider.getAttribute("aria-valuetext")).startsWith(chosen));
    if (!/[>+]/.test(chosen)) {
      await until(`the answer of ${chosen}`, async () => (await answered(page)).by === chosen);
    }
    if (chosen.includes("+")) await until("the ensemble's answer", async () => chosen.startsWith((await answered(page)).by));
    await page.keyboard.press("ArrowRight");
  }
  assert.equal(seen.size, last + 1);
  assert.ok(seen.has("full"));
  const { instances } = await (await fetch(`${server.address}/models/shapes`)).json();
  for (const { name, kind } of instances) {
    if (kind !== "instance") assert.ok([...seen].some((stop) => stop.startsWith(name)), name);
  }
  await done();
});

test("a deadline instead of a cost", async () => {
  const expected = ["status of 503", "status of 504"];
  const { page, done } = await open(server.address, { expected });
  await answered(page);
  await page.locator("#pane-a").getByRole("button", { name: "Deadline" }).click();
  await until("a deadline is set", async () => (await page.locator("#pane-a .chosen").textContent()).startsWith("within"));
  await page.locator("#slider-a").focus();
  await page.keyboard.press("End");
  await answered(page);
  assert.match(page.url(), /a=\d+ms/);
  // The instance that answered is marked on the curve.
  await until("a mark", async () => (await page.locator("#plot .dot.a").getAttribute("aria-label"))
    .startsWith(`${(await answered(page)).by},`));
  await page.keyboard.press("Home");
  const least = await page.locator("#pane-a .chosen").textContent();
  assert.ok(Number(least.match(/[\d.]+/)[0]) >= 1, least);
  await page.evaluate(() => (location.hash = location.hash.replace(/a=[^&]*/, "a=0.01ms")));
  await page.locator('#pane-a[data-state="failed"]').getByText("Too tight").waitFor();
  await page.locator("#pane-a").getByRole("button", { name: "Cost" }).click();
  assert.equal((await answered(page)).chosen, "full");
  await done();
});

test("two panes compare two costs, and a link keeps all of it", async () => {
  const { page, done } = await open(server.address);
  await answered(page);
  await page.locator("#sample-list button").nth(4).click();
  await page.click("#compare");
  const cheap = await answered(page, "b");
  assert.notEqual(cheap.by, "full");
  assert.equal((await answered(page)).by, "full");
  await page.locator("#unit").getByRole("button", { name: "Milliseconds" }).click();
  await page.locator("#plot").getByText("time of one image").waitFor();
  const link = page.url();
  const other = await open(link);
  assert.equal((await answered(other.page, "b")).by, cheap.by);
  assert.equal(await other.page.locator('#unit [aria-pressed="true"]').textContent(), "Milliseconds");
  assert.equal(await other.page.locator('#sample-list [aria-pressed="true"]').getAttribute("aria-label"),
    await page.locator('#sample-list [aria-pressed="true"]').getAttribute("aria-label"));
  await other.page.getByRole("button", { name: "Close pane B" }).click();
  assert.equal(await other.page.locator("#pane-b").isVisible(), false);
  assert.ok(!other.page.url().includes("b="));
  // The link of the first page in the second's address bar.
  await other.page.evaluate((hash) => (location.hash = hash), new URL(link).hash);
  await answered(other.page, "b");
  await other.done();
  await done();
});

test("links with nonsense open the page", async () => {
  for (const hash of ["#a=77@0.5&b=x&sample=999&model=cats&unit=q", "#%%%", "#a=0ms", "#a=1e9ms", "#sample=-1", "#a=<img src=x>"]) {
    const { page, done } = await open(`${server.address}/${hash}`, { expected: ["status of 400", "status of 504"] });
    await page.locator('#pane-a:is([data-state="answered"],[data-state="failed"])').waitFor();
    await done();
  }
});

test("every instance of the curve can be hovered and chosen", async () => {
  const { page, done } = await open(server.address);
  await answered(page);
  const { instances } = await (await fetch(`${server.address}/models/shapes`)).json();
  const dots = page.locator("#plot .dot");
  assert.equal(await dots.count(), instances.length);
  // The one farthest from the others, which the pointer cannot confuse.
  const dot = page.locator('#plot .dot[aria-label^="0@0.5,"]');
  await dot.hover();
  await page.locator("#plot .tip", { hasText: "accuracy" }).waitFor();
  assert.equal(await page.locator("#plot .tip strong").textContent(), "0@0.5");
  await dot.click();
  await until("it runs", async () => (await answered(page)).by === "0@0.5");
  assert.equal(await dot.getAttribute("aria-checked"), "true");
  // All others by the table.
  await page.locator("summary").click();
  for (const name of await page.locator("#table tbody th").allTextContents()) {
    await page.locator("#table").getByRole("button", { name, exact: true }).click();
    await until(name, async () => (await page.locator("#pane-a .chosen").textContent()) === name);
    await answered(page);
  }
  await done();
});

test("by keyboard alone: skip, image, cost, comparison, curve, load", async () => {
  const { page, done } = await open(server.address, { expected: ["status of 503", "status of 504"] });
  await answered(page);
  await page.keyboard.press("Tab");
  assert.match(await focused(page), /Skip to content/);
  await tabTo(page, "Test image 2");
  await page.keyboard.press("Enter");
  await until("the second image", async () => (await page.locator("#image-name").textContent()).includes("test image 2"));
  await tabTo(page, "Pane A: cost");
  await page.keyboard.press("Home");
  await until("the cheapest", async () => (await answered(page)).by !== "full");
  await tabTo(page, "Compare");
  await page.keyboard.press("Enter");
  assert.match(await focused(page), /Pane B: cost/);
  await answered(page, "b");
  await tabTo(page, "accuracy");
  const before = await page.locator("#pane-b .chosen").textContent();
  await page.keyboard.press("ArrowLeft");
  await until("pane B follows the curve", async () => (await page.locator("#pane-b .chosen").textContent()) !== before
    || (await page.locator('#plot .dot[tabindex="0"]').count()) === 1);
  await tabTo(page, "Make load");
  await page.keyboard.press("Enter");
  await until("the button to stop", async () => /Stop/.test(await focused(page)));
  await page.keyboard.press("Enter");
  await until("the button to make load", async () => /Make load/.test(await focused(page)));
  await tabTo(page, "Images per second");
  await page.keyboard.press("ArrowLeft");
  await page.locator("#mix .tip", { hasText: "answered" }).waitFor();
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("#mix .tip").isVisible(), false);
  await done();
});

test("an image is chosen, dropped, pasted, or taken by the camera", async () => {
  const { page, done } = await open(server.address);
  await answered(page);
  const png = await sample(3);
  await page.locator("#file").setInputFiles({ name: "mine.png", mimeType: "image/png", buffer: png });
  await until("its name", async () => (await page.locator("#image-name").textContent()).includes("mine.png"));
  await answered(page);
  for (const kind of ["drop", "paste"]) {
    await page.evaluate(([kind, base64]) => {
      const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], `${kind}ped.png`, { type: "image/png" }));
      const event = kind === "drop"
        ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
      document.body.dispatchEvent(event);
    }, [kind, png.toString("base64")]);
    await until(kind, async () => (await page.locator("#image-name").textContent()).includes(`${kind}ped.png`));
    await answered(page);
  }
  await page.click("#camera");
  await page.locator("#shoot:enabled").click();
  await until("the camera's picture", async () => (await page.locator("#image-name").textContent()).includes("camera"));
  await answered(page);
  await page.click("#camera");
  await page.locator("#shoot:enabled").waitFor();
  await page.keyboard.press("Escape");
  await until("the camera is off", async () => page.evaluate(() => document.getElementById("video").srcObject === null));
  await done();
});

test("large images and other formats are converted, and what is no image is refused", async () => {
  const { page, done } = await open(server.address);
  await answered(page);
  const large = await page.evaluate(async () => {
    const canvas = new OffscreenCanvas(3000, 2000);
    const context = canvas.getContext("2d");
    const noise = context.createImageData(3000, 2000);
    for (let i = 0; i < noise.data.length; i++) noise.data[i] = i % 4 === 3 ? 255 : 256 * Math.random();
    context.putImageData(noise, 0, 0);
    const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
    return btoa(Array.from(new Uint8Array(await blob.arrayBuffer()), (b) => String.fromCharCode(b)).join(""));
  });
  const choose = (name, mimeType, buffer) => page.locator("#file").setInputFiles({ name, mimeType, buffer });
  await choose("large.jpg", "image/jpeg", Buffer.from(large, "base64"));
  await until("it is reduced", async () => (await page.locator("#image-name").textContent()).includes("1280 × 853"));
  await answered(page);
  const gif = Buffer.from("R0lGODlhAQABAIAAAP8AAAAAACwAAAAAAQABAAACAkQBADs=", "base64");
  await choose("dot.gif", "image/gif", gif);
  await until("it is converted", async () => (await page.locator("#image-name").textContent()).includes("sent as JPEG"));
  await answered(page);
  const svg = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>';
  for (const [name, type, content, part] of [
    ["<img src=x onerror=alert(1)>.txt", "text/plain", "hello", "is no image"],
    ["evil.svg", "image/svg+xml", svg, "is no image"],
    ["empty.png", "image/png", "", "is empty"],
  ]) {
    await choose(name, type, Buffer.from(content));
    await until(name, async () => {
      const said = await page.locator("#image-name").textContent();
      return said.includes(name) && said.includes(part);
    });
  }
  assert.equal(await page.locator("img[src=x]").count(), 0);
  await done();
});

test("damaged images are explained, and the next one is answered", async () => {
  const { page, done } = await open(server.address, { expected: ["status of 400", "ERR_"] });
  await answered(page);
  const png = await sample(0);
  await page.locator("#file").setInputFiles({ name: "cut.png", mimeType: "image/png", buffer: png.subarray(0, 60) });
  await page.locator('#pane-a[data-state="failed"]').getByText("truncated").waitFor();
  await page.locator("#sample-list button").first().click();
  await answered(page);
  await done();
});

test("load from the page moves the mix, and it comes back", { timeout: 120_000 }, async () => {
  const expected = ["status of 503", "status of 504", "status of 429"];
  const { page, done } = await open(server.address, { expected });
  await answered(page);
  await page.locator("#peak").selectOption("most");
  await page.click("#make");
  const load = () => fetch(`${server.address}/models/shapes/load`).then((response) => response.json());
  const cheap = (second) => Object.keys(second.images).some((name) => name !== "full");
  await until("cheaper instances answer", async () => (await load()).seconds.some(
    (second) => cheap(second) && second.answered > 5), 40_000);
  await page.locator("#mix .share").first().waitFor();
  assert.ok(await page.locator("#mix-legend li").count() >= 1);
  await picture(page, `load.png`);
  await page.click("#make");
  assert.equal(await page.locator("#make").textContent(), "Make load for 30 s");
  await until("the queue is empty", async () => (await load()).queued_images === 0);
  await page.locator("#sample-list button").nth(2).click();
  assert.equal((await answered(page)).by, "full");
  await done();
});

test("load ends by itself", { timeout: 120_000 }, async () => {
  const expected = ["status of 503", "status of 504", "status of 429"];
  const { page, done } = await open(server.address, { expected });
  await answered(page);
  await page.locator("#peak").selectOption("half");
  await page.click("#make");
  await until("it begins", async () => (await page.locator("#make").textContent()) === "Stop");
  await until("it ends", async () => (await page.locator("#make").textContent()).startsWith("Make"), 45_000);
  await done();
});

test("a broken network is said and overcome", { timeout: 120_000 }, async () => {
  const { page, context, done } = await open(server.address, { expected: ["ERR_", "Failed to load"] });
  await answered(page);
  await context.setOffline(true);
  await page.locator("#trouble", { hasText: "cannot be reached" }).waitFor();
  await noBarriers(page, "without a connection");
  await page.locator("#slider-a").focus();
  await page.keyboard.press("Home");
  await page.locator('#pane-a[data-state="failed"]').getByText("No connection").waitFor();
  await picture(page, `offline.png`, false);
  await context.setOffline(false);
  await page.locator("#trouble").waitFor({ state: "hidden" });
  await answered(page);
  await done();
});

test("a slow network shows that it waits, and the last choice counts", async () => {
  const { page, done } = await open(server.address);
  await answered(page);
  await page.route("**/predict?*", async (route) => {
    await sleep(1500);
    await route.continue();
  });
  await page.locator("#slider-a").focus();
  await page.keyboard.press("Home");
  await page.locator('#pane-a[data-state="waiting"]').waitFor();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Home");
  const chosen = await page.locator("#pane-a .chosen").textContent();
  await until("the last choice", async () => (await answered(page)).by === chosen);
  await done();
});

test("a first visit over a slow network has something to show", async () => {
  const { page, done } = await open(server.address);
  await page.route("**/models**", async (route) => {
    await sleep(1200);
    await route.continue().catch(() => {});
  });
  await page.reload();
  await page.locator("#about", { hasText: "Loading" }).waitFor();
  await picture(page, `loading.png`, false);
  await answered(page);
  await done();
});

test("answers that are no answers are told", async () => {
  const { page, done } = await open(server.address, { expected: ["status of 502", "ERR_"] });
  await answered(page);
  await page.route("**/predict?*", (route) => route.fulfill({ status: 502, body: "<b>bad gateway</b>" }));
  await page.locator("#slider-a").focus();
  await page.keyboard.press("Home");
  await page.locator('#pane-a[data-state="failed"]').getByText("status 502").waitFor();
  await page.unroute("**/predict?*");
  await page.getByRole("button", { name: "Try again" }).click();
  await answered(page);
  const nothing = (route) => route.fulfill({ status: 200, contentType: "application/json", body: "{}" });
  await page.route("**/predict?*", nothing);
  await page.route("**/load?*", nothing);
  await page.locator("#slider-a").focus();
  await page.keyboard.press("End");
  await page.locator('#pane-a[data-state="failed"]').getByText("not one of an sdpoint server").waitFor();
  await page.locator("#trouble").getByText("not one of an sdpoint server").waitFor();
  await page.unroute("**/predict?*");
  await page.unroute("**/load?*");
  await page.getByRole("button", { name: "Try again" }).click();
  await answered(page);
  await until("the load is shown again", async () => !(await page.locator("#trouble").isVisible()));
  await done();
});

test("a token is asked for once and kept for the session", async () => {
  const token = "0123456789abcdef0123";
  writeFileSync(`${OUT}token`, token);
  const locked = await serve(undefined, ["--token-file", `${OUT}token`]);
  const { page, context, done } = await open(locked.address, { expected: ["status of 401"] });
  const dialog = page.locator("#token-dialog");
  await dialog.waitFor();
  await noBarriers(page, "the question for a token");
  for (let i = 0; i < 3; i++) await page.keyboard.press("Escape");
  assert.ok(await dialog.isVisible());
  assert.equal(await page.locator("#token-wrong").textContent(), "");
  await page.fill("#token", "wrong-token-wrong-token");
  await page.keyboard.press("Enter");
  await dialog.getByText("does not accept").waitFor();
  await picture(page, `token.png`, false);
  await page.fill("#token", token);
  await page.click("#token-go");
  await answered(page);
  assert.equal(await dialog.isVisible(), false);
  await page.reload();
  await answered(page);
  const kept = await page.evaluate(() => [Object.values(localStorage), document.cookie, location.href, Object.values(sessionStorage)]);
  assert.deepEqual(kept[0], []);
  assert.equal(kept[1], "");
  assert.ok(!kept[2].includes(token));
  assert.deepEqual(kept[3], [token]);
  const tab = await context.newPage();
  await tab.goto(locked.address);
  await tab.locator("#token-dialog").waitFor();
  await tab.close();
  await done();
  await locked.stop();
});

test("hostile class names are text", async () => {
  const names = ["<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "\u202Egnp.cat", "x".repeat(4000), " "];
  const path = renamed(`${OUT}hostile.safetensors`, (_, index) => names[index % names.length] + (index >= names.length ? index : ""));
  const hostile = await serve([`evil=${path}`]);
  for (const viewport of [DESKTOP, PHONE]) {
    const { page, done } = await open(hostile.address, { viewport });
    const shown = new Set();
    for (let index = 0; index < 12; index++) {
      await page.locator("#sample-list button").nth(index).click();
      for (const name of (await answered(page)).classes) shown.add(name);
    }
    assert.ok([...shown].some((name) => name.includes("<img")));
    assert.equal(await page.locator("img[src=x]").count(), 0);
    await fits(page, "long names");
    await picture(page, `hostile-${viewport.width}.png`, false);
    await done();
  }
  await hostile.stop();
});

test("one of several models is chosen", async () => {
  const path = renamed(`${OUT}other.safetensors`, (name) => `the ${name}`);
  const two = await serve([`one=${MODEL}`, `two=${path}`]);
  const { page, done } = await open(two.address);
  await answered(page);
  await page.locator("#model").selectOption("two");
  await until("the other's classes", async () => (await answered(page)).classes.every((name) => name.startsWith("the ")));
  assert.ok(page.url().includes("model=two"));
  await page.reload();
  assert.ok((await answered(page)).classes[0].startsWith("the "));
  await fits(page, "two models");
  await done();
  await two.stop();
});

test("a server that was started again is found again", { timeout: 120_000 }, async () => {
  const first = await serve();
  const { port } = new URL(first.address);
  const { page, done } = await open(first.address, { expected: ["ERR_", "status of 404"] });
  await answered(page);
  await first.stop();
  await page.locator("#trouble").waitFor();
  const second = await serve([`another=${MODEL}`], ["--listen", `127.0.0.1:${port}`]);
  await until("the other model", async () => (await page.locator("#about").textContent()).startsWith("another"), 60_000);
  await page.locator("#trouble").waitFor({ state: "hidden" });
  await answered(page);
  await done();
  await second.stop();
});

test("a model without test images or accuracies says so", async () => {
  const old = await serve([`old=${new URL("../../fixtures/models/v2.safetensors", import.meta.url).pathname}`]);
  const { page, done } = await open(old.address);
  await page.locator("#no-image").getByText("Drop or paste an image here").waitFor();
  await page.locator('#pane-a[data-state="empty"]').getByText("Choose an image").waitFor();
  assert.equal(await page.locator("#samples").isVisible(), false);
  await noBarriers(page, "an empty page");
  await picture(page, `empty.png`, false);
  await page.locator("#file").setInputFiles({ name: "a.png", mimeType: "image/png", buffer: await sample(1) });
  await answered(page);
  // This one has an ensemble, beyond the cost of full.
  await page.locator("#pane-a").getByText("beyond").waitFor();
  await page.locator("#slider-a").focus();
  await page.keyboard.press("End");
  await until("the ensemble answers", async () => (await answered(page)).by === "0@0.5+2@0.5");
  await done();
  await old.stop();
});

test("evaluate --html writes a file that explains itself", { timeout: 120_000 }, async () => {
  const path = `${OUT}curve.html`;
  execFileSync(process.env.SDPOINT, ["evaluate", MODEL, "--data", "shapes", "--html", path, "--force"], { stdio: "ignore" });
  for (const [viewport, scheme] of [[DESKTOP, "light"], [PHONE, "dark"]]) {
    const { page, done } = await open(pathToFileURL(path).href, { viewport, scheme });
    const dot = page.locator('#plot .dot[aria-label^="0@0.5,"]');
    await dot.hover();
    await page.locator("#plot .tip", { hasText: "accuracy" }).waitFor();
    await dot.click();
    assert.match(await page.locator("#chosen").textContent(), /^0@0\.5/);
    assert.match(await page.locator("#table tr.picked").textContent(), /^0@0\.5/);
    await page.keyboard.press("ArrowRight");
    assert.doesNotMatch(await page.locator("#chosen").textContent(), /^0@0\.5 /);
    await fits(page, "the report");
    await noBarriers(page, "the report");
    await picture(page, `report-${scheme}.png`);
    await done();
  }
});
