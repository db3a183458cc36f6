
"use strict";
// A picture pixel is shown as a whole number of screen pixels, or the picture is reduced: it is never smeared.
const ZOOMS = [1, 2, 3, 4, 6, 8, 12, 16];
const MOST_WHEN_WHOLE = 4;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

class Viewer {
  constructor(root) {
    this.root = root;
    this.stage = root.querySelector(".stage");
    this.slider = root.querySelector(".divider"); // null, as the line, where there is one picture alone
    this.line = root.querySelector(".line");
    this.size = [Number(root.dataset.width), Number(root.dataset.height)];
    this.layers = new Map([...root.querySelectorAll(".layer")].map((layer) => [layer.dataset.name, layer]));
    this.zoom = null; // null: the whole picture; else screen pixels for each of its pixels
    this.centre = this.size.map((side) => side / 2); // in the picture's pixels
    this.listen();
    this.choose();
  }

  listen() {
    this.root.querySelectorAll("[data-side]").forEach((radio) => radio.addEventListener("change", () => this.choose()));
    this.root.querySelectorAll("[data-do]").forEach((button) =>
      button.addEventListener("click", () => this.act(button.dataset.do)));
    this.slider?.addEventListener("input", () => this.draw());
    this.stage.addEventListener("keydown", (event) => this.key(event));
    this.stage.addEventListener("pointerdown", (event) => this.grab(event));
    this.stage.addEventListener("dblclick", (event) => this.toggle(event));
    new ResizeObserver(() => this.draw()).observe(this.root);
    window.addEventListener("resize", () => this.draw());
  }

  choose() {
    if (!this.slider) return this.draw();
    this.layers.forEach((layer) => layer.classList.remove("shown", "top"));
    for (const side of ["left", "right"]) {
      const radio = this.root.querySelector(`[data-side=${side}]:checked`); // none: the layers are named left and right
      if (radio) this.root.querySelector(`.tag.${side}`).textContent = radio.nextElementSibling.textContent;
      const layer = this.layers.get(radio?.value ?? side);
      layer.classList.add("shown");
      layer.classList.toggle("top", side === "right");
    }
    this.draw();
  }

  /** Show pictures of another size, whole. */
  show(width, height) {
    this.size = [width, height];
    this.zoom = null;
    this.draw();
  }

  /** Screen pixels for each picture pixel at which all of it is seen. */
  whole() {
    const ratio = window.devicePixelRatio;
    const room = [this.root.clientWidth, Math.max(260, 0.8 * window.innerHeight)];
    const most = Math.min(...this.size.map((side, axis) => (room[axis] * ratio) / side));
    return most < 1 ? most : Math.min(Math.floor(most), Math.round(MOST_WHEN_WHOLE * ratio));
  }

  zooms() {
    const whole = this.whole();
    return ZOOMS.filter((zoom) => zoom > whole);
  }

  draw() {
    if (!this.root.clientWidth) return; // hidden: nothing has a size
    const ratio = window.devicePixelRatio;
    const whole = this.whole();
    if (this.zoom !== null && this.zoom <= whole) this.zoom = null;
    const zoom = this.zoom ?? whole;
    const box = this.size.map((side) => Math.round(side * whole) / ratio);
    const shown = this.size.map((side) => (side * zoom) / ratio);
    const place = shown.map((length, axis) => {
      const half = (box[axis] * ratio) / zoom / 2; // of what is seen, in picture pixels
      this.centre[axis] = clamp(this.centre[axis], Math.min(half, this.size[axis] / 2), Math.max(this.size[axis] - half, this.size[axis] / 2));
      return Math.round((box[axis] / 2 - (this.centre[axis] * zoom) / ratio) * ratio) / ratio;
    });
    const share = this.slider ? Number(this.slider.value) / 1000 : 0;
    const at = Math.round(box[0] * share * ratio) / ratio;
    Object.assign(this.stage.style, { width: `${box[0]}px`, height: `${box[1]}px` });
    this.stage.classList.toggle("crisp", zoom >= 1);
    this.stage.classList.toggle("enlarged", zoom > whole);
    this.layers.forEach((layer) => {
      Object.assign(layer.style, {
        left: `${place[0]}px`, top: `${place[1]}px`, width: `${shown[0]}px`, height: `${shown[1]}px`,
        // only the left edge cuts: the others would be blended where the page puts the picture between two pixels
        clipPath: layer.classList.contains("top") ? `inset(-2px -2px -2px ${Math.max(0, at - place[0])}px)` : "none",
      });
    });
    if (this.slider) {
      this.line.style.left = `${at}px`;
      this.slider.setAttribute("aria-valuetext", this.words(share));
    }
    this.describe(zoom, whole);
  }

