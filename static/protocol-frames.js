/** Frames as people can read them: a row of bits, and the mask undone byte by byte. */
import { el, inFrame, t } from "./ui.js";

const MOST = 100; // frames in a list
const BYTES = 16; // of a payload in the row
const UNMASKED = 32; // bytes in the table

const KINDS = {
  0: t("continuation"), 1: t("text"), 2: t("binary"), 8: t("close"), 9: "ping", 10: "pong",
};
export const kindOf = (opcode) => KINDS[opcode] ?? t("reserved");

export const bytesOf = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
export const hexOf = (bytes, gap = "") => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(gap);
// Also of one that does not fit, which a frame of one's own may have.
const bits = (number, count) => number.toString(2).padStart(count, "0");
const textOf = (bytes) => new TextDecoder().decode(bytes);

/** The mask put on, or undone: that is the same. */
export const unmask = (bytes, key) => (key.length ? bytes.map((byte, at) => byte ^ key[at % 4]) : bytes);

/** What a frame says, its mask undone. */
export function read(frame) {
  const { opcode, length } = frame;
  const raw = bytesOf(frame.raw);
  const key = bytesOf(frame.key);
  const payload = unmask(raw, key);
  const plain = frame.inflated === undefined ? payload : bytesOf(frame.inflated);
  const more = length > raw.length || (frame.inflated !== undefined && plain.length === 256) ? "…" : "";
  let says = "";
  if (opcode === 8 && payload.length > 1) {
    says = `${(payload[0] << 8) | payload[1]} ${textOf(payload.slice(2))}`.trim();
  } else if (opcode === 2) {
    says = hexOf(plain.slice(0, BYTES), " ") + (more || (plain.length > BYTES ? "…" : ""));
  } else if (plain.length) {
    says = `“${textOf(plain)}${more}”`;
  }
  return { raw, key, payload, says, code: opcode === 8 && payload.length > 1 ? (payload[0] << 8) | payload[1] : undefined };
}

function cell(kind, name, value, meaning = "") {
  return el("div", { className: kind },
    el("dt", /^[A-Z]/.test(name) ? { lang: "en" } : {}, name), el("dd", { className: "value" }, value), el("dd", { className: "meaning" }, meaning));
}

/** The bits of a frame's header, and the beginning of its payload. */
export function row(frame) {
  const { fin, rsv, opcode, masked, length } = frame;
  const { raw, key, says } = read(frame);
  const short = { 7: length, 16: 126, 64: 127 }[frame.bits];
  const nodes = [
    cell("fin", "FIN", fin ? "1" : "0", fin ? t("the last") : t("more follow")),
    cell("rsv", "RSV1–3", rsv.map(Number).join(""), rsv[0] && frame.inflated !== undefined ? t("compressed") : rsv.some(Boolean) ? t("set") : t("unused")),
    cell("opcode", t("Opcode"), bits(opcode, 4), `${kindOf(opcode)} (0x${opcode.toString(16)})`),
    cell("mask", "MASK", masked ? "1" : "0", masked ? t("masked") : t("not masked")),
    cell("length", t("Length"), bits(short, 7), frame.bits === 7 ? String(length) : t("{n}: see the next {bits} bits", { n: short, bits: frame.bits })),
  ];
  if (frame.bits !== 7) {
    const value = bits(BigInt(length), frame.bits).replace(/.{8}(?=.)/g, "$& ");
    nodes.push(cell("length more", t("Length in {bits} bits", { bits: frame.bits }), value, length.toLocaleString()));
  }
  if (masked) nodes.push(cell("key", t("Masking key"), hexOf(key, " "), t("random")));
  if (raw.length) {
    const rest = length > BYTES ? " …" : "";
    const text = says.length > 60 ? `${says.slice(0, 60)}…` : says;
    nodes.push(cell("payload", t("Payload"), hexOf(raw.slice(0, BYTES), " ") + rest, masked ? t("under the mask: {text}", { text }) : text));
  }
  return el("dl", { className: "bits" }, ...nodes);
}

