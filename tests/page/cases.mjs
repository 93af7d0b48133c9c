// Cases in which the page could show something else than what is so. `tests/page/run` runs this.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { deflateSync } from "node:zlib";
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

/** The corners of an image as a browser draws it: A and B above, C and D below, as stored. */
function corners(page, base64) {
  return page.evaluate(async (base64) => {
    const bytes = base64 && Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const source = bytes ? await createImageBitmap(new Blob([bytes])) : document.getElementById("shown");
    if (!bytes) await source.decode();
    const [width, height] = [source.naturalWidth ?? source.width, source.naturalHeight ?? source.height];
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.drawImage(source, 0, 0);
    return [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]].map(([x, y]) => {
      const [red, , blue] = context.getImageData(x * width, y * height, 1, 1).data;
      return "ABCD"[(red > 128) + 2 * (blue > 128)];
    }).join("");
  }, base64);
}

/** An image whose corners differ, in a format of the browser. */
async function cornered(page, type, width, height, noise = 0) {
  const base64 = await page.evaluate(async ([type, width, height, noise]) => {
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    for (let i = 0; i < pixels.data.length; i += 4) {
      const [x, y] = [(i / 4) % width, Math.floor(i / 4 / width)];
      pixels.data.set([x < width / 2 ? 0 : 255, noise * Math.random(), y < height / 2 ? 0 : 255, 255], i);
    }
    context.putImageData(pixels, 0, 0);
    const bytes = new Uint8Array(await (await canvas.convertToBlob({ type, quality: 0.95 })).arrayBuffer());
    return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  }, [type, width, height, noise]);
  return Buffer.from(base64, "base64");
}

/** EXIF data with an orientation, in either order of bytes. */
const exif = (turn, little) => (little
  ? Buffer.from([0x49, 0x49, 42, 0, 8, 0, 0, 0, 1, 0, 18, 1, 3, 0, 1, 0, 0, 0, turn, 0, 0, 0, 0, 0, 0, 0])
  : Buffer.from([0x4d, 0x4d, 0, 42, 0, 0, 0, 8, 0, 1, 1, 18, 0, 3, 0, 0, 0, 1, 0, turn, 0, 0, 0, 0, 0, 0]));

const big = (value, bytes) => Buffer.from(value.toString(16).padStart(2 * bytes, "0"), "hex");

function segment(code, content) {
  return Buffer.concat([Buffer.from([255, code]), big(content.length + 2, 2), content]);
}

function chunk(type, content) {
  let sum = 0xffffffff;
  for (const byte of Buffer.concat([Buffer.from(type), content])) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return Buffer.concat([big(content.length, 4), Buffer.from(type), content, big((sum ^ 0xffffffff) >>> 0, 4)]);
}

const profile = (data) => `\nexif\n${data.length}\n${data.toString("hex").replace(/.{72}/g, "$&\n")}\n`;

