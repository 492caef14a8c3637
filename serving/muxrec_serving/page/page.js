"use strict";

// Every text goes in by textContent and every address by encodeURIComponent: titles are foreign.

const STEP = 12;
const MOST = 96;
const NAMES = { text: "Text", image: "Picture", attributes: "Attributes", id: "Behaviour" };
const byId = (id) => document.getElementById(id);

const state = { item: null, filters: {}, k: STEP, asked: 0, bundle: null };

class Refused extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? `the server answered ${status}`);
    this.status = status;
  }
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") made.textContent = value;
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter(Boolean));
  return made;
}

async function ask(path) {
  const response = await fetch(path, { headers: { accept: "application/json" } });
  const body = await response.json().catch(() => null);
  if (!response.ok || body === null) throw new Refused(response.status, body);
  if (body.bundle && body.bundle !== state.bundle) showVersion();
  return body;
}

const itemPath = (id, rest = "") => `/v1/items/${encodeURIComponent(id)}${rest}`;

// ---- address: #item=ID&genre=Comedy

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const item = given.get("item");
  given.delete("item");
  return { item, filters: Object.fromEntries(given) };
}

function addressOf(item, filters) {
  return `#${new URLSearchParams(item === null ? filters : { item, ...filters })}`;
}

// ---- showing

async function showVersion() {
  const badge = byId("version");
  try {
    const response = await fetch("/version");
    const version = await response.json();
    state.bundle = version.bundle;
    const model = version.model ? `${version.model}@${version.alias} v${version.model_version}` : "bundle";
    badge.replaceChildren(element("span", { text: model }), element("code", { text: version.bundle }));
    badge.title = `${version.items} items, vectors of ${version.width}, muxrec ${version.muxrec}`;
    badge.classList.remove("away");
  } catch {
    badge.replaceChildren(element("span", { text: "no answer" }));
    badge.classList.add("away");
  }
}

