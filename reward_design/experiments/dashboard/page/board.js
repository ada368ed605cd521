"use strict";

// Asks every other second what has changed, and fetches only those parts of the page that have, and are in sight.
const { base, path } = document.body.dataset;
const PERIOD = 1500;
const part = (id) => document.getElementById(id);
const metric = part("metric");
const loading = new Set();
const asked = new URLSearchParams(location.hash.slice(1)).get("metric");
if (asked && [...metric.options].some((option) => option.value === asked)) metric.value = asked;

const inSight = new IntersectionObserver(
  (entries) => entries.forEach((entry) => {
    entry.target.dataset.inSight = entry.isIntersecting ? "1" : "";
    refresh(entry.target);
  }),
  { rootMargin: "600px" },
);

function wanted(section) {
  return section.dataset.curves ? `${section.dataset.version} ${metric.value}` : section.dataset.version;
}

function made(panel) {
  const section = document.createElement("section");
  section.dataset.panel = panel.id;
  const heading = document.createElement("h2");
  heading.id = `heading-${panel.id}`;
  section.setAttribute("aria-labelledby", heading.id);
  const note = document.createElement("p");
  note.className = "note";
  const content = document.createElement("div");
  content.className = "content";
  section.append(heading, note, content);
  if (panel.id.startsWith("curves/")) section.dataset.curves = "1";
  inSight.observe(section);
  return section;
}

function arrange(panels) {
  const box = part("panels");
  const known = new Map([...box.children].map((section) => [section.dataset.panel, section]));
  panels.forEach((panel, place) => {
    const section = known.get(panel.id) ?? made(panel);
    known.delete(panel.id);
    section.querySelector("h2").textContent = panel.title;
    section.querySelector(".note").textContent = panel.note;
    section.querySelector(".note").hidden = !panel.note;
    section.dataset.version = panel.version;
    if (box.children[place] !== section) box.insertBefore(section, box.children[place] ?? null);
    refresh(section);
  });
  known.forEach((section) => section.remove());
  part("choice").hidden = !panels.some((panel) => panel.id.startsWith("curves/"));
}

async function refresh(section) {
  const version = wanted(section);
  if (section.dataset.shown === version || !section.dataset.inSight || loading.has(section)) return;
  loading.add(section);
  section.classList.add("stale");
  try {
    const query = new URLSearchParams({ path, id: section.dataset.panel, metric: metric.value });
    const reply = await fetch(`${base}panel?${query}`);
    if (!reply.ok) throw new Error(reply.statusText);
    place(section, await reply.text());
    section.dataset.shown = version;
    section.classList.remove("stale");
  } catch {
    // the next look at the state says whether anybody is there
  } finally {
    loading.delete(section);
  }
}

function place(section, html) {
  const content = section.querySelector(".content");
  const open = new Set([...content.querySelectorAll("details[open]")].map((details) => details.dataset.key));
  const scrolled = [...content.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
  const focused = content.contains(document.activeElement) ? [...content.querySelectorAll("a, summary, [tabindex]")].indexOf(document.activeElement) : -1;
  content.innerHTML = html;
  for (const details of content.querySelectorAll("details")) details.open = open.has(details.dataset.key);
  content.querySelectorAll(".scroll").forEach((box, i) => { box.scrollLeft = scrolled[i] ?? 0; });
  for (const link of content.querySelectorAll("a[data-local]")) link.href = base + link.getAttribute("href");
  for (const media of content.querySelectorAll("[data-local]:not(a)")) media.src = base + media.dataset.local;
  if (focused >= 0) content.querySelectorAll("a, summary, [tabindex]")[focused]?.focus();
}

function say(text) {
  if (part("status").textContent !== text) part("status").textContent = text;
}

function trouble(text) {
  const sentence = `${text}; what you see is the last it said.`;
  if (part("trouble").textContent !== sentence) part("trouble").textContent = sentence;
  part("trouble").hidden = false;
}

async function look() {
  if (!document.hidden) {
    try {
      const reply = await fetch(`${base}state?${new URLSearchParams({ path })}`);
      if (reply.status === 404) {
        trouble("This folder is not there any more");
        setTimeout(look, PERIOD);
        return;
      }
      if (!reply.ok) throw new Error(reply.statusText);
      const state = await reply.json();
      if (part("title").textContent !== state.title) part("title").textContent = state.title;
      arrange(state.panels);
      say(state.line);
      part("trouble").hidden = true;
    } catch {
      trouble("The program behind this page is not there any more");
    }
  }
  setTimeout(look, PERIOD);
}

metric.addEventListener("change", () => {
  history.replaceState(null, "", `#metric=${metric.value}`);
  document.querySelectorAll("section").forEach(refresh);
});
look();
