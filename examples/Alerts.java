// Print every alert, once and in order per account: `java -cp "$KAFKA_HOME/libs/*" examples/Alerts.java localhost:9092 my-alerts`.
import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.serialization.StringDeserializer;

public class Alerts {
    public static void main(String[] args) throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", args[0], "group.id", args[1],
            "auto.offset.reset", "earliest", "isolation.level", "read_committed");
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of("cs.alerts.v1"));
            while (true) {
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    var alert = new ObjectMapper().readTree(record.value());
                    var kind = header(record.headers(), "ce_type").replaceAll("^hune\\.|\\.v1$", "");
                    System.out.println(String.join(" ", header(record.headers(), "ce_id"), kind,
                        alert.path("account_id").asText(), alert.path("severity").asText(), alert.path("title").asText()));
                }
            }
        }
    }

    static String header(Headers headers, String name) {
        return new String(headers.lastHeader(name).value());
    }
}
