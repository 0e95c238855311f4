/** The drawer below every demo: it pulls at the socket of its page. */

import { byId, shownChat } from "./ui.js";
import { plugs } from "./plug.js";

const chat = await shownChat;
const panel = byId("plug");
const seen = panel.querySelector(".seen");
panel.hidden = false;
plugs(panel, chat, (words) => (seen.textContent = words));
