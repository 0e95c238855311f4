/** Where people write; Enter sends, Shift+Enter breaks lines. */

import { byId, plural, t, toast, whole } from "./ui.js";

const MOST = 2000; // characters, as the server counts them: demos/talk.py
const NEAR = 200;
const AGAIN = 2500; // ms after which it is told again that somebody is typing

/** Call `send` with words for `chat`, `typing` while somebody writes them. */
export function composer(chat, send, { typing } = {}) {
  const form = byId("composer");
  const words = byId("words");
  const left = byId("left");
  const grows = CSS.supports("field-sizing", "content"); // by itself
  let told = 0;

  const lacking = () => MOST - [...words.value.trim()].length;

  words.addEventListener("input", () => {
    const near = words.value.length > MOST - NEAR;
    const n = near ? lacking() : MOST;
    left.hidden = n > NEAR;
    left.classList.toggle("over", n < 0);
    if (left.hidden) left.textContent = "";
    else if (n < 0) left.textContent = plural(-n, "{n} character too many", "{n} characters too many");
    else left.textContent = plural(n, "{n} character left", "{n} characters left");
    if (!grows) {
      words.style.height = "auto";
      words.style.height = `${words.scrollHeight + 2}px`;
    }
    if (!words.value.trim()) told = 0; // it was sent, or taken back
    else if (words === document.activeElement && Date.now() - told > AGAIN) {
      told = Date.now();
      typing?.();
    }
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const data = whole(words.value.trim());
    words.focus();
    if (lacking() < 0) return toast(t("A message has at most 2,000 characters."));
    if (chat.state === "closed") return toast(t("The connection has ended.")); // they stay here
    words.value = "";
    words.dispatchEvent(new Event("input"));
    if (data) send(data);
  });
  words.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
    // This Enter ends a composition; in Safari, that one has ended before: 229.
    if (event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    form.requestSubmit();
  });
}

/** Put words where somebody is writing. */
export function insert(text) {
  const words = byId("words");
  const before = words.value.slice(0, words.selectionStart);
  const space = !before || /\s$/.test(before) ? "" : " ";
  words.setRangeText(space + text, words.selectionStart, words.selectionEnd, "end");
  words.focus();
  words.dispatchEvent(new Event("input"));
}
