import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import com.sun.management.OperatingSystemMXBean;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * Routing, and the health worker's simplest figures, with Kafka Streams exactly once on one thread.
 *
 * One argument, a JSON object: mode (router or health), bootstrap_servers, group, topic, state (folder), warm, events,
 * routes (event type to topics) or results (topic). The first `warm` events let the machine compile and are not counted.
 */
public class Streams {
    @JsonIgnoreProperties(ignoreUnknown = true)
    public static class Event {
        public String id, type, account_id, user_id, timestamp;
        public Double score;
        public JsonNode context;
    }

    /** What is kept of an account: the columns of the tables in state.py, without the ids against repeats. */
    public static class Account {
        public String account_id, cause_id;
        public long events, open, answers, points;
        public String last = "";
        public Map<String, Long> usage = new HashMap<>();
        public Map<String, Set<String>> users = new HashMap<>();
        public double score;
    }

    static final ObjectMapper JSON = new ObjectMapper();
    static final ObjectReader EVENTS = JSON.readerFor(Event.class);
    static final ObjectReader ACCOUNTS = JSON.readerFor(Account.class);
    static final ObjectWriter WRITER = JSON.writerFor(Account.class);

    /** Counts; begins to measure after the warm events. */
    static class Meter {
        final long warm, goal;
        final CountDownLatch over = new CountDownLatch(1);
        volatile long written;
        long done, started;
        double cpu;

        Meter(long warm, long goal) {
            this.warm = warm;
            this.goal = goal;
        }

        void add(int records) {
            written += records;
            done++;
            if (done == warm) {
                written = 0;
                started = System.nanoTime();
                cpu = cpu();
            }
            if (done == warm + goal) {
                over.countDown();
            }
        }

        static double cpu() {
            return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime() / 1e9;
        }

