"use strict";

function make(name, properties, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/* Slices as tabs; without this script all of them are simply there, one below the other. */
for (const set of document.querySelectorAll("[data-tabs]")) {
  const panels = [...set.querySelectorAll(":scope > [data-title]")];
  const bar = make("div", { className: "tabs", role: "tablist" });
  const buttons = panels.map((panel) => {
    const button = make("button", { type: "button", role: "tab" }, panel.dataset.title);
    button.setAttribute("aria-controls", panel.id);
    button.id = panel.id + "-tab";
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", button.id);
    return button;
  });
  const show = (at) => {
    panels.forEach((panel, i) => { panel.hidden = i !== at; });
    buttons.forEach((button, i) => {
      button.setAttribute("aria-selected", String(i === at));
      button.tabIndex = i === at ? 0 : -1;
    });
  };
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = (buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length;
    show(at);
    buttons[at].focus();
    event.preventDefault();
  });
  buttons.forEach((button, i) => button.addEventListener("click", () => show(i)));
  bar.append(...buttons);
  set.prepend(bar);
  show(0);
}

/* The neighbour browser. Titles only ever become text. */
const holder = document.getElementById("neighbour-data");
if (holder) {
  const { items, queries } = JSON.parse(holder.textContent);
  const input = document.getElementById("finder");
  const list = document.getElementById("options");
  const chosen = document.getElementById("chosen");
  const grid = document.getElementById("neighbours-list");
  const ofItem = new Map(queries.map((query, at) => [query.item, at]));
  const plain = (text) => text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase();
  const titles = queries.map((query) => plain(items[query.item].title));
  let found = [];
  let current = -1;

  const cover = (item) => item.picture
    ? make("img", { className: "cover", src: item.picture, alt: "" })
    : make("span", { className: "cover", ariaHidden: "true" }, "no picture");

  const badge = (text, kind) => make("span", { className: "badge " + kind }, text);

  function card([at, score, hit]) {
    const item = items[at];
    const open = ofItem.has(at);
    const box = make(open ? "button" : "div", { className: "card", title: item.details });
    if (open) {
      box.type = "button";
      box.addEventListener("click", () => { input.value = ""; search(); pick(ofItem.get(at)); });
    }
    const name = make("span", { className: "name" }, item.title);
    if (item.cold) name.append(badge("cold", ""));
    const line = make("span", { className: "score" }, score.toFixed(3));
    if (hit) line.append(badge("hit", "hit"));
    box.append(cover(item), name, line);
    return make("li", {}, box);
  }

  function pick(at) {
    current = at;
    for (const option of list.children) {
      option.setAttribute("aria-selected", String(Number(option.dataset.at) === at));
    }
    const option = document.getElementById("option-" + at);
    if (option) {
      input.setAttribute("aria-activedescendant", option.id);
      list.scrollTop = option.offsetTop - list.offsetTop - list.clientHeight / 2;
    } else {
      input.removeAttribute("aria-activedescendant");
    }
    const query = queries[at];
    const item = items[query.item];
    const title = make("h3", {}, item.title);
    if (item.cold) title.append(badge("cold", ""));
    const hits = query.neighbours.filter(([, , hit]) => hit).length;
    const text = make("div", {}, title, make("div", { className: "hint" }, item.details),
      make("div", { className: "hint" }, hits + " of " + query.neighbours.length + " came true"));
    chosen.replaceChildren(cover(item), text);
    grid.replaceChildren(...query.neighbours.map(card));
  }

  function search() {
    const words = plain(input.value).split(/\s+/).filter(Boolean);
    found = titles.flatMap((title, at) => words.every((w) => title.includes(w)) ? [at] : []);
    list.replaceChildren(...found.map((at) => {
      const item = items[queries[at].item];
      const option = make("li", { id: "option-" + at, role: "option" }, item.title);
      option.dataset.at = at;
      option.setAttribute("aria-selected", String(at === current));
      if (item.cold) option.append(badge("cold", ""));
      option.addEventListener("click", () => pick(at));
      return option;
    }));
    document.getElementById("found").textContent = found.length + " of " + queries.length;
  }

  input.addEventListener("input", () => { search(); if (found.length) pick(found[0]); });
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !found.length) return;
    const at = found.indexOf(current) + step;
    pick(found[Math.max(0, Math.min(found.length - 1, at))]);
    event.preventDefault();
  });
  search();
  pick(0);
}
