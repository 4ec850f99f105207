// Fastify and ioredis: one EVALSHA a request, all on one connection.
//
//     node fastify.mjs PORT REDIS_PORT PLAN        in the directory that has node_modules

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

// Modules are installed where things are built, and not beside the source.
const require = createRequire(join(process.cwd(), "package.json"));
const fastify = require("fastify");
const { Redis } = require("ioredis");

const [port, redisPort, planFile] = process.argv.slice(2);
const plan = JSON.parse(readFileSync(planFile, "utf8"));
const given = plan.args.map((argument) => Buffer.from(argument, "base64"));

// Without enableAutoPipelining: that has one pipeline on its way at a time, and waits while Redis works.
// Each command sent as it comes does half as much again.
const redis = new Redis({ host: "127.0.0.1", port: Number(redisPort) });
const sha = await redis.script("LOAD", plan.script);

const app = fastify({ logger: false, keepAliveTimeout: 75_000 });

const held = {
  type: "object",
  properties: {
    id: { type: "string" },
    sku: { type: "string" },
    quantity: { type: "integer" },
    user: { type: "string" },
    state: { type: "string" },
  },
};
const refused = { type: "object", properties: { code: { type: "string" } } };

app.post(
  "/v1/campaigns/bench/reservations",
  { schema: { response: { 201: held, 409: refused } } },
  async (request, reply) => {
    const user = request.headers["x-user"];
    const digest = createHash("md5")
      .update(`${user}:${request.headers["idempotency-key"]}`)
      .digest("hex")
      .slice(0, plan.digest_chars);
    const args = given.slice();
    args[plan.digest_at] = digest;
    args[plan.user_at] = user;
    const found = await redis.evalsha(sha, plan.keys.length, ...plan.keys, ...args);
    const outcome = found[plan.outcome_at];
    if (outcome !== "moved") {
      reply.code(409);
      return { code: outcome };
    }
    const { sku, quantity } = request.body;
    reply.code(201);
    return { id: `${plan.campaign}.${digest}`, sku, quantity, user, state: "held" };
  },
);

await app.listen({ host: "127.0.0.1", port: Number(port) });

process.on("SIGTERM", () => process.exit(0));
