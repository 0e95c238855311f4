/** A frame of one's own, sent by the client that the server makes by hand. */
import { byId, el, t } from "./ui.js";
import { bytesOf, frameList, hexOf, read, row, unmask } from "./protocol-frames.js";

const utf8 = (text) => hexOf(new TextEncoder().encode(text));

const randomKey = () => hexOf(crypto.getRandomValues(new Uint8Array(4)));

/** A frame as `by_hand` takes it; right unless `parts` say otherwise. */
export function frame({ fin = true, rsv = 0, opcode = 1, masked = true, text = "", ...rest } = {}) {
  const payload = rest.payload ?? utf8(text);
  const length = rest.length ?? payload.length / 2;
  const bits = rest.bits || (length < 126 ? 7 : length < 65536 ? 16 : 64);
  return { fin, rsv, opcode, bits, length, key: masked ? randomKey() : "", payload };
}

/** What is told of a frame that passes: here of one that has not yet. */
function asRead({ rsv, key, payload, ...made }) {
  const raw = hexOf(unmask(bytesOf(payload), bytesOf(key)));
  return { ...made, rsv: [4, 2, 1].map((bit) => Boolean(rsv & bit)), masked: key !== "", key, raw };
}

export const closeFrame = (code) => frame({ opcode: 8, payload: code.toString(16).padStart(4, "0") + utf8("by hand") });

const PRESETS = [
  [t("Three fragments"), [{ fin: false, text: "and a " }, { fin: false, opcode: 0, text: "happy new " }, { opcode: 0, text: "year!" }],
    t("A message may come in pieces. The first says what it is, the others are continuations, and FIN is in the last. The server puts them together, and sends its answer in one.")],
  [t("… with a ping between"), [{ fin: false, text: "and a" }, { opcode: 9, text: "there?" }, { opcode: 0, text: " happy new year!" }],
    t("A ping, a pong or a close may come between the pieces of a message: nobody has to wait for its end.")],
  [t("A ping"), [{ opcode: 9, text: "there?" }],
    t("Whoever gets a ping answers at once with a pong that has the same payload. Pages cannot send one. This server pings quiet browsers every 25 seconds: wait, and see it above.")],
  [t("Not masked"), [{ masked: false, text: "hello" }],
    t("All that a client sends must be masked, so that no page can make bytes that a proxy takes for a request.")],
  [t("An RSV bit"), [{ rsv: 4, text: "hello" }],
    t("RSV1 means “compressed” where both sides have agreed to that. Here they have not, so no RSV bit may be set.")],
  [t("A reserved opcode"), [{ opcode: 3, text: "hello" }],
    t("Opcodes 3 to 7 and 11 to 15 are for the future. Nobody knows what they say.")],
  [t("A ping that is too long"), [{ opcode: 9, text: "x".repeat(126) }],
    t("Control frames, which are close, ping and pong, have at most 125 bytes and are never in pieces.")],
  [t("Bad UTF-8"), [{ payload: "c328" }],
    t("A text must be UTF-8. After c3 there must come a byte from 80 to bf.")],
  [t("No beginning"), [{ opcode: 0, text: "year!" }],
    t("A continuation continues a message, and none was begun.")],
  [t("Close with 1005"), [{ opcode: 8, payload: "03ed" }],
    t("1005 means that there was no code, so it cannot be sent as one.")],
  [t("A length in too long a form"), [{ bits: 64, text: "hello" }],
    t("There must be only one way to write a length: the shortest.")],
  [t("A terabyte told"), [{ bits: 64, length: 2 ** 40, text: "hello" }],
    t("The header alone says that this is too much. So the server need not wait for it, nor keep it.")],
];

export function byHand(chat) {
  const list = frameList(byId("talk"), { received: t("By hand"), sent: t("Server") });
  const verdict = byId("outcome");

  /** Send `frames`; show what passes, and say in `place` what came of it. */
  async function send(frames, why = "", place = verdict) {
    place.replaceChildren(el("p", {}, t("Sending …")));
    try {
      const { result } = await chat.request("by_hand", { frames });
      list.clear();
      for (const each of result.frames) list.add(each);
      const last = result.frames.at(-1);
      const { code, says } = last?.direction === "sent" ? read(last) : {};
      let outcome = t("The server takes it, and stays connected.");
      if (!result.open) outcome = code ? t("The server ends it with {says}", { says }) : t("The server ends the connection.");
      const { textContent: meaning = "" } = document.querySelector(`[data-code="${code}"] .meaning`) ?? {};
      place.replaceChildren(el("p", {}, el("b", {}, outcome)), el("p", {}, why || meaning));
    } catch (error) {
      const words = {
        rate_limited: t("That is too fast. Please wait a second."),
        disconnected: t("The connection was lost. Please try again."),
        timeout: t("The server did not answer. Please try again."),
      };
      place.replaceChildren(el("p", { className: "error" }, words[error.code] ?? t(error.message)));
    }
  }

  function fill({ fin = true, rsv = 0, opcode = 1, masked = true, bits = 0, length, text, payload }) {
    byId("fin").checked = fin;
    for (const n of [1, 2, 3]) byId(`rsv${n}`).checked = Boolean(rsv & (8 >> n));
    byId("opcode").value = opcode;
    byId("masked").checked = masked;
    byId("form").value = bits;
    byId("announced").value = length ?? "";
    byId("as").value = payload === undefined ? "text" : "hex";
    byId("payload").value = payload ?? text;
  }

  for (const [name, parts, why] of PRESETS) {
    const button = el("button", { type: "button", className: "quiet" }, name);
    button.addEventListener("click", () => {
      if (parts.length > 1) {
        send(parts.map(frame), why);
        return;
      }
      fill(parts[0]);
      compose();
      send([made], why);
    });
    byId("presets").append(button);
  }

  let made; // of the form as it is; undefined: that is none

  function compose() {
    const value = byId("payload").value;
    const hex = value.replace(/\s+/g, "").toLowerCase();
    const isHex = byId("as").value === "hex";
    const told = byId("announced").value;
    const isFine = !isHex || /^([0-9a-f]{2})*$/.test(hex);
    byId("payload").ariaInvalid = isFine ? null : "true";
    byId("wrong").textContent = isFine ? "" : t("Hex is two digits for each byte, 0 to 9 and a to f.");
    made = isFine && frame({
      fin: byId("fin").checked,
      rsv: [1, 2, 3].reduce((sum, n) => sum + (byId(`rsv${n}`).checked ? 8 >> n : 0), 0),
      opcode: Number(byId("opcode").value),
      masked: byId("masked").checked,
      bits: Number(byId("form").value),
      payload: isHex ? hex : utf8(value),
      ...(/^\d+$/.test(told) && { length: Number(told) }),
    });
    byId("preview").replaceChildren(...(made ? [row(asRead(made))] : []));
  }

  byId("composer").addEventListener("input", compose);
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!made) byId("payload").focus();
    else send([made]);
  });
  compose();
  return send;
}
