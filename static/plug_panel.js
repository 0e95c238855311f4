/** The drawer below every demo: it pulls at the socket of its page. */

import { byId, shownChat } from "./ui.js";
import { plugs } from "./plug.js";

const chat = await shownChat;
const panel = byId("plug");
const seen = panel.querySelector(".seen");
panel.hidden = false;
// What else stays at the end of the window is above it.
new ResizeObserver(() => {
  const above = getComputedStyle(panel).position === "sticky" ? panel.offsetHeight : 0;
  document.documentElement.style.setProperty("--plug", `${above}px`);
}).observe(panel);
plugs(panel, chat, (words) => (seen.textContent = words));
