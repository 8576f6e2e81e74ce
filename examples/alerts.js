// Print every alert, once and in order per account: `npm ci --prefix examples && node examples/alerts.js localhost:9092 my-alerts`.
const { Kafka, logLevel } = require("kafkajs");

const [broker, groupId] = process.argv.slice(2);
const kafka = new Kafka({ brokers: [broker], logLevel: logLevel.ERROR });
const consumer = kafka.consumer({ groupId, readUncommitted: false });

async function main() {
  await consumer.connect();
  await consumer.subscribe({ topic: "cs.alerts.v1", fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ message }) => {
      const alert = JSON.parse(message.value);
      const kind = message.headers.ce_type.toString().replace(/^hune\.|\.v1$/g, "");
      console.log(message.headers.ce_id.toString(), kind, alert.account_id, alert.severity, alert.title);
    },
  });
}

main();
