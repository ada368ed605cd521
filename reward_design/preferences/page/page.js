"use strict";

const KEYS = { ArrowLeft: "first", ArrowRight: "second", "=": "equal", s: "skip", r: "replay", b: "back" };
const part = (id) => document.getElementById(id);
const boxes = ["first", "second"].map((side) => part(`words-${side}`));
let shown = null;
let busy = true;
let plays = 0;
const gone = part("trouble").textContent;

function play() {
  plays += 1;
  for (const side of ["first", "second"]) {
    part(side).src = `clips/${shown[side]}.gif?${plays}`;
  }
}

function show(state) {
  const over = state.number === undefined;
  part("title").textContent = state.title;
  part("progress").max = state.total;
  part("progress").value = state.answered;
  part("count").textContent = `${state.answered} of ${state.total}`;
  part("pair").hidden = over;
  part("pair").style.display = over ? "none" : "";
  part("end").hidden = !over;
  for (const button of document.querySelectorAll("button")) {
    button.disabled = button.dataset.answer === "back" ? state.answered === 0 : over;
  }
  for (const box of boxes) {
    box.hidden = !state.words;
    if (shown === null || over || shown.number !== state.number) box.value = "";
  }
  shown = over ? null : state;
  busy = false;
  if (!over) play();
}

async function ask(path, options) {
  busy = true;
  part("trouble").textContent = gone;
  try {
    const reply = await fetch(path, options);
    if (reply.status === 500) part("trouble").textContent = await reply.text();
    if (!reply.ok) throw new Error(reply.statusText);
    show(await reply.json());
    part("trouble").hidden = true;
  } catch {
    part("trouble").hidden = false;
    busy = false;
  }
}

function say(answer) {
  if (busy || (shown === null && answer !== "back")) return;
  if (answer === "replay") return play();
  const words = boxes.map((box) => box.value);
  const body = JSON.stringify({ number: shown === null ? -1 : shown.number, answer, words });
  ask("answer", { method: "POST", headers: { "Content-Type": "application/json" }, body });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-answer]");
  if (button && !button.disabled) say(button.dataset.answer);
});
document.addEventListener("keydown", (event) => {
  if (event.target.tagName !== "TEXTAREA" && event.key in KEYS && !event.repeat && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    say(KEYS[event.key]);
  }
});
ask("question");