function pictureOf(id, title, hasImage) {
  const letters = title.split(/\s+/).slice(0, 2).map((word) => [...word][0] ?? "").join("").toUpperCase();
  const frame = element("div", { class: "picture" }, element("span", { class: "letters", "aria-hidden": "true", text: letters }));
  if (hasImage) {
    const image = element("img", { src: itemPath(id, "/image"), alt: "", loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => image.remove());
    frame.append(image);
  }
  return frame;
}

const toneOf = (modality) => `m-${modality in NAMES ? modality : "other"}`;

function reasonsOf(neighbour, widest) {
  const rows = Object.entries(neighbour.reasons ?? {}).map(([modality, share]) => {
    const fill = element("span", { class: `fill ${share < 0 ? "minus" : ""}` });
    fill.style.width = `${Math.min(100, (100 * Math.abs(share)) / widest)}%`;
    const label = `${NAMES[modality] ?? modality} gives ${share.toFixed(3)}`;
    return element("div", { class: `share ${toneOf(modality)}`, title: label, "aria-label": label, role: "img" },
      element("span", { class: "track" }, fill),
      element("span", { class: "value", text: share.toFixed(2).replace("-", "\u2212") }));
  });
  return element("div", { class: "why" },
    element("div", { class: "score" }, element("span", { text: "Score" }), element("b", { text: neighbour.score.toFixed(3) })),
    ...rows);
}

function cardOf(entry, widest) {
  const title = entry.title ?? entry.item_id;
  return element("li", {},
    element("a", { class: "card", href: addressOf(entry.item_id, state.filters), "data-item": entry.item_id },
      pictureOf(entry.item_id, title, entry.has_image),
      element("span", { class: "title", text: title }),
      entry.score === undefined ? null : reasonsOf(entry, widest)));
}

function showCards(entries) {
  const shares = entries.flatMap((entry) => Object.values(entry.reasons ?? {}).map(Math.abs));
  const widest = Math.max(0.001, ...shares);
  const grid = byId("neighbours");
  grid.classList.toggle("no-pictures", !entries.some((entry) => entry.has_image));
  const focused = document.activeElement?.dataset?.item;
  grid.replaceChildren(...entries.map((entry) => cardOf(entry, widest)));
  if (focused) grid.querySelector(`[data-item="${CSS.escape(focused)}"]`)?.focus();
}

function spelled(value) {
  if (Array.isArray(value)) return value.join(", ");
  return typeof value === "string" ? value.replaceAll("|", ", ") : String(value);
}

function showItem(item) {
  const fields = Object.entries(item.fields).filter(([name, value]) =>
    name !== "title" && value !== null && value !== "" && spelled(value) !== item.title);
  const list = element("dl");
  for (const [name, value] of fields) {
    const text = spelled(value);
    list.append(element("div", {}, element("dt", { text: name.replaceAll("_", " ") }),
      element("dd", { class: text.length > 160 ? "long" : null, text })));
  }
  const badges = [`id ${item.item_id}`];
  if (item.live) badges.push("live");
  if (item.is_cold) badges.push("never seen in training");
  if (item.train_events) badges.push(`${item.train_events} events`);
  const section = byId("item");
  section.classList.toggle("bare", !item.has_image);
  section.replaceChildren(
    item.has_image ? pictureOf(item.item_id, item.title, true) : "",
    element("h1", { text: item.title }),
    element("div", { class: "badges" }, ...badges.map((text) => element("span", { class: "badge", text }))),
    list);
  section.hidden = false;
  document.title = `${item.title} · muxrec`;
}

function showLegend(entries) {
  const names = Object.keys(entries[0]?.reasons ?? {});
  const legend = byId("legend");
  legend.hidden = names.length === 0;
  legend.replaceChildren(...names.map((name) => element("li", { class: toneOf(name), text: NAMES[name] ?? name })));
}

function showFault(title, text, canRetry) {
  byId("fault-title").textContent = title;
  byId("fault-text").textContent = text;
  byId("retry").hidden = !canRetry;
  byId("fault").hidden = false;
}

function explainFault(error) {
  if (error instanceof Refused && error.status === 404) {
    showFault(`${error.message[0].toUpperCase()}${error.message.slice(1)}.`, "Search for its title, or begin with one of these.", false);
    loadStart().then((show) => show(), explainFault);
  } else if (error instanceof Refused && error.status < 500) {
    showFault("Not possible.", error.message, false);
  } else {
    showFault("The server does not answer.", "What you see may be old.", true);
    showVersion();
  }
}

// ---- loading

function similarPath() {
  const query = new URLSearchParams({ k: state.k, explain: 1, display: 1 });
  for (const [column, value] of Object.entries(state.filters)) query.append("filter", `${column}:${value}`);
  return itemPath(state.item, `/similar?${query}`);
}

async function load() {
  const turn = ++state.asked;
  const main = byId("main");
  main.classList.add("loading");
  try {
    const work = state.item === null ? loadStart : loadItem;
    const show = await work();
    if (turn !== state.asked) return;
    byId("fault").hidden = true;
    show();
  } catch (error) {
    if (turn === state.asked) explainFault(error);
  } finally {
    if (turn === state.asked) main.classList.remove("loading");
  }
}

async function loadStart() {
  const popular = await ask("/v1/popular?k=24");
  return () => {
    byId("main").classList.add("start");
    byId("item").hidden = byId("legend").hidden = byId("filters").hidden = byId("more").hidden = true;
    byId("list-title").textContent = "Popular items";
    byId("list-note").textContent = "Open one, or search a title, to see its nearest neighbours and why they are near.";
    document.title = "muxrec";
    showCards(popular.results);
  };
}

async function loadItem() {
  const [item, answer] = await Promise.all([ask(itemPath(state.item)), askWithRoom()]);
  return () => {
    byId("main").classList.remove("start");
    showItem(item);
    const found = answer.neighbours.length;
    const how = { precomputed: "from the stored exact list", searched: "found by the index", exact: "by exact search" };
    byId("list-title").textContent = found ? "Nearest neighbours" : "No neighbour meets these filters";
    byId("list-note").textContent = found ? `${found} items, ${how[answer.source] ?? answer.source}. The bars show what each part of an item gave to its score.` : "";
    byId("filters").hidden = byId("filters").children.length === 0;
    showLegend(answer.neighbours);
    showCards(answer.neighbours);
    byId("more").hidden = found < state.k || state.k >= MOST;
  };
}

// A tiny catalogue has fewer neighbours than one screen asks for: the refusal names how many.
async function askWithRoom() {
  try {
    return await ask(similarPath());
  } catch (error) {
    const most = /k must be in 1\.\.(\d+)/.exec(error.message);
    if (!most) throw error;
    state.k = Number(most[1]);
    return ask(similarPath());
  }
}

async function loadFilters() {
  const { filters } = await ask("/v1/filters");
  const box = byId("filters");
  box.replaceChildren(...Object.entries(filters).map(([column, choices]) => {
    const select = element("select", { "data-column": column }, element("option", { value: "", text: "any" }),
      ...choices.filter(({ value }) => !value.includes(",")).map(({ value, count }) => element("option", { value, text: `${value} (${count})` })));
    select.addEventListener("change", () => {
      const chosen = { ...state.filters, [column]: select.value };
      if (!select.value) delete chosen[column];
      location.hash = addressOf(state.item, chosen);
    });
    return element("label", {}, element("span", { text: column.replaceAll("_", " ") }), select);
  }));
}

function markFilters() {
  for (const select of byId("filters").querySelectorAll("select")) {
    select.value = state.filters[select.dataset.column] ?? "";
    select.classList.toggle("on", select.value !== "");
  }
}

function follow() {
  const { item, filters } = readAddress();
  if (item !== state.item) {
    window.scrollTo({ top: 0 });
    state.k = STEP;
  }
  state.item = item;
  state.filters = filters;
  markFilters();
  return load();
}

// ---- search

const box = byId("search");
const suggestions = byId("suggestions");
let searches = 0;

function choose(index) {
  const options = [...suggestions.querySelectorAll("[role=option]")];
  options.forEach((option, at) => option.setAttribute("aria-selected", String(at === index)));
  const chosen = options[index];
  if (chosen) {
    box.setAttribute("aria-activedescendant", chosen.id);
    chosen.scrollIntoView({ block: "nearest" });
  } else box.removeAttribute("aria-activedescendant");
}

function chosenIndex() {
  return [...suggestions.querySelectorAll("[role=option]")].findIndex((o) => o.getAttribute("aria-selected") === "true");
}

function close() {
  searches += 1; // an answer still on its way must not open the list again
  suggestions.hidden = true;
  box.setAttribute("aria-expanded", "false");
  box.removeAttribute("aria-activedescendant");
}

async function suggest() {
  const turn = ++searches;
  const text = box.value.trim();
  if (!text) return close();
  try {
    const { results } = await ask(`/v1/search?${new URLSearchParams({ q: text, k: 8 })}`);
    if (turn !== searches) return;
    const options = results.map(({ item_id, title }, at) => {
      const option = element("li", { role: "option", id: `suggestion-${at}`, "aria-selected": "false", "data-item": item_id, text: title });
      option.addEventListener("mousedown", (event) => { event.preventDefault(); open(item_id); });
      return option;
    });
    suggestions.replaceChildren(...(options.length ? options : [element("li", { class: "none", text: "No title holds these words" })]));
    suggestions.hidden = false;
    box.setAttribute("aria-expanded", "true");
    choose(options.length ? 0 : -1);
  } catch (error) {
    close();
    explainFault(error);
  }
}

function open(item) {
  close();
  box.value = "";
  box.blur();
  location.hash = addressOf(item, state.filters);
  byId("main").focus({ preventScroll: true });
}

box.addEventListener("input", suggest);
box.addEventListener("blur", close);
box.addEventListener("keydown", (event) => {
  const count = suggestions.querySelectorAll("[role=option]").length;
  if (event.key === "Escape") { close(); box.blur(); }
  if (suggestions.hidden || !count) return;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    const step = event.key === "ArrowDown" ? 1 : -1;
    choose((chosenIndex() + step + count) % count);
  } else if (event.key === "Enter") {
    const chosen = suggestions.querySelectorAll("[role=option]")[Math.max(0, chosenIndex())];
    open(chosen.dataset.item);
  }
});

// ---- keys: "/" searches, arrows walk the grid

function columnsOf(cards) {
  const top = cards[0].getBoundingClientRect().top;
  return cards.filter((card) => Math.abs(card.getBoundingClientRect().top - top) < 4).length;
}

byId("neighbours").addEventListener("keydown", (event) => {
  const cards = [...byId("neighbours").querySelectorAll(".card")];
  const at = cards.indexOf(document.activeElement);
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columnsOf(cards), ArrowUp: -columnsOf(cards) };
  const next = cards[at + steps[event.key]];
  if (at >= 0 && next) {
    event.preventDefault();
    next.focus();
  }
});

document.addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    box.focus();
  }
});

byId("more").addEventListener("click", () => { state.k = Math.min(MOST, state.k + STEP); load(); });
byId("retry").addEventListener("click", () => { showVersion(); start(); });
window.addEventListener("hashchange", follow);

async function start() {
  await loadFilters().catch(explainFault);
  await follow();
}

showVersion();
start();