/** A table of `wire ⊕ key = byte`, for the first bytes. */
function unmasking({ raw, key, payload }) {
  const byte = (value) => el("td", {}, el("code", {}, hexOf([value])), el("code", { className: "binary" }, bits(value, 8)));
  const rows = Array.from(raw.slice(0, UNMASKED), (value, at) => {
    const shown = payload[at] > 32 && payload[at] < 127 ? String.fromCharCode(payload[at]) : payload[at] === 32 ? "␣" : "·";
    const line = el("tr", {}, el("th", { scope: "row" }, String(at)), byte(value), byte(key[at % 4]), byte(payload[at]), el("td", {}, shown));
    line.style.setProperty("--at", at);
    return line;
  });
  const titles = [t("Byte"), t("on the wire"), t("⊕ key"), t("= payload"), "ASCII"];
  const head = el("tr", {}, ...titles.map((title) => el("th", { scope: "col" }, title)));
  const table = el("table", { className: "unmask" }, el("thead", {}, head), el("tbody", {}, ...rows));
  const children = [table];
  if (raw.length > UNMASKED) children.push(el("p", { className: "hint" }, t("… and so on: the key's four bytes come round again and again.")));
  return el("div", { className: "unmasking" }, ...children);
}

/** The <li> of a frame. `from`: in words; `note`: what else there is to say. */
function item(frame, from, note) {
  const said = read(frame);
  const gist = el("p", { className: "gist" },
    el("span", { className: "arrow", ariaHidden: "true" }, frame.direction === "sent" ? "←" : "→"),
    el("b", {}, from), " ",
    el("span", { className: "kind" }, frame.fin || frame.opcode > 7 ? kindOf(frame.opcode) : t("{kind}, a fragment", { kind: kindOf(frame.opcode) })), " ",
    el("bdi", { className: "says" }, said.says), " ",
    el("small", {}, [`${(frame.at / 1000).toFixed(3)} s`, note].filter(Boolean).join(" · ")));
  const node = el("li", { className: "frame", dataset: { direction: frame.direction } }, gist, row(frame));
  if (frame.masked && said.raw.length) {
    let open;
    const button = el("button", { type: "button", className: "quiet", ariaExpanded: "false" }, t("Undo the mask"));
    button.addEventListener("click", () => {
      if (open) open.remove();
      open = open ? undefined : unmasking(said);
      if (open) {
        node.append(open);
        open.scrollIntoView({ block: "nearest" });
      }
      button.ariaExpanded = String(Boolean(open));
    });
    node.append(button);
  }
  return node;
}

/**
 * Return what adds frames to a list and keeps the last hundred.
 *
 * words: who sends what the server has "received", and what it has "sent". A list that is
 * `reversed` has the newest first.
 */
export function frameList(list, words) {
  const pings = new Map(); // direction and payload -> when
  let waiting = [];
  const draw = inFrame(() => {
    const nodes = waiting.slice(-MOST).map(({ frame, note }) => item(frame, words[frame.direction], note));
    waiting = [];
    if (list.reversed) list.prepend(...nodes.reverse());
    else list.append(...nodes);
    while (list.childElementCount > MOST) list[list.reversed ? "lastElementChild" : "firstElementChild"].remove();
  });
  return {
    /** Returns what is to be said of it besides. */
    add(frame, note = "") {
      const id = `${frame.direction} ${read(frame).says}`;
      if (frame.opcode === 9) pings.set(id, frame.at);
      const answered = `${frame.direction === "sent" ? "received" : "sent"} ${read(frame).says}`;
      if (frame.opcode === 10 && pings.has(answered)) {
        const ms = (frame.at - pings.get(answered)).toFixed(2);
        note = t("{ms} ms after the ping", { ms });
        pings.delete(answered);
      }
      waiting.push({ frame, note });
      draw();
      return note;
    },
    clear() {
      waiting = [];
      pings.clear();
      list.replaceChildren();
    },
  };
}
