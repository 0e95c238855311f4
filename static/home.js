import { WSChat } from "wschat";
import { showStatus } from "./ui.js";

const chat = new WSChat("/ws/home");
showStatus(chat);

chat.on("online", (message) => {
  for (const node of document.querySelectorAll("[data-online]")) {
    node.textContent = message[node.dataset.online];
  }
});
