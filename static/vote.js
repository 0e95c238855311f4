import { byId, plural, showStatus } from "./ui.js";

const poll = "demo";
const chat = new WSChat(byId("choices").dataset.socket);
const tabs = new BroadcastChannel("vote"); // the others of this browser: one vote for all
const buttons = [...document.querySelectorAll("[data-choice]")];
const hint = byId("hint");
let newest; // the version of what is shown; undefined on a new connection
let mine = null;
showStatus(chat);

for (const button of buttons) {
  button.addEventListener("click", async () => {
    const { choice } = button.dataset;
    if (chat.state !== "open") {
      hint.textContent = "There is no connection now. Your vote is sent when it is back.";
    }
    try {
      show(await chat.request("vote", { poll, choice }));
      showMine(choice);
      tabs.postMessage(choice);
    } catch (error) {
      hint.textContent = {
        disconnected: "The connection was lost. Please check your vote below.",
        timeout: "The server did not answer. Please vote again.",
        unavailable: "Votes cannot be stored just now. Please vote again.",
      }[error.code] ?? error.message;
    }
  });
}

function showMine(choice) {
  for (const button of buttons) {
    button.ariaPressed = String(button.dataset.choice === choice);
  }
  if (choice) hint.textContent = `You voted for “${choice}”. Pick another to change it.`;
  else if (mine) hint.textContent = "The server has lost all votes. Please vote again.";
  mine = choice;
}

function show({ counts, total, version }) {
  if (version <= newest) return;
  newest = version;
  const most = Math.max(1, ...Object.values(counts));
  for (const button of buttons) {
    const count = counts[button.dataset.choice] ?? 0;
    const share = total ? count / total : 0;
    button.style.setProperty("--share", share);
    button.toggleAttribute("data-leads", count === most);
    button.querySelector(".votes").textContent = plural(count, "{n} vote", "{n} votes");
    button.querySelector(".percent").textContent = `${Math.round(share * 100)}%`;
  }
  byId("total").textContent = total;
}

/** Ask how it stands: news may have been missed while there was no connection. */
async function ask() {
  try {
    const standing = await chat.request("poll", { poll });
    show(standing);
    showMine(standing.mine);
  } catch {
    if (chat.state === "open") setTimeout(ask, 1000);
  }
}

chat.onState(({ state }) => {
  newest = undefined;
  if (state === "open") ask(); // the join was sent before: it is a poll of the room
});
chat.on("tally", show);
chat.join("vote", {
  onPresence: (present) => (byId("online").textContent = present.length),
});
tabs.addEventListener("message", ({ data }) => showMine(data));