  words(share) {
    const [left, right] = ["left", "right"].map((side) => this.root.querySelector(`.tag.${side}`).textContent);
    return `${Math.round(share * 100)} % ${left}, ${Math.round((1 - share) * 100)} % ${right}`;
  }

  describe(zoom, whole) {
    const figure = zoom >= 1 ? `${zoom}×` : `${Math.round(zoom * 100)} %`;
    const output = this.root.querySelector(".zoom");
    if (output.textContent !== figure) output.textContent = figure;
    this.root.querySelector(".scale-note").textContent = zoom >= 1
      ? `${zoom * zoom === 1 ? "One screen pixel" : `${zoom} × ${zoom} screen pixels`} for each.`
      : "Reduced to fit the screen; enlarge to see every pixel.";
    this.root.querySelector("[data-do=out]").disabled = zoom <= whole;
    this.root.querySelector("[data-do=in]").disabled = this.zooms().filter((larger) => larger > zoom).length === 0;
  }

  act(what) {
    const zoom = this.zoom ?? this.whole();
    if (what === "in") this.zoom = this.zooms().find((larger) => larger > zoom) ?? this.zoom;
    if (what === "out") this.zoom = this.zooms().filter((smaller) => smaller < zoom).pop() ?? null;
    if (what === "whole") this.zoom = null;
    if (what === "detail") {
      this.centre = this.root.dataset.detail.split(",").map(Number);
      this.zoom = this.zooms().find((larger) => larger >= 2 * this.whole()) ?? this.zoom;
    }
    this.draw();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = { "+": "in", "=": "in", "-": "out", "0": "whole" }[event.key];
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (act) this.act(act);
    else if (!step || event.target === this.slider) return; // the slider has keys of its own
    else if (this.zoom !== null) this.pan(step.map((side) => side * 40));
    else if (step[0] && this.slider) this.move(Number(this.slider.value) + step[0] * 20);
    else return;
    event.preventDefault();
  }

  move(value) {
    if (!this.slider) return;
    this.slider.value = clamp(value, 0, 1000);
    this.draw();
  }

  /** Move the picture by so many CSS pixels. */
  pan(by) {
    const scale = window.devicePixelRatio / (this.zoom ?? this.whole());
    this.centre = this.centre.map((at, axis) => at + by[axis] * scale);
    this.draw();
  }

  grab(event) {
    if (event.target === this.slider || event.button !== 0) return;
    const enlarged = this.zoom !== null;
    const follow = (moved) => {
      const box = this.stage.getBoundingClientRect();
      if (enlarged) this.pan([last[0] - moved.clientX, last[1] - moved.clientY]);
      else this.move((1000 * (moved.clientX - box.left)) / box.width);
      last = [moved.clientX, moved.clientY];
    };
    let last = [event.clientX, event.clientY];
    const stop = () => {
      this.stage.classList.remove("moving");
      this.stage.removeEventListener("pointermove", follow);
    };
    this.stage.setPointerCapture(event.pointerId);
    this.stage.classList.add("moving");
    this.stage.addEventListener("pointermove", follow);
    for (const end of ["pointerup", "pointercancel"]) this.stage.addEventListener(end, stop, { once: true });
    if (!enlarged && event.pointerType === "mouse") follow(event); // a finger may be about to scroll the page
  }

  toggle(event) {
    if (event.target === this.slider) return;
    if (this.zoom !== null) return this.act("whole");
    const box = this.stage.getBoundingClientRect();
    this.centre = this.size.map((side, axis) =>
      (side * (axis ? event.clientY - box.top : event.clientX - box.left)) / (axis ? box.height : box.width));
    this.zoom = this.zooms().find((larger) => larger >= 2 * this.whole()) ?? null;
    this.draw();
  }
}
