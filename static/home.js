import { showStatus } from "./ui.js";

const chat = new WSChat(document.body.dataset.home);
showStatus(chat);

for (const node of document.querySelectorAll("[data-online]")) {
  chat.join(node.dataset.online, {
    onPresence: (present) => (node.textContent = present.length),
  });
}
