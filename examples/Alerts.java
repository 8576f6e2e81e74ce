// Print every alert, once and in order per account: java -cp kafka-clients.jar:slf4j-api.jar examples/Alerts.java localhost:9092
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.StringDeserializer;

public class Alerts {
    public static void main(String[] args) {
        Map<String, Object> settings = Map.of("bootstrap.servers", args[0], "group.id", "my-alerts",
            "auto.offset.reset", "earliest", "isolation.level", "read_committed");
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of("cs.alerts.v1"));
            while (true) {
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    var type = new String(record.headers().lastHeader("ce_type").value());
                    System.out.println(type + " " + record.key() + " " + record.value());
                }
            }
        }
    }
}
