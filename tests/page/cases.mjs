// Cases in which the page could show something else than what is so. `tests/page/run` runs this.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  DESKTOP, MODEL, OUT, PHONE, answered, close, edited, fits, noBarriers, open, picture, renamed, serve, sleep, tile,
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

/** The description of the model, changed. */
async function describedAs(page, change) {
  const description = await (await fetch(`${server.address}/models/shapes`)).json();
  change(description);
  await page.route("**/models/shapes", (route) => route.fulfill({ json: description }));
}

test("a cascade and an ensemble that others beat are run by their name", async () => {
  const path = edited(`${OUT}beaten.safetensors`, (document) => {
    const numbers = { top5: 1, loss: 1 };
    document.combinations = [
      { combination: { ensemble: ["0@0.5", "1@0.5"] }, macs: 9e6, top1: 0.9, ...numbers },
      { combination: { ensemble: ["0@0.5", "full"] }, macs: 19e6, top1: 0.3, ...numbers },
      { combination: { cascade: { first: "0@0.5", second: "full", threshold: 0 } }, macs: 8e6, top1: 0.8, ...numbers },
      { combination: { cascade: { first: "0@0.5", second: "full", threshold: 1e9 } }, macs: 19e6, top1: 0.4, ...numbers },
    ];
  });
  const beaten = await serve([`beaten=${path}`]);
  const { page, done } = await open(beaten.address);
  await answered(page);
  await page.locator("summary").click();
  const names = await page.locator("#table tbody th").allTextContents();
  const cascades = names.filter((name) => name.startsWith("0@0.5>full"));
  assert.equal(cascades.length, 2);
  for (const [name, by, accuracy] of [["0@0.5+1@0.5", "0@0.5+1@0.5", "90.0 %"], ["0@0.5+full", "0@0.5+full", "30.0 %"],
    [cascades[0], "0@0.5", "80.0 %"], [cascades[1], "full", "40.0 %"]]) {
    await page.locator("#table").getByRole("button", { name, exact: true }).click();
    await until(name, async () => (await answered(page)).by === by);
    assert.equal(await tile(page, "a", "accuracy"), accuracy);
  }
  await done();
  await beaten.stop();
});

/** The colours of the corners of the image as it is shown: red or blue. */
async function corners(page) {
  const png = await page.locator("#shown").screenshot();
  const blank = await page.context().newPage();
  const seen = await blank.evaluate(async (base64) => {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    return [[0.4, 0.4], [0.6, 0.4], [0.4, 0.6], [0.6, 0.6]].map(([x, y]) => {
      const [red] = context.getImageData(x * bitmap.width, y * bitmap.height, 1, 1).data;
      return red > 128 ? "r" : "b";
    }).join("");
  }, png.toString("base64"));
  await blank.close();
  return seen;
}

/** A JPEG that is blue on the left and red on the right as stored, and to be turned by 90°. */
function turned(page, width, height, noise) {
  return page.evaluate(async ([width, height, noise]) => {
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    for (let i = 0; i < pixels.data.length; i += 4) {
      pixels.data.set([(i / 4) % width < width / 2 ? 0 : 255, noise * Math.random(), 0, 255], i);
      pixels.data[i + 2] = 255 - pixels.data[i];
    }
    context.putImageData(pixels, 0, 0);
    const jpeg = new Uint8Array(await (await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 })).arrayBuffer());
    const exif = [255, 225, 0, 34, ...new TextEncoder().encode("Exif\0\0MM"), 0, 42, 0, 0, 0, 8, 0, 1,
      1, 18, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0];
    const all = [...jpeg.subarray(0, 2), ...exif, ...jpeg.subarray(2)];
    return btoa(all.map((byte) => String.fromCharCode(byte)).join(""));
  }, [width, height, noise]).then((text) => Buffer.from(text, "base64"));
}

