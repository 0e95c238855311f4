// ws on node: `/fan` sends each message to every connection there, others send back.
// The path of the package is the argument: it is installed elsewhere.
const http = require("node:http");
const { WebSocketServer } = require(process.argv[2]);

const server = http.createServer();
const wss = new WebSocketServer({ server, perMessageDeflate: false });
const members = new Set();

wss.on("connection", (ws, request) => {
  if (request.url === "/fan") {
    members.add(ws);
    ws.on("message", (data, binary) => {
      for (const member of members) member.send(data, { binary });
    });
    ws.on("close", () => members.delete(ws));
  } else {
    ws.on("message", (data, binary) => ws.send(data, { binary }));
  }
});

server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () =>
  console.log(server.address().port),
);
process.stdin.on("end", () => process.exit()).resume();
