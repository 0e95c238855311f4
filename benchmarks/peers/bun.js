// Bun's own server (uWebSockets): `/fan` publishes to all there, others send back.
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch(request, server) {
    const fan = new URL(request.url).pathname === "/fan";
    if (server.upgrade(request, { data: { fan } })) return;
    return new Response("WebSockets only", { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    publishToSelf: true,
    maxPayloadLength: 32 << 20,
    backpressureLimit: 64 << 20,
    open(ws) {
      if (ws.data.fan) ws.subscribe("all");
    },
    message(ws, message) {
      if (ws.data.fan) ws.publish("all", message);
      else ws.send(message);
    },
  },
});

console.log(server.port);
process.stdin.on("end", () => process.exit()).resume();