test("images are shown as the model sees them", async () => {
  const path = edited(`${OUT}upright.safetensors`, (document) => {
    document.features = [...document.features, "exif_orientation"].sort();
    document.preprocessing.exif_orientation = "apply";
  });
  const two = await serve([`stored=${MODEL}`, `upright=${path}`]);
  const { page, done } = await open(two.address);
  await answered(page);
  const small = await turned(page, 40, 40, 0);
  const large = await turned(page, 3000, 2000, 255);
  assert.ok(large.length > 1 << 20);
  const choose = (name, buffer) => page.locator("#file").setInputFiles({ name, mimeType: "image/jpeg", buffer });
  await choose("small.jpg", small);
  await until("the name", async () => (await page.locator("#image-name").textContent()).includes("small"));
  await answered(page);
  assert.equal(await corners(page), "brbr");
  await page.locator("#model").selectOption("upright");
  await until("it is upright", async () => (await corners(page)) === "bbrr");
  await choose("large.jpg", large);
  const sent = (size) => until(size, async () => (await page.locator("#image-name").textContent()).includes(size));
  await sent("853 × 1280");
  assert.equal(await corners(page), "bbrr");
  await page.locator("#model").selectOption("stored");
  await sent("1280 × 853");
  assert.equal(await corners(page), "brbr");
  await answered(page);
  await done();
  await two.stop();
});

test("the frontier is that of the unit shown", async () => {
  const { page, done } = await open(server.address);
  await describedAs(page, ({ instances }) => {
    for (const row of instances) row.ms = row.kind === "instance" ? row.macs / 1e6 : 90;
    // The cheapest takes the longest.
    instances.find((row) => row.name === "0@0.5").ms = 80;
  });
  await page.reload();
  await answered(page);
  await page.locator("summary").click();
  const best = () => page.locator("#table tr.best th").allTextContents();
  const slider = page.locator("#slider-a");
  const first = async () => {
    await slider.focus();
    await page.keyboard.press("Home");
    return page.locator("#pane-a .chosen").textContent();
  };
  assert.ok((await best()).includes("0@0.5"));
  assert.equal(await first(), "0@0.5");
  await page.keyboard.press("End");
  await page.locator("#unit").getByRole("button", { name: "Milliseconds" }).click();
  assert.ok(!(await best()).includes("0@0.5"));
  assert.ok((await best()).length > 0);
  assert.notEqual(await first(), "0@0.5");
  await page.locator("#pane-a").getByText("fastest").waitFor();
  assert.match(await slider.getAttribute("aria-valuetext"), / ms,/);
  await page.locator("#unit").getByRole("button", { name: "MACs" }).click();
  assert.ok((await best()).includes("0@0.5"));
  await done();
});

test("a request that hangs is ended by a newer choice", async () => {
  const { page, done } = await open(server.address, { expected: ["ERR_"] });
  await answered(page);
  let hung = 0;
  const ended = [];
  page.on("requestfailed", (request) => ended.push(request.url()));
  await page.route("**/predict?*", (route) => (hung++ === 0 ? null : route.continue()));
  await page.locator("#slider-a").focus();
  await page.keyboard.press("Home");
  await page.locator('#pane-a[data-state="waiting"]').waitFor();
  const start = Date.now();
  await page.keyboard.press("ArrowRight");
  const chosen = await page.locator("#pane-a .chosen").textContent();
  await until("the newer answer", async () => chosen.startsWith((await answered(page)).by), 5000);
  assert.ok(Date.now() - start < 5000);
  assert.equal(ended.length, 1);
  await done();
});

