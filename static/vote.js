import { WSChat } from "wschat";
import { byId, plural, showStatus } from "./ui.js";

const chat = new WSChat("/ws/vote");
const buttons = [...document.querySelectorAll("[data-choice]")];
const hint = byId("hint");
showStatus(chat);

for (const button of buttons) {
  button.addEventListener("click", async () => {
    try {
      await chat.request("vote", { choice: button.dataset.choice });
    } catch (error) {
      hint.textContent = {
        disconnected: "The connection was lost. Please check your vote below.",
        timeout: "The server did not answer. Please vote again.",
      }[error.code] ?? error.message;
    }
  });
}

// What this browser has voted for; comes to all its tabs.
chat.on("mine", ({ choice }) => {
  for (const button of buttons) {
    button.ariaPressed = String(button.dataset.choice === choice);
  }
  if (choice) hint.textContent = `You voted for “${choice}”. Pick another to change it.`;
});

chat.on("tally", ({ counts, total, online }) => {
  const most = Math.max(1, ...Object.values(counts));
  for (const button of buttons) {
    const count = counts[button.dataset.choice] ?? 0;
    const share = total ? count / total : 0;
    button.style.setProperty("--share", share);
    button.toggleAttribute("data-leads", count === most);
    button.querySelector(".votes").textContent = plural(count, "vote");
    button.querySelector(".percent").textContent = `${Math.round(share * 100)}%`;
  }
  byId("total").textContent = total;
  byId("online").textContent = online;
});
