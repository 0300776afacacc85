const express = require("express");

const app = express();
app.get("/", (request, response) => response.send("hello from Express\n"));

const server = app.listen(0, "127.0.0.1", () => {
  const { port } = server.address();
  require("http").get({ port, host: "127.0.0.1" }, (response) => {
    response.pipe(process.stdout);
    response.on("end", () => server.close());
  });
});
