import { WSChat } from "wschat";
import { showStatus } from "./ui.js";

const chat = new WSChat("/ws/home");
showStatus(chat);

// A link to a room, or to a person, leads there after the login as well.
const form = document.querySelector(".login");
if (form) form.action += location.hash;

for (const node of document.querySelectorAll("[data-online]")) {
  chat.join(node.dataset.online, {
    onPresence: (present) => (node.textContent = present.length),
  });
}
