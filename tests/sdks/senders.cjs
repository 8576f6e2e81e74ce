// One vendor's Node SDK sending events whose ids and times are the same each time:
// `node senders.cjs SDK URL KEY ACCOUNT`, with NODE_PATH where the SDKs are.
"use strict";
const { createHash } = require("node:crypto");

const EVENTS = 60;
const BEGAN = Date.UTC(2026, 5, 1, 9);
const pause = () => new Promise((done) => setTimeout(done, 20));

function* events(account) {
  for (let n = 0; n < EVENTS; n += 1) {
    yield {
      userId: `${account}-user-${n % 7}`,
      event: "Used",
      properties: { n, company_id: account },
      context: { groupId: account },
      messageId: createHash("sha256").update(`${account}-${n}`).digest("hex"),
      timestamp: new Date(BEGAN + n * 1000),
    };
  }
}

async function bySegment(url, key, account) {
  const { Analytics } = require("@segment/analytics-node");
  const client = new Analytics({ writeKey: key, host: url, flushAt: 5, flushInterval: 50, maxRetries: 30 });
  for (const event of events(account)) {
    client.track(event);
    await pause();
  }
  await client.closeAndFlush();
}

async function byRudderstack(url, key, account) {
  const Analytics = require("@rudderstack/rudder-sdk-node").default || require("@rudderstack/rudder-sdk-node");
  const client = new Analytics(key, {
    dataPlaneUrl: url,
    flushAt: 5,
    flushInterval: 50,
    axiosRetryConfig: { retries: 60, retryDelay: () => 250 },
  });
  for (const event of events(account)) {
    client.track({ ...event, originalTimestamp: event.timestamp });
    await pause();
  }
  await client.flush();
  await new Promise((done) => setTimeout(done, 200)); // flush() tells of its own call, not of those before it
  await client.flush();
}

const senders = { "segment-node": bySegment, "rudderstack-node": byRudderstack };
const [sdk, ...rest] = process.argv.slice(2);
senders[sdk](...rest).catch((error) => {
  console.error(error);
  process.exit(1);
});