/** Ways in which files say how they are to be turned. */
const MARKED = {
  "image/jpeg": {
    first: (file, data) => Buffer.concat([file.subarray(0, 2), segment(0xe1, Buffer.concat([Buffer.from("Exif\0\0"), data])),
      file.subarray(2)]),
    behind: (file, data) => {
      const comment = segment(0xfe, Buffer.alloc(65_000, "x"));
      const marked = MARKED["image/jpeg"].first(file, data).subarray(2, -file.length + 2);
      return Buffer.concat([file.subarray(0, 2), comment, comment, marked, file.subarray(2)]);
    },
    after: (file, data) => {
      const marked = MARKED["image/jpeg"].first(file, data).subarray(2, -file.length + 2);
      return Buffer.concat([file.subarray(0, -2), marked, file.subarray(-2)]);
    },
  },
  "image/png": {
    first: (file, data) => Buffer.concat([file.subarray(0, 33), chunk("eXIf", data), file.subarray(33)]),
    after: (file, data) => Buffer.concat([file.subarray(0, -12), chunk("eXIf", data), file.subarray(-12)]),
    text: (file, data) => Buffer.concat([file.subarray(0, 33),
      chunk("tEXt", Buffer.from(`Raw profile type exif\0${profile(data)}`)), file.subarray(33)]),
    packed: (file, data) => Buffer.concat([file.subarray(0, 33),
      chunk("zTXt", Buffer.concat([Buffer.from("Raw profile type exif\0\0"), deflateSync(profile(data))])), file.subarray(33)]),
  },
  "image/webp": {
    after: (file, data, [width, height]) => {
      const small = (value, bytes) => big(value, bytes).reverse();
      const named = (name, content) => Buffer.concat([Buffer.from(name), small(content.length, 4), content,
        Buffer.alloc(content.length % 2)]);
      const pictures = file.subarray(file.toString("latin1", 12, 16) === "VP8X" ? 30 : 12);
      const all = Buffer.concat([Buffer.from("WEBP"),
        named("VP8X", Buffer.concat([Buffer.from([8, 0, 0, 0]), small(width - 1, 3), small(height - 1, 3)])), pictures,
        named("EXIF", data)]);
      return named("RIFF", all);
    },
  },
};

/** The corners of a picture that is turned upright. */
const UPRIGHT = ["ABCD", "BADC", "DCBA", "CDAB", "ACBD", "CADB", "DBCA", "BDAC"];

test("what is shown and sent is what the model sees, however files are to be turned", { timeout: 400_000 }, async () => {
  const path = edited(`${OUT}upright.safetensors`, (document) => {
    document.features = [...document.features, "exif_orientation"].sort();
    document.preprocessing.exif_orientation = "apply";
  });
  const two = await serve([`stored=${MODEL}`, `upright=${path}`]);
  const { page, done } = await open(two.address);
  await answered(page);
  const sent = [];
  await page.route("**/predict?*", (route) => {
    sent.push(route.request().postDataBuffer());
    return route.continue();
  });
  const small = {};
  const large = {};
  for (const type of Object.keys(MARKED)) {
    small[type] = await cornered(page, type, 48, 32);
    large[type] = await cornered(page, type, 2200, 1500, 255);
    assert.ok(large[type].length > 1 << 20, type);
  }
  for (const model of ["stored", "upright"]) {
    await page.locator("#model").selectOption(model);
    await page.locator("#about", { hasText: `${model} is a` }).waitFor();
    const check = async (name, mimeType, buffer, turn) => {
      sent.length = 0;
      await page.locator("#file").setInputFiles({ name, mimeType, buffer });
      await page.locator("#image-name", { hasText: name }).waitFor();
      await until(`${name} is sent`, () => sent.length > 0);
      const expected = model === "upright" ? UPRIGHT[turn - 1] : "ABCD";
      assert.equal(await corners(page).catch((error) => error.message), expected,
        `${model} ${name} is shown`);
      const last = sent.at(-1);
      if (last.equals(buffer)) return;
      assert.equal(await corners(page, last.toString("base64")), expected, `${model} ${name} is sent`);
    };
    for (const [type, ways] of Object.entries(MARKED)) {
      for (const [way, mark] of Object.entries(ways)) {
        for (const turn of type === "image/jpeg" && way === "first" ? [1, 2, 3, 4, 5, 6, 7, 8] : [6]) {
          const name = `${way}-${turn}.${type.slice(6)}`;
          await check(name, type, mark(small[type], exif(turn, turn % 4 === 2), [48, 32]), turn);
        }
        // Large files take long, so not all ways are tried.
        if (!["first", "behind"].includes(way) && type !== "image/webp") continue;
        await check(`large-${way}.${type.slice(6)}`, type, mark(large[type], exif(6, true), [2200, 1500]), 6);
      }
    }
    // The page itself must not mistake what is no valid mark.
    for (const data of [exif(9), exif(6).subarray(0, 15), Buffer.from("MM\0*\xff\xff\xff\xff", "latin1"), Buffer.alloc(0)]) {
      for (const [type, ways] of Object.entries(MARKED)) {
        const [mark] = Object.values(ways);
        await check(`odd-${data.length}.${type.slice(6)}`, type, mark(small[type], data, [48, 32]), 1);
      }
    }
  }
  await answered(page);
  await done();
  await two.stop();
});

