// While one develops: Vite serves the page, and hands its sockets to the chat.

export default {
  server: { proxy: { "/chat": { target: process.env.CHAT, ws: true } } },
};