test("a model that is unloaded says so, and comes back", async () => {
  const admin = await serve([`one=${MODEL}`, `two=${MODEL}`], ["--admin"]);
  const { page, done } = await open(admin.address, { expected: ["status of 503", "status of 400"] });
  await answered(page);
  const change = (name, what) => fetch(`${admin.address}/v2/repository/models/${name}/${what}`, { method: "POST" });
  await change("two", "unload");
  await page.locator("#model option", { hasText: "two (unavailable)" }).waitFor({ state: "attached" });
  await change("one", "unload");
  await page.locator("#about", { hasText: "one is not available: the model was unloaded." }).waitFor();
  await page.locator('#pane-a[data-state="failed"]').getByText("Not available", { exact: true }).waitFor();
  await until("it is announced", async () => (await page.locator("#said").textContent()).includes("unloaded"));
  await picture(page, "unloaded.png", false);
  await change("one", "load");
  await answered(page);
  assert.match(await page.locator("#about").textContent(), /^one is a /);
  await done();
  await admin.stop();
});

test("both panes are announced by name, once the slider rests", async () => {
  const { page, done } = await open(server.address);
  await answered(page);
  await page.click("#compare");
  await answered(page, "b");
  await sleep(1000);
  await page.evaluate(() => {
    globalThis.said = [];
    const region = document.getElementById("said");
    new MutationObserver(() => globalThis.said.push(region.textContent)).observe(region, { childList: true });
  });
  await page.locator("#sample-list button").nth(5).click();
  await sleep(2000);
  const both = await page.evaluate(() => globalThis.said);
  assert.equal(both.length, 1, `${both}`);
  assert.match(both[0], /Pane A: .*Pane B: |Pane B: .*Pane A: /);
  await page.locator("#slider-a").focus();
  for (let i = 0; i < 5; i++) {
    await page.keyboard.press("ArrowLeft");
    await sleep(200);
  }
  await sleep(1500);
  const steps = await page.evaluate(() => globalThis.said);
  assert.ok(steps.length <= 3, `${steps}`);
  await done();
});

test("the charts answer to touch", async () => {
  const { page, done } = await open(server.address, { viewport: PHONE, hasTouch: true, isMobile: true });
  await answered(page);
  const mix = page.locator("#mix .canvas");
  await mix.scrollIntoViewIfNeeded();
  await mix.tap({ position: { x: 200, y: 80 } });
  await page.locator("#mix .tip", { hasText: "answered" }).waitFor();
  await sleep(1500);
  assert.ok(await page.locator("#mix .tip").isVisible());
  await page.locator("#load-title").tap();
  await page.locator("#mix .tip").waitFor({ state: "hidden" });
  const dot = page.locator('#plot .dot[aria-label^="0@0.5,"]');
  await dot.scrollIntoViewIfNeeded();
  await dot.tap();
  await page.locator("#plot .tip", { hasText: "accuracy" }).waitFor();
  assert.equal((await answered(page)).by, "0@0.5");
  await done();
});

/** Two minutes of load by nine instances, with refusals. */
async function busy(page) {
  const { instances } = await (await fetch(`${server.address}/models/shapes`)).json();
  const names = [...new Set(instances.map((row) => row.name))].slice(0, 9);
  await page.route("**/load*", (route) => {
    const seconds = Array.from({ length: 100 }, (_, at) => ({
      at: at + 20, answered: 40, refused: at > 60 ? 9 : 0, refused_images: at > 60 ? 60 : 0, in_time: 40, p50_ms: 20,
      p99_ms: 40 + at / 2,
      images: Object.fromEntries(names.map((name, i) => [name, 12 + Math.round(9 * Math.sin(at / 9 + i))])),
    }));
    return route.fulfill({ json: {
      now: 120, objective_ms: 100, queued_images: 3, answered_per_second: 40, in_time: 0.9, p50_ms: 20, p99_ms: 60, seconds,
    } });
  });
  return names;
}

