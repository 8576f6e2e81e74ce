// Print every alert, once and in order per account: `npm install kafkajs && node examples/alerts.js localhost:9092`.
const { Kafka, logLevel } = require("kafkajs");

const kafka = new Kafka({ brokers: [process.argv[2]], logLevel: logLevel.ERROR });
const consumer = kafka.consumer({ groupId: "my-alerts", readUncommitted: false });

async function main() {
  await consumer.connect();
  await consumer.subscribe({ topic: "cs.alerts.v1", fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ message }) => {
      const alert = JSON.parse(message.value);
      const kind = message.headers.ce_type.toString().replace(/^hune\./, "").replace(/\.v1$/, "");
      console.log(message.headers.ce_id.toString(), kind, alert.account_id, alert.severity, alert.title);
    },
  });
}

main();
