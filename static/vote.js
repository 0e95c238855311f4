/** The first page of the vote: the standing poll, a new one, and those of today. */

import { byId, el, plural, showList, showStatus, t } from "./ui.js";
import { hearResults, labelOf, onChoice, otherTabs, showMine, showResults } from "./vote-board.js";
import { phaseOf } from "./vote-shares.js";

const { socket, me } = byId("vote").dataset;
const chat = new WSChat(socket);
showStatus(chat);

// ---- the standing poll

const poll = chat.poll("demo");
const hint = byId("hint");
const tellTabs = otherTabs("demo", () => poll.get().catch(() => {}));
let mine = null;

chat.join("vote", {
  onPresence: (present, change, count) => (byId("online").textContent = count),
});
poll.on((standing) => {
  showResults(standing);
  if (standing.mine) {
    const name = labelOf(standing.mine);
    hint.textContent = t("You voted for “{name}”. Pick another to change it.", { name });
  } else if (mine) hint.textContent = t("The server has lost all votes. Please vote again.");
  mine = standing.mine;
  showMine(mine);
});
onChoice(chat, async (choice) => {
  await poll.vote(choice);
  tellTabs();
});

// ---- a new one: rows of choices

let sent = false;
byId("form").addEventListener("submit", (event) => {
  if (sent) event.preventDefault(); // a double click makes one poll
  sent = true;
});
addEventListener("pageshow", () => (sent = false)); // somebody came back to it

const rows = byId("rows");
const add = byId("add");

function numberRows() {
  const { length } = rows.children;
  for (const [index, row] of [...rows.children].entries()) {
    const n = index + 1;
    row.querySelector("input").ariaLabel = t("Choice {n}", { n });
    row.querySelector("button").ariaLabel = t("Remove choice {n}", { n });
    row.querySelector("button").hidden = length <= 2;
  }
  add.hidden = length >= rows.dataset.most;
}

function addRow() {
  const row = rows.firstElementChild.cloneNode(true);
  row.querySelector(".error")?.remove();
  const input = row.querySelector("input");
  for (const name of ["aria-invalid", "aria-describedby", "autofocus"]) input.removeAttribute(name);
  input.value = "";
  rows.append(row);
  numberRows();
  input.focus();
}

add.addEventListener("click", addRow);
rows.addEventListener("click", ({ target }) => {
  const row = target.closest(".remove")?.closest("li");
  if (!row) return;
  const heir = row.nextElementSibling ?? row.previousElementSibling;
  row.remove();
  numberRows();
  heir.querySelector("input").focus();
});
byId("form").addEventListener("keydown", (event) => {
  const { key, target, isComposing, keyCode } = event;
  if (key !== "Enter" || !target.matches("input:not([type=checkbox])")) return;
  event.preventDefault(); // it goes on, and sends nothing that is half done
  if (isComposing || keyCode === 229) return;
  const fields = [byId("q"), ...rows.querySelectorAll("input")];
  const next = fields[fields.indexOf(target) + 1];
  if (next) next.focus();
  else if (target.value.trim() && !add.hidden) addRow();
});
numberRows();

// ---- those of today

const PHASES = { pending: t("Not open yet"), open: t("Voting now"), closed: t("Vote closed") };
const list = byId("polls");
const made = new Map(); // id -> what the server told, the newest last
const stops = new Map(); // id -> what ends hearing of its votes
let ahead = 0; // seconds that the server's clock is before ours
let timer;

function makeRow(id) {
  const link = el("a", { href: `${location.pathname}/${id}`, dir: "auto" });
  const row = el("li", {}, link, el("span", { className: "phase" }), el("span", { className: "votes" }));
  if (made.get(id).maker === me) {
    row.append(el("a", { className: "present", href: `${link.href}/present` }, t("Present")));
  }
  return row;
}

function updateRow(row, id) {
  const { question, state, total } = made.get(id);
  const [link, phase, votes] = row.children;
  link.textContent = question;
  phase.dataset.phase = phaseOf(state, Date.now() / 1000 + ahead);
  phase.textContent = PHASES[phase.dataset.phase];
  votes.textContent = state.revealed ? plural(total, "{n} vote", "{n} votes") : t("results hidden");
}

function showPolls() {
  clearTimeout(timer);
  showList(list, [...made.keys()].reverse(), makeRow, updateRow);
  byId("none").hidden = made.size > 0;
  const now = Date.now() / 1000 + ahead;
  const ends = [...made.values()].map(({ state }) => state.ends ?? 0).filter((end) => end > now);
  if (ends.length) timer = setTimeout(showPolls, 1000 * (Math.min(...ends) - now) + 50);
}

function noteRow(row) {
  const id = row.poll;
  if (row.state.deleted) {
    made.delete(id);
    stops.get(id)?.();
    return;
  }
  made.set(id, row);
  if (!row.state.revealed || stops.has(id)) return;
  const stop = hearResults(chat, id, ({ total }) => {
    if (!made.has(id)) return;
    made.get(id).total = total;
    showPolls();
  });
  stops.set(id, stop);
}

async function askPolls() {
  try {
    const { result } = await chat.request("polls");
    ahead = result.now - Date.now() / 1000;
    made.clear();
    for (const row of result.polls.reverse()) noteRow(row);
    showPolls();
  } catch {
    if (chat.state === "open") setTimeout(askPolls, 1000);
  }
}

chat.on("listed", (row) => {
  noteRow(row);
  showPolls();
});
chat.onState(({ state }) => state === "open" && askPolls());