test("the mix tells its instances apart, and shows what was refused", async () => {
  for (const scheme of ["light", "dark"]) {
    const { page, done } = await open(server.address, { scheme });
    await answered(page);
    const names = await busy(page);
    await until("all of them", async () => (await page.locator("#mix .share").count()) === names.length);
    const light = await page.locator("#mix .share").evaluateAll((shapes) =>
      shapes.map((shape) => Number(getComputedStyle(shape).fill.match(/oklch\(([\d.]+)/)[1])));
    light.slice(1).forEach((value, i) => assert.ok(light[i] - value > 0.05, `${light}`));
    assert.equal(await page.locator("#mix .refused").count(), 1);
    await page.locator("#mix-legend li", { hasText: "refused" }).waitFor();
    assert.ok((await page.locator("#mix .direct").count()) >= 5);
    await page.locator("#mix .canvas").focus();
    await page.keyboard.press("End");
    await page.keyboard.press("ArrowLeft");
    await page.locator("#mix .tip", { hasText: "9 requests" }).waitFor();
    await page.locator("#load").screenshot({ path: `${OUT}mix-${scheme}.png` });
    await done();
  }
});

test("forced colours keep charts, bars and sliders visible", async () => {
  for (const scheme of ["light", "dark"]) {
    const { page, done } = await open(server.address, { forcedColors: "active", scheme });
    await answered(page);
    await busy(page);
    await page.locator("#mix .refused").waitFor();
    await page.click("#compare");
    await answered(page, "b");
    const colours = await page.evaluate(() => {
      const of = (selector, name, pseudo) => getComputedStyle(document.querySelector(selector), pseudo)[name];
      return {
        card: of(".card", "backgroundColor"),
        bar: of(".answers .bar", "backgroundColor", "::before"),
        slider: of("#slider-a", "forcedColorAdjust"),
        frontier: of(".frontier", "stroke"),
        dot: of(".dot.best .mark", "fill"),
        axis: of(".axes text", "fill"),
        time: of(".time", "stroke"),
      };
    });
    for (const [name, colour] of Object.entries(colours)) {
      if (name === "slider") assert.equal(colour, "none");
      else if (name !== "card") assert.notEqual(colour, colours.card, name);
    }
    await picture(page, `forced-${scheme}.png`);
    await done();
  }
});

test("focus is never under the header, forwards or backwards", async () => {
  for (const viewport of [DESKTOP, PHONE, { width: 320, height: 480 }]) {
    const { page, done } = await open(server.address, { viewport, reducedMotion: "reduce" });
    await answered(page);
    await page.click("#compare");
    await answered(page, "b");
    await page.locator("summary").click();
    for (const key of ["Tab", "Shift+Tab"]) {
      await page.evaluate((end) => {
        document.activeElement.blur();
        scrollTo({ top: end ? 1e6 : 0, behavior: "instant" });
      }, key !== "Tab");
      if (key !== "Tab") await page.locator("#mix .canvas").focus();
      for (let i = 0; i < 60; i++) {
        await page.keyboard.press(key);
        await sleep(20);
        const under = await page.evaluate(() => {
          const element = document.activeElement;
          if (!element.closest("main") || element.id === "main") return null;
          const { top, bottom } = element.getBoundingClientRect();
          const header = document.querySelector("header").getBoundingClientRect().bottom;
          return top < header && bottom - top < innerHeight - header
            ? `${element.tagName} ${element.id} ${element.textContent} ${top} ${header}` : null;
        });
        assert.equal(under, null, key);
      }
    }
    await done();
  }
});

test("no text is cut, whatever the width", async () => {
  const { instances } = await (await fetch(`${server.address}/models/shapes`)).json();
  const ensemble = instances.find((row) => row.kind === "ensemble").name;
  const cascade = instances.find((row) => row.kind === "cascade").name;
  for (const [a, b] of [[ensemble, cascade], [ensemble], ["9ms", "full"]]) {
    const hash = new URLSearchParams({ model: "shapes", a, ...(b && { b }) });
    const { page, done } = await open(`${server.address}/#${hash}`, { expected: ["status of 503", "status of 504"] });
    await page.locator('#pane-a:is([data-state="answered"],[data-state="failed"])').waitFor();
    for (const width of [360, 640, 800, 900, 1000, 1280, 1600]) {
      await page.setViewportSize({ width, height: 900 });
      await sleep(150);
      await fits(page, `${width}`);
      const cut = await page.evaluate(() => [...document.querySelectorAll("main :is(p, dt, dd, h1, h2, h3, button, .class):not(.unseen)")]
        .filter((element) => element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).overflowX === "hidden")
        .map((element) => `${element.className} ${element.textContent}`));
      assert.deepEqual(cut, [], `${width}`);
      await picture(page, `width-${width}${b ? (a === ensemble ? "-two" : "-deadline") : ""}.png`);
    }
    await done();
  }
});