        void say() throws Exception {
            double seconds = (System.nanoTime() - started) / 1e9, spent = cpu() - cpu;
            long kb = 0;
            for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
                if (line.startsWith("VmHWM:")) {
                    kb = Long.parseLong(line.replaceAll("\\D", ""));
                }
            }
            System.out.printf(Locale.ROOT,
                "{\"events\": %d, \"written\": %d, \"seconds\": %.3f, \"events_per_second\": %.1f, "
                    + "\"worker_us_per_event\": %.1f, \"peak_rss_mb\": %d}%n",
                goal, written, seconds, goal / seconds, spent / goal * 1e6, kb / 1024);
        }
    }

    record Out(String topic, byte[] value) {}

    /** One record in, one out for each topic that the event's type concerns. */
    static class Router implements Processor<byte[], byte[], byte[], Out> {
        final Map<String, List<String>> routes;
        final Meter meter;
        ProcessorContext<byte[], Out> context;

        Router(Map<String, List<String>> routes, Meter meter) {
            this.routes = routes;
            this.meter = meter;
        }

        @Override
        public void init(ProcessorContext<byte[], Out> context) {
            this.context = context;
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            Event event = read(record.value());
            if (event.id == null || event.account_id == null || event.type == null) {
                throw new IllegalArgumentException("id, type and account_id are needed");
            }
            OffsetDateTime.parse(event.timestamp);
            byte[] account = bytes(event.account_id);
            List<String> topics = routes.getOrDefault(event.type, List.of());
            for (String topic : topics) {
                Headers headers = new RecordHeaders()
                    .add("ce_specversion", bytes("1.0")).add("ce_id", bytes(event.id))
                    .add("ce_source", bytes("hune")).add("ce_type", bytes("hune." + event.type + ".v1"))
                    .add("ce_time", bytes(event.timestamp))
                    .add("ce_recordedtime", bytes(Long.toString(record.timestamp())))
                    .add("content-type", bytes("application/json")).add("ce_owntime", bytes(event.timestamp))
                    .add("ce_subject", account);
                context.forward(new Record<>(account, new Out(topic, record.value()), record.timestamp(), headers));
            }
            meter.add(topics.size());
        }
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static Event read(byte[] body) {
        try {
            return EVENTS.readValue(body);
        } catch (java.io.IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    static Account apply(byte[] body, Account account) {
        Event event = read(body);
        account.account_id = event.account_id;
        account.cause_id = event.id;
        account.events++;
        int opened = event.type.equals("ticket.opened") ? 1 : event.type.equals("ticket.solved") ? -1 : 0;
        account.open = Math.max(0, account.open + opened);
        if (event.score != null) {
            account.answers++;
            account.points += event.score.longValue();
        }
        String day = OffsetDateTime.parse(event.timestamp).toLocalDate().toString();
        if (event.timestamp.compareTo(account.last) > 0) {
            account.last = event.timestamp;
        }
        if (event.type.equals("usage.tracked")) {
            account.usage.merge(day, 1L, Long::sum);
            if (event.user_id != null) {
                account.users.computeIfAbsent(day, one -> new HashSet<>()).add(event.user_id);
            }
        }
        account.score = account.events - 10.0 * account.open + account.points;
        return account;
    }

    static Serde<Account> accounts() {
        return Serdes.serdeFrom(
            (topic, account) -> {
                try {
                    return account == null ? null : WRITER.writeValueAsBytes(account);
                } catch (java.io.IOException error) {
                    throw new UncheckedIOException(error);
                }
            },
            (topic, body) -> {
                try {
                    return body == null ? null : ACCOUNTS.readValue(body);
                } catch (java.io.IOException error) {
                    throw new UncheckedIOException(error);
                }
            });
    }

    static byte[] result(Account account) {
        return bytes("{\"account_id\":\"" + account.account_id + "\",\"score\":" + account.score + ",\"cause_id\":\""
            + account.cause_id + "\"}");
    }

    public static void main(String[] arguments) throws Exception {
        JsonNode given = JSON.readTree(arguments[0]);
        Meter meter = new Meter(given.get("warm").asLong(), given.get("events").asLong());
        Properties settings = new Properties();
        settings.put("application.id", given.get("group").asText());
        settings.put("bootstrap.servers", given.get("bootstrap_servers").asText());
        settings.put("processing.guarantee", "exactly_once_v2");
        settings.put("num.stream.threads", "1");
        settings.put("state.dir", given.get("state").asText());
        settings.put("consumer.auto.offset.reset", "earliest");
        settings.put("consumer.max.poll.records", "5000");
        settings.put("producer.linger.ms", "5");
        settings.put("producer.batch.size", "524288");
        StreamsBuilder builder = new StreamsBuilder();
        Consumed<byte[], byte[]> raw = Consumed.with(Serdes.ByteArray(), Serdes.ByteArray());
        KStream<byte[], byte[]> source = builder.stream(given.get("topic").asText(), raw);
        if (given.get("mode").asText().equals("router")) {
            Map<String, List<String>> routes = new HashMap<>();
            given.get("routes").properties().forEach(entry -> {
                List<String> topics = new ArrayList<>();
                entry.getValue().forEach(topic -> topics.add(topic.asText()));
                routes.put(entry.getKey(), topics);
            });
            Serde<Out> out = Serdes.serdeFrom((topic, one) -> one.value(), (topic, body) -> null);
            source.process(() -> new Router(routes, meter))
                .to((key, one, context) -> one.topic(), Produced.with(Serdes.ByteArray(), out));
        } else {
            source.groupByKey(Grouped.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .aggregate(Account::new, (key, body, account) -> {
                    Account changed = apply(body, account);
                    meter.add(1);
                    return changed;
                }, Materialized.<byte[], Account, KeyValueStore<Bytes, byte[]>>as("accounts")
                    .withKeySerde(Serdes.ByteArray()).withValueSerde(accounts()))
                .toStream().mapValues(Streams::result)
                .to(given.get("results").asText(), Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
        }
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return null;
        });
        streams.start();
        meter.over.await();
        streams.close(Duration.ofSeconds(30)); // flushes and commits
        meter.say();
        System.exit(0);
    }
}
