"use strict";
/* The crops: swipe between two pictures, zoom and move all pictures of a crop together. Without this script they stand
   side by side. A crop's state is `scale`, `x` and `y` (percent of its size, where the picture's corner lies) and `split`
   (percent, where the divider stands); the style sheet does the rest. */

const MOST = 16; // largest zoom
const NEAR = 24; // pixels from the divider within which a drag takes it along
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const root = document.documentElement;
const tools = document.querySelector("form.tools");

class Crop {
  constructor(figure) {
    this.figure = figure;
    this.stage = figure.querySelector(".stage");
    this.range = figure.querySelector("input[type=range]");
    this.fingers = new Map();
    Object.assign(this, { scale: 1, x: 0, y: 0, split: 50 });
    this.stage.tabIndex = 0;
    this.listen();
    this.show();
  }

  /* Where the picture is on the screen that was touched last, or any that shows; all are of one size. */
  get picture() {
    const panels = [this.touched, ...this.stage.querySelectorAll(".panel")];
    return panels.find((panel) => panel?.offsetWidth).getBoundingClientRect();
  }

  /* Where an event is in its picture, in percent. */
  place(event) {
    const box = event.target.closest(".panel")?.getBoundingClientRect() ?? this.picture;
    return { x: (100 * (event.clientX - box.left)) / box.width, y: (100 * (event.clientY - box.top)) / box.height };
  }

  show() {
    const least = 100 * (1 - this.scale);
    this.x = clamp(this.x, least, 0);
    this.y = clamp(this.y, least, 0);
    for (const name of ["scale", "x", "y", "split"]) this.figure.style.setProperty(`--${name}`, this[name]);
    this.figure.classList.toggle("zoomed", this.scale > 1);
    this.figure.classList.toggle("large", this.scale >= 2);
    this.range.value = this.split;
    this.range.setAttribute("aria-valuetext", `${Math.round(this.split)} percent ${this.figure.dataset.left}`);
  }

  /* Zoom by a factor; the point `at` stays where it is. */
  zoom(factor, at = { x: 50, y: 50 }) {
    const scale = clamp(this.scale * factor, 1, MOST);
    this.x = at.x - ((at.x - this.x) * scale) / this.scale;
    this.y = at.y - ((at.y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.show();
  }

  move(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.show();
  }

  swipe(to) {
    this.split = clamp(to, 0, 100);
    this.show();
  }

  reset() {
    Object.assign(this, { scale: 1, x: 0, y: 0 });
    this.show();
  }

  listen() {
    this.range.addEventListener("input", () => this.swipe(Number(this.range.value)));
    this.stage.addEventListener("keydown", (event) => this.key(event));
    this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.stage.addEventListener("pointerdown", (event) => this.down(event));
    this.stage.addEventListener("pointermove", (event) => this.drag(event));
    for (const end of ["pointerup", "pointercancel"])
      this.stage.addEventListener(end, (event) => this.fingers.delete(event.pointerId));
    const zooms = { in: () => this.zoom(1.5), out: () => this.zoom(1 / 1.5), reset: () => this.reset() };
    for (const button of this.figure.querySelectorAll("[data-zoom]"))
      button.addEventListener("click", zooms[button.dataset.zoom]);
  }

  key(event) {
    const step = 10;
    const keys = {
      "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5), 0: () => this.reset(),
      ArrowLeft: () => this.move(step, 0), ArrowRight: () => this.move(-step, 0),
      ArrowUp: () => this.move(0, step), ArrowDown: () => this.move(0, -step),
    };
    const moves = event.key.startsWith("Arrow");
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    if (moves && this.scale === 1) return; // there is nowhere to go: let the page scroll
    event.preventDefault();
    keys[event.key]();
  }

  wheel(event) {
    // a page that scrolls must not get caught; pinching a touchpad comes as a wheel with Ctrl
    if (!event.ctrlKey && document.activeElement !== this.stage) return;
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 400)), this.place(event));
  }

  down(event) {
    if (event.button) return;
    this.touched = event.target.closest(".panel");
    const near = (Math.abs(this.place(event).x - this.split) * this.picture.width) / 100 < NEAR;
    this.swipes = root.dataset.view === "swipe" && (this.scale === 1 || near);
    this.fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.stage.setPointerCapture(event.pointerId);
  }

  drag(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const at = { x: event.clientX, y: event.clientY };
    const other = [...this.fingers].find(([id]) => id !== event.pointerId)?.[1];
    this.fingers.set(event.pointerId, at);
    const { width, height } = this.picture;
    const share = other ? 0.5 : 1; // two fingers move their middle by half
    const dx = (share * 100 * (at.x - before.x)) / width;
    const dy = (share * 100 * (at.y - before.y)) / height;
    if (this.swipes && !other) return this.swipe(this.split + dx);
    if (other) this.pinch(before, at, other);
    this.move(dx, dy);
  }

  pinch(before, at, other) {
    const apart = (point) => Math.max(Math.hypot(point.x - other.x, point.y - other.y), 1);
    const { left, top, width, height } = this.picture;
    const middle = { x: (50 * (at.x + other.x - 2 * left)) / width, y: (50 * (at.y + other.y - 2 * top)) / height };
    this.zoom(apart(at) / apart(before), middle);
  }
}