test("names on the curve lie on no point, no other name and no tip", async () => {
  for (const viewport of [DESKTOP, { width: 800, height: 900 }, PHONE]) {
    const { page, done } = await open(server.address, { viewport });
    await answered(page);
    await page.click("#compare");
    await answered(page, "b");
    const overlaps = () => page.evaluate(() => {
      const box = (element) => element.getBoundingClientRect();
      const names = [...document.querySelectorAll("#plot .names text")]
        .filter((text) => getComputedStyle(text).visibility === "visible").map((text) => [text.textContent, box(text)]);
      const marks = [...document.querySelectorAll("#plot .dot .mark")].map((mark) => ["a point", box(mark)]);
      const tip = document.querySelector("#plot .tip");
      const others = [...names, ...marks, ...(tip.hidden ? [] : [["the tip", box(tip)]])];
      const found = [];
      for (const [name, a] of names) {
        for (const [other, b] of others) {
          const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
          const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
          // Boxes of text are higher than its letters.
          if (name !== other && wide > 1 && high > 4) found.push(`${name} on ${other}`);
        }
      }
      return found;
    });
    const dots = page.locator("#plot .dot");
    await page.locator("#plot .dot").first().focus();
    await page.keyboard.press("Home");
    for (let i = 0; i < (await dots.count()); i++) {
      await sleep(50);
      assert.deepEqual(await overlaps(), [], `point ${i}`);
      if (i === 3) await page.locator("#curve").screenshot({ path: `${OUT}names-${viewport.width}.png` });
      await page.keyboard.press("ArrowRight");
    }
    await done();
  }
});

test("links to sections leave the history alone", async () => {
  const { page, done } = await open(server.address);
  await answered(page);
  const link = page.url();
  const length = await page.evaluate(() => history.length);
  for (const name of ["Curve", "Load", "Try"]) {
    await page.locator("nav").getByRole("link", { name }).click();
    assert.equal(page.url(), link);
    assert.equal(await page.evaluate(() => document.activeElement.id), name.toLowerCase());
  }
  assert.equal(await page.evaluate(() => history.length), length);
  await done();
});

test("a test image does not outlive its model", async () => {
  const bare = edited(`${OUT}bare.safetensors`, (document) => {
    document.samples = [];
    document.features = document.features.filter((feature) => feature !== "samples");
  });
  const other = renamed(`${OUT}other.safetensors`, (name) => `the ${name}`);
  const three = await serve([`one=${MODEL}`, `bare=${bare}`, `other=${other}`]);
  const { page, done } = await open(`${three.address}/#model=one`);
  await answered(page);
  await page.locator("#model").selectOption("bare");
  await page.locator('#pane-a[data-state="empty"]').waitFor();
  assert.equal(await page.locator("#shown").isVisible(), false);
  assert.equal(await page.locator("#samples").isVisible(), false);
  await noBarriers(page, "a model without images");
  await page.locator("#model").selectOption("other");
  await until("its image", async () => (await answered(page)).classes.every((name) => name.startsWith("the ")));
  assert.match(await page.locator("#image-name").textContent(), /labelled .*the /);
  await done();
  await three.stop();
});