test("an image with more pixels than the server reads is reduced, however small its file", async () => {
  const strict = await serve(undefined, ["--max-pixels", "1"]);
  const { page, done } = await open(strict.address);
  await answered(page);
  const choose = async (name, width, height) => {
    const buffer = await cornered(page, "image/png", width, height);
    assert.ok(buffer.length < 1 << 20);
    await page.locator("#file").setInputFiles({ name, mimeType: "image/png", buffer });
    await page.locator("#image-name", { hasText: name }).waitFor();
    await answered(page);
    return page.locator("#image-name").textContent();
  };
  assert.doesNotMatch(await choose("fits.png", 1024, 1024), /sent as/);
  assert.match(await choose("many.png", 1025, 1024), /sent as 1024 × 1023/);
  assert.match(await choose("wide.png", 3000, 1000), /sent as 1280 × 426/);
  await done();
  await strict.stop();
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

test("one malformed answer stops nothing", { timeout: 120_000 }, async () => {
  const { page, done } = await open(server.address);
  await answered(page);
  const once = async (pattern, body, act, contentType = "application/json") => {
    let served = false;
    await page.route(pattern, (route) => {
      if (served) return route.continue();
      served = true;
      return route.fulfill({ body, contentType });
    });
    await act();
    await until(`${pattern} is asked for`, () => served);
    await page.unroute(pattern);
  };
  const next = async (index) => {
    await page.locator("#sample-list button").nth(index).click();
    await page.locator("#image-name", { hasText: `test image ${index + 1} ` }).waitFor();
  };
  const failed = page.locator('#pane-a[data-state="failed"]').getByText("not one of an sdpoint server");
  let index = 0;
  for (const [body, type] of [["null"], ["[]"], ["3"], ['{"images":[{"top":[]}]}'], ['{"images":[{"top":[{"class":"a"}]}]}'],
    ['{"images":[null]}'], ['{"images":[{"top":[{"class":4,"probability":"x"}]}],"macs":1}'], ["<h1>Sign in</h1>", "text/html"]]) {
    index = (index + 1) % 12;
    await once("**/predict?*", body, async () => {
      await next(index);
      await failed.waitFor();
    }, type);
    index = (index + 1) % 12;
    await next(index);
    await answered(page);
  }
  const trouble = page.locator("#trouble");
  for (const body of ["null", '{"now":5,"seconds":[{}]}', '{"now":5,"seconds":3}', "<p>Sign in</p>"]) {
    await once("**/load?*", body, () => trouble.getByText("not one of an sdpoint server").waitFor());
    await trouble.waitFor({ state: "hidden" });
  }
  // Seconds without sense are left out.
  const load = await (await fetch(`${server.address}/models/shapes/load`)).json();
  const odd = [null, {}, { at: "x" }, { at: 3, answered: 1, images: { full: "many" } }];
  await once("**/load?*", JSON.stringify({ ...load, seconds: odd }), () => sleep(1500));
  assert.equal(await trouble.isVisible(), false);
  for (const body of ["null", "{}", '{"models":[{}]}']) {
    await once("**/models", body, () => page.reload());
    await answered(page);
  }
  for (const body of ["{}", '{"instances":[]}', '{"instances":[{}],"times":"","input":[]}']) {
    await once("**/models/shapes", body, () => page.reload());
    await answered(page);
  }
  await done();
});

test("combinations of one name are told apart", async () => {
  const numbers = { top5: 1, loss: 1 };
  const cascade = (threshold) => ({ cascade: { first: "0@0.5", second: "full", threshold } });
  const path = edited(`${OUT}alike.safetensors`, (document) => {
    document.combinations = [
      { combination: cascade(0), macs: 9_000_000, top1: 0.8, ...numbers },
      { combination: cascade(1e9), macs: 9_000_400, top1: 0.9, ...numbers },
      { combination: cascade(0.5), macs: 9_000_400, top1: 0.3, ...numbers },
    ];
  });
  const alike = await serve([`alike=${path}`]);
  const { page, done } = await open(alike.address);
  await answered(page);
  await page.locator("summary").click();
  const names = await page.locator("#table tbody th").allTextContents();
  const labels = names.filter((name) => name.startsWith("0@0.5>full"));
  assert.equal(new Set(labels).size, 3, `${labels}`);
  const sent = [];
  page.on("request", (request) => {
    const { searchParams } = new URL(request.url());
    if (searchParams.has("combination")) sent.push(searchParams.get("combination"));
  });
  for (const label of labels) {
    await page.locator("#table").getByRole("button", { name: label, exact: true }).click();
    await until(label, async () => (await page.locator("#pane-a .chosen").textContent()) === label);
    await answered(page);
    assert.equal(await page.locator('#plot .dot[aria-checked="true"]').count(), 1);
    assert.ok((await page.locator('#plot .dot[aria-checked="true"]').getAttribute("aria-label")).startsWith(label));
  }
  assert.deepEqual([...sent].sort(), ["0", "1", "2"]);
  // The slider passes all of them.
  await page.locator("#slider-a").focus();
  await page.keyboard.press("Home");
  const stops = new Set();
  for (let i = 0; i <= Number(await page.locator("#slider-a").getAttribute("max")); i++) {
    stops.add(await page.locator("#pane-a .chosen").textContent());
    await page.keyboard.press("ArrowRight");
  }
  for (const label of labels) assert.ok(stops.has(label), label);
  await done();
  await alike.stop();
});

test("without a model, what cannot work is off and says why", { timeout: 120_000 }, async () => {
  const admin = await serve([`gone=${MODEL}`, `here=${MODEL}`], ["--admin"]);
  const change = (what) => fetch(`${admin.address}/v2/repository/models/gone/${what}`, { method: "POST" });
  await change("unload");
  const { page, done } = await open(`${admin.address}/#model=gone`, { expected: ["status of 503", "status of 504", "status of 400"] });
  const text = "gone is not available: the model was unloaded.";
  const off = async () => {
    await page.locator("#about", { hasText: text }).waitFor();
    for (const part of ["#legend", "#mix-legend", "#pane-a .message"]) {
      await page.locator(part, { hasText: text }).waitFor();
    }
    for (const button of ["#make", "#compare", "#peak", "#slider-a"]) assert.ok(await page.locator(button).isDisabled(), button);
    for (const group of ["#unit", "#pane-a .choice"]) {
      assert.equal(await page.locator(`${group} button:enabled`).count(), 0, group);
    }
    assert.equal(await page.locator("#plot").isVisible(), false);
    assert.doesNotMatch(await page.locator("#load").textContent(), /Loading|objective/);
    await noBarriers(page, "without a model");
  };
  await off();
  await picture(page, "no-model.png");
  await change("load");
  await answered(page);
  assert.equal(await page.locator("#compare:disabled, #make:disabled, #peak:disabled, #unit :disabled").count(), 0);
  assert.ok(await page.locator("#plot").isVisible());
  await page.click("#make");
  await page.locator("#make", { hasText: "Stop" }).waitFor();
  await change("unload");
  await off();
  assert.match(await page.locator("#ended").textContent(), /the model is not available/);
  assert.match(await page.locator("#make").textContent(), /Make load/);
  let sent = 0;
  page.on("request", (request) => (sent += Number(request.url().includes("/infer"))));
  await sleep(1500);
  assert.equal(sent, 0);
  await page.locator("#model").selectOption("here");
  await answered(page);
  await done();
  await admin.stop();
});

test("a model that is being loaded says so, and nothing is invented", async () => {
  const { page, done } = await open(server.address);
  await answered(page);
  let state = "loading";
  await page.route("**/models", async (route) => {
    const response = await route.fetch();
    const list = await response.json();
    if (state) list.models[0].state = state;
    return route.fulfill({ json: list });
  });
  await page.reload();
  await page.locator("#about", { hasText: "Loading shapes…" }).waitFor();
  await page.locator("#legend", { hasText: "Loading shapes…" }).waitFor();
  assert.ok(await page.locator("#make").isDisabled());
  assert.doesNotMatch(await page.locator("#load").textContent(), /objective/);
  state = null;
  await answered(page);
  await page.route("**/models", (route) => route.fulfill({ json: {
    models: [], objective_ms: 1, max_images: 1, max_body_bytes: 1, max_pixels: 1,
  } }));
  await page.reload();
  await page.locator("#about", { hasText: "The server has no models." }).waitFor();
  await done();
});

test("in milliseconds, shares are of the milliseconds of full", async () => {
  const { page, done } = await open(server.address);
  await describedAs(page, ({ instances }) => {
    for (const row of instances) row.ms = row.name === "full" ? 2 : row.kind === "instance" ? 1 : 1.9;
    instances.find((row) => row.name === "0@0.5").ms = 0.5;
  });
  await page.reload();
  await answered(page);
  await page.evaluate(() => (location.hash = "unit=ms&a=0%400.5"));
  await until("the choice", async () => (await page.locator("#pane-a .chosen").textContent()) === "0@0.5");
  const details = page.locator("#pane-a .details");
  await until("its share", async () => /0\.50 ms · 25 % of full/.test(await details.textContent()));
  assert.match(await page.locator("#slider-a").getAttribute("aria-valuetext"), /0\.50 ms, 25 % of full/);
  assert.match(await page.locator('#plot .dot[aria-label^="0@0.5,"]').getAttribute("aria-label"), /time 0\.50 ms, of full 25 %/);
  // Nothing takes longer than full here, though an ensemble has more MACs.
  assert.equal(await page.locator("#pane-a").getByText("beyond").count(), 0);
  await page.locator("summary").click();
  assert.match(await page.locator("#table tr", { has: page.getByRole("button", { name: "0@0.5", exact: true }) }).textContent(), /25\.0 %/);
  await page.locator("#unit").getByRole("button", { name: "MACs" }).click();
  await page.locator("#pane-a").getByText("beyond").waitFor();
  assert.match(await details.textContent(), /MACs · 56 % of full/);
  await done();
});

test("a short loss of the network does not end the load", { timeout: 120_000 }, async () => {
  const { page, context, done } = await open(server.address, { expected: ["ERR_", "Failed to load", "status of 50"] });
  await answered(page);
  await page.locator("#peak").selectOption("half");
  await page.click("#make");
  await page.locator("#make", { hasText: "Stop" }).waitFor();
  await context.setOffline(true);
  await page.locator("#trouble", { hasText: "cannot be reached" }).waitFor();
  await sleep(3000);
  await context.setOffline(false);
  await page.locator("#trouble").waitFor({ state: "hidden" });
  await page.waitForRequest((request) => request.url().includes("/infer"));
  assert.equal(await page.locator("#make").textContent(), "Stop");
  await page.click("#make");
  assert.equal(await page.locator("#ended").textContent(), "");
  await done();
});

test("an overload is not called too tight a deadline", async () => {
  const { page, done } = await open(`${server.address}/#a=40ms`, { expected: ["status of 50"] });
  await page.locator('#pane-a:is([data-state="answered"],[data-state="failed"])').waitFor();
  const texts = {
    503: "overloaded: even the cheapest instance would answer after the deadline; retry in 12 ms",
    504: "the deadline passed before the request could be answered",
  };
  const message = page.locator("#pane-a .message");
  for (const [status, error] of Object.entries(texts)) {
    await page.route("**/predict?*", (route) => route.fulfill({ status: Number(status), json: { error } }));
    for (const [choice, title] of [["40ms", "Not in time"], ["0.05ms", "Too tight"]]) {
      await page.evaluate((choice) => (location.hash = `a=${choice}`), choice);
      await message.getByText(title).waitFor();
    }
    await page.unroute("**/predict?*");
  }
  await page.route("**/predict?*", (route) => route.fulfill({ status: 503, json: { error: "overloaded: the queue is full" } }));
  await page.evaluate(() => (location.hash = "a=40ms"));
  await message.getByText("Overloaded: the queue is full").waitFor();
  await page.unroute("**/predict?*");
  await page.evaluate(() => (location.hash = "a=9000ms"));
  await answered(page);
  await done();
});

test("deadlines without sense fall back to full", async () => {
  for (const choice of ["0ms", "0.00ms", "0.001ms", "99999999999ms", "60001ms", "-5ms", "NaNms"]) {
    const { page, done } = await open(`${server.address}/#a=${choice}`);
    assert.equal((await answered(page)).chosen, "full", choice);
    await done();
  }
});

test("numbers and nouns agree, and sentences end once", async () => {
  const { page, context, done } = await open(server.address, { expected: ["ERR_", "Failed to load"] });
  await answered(page);
  await page.route("**/load*", (route) => route.fulfill({ json: {
    now: 120, objective_ms: 100, queued_images: 1, answered_per_second: 1, in_time: 1, p50_ms: 2, p99_ms: 3,
    seconds: [{ at: 120, answered: 1, refused: 1, refused_images: 1, in_time: 1, p50_ms: 2, p99_ms: 3, images: { full: 1 } }],
  } }));
  await page.locator("#mix .canvas").focus();
  const tip = page.locator("#mix .tip");
  await until("the second", async () => {
    await page.keyboard.press("End");
    return tip.getByText("1 image", { exact: true }).isVisible();
  });
  assert.equal(await tip.getByText("1 request", { exact: true }).count(), 2);
  await page.keyboard.press("End");
  await until("it is said", async () => /answered 1 request,.*full 1 image/.test(await page.locator("#said").textContent()));
  await page.unroute("**/load*");
  await context.setOffline(true);
  await page.locator("#trouble").waitFor();
  await page.locator("#slider-a").focus();
  await page.keyboard.press("Home");
  await page.locator('#pane-a[data-state="failed"]').waitFor();
  await context.setOffline(false);
  await until("it is back", async () => /The server is back/.test(await page.locator("#said").textContent()));
  assert.doesNotMatch(await page.locator("#said").textContent(), /\.\./);
  await done();
});

const box = (page, selector) => page.locator(selector).boundingBox();

test("the parts of two panes line up, whatever they run", async () => {
  const { instances } = await (await fetch(`${server.address}/models/shapes`)).json();
  const ensemble = instances.find((row) => row.kind === "ensemble").name;
  const { page, done } = await open(server.address);
  await answered(page);
  for (const width of [640, 1000, 1280]) {
    await page.setViewportSize({ width, height: 900 });
    for (const [a, b] of [["full", "9000ms"], [ensemble, "full"]]) {
      await page.evaluate((link) => (location.hash = link), `${new URLSearchParams({ a, b })}`);
      await page.locator("#pane-b .chosen", { hasText: b === "full" ? "full" : "within" }).waitFor();
      await answered(page);
      await answered(page, "b");
      for (const part of [".slider", ".answers", ".tiles"]) {
        const [left, right] = [await box(page, `#pane-a ${part}`), await box(page, `#pane-b ${part}`)];
        assert.ok(Math.abs(left.y - right.y) < 1 && left.x < right.x, `${width} ${a} ${part}: ${left.y} ${right.y}`);
      }
    }
  }
  await done();
});

test("narrow windows show the answer early, and cut nothing", async () => {
  for (const [width, height] of [[640, 450], [390, 844], [360, 800], [320, 640]]) {
    const { page, done } = await open(server.address, { viewport: { width, height } });
    await answered(page);
    const [image, slider] = [await box(page, "#drop"), await box(page, "#slider-a")];
    // It is beside the image, or the image leaves room for it.
    assert.ok(width > 600 ? slider.x > image.x + image.width && slider.y < height : slider.y < 720, `${width} ${slider.y}`);
    assert.ok((await box(page, ".answers li:first-child .bar")).width > 60, `${width}`);
    const wrapped = await page.locator("#pane-a .details span").evaluateAll((facts) =>
      facts.filter((fact) => fact.getClientRects().length > 1).length);
    assert.equal(wrapped, 0);
    const outside = await page.evaluate(() => [...document.querySelectorAll("main :is(button, .button, select)")].filter((one) => {
      const { left, right, width } = one.getBoundingClientRect();
      const card = one.parentElement.getBoundingClientRect();
      return width && (left < card.left - 1 || right > card.right + 1 || one.scrollWidth > one.clientWidth + 1);
    }).map((one) => one.textContent));
    assert.deepEqual(outside, [], `${width}`);
    // The longest choice is legible beside the arrow.
    const room = await page.evaluate(() => {
      const peak = document.getElementById("peak");
      const context = new OffscreenCanvas(1, 1).getContext("2d");
      context.font = getComputedStyle(peak).font;
      return peak.clientWidth - Math.max(...[...peak.options].map((one) => context.measureText(one.text).width));
    });
    assert.ok(room > 36, `${width}: ${room}`);
    await page.locator("summary").click();
    const table = await box(page, "#table");
    for (const name of ["MACs", "accuracy"]) {
      const cell = await page.locator("#table").getByRole("columnheader", { name, exact: true }).boundingBox();
      assert.ok(cell.x + cell.width <= table.x + table.width, `${width} ${name}`);
    }
    await done();
  }
});

test("a model with a long name leaves the page as it is", async () => {
  const long = "m".repeat(64);
  const two = await serve([`${long}=${MODEL}`, `short=${MODEL}`]);
  for (const viewport of [DESKTOP, { width: 320, height: 640 }]) {
    const { page, done } = await open(`${two.address}/#model=${long}`, { viewport });
    await answered(page);
    await fits(page, "a long name");
    const select = page.locator("#model");
    assert.equal(await select.getAttribute("title"), long);
    assert.ok((await box(page, "#model")).width < 300);
    if (viewport === DESKTOP) assert.ok((await box(page, "#model")).x > (await box(page, "h1")).x + 400);
    await done();
  }
  await two.stop();
});

test("the key of the mix has no colours that cannot be seen", async () => {
  const { page, done } = await open(server.address);
  await answered(page);
  await page.route("**/load*", (route) => route.fulfill({ json: {
    now: 5000, objective_ms: 100, queued_images: 0, answered_per_second: 900, in_time: 1, p50_ms: 2, p99_ms: 3,
    seconds: [{ at: 4999, answered: 1, refused: 0, refused_images: 0, p50_ms: 2, p99_ms: 3, images: { "0@0.5": 1 } },
      { at: 5000, answered: 99, refused: 0, refused_images: 0, p50_ms: 2, p99_ms: 3, images: { full: 900 } }],
  } }));
  const key = page.locator("#mix-legend li");
  await until("the key", async () => (await key.allTextContents()).includes("1 more, too few to see"));
  assert.deepEqual(await key.allTextContents(), ["full", "1 more, too few to see"]);
  await done();
});