/* What the tools above the crops choose, for all of them. */
function choose(crops) {
  const chosen = Object.fromEntries(new FormData(tools));
  root.dataset.view = chosen.view;
  const label = (layer) => tools.left.querySelector(`option[value="${layer}"]`).textContent;
  for (const crop of crops) {
    crop.figure.dataset.left = label(chosen.left);
    for (const panel of crop.figure.querySelectorAll(".panel")) {
      panel.classList.toggle("left", panel.dataset.layer === chosen.left);
      panel.classList.toggle("right", panel.dataset.layer === chosen.right);
    }
    for (const photo of crop.figure.querySelectorAll("[data-colours]"))
      photo.hidden = photo.dataset.colours !== (chosen.colours ?? "natural");
    const sides = `${label(chosen.left)} left of the divider, ${label(chosen.right)} right`;
    crop.range.setAttribute("aria-label", `${crop.figure.dataset.title}: ${sides}`);
    crop.show();
  }
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/* The value under the pointer, or of the block that the arrow keys have come to, in the caption of a quality map. */
function tellValues(figure, data) {
  const { values } = data.products[figure.dataset.product].maps[figure.dataset.index];
  const [rows, columns] = [values.length, values[0].length];
  const map = figure.querySelector(".map");
  const picture = figure.querySelector("image");
  const output = figure.querySelector("output");
  const tell = (row, column) => {
    const value = values[row]?.[column];
    output.textContent = (value == null ? "no data" : value.toFixed(3)) + ` in block ${row}, ${column}`;
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    tell(
      Math.floor((rows * (event.clientY - box.top)) / box.height),
      Math.floor((columns * (event.clientX - box.left)) / box.width),
    );
  });
  picture.addEventListener("pointerleave", () => (output.textContent = ""));
  const here = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  here.setAttribute("class", "here");
  const at = (name) => picture[name].baseVal.value;
  here.setAttribute("width", at("width") / columns);
  here.setAttribute("height", at("height") / rows);
  map.append(here);
  map.tabIndex = 0;
  let [row, column] = [0, 0];
  const go = ([down, right]) => {
    row = Math.min(Math.max(row + down, 0), rows - 1);
    column = Math.min(Math.max(column + right, 0), columns - 1);
    here.setAttribute("x", at("x") + (column * at("width")) / columns);
    here.setAttribute("y", at("y") + (row * at("height")) / rows);
    tell(row, column);
  };
  map.addEventListener("focus", () => go([0, 0]));
  map.addEventListener("blur", () => (output.textContent = ""));
  map.addEventListener("keydown", (event) => {
    if (!STEPS[event.key]) return;
    event.preventDefault();
    go(STEPS[event.key]);
  });
}

root.classList.add("scripted");
const crops = [...document.querySelectorAll(".crop")].map((figure) => new Crop(figure));
tools.addEventListener("change", () => choose(crops));
tools.addEventListener("submit", (event) => event.preventDefault());
choose(crops);
const data = JSON.parse(document.getElementById("data").textContent);
for (const figure of document.querySelectorAll(".quality")) tellValues(figure, data);
