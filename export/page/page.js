"use strict";
(() => {
  // Stops of the slider around 1, which is what was found.
  const AMOUNTS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4];
  const $ = (id) => document.getElementById(id);
  const MEGABYTES = Number(document.body.dataset.megabytes);
  const viewer = new Viewer(document.querySelector(".viewer"));
  let picture = null; // what the server says of the picture that is open
  let place = null; // the middle of the part that is looked at; null: where there is most detail
  let shown = null; // of which picture, scale and place the picture before is
  let frame = null; // left, top, width, height of that part
  let making = null; // ends the file that is being made

  // ---- what is said

  const say = (text) => { if ($("status").textContent !== text) $("status").textContent = text; };
  const complain = (text) => { say(""); $("error").textContent = text; };

  /** Ask the server; what it refuses becomes an Error whose message is a sentence. */
  async function ask(path, options) {
    let answer;
    try {
      answer = await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The program does not answer: is darsr ui still running?");
    }
    const value = await answer.json().catch(() => ({ error: `The program answered ${answer.status}.` }));
    if (value.error) throw new Error(value.error);
    return value;
  }

  const post = (path, value, signal) =>
    ask(path, { method: "POST", body: JSON.stringify(value), headers: { "Content-Type": "application/json" }, signal });

  // ---- opening a picture

  let turn = 0; // of the picture that was chosen last

  async function open(file) {
    const own = ++turn;
    $("error").textContent = "";
    if (file.size > MEGABYTES * 1e6) {
      const size = `${Math.round(file.size / 1e6)} MB, more than the ${MEGABYTES} MB that this page takes`;
      return complain(`${file.name}: is of ${size}; darsr upscale takes files of any size, and so does darsr ui --max-megabytes`);
    }
    making?.abort();
    say(`Opening ${file.name} …`);
    document.body.classList.add("busy");
    try {
      const opened = await ask(`pictures?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
      if (own !== turn) return;
      picture = opened;
    } catch (error) {
      if (own === turn) complain(error.message);
      return;
    } finally {
      document.body.classList.remove("busy");
    }
    place = shown = frame = null;
    $("name").textContent = picture.name;
    $("decision").textContent = "";
    $("thumbnail").src = picture.thumbnail;
    $("work").hidden = true;
    $("steer").reset();
    await refresh();
  }

  function take(files) {
    if (files.length) open(files[0]);
  }

  $("file").addEventListener("change", (event) => {
    take([...event.target.files]);
    event.target.value = ""; // so that the same file can be chosen again
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files);
    });
  }
  document.addEventListener("paste", (event) => take(event.clipboardData.files));

  // ---- looking at it

  const wishes = () => ({
    scale: Number(document.querySelector("input[name=scale]:checked").value),
    amount: AMOUNTS[$("amount").value],
    denoise: $("denoise").value / 100,
    deblock: $("deblock").value / 100,
  });

  let asking = false;
  let stale = false;

  /** Show what the controls say now: one request at a time, and after it another one if they have moved meanwhile. */
  async function refresh() {
    stale = true;
    if (asking) return;
    asking = true;
    viewer.root.classList.add("stale");
    try {
      while (stale) {
        stale = false;
        if (!making) say($("work").hidden ? "Looking at it …" : "Working …");
        const of = picture, wanted = wishes();
        const key = JSON.stringify([of.id, wanted.scale, place]);
        const view = await post(`pictures/${of.id}/view`, { ...wanted, place, before: key !== shown });
        if (of !== picture) continue;
        await show(view, wanted.scale);
        shown = key;
      }
      $("error").textContent = "";
      if (!making) say("");
    } catch (error) {
      complain(error.message);
    } finally {
      asking = false;
      viewer.root.classList.remove("stale");
      if (stale) refresh();
    }
  }

  async function show(view, scale) {
    const sources = { left: view.before, right: view.after };
    const ready = Object.entries(sources).filter(([, source]) => source).map(async ([name, source]) => {
      const image = new Image(); // decoded first, so that the picture does not flicker
      image.src = source;
      await image.decode();
      return [name, source];
    });
    for (const [name, source] of await Promise.all(ready)) viewer.layers.get(name).src = source;
    const [left, top, width, height] = (frame = view.window);
    $("decision").textContent = view.decision;
    $("kernel").innerHTML = view.kernel; // an SVG that the program drew
    $("kernel-words").textContent = `${view.kernel_words}.`;
    describe(view);
    const part = width < picture.width || height < picture.height;
    const first = $("work").hidden;
    document.body.classList.add("open");
    $("work").hidden = false;
    $("map").hidden = !part;
    if (part) {
      const share = (value, of) => `${(100 * value) / of}%`;
      Object.assign($("box").style, {
        left: share(left, picture.width), top: share(top, picture.height),
        width: share(width, picture.width), height: share(height, picture.height),
      });
      $("whole").setAttribute("aria-label", `Part at ${left}, ${top} of ${picture.width} × ${picture.height} pixels`);
    }
    const size = [width * scale, height * scale];
    if (first || `${viewer.size}` !== `${size}`) viewer.show(...size); // else it stays enlarged
  }

  /** Say of every slider what it works on: one that would change nothing is switched off. */
  function describe({ found, steers, options }) {
    const noise = found.noise && `Of noise ${found.noise.toFixed(0)} (standard deviation, 0 to 255).`;
    const jpeg = found.jpeg_quality && `Of JPEG at quality ${found.jpeg_quality}.`;
    for (const [name, note] of [["denoise", noise], ["deblock", jpeg]]) {
      $(name).disabled = !steers[name];
      $(`${name}-note`).textContent = steers[name] ? note : note ? `${note} There is nothing to take away.` : "None was found.";
    }
    const name = /^[\w./-]+$/.test(picture.name) ? picture.name : `"${picture.name}"`;
    $("command").textContent = `darsr upscale ${name} ${options}`.trim();
  }

  // ---- steering

  function label() {
    const { amount } = wishes();
    const words = { amount: `${amount}`, denoise: `${$("denoise").value} %`, deblock: `${$("deblock").value} %` };
    for (const [name, text] of Object.entries(words)) {
      document.querySelector(`output[for=${name}]`).textContent = text;
      $(name).setAttribute("aria-valuetext", text);
    }
  }

  $("steer").addEventListener("input", () => { label(); refresh(); });
  $("steer").addEventListener("submit", (event) => event.preventDefault());
  $("steer").addEventListener("reset", () => setTimeout(() => { label(); if (!$("work").hidden) refresh(); }));

  /** Look at the part around a place of the whole picture, in its pixels. */
  function look(x, y) {
    place = [x, y].map((at, axis) => {
      const half = frame[2 + axis] / 2;
      return Math.round(Math.min(Math.max(at, half), [picture.width, picture.height][axis] - half));
    });
    refresh();
  }

  const point = (event) => {
    const box = $("whole").getBoundingClientRect();
    look(((event.clientX - box.left) / box.width) * picture.width, ((event.clientY - box.top) / box.height) * picture.height);
  };
  $("whole").addEventListener("pointerdown", (event) => {
    $("whole").setPointerCapture(event.pointerId);
    point(event);
  });
  $("whole").addEventListener("pointermove", (event) => { if (event.buttons) point(event); });
  $("whole").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [left, top, width, height] = frame;
    const [x, y] = place ?? [left + width / 2, top + height / 2];
    look(x + (step[0] * width) / 4, y + (step[1] * height) / 4);
  });

  // ---- saving

  const buttons = [...document.querySelectorAll("[data-kind]")];

  /** While a file is made, nothing else is computed. */
  function free() {
    buttons.forEach((button) => { button.disabled = Boolean(making || button.dataset.missing); });
    for (const name of ["steer", "map"]) $(name).inert = Boolean(making);
    $("making").hidden = !making;
  }

  async function save(kind) {
    $("error").textContent = "";
    const of = picture;
    making = new AbortController();
    free();
    $("progress").removeAttribute("value");
    say("Making the file …");
    const timer = setInterval(async () => {
      const { step, steps } = await ask(`pictures/${of.id}`).catch(() => ({ steps: 0 }));
      if (making && steps > 1) Object.assign($("progress"), { max: steps, value: step });
    }, 500);
    try {
      const { name, note } = await post(`pictures/${of.id}/files`, { ...wishes(), kind }, making.signal);
      const link = Object.assign(document.createElement("a"), { href: `pictures/${of.id}/files/${encodeURIComponent(name)}`, download: name });
      link.click();
      say(`${name} is done. ${note}`.trim());
    } catch (error) {
      if (error.name === "AbortError") say("Cancelled.");
      else complain(error.message);
    } finally {
      clearInterval(timer);
      making = null;
      free();
    }
  }

  buttons.forEach((button) => button.addEventListener("click", () => save(button.dataset.kind)));
  $("cancel").addEventListener("click", () => making?.abort());

  Object.assign($("amount"), { min: 0, max: AMOUNTS.length - 1, step: 1, defaultValue: AMOUNTS.indexOf(1) });
  label();
  free();
})();
