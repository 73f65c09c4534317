import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterPartitionReassignmentsOptions;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsSpec;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Calls the methods of Kafka's admin client that need neither security nor transactions, and prints what each answers
 * or fails with.
 *
 * <pre>java AdminMethods --bootstrap-server BOOTSTRAP</pre>
 */
public final class AdminMethods {
    private static final String TOPIC = "administered";
    private static final TopicPartition FIRST = new TopicPartition(TOPIC, 0);
    private static final TopicPartition SECOND = new TopicPartition(TOPIC, 1);
    private static final TopicPartition MISSING = new TopicPartition(TOPIC, 77);
    private static final ConfigResource CONFIGS = new ConfigResource(ConfigResource.Type.TOPIC, TOPIC);
    private static final String GROUP = "administered-group";

    private final Admin admin;
    private final String bootstrap;

    public static void main(String[] args) throws Exception {
        Properties config = new Properties();
        config.put(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, args[1]);
        config.put(AdminClientConfig.DEFAULT_API_TIMEOUT_MS_CONFIG, 3000);
        config.put(AdminClientConfig.REQUEST_TIMEOUT_MS_CONFIG, 3000);
        try (Admin admin = Admin.create(config)) {
            AdminMethods methods = new AdminMethods(admin, args[1]);
            methods.topics();
            methods.records();
            methods.configs();
            methods.groups();
            methods.cluster();
            methods.notInUse();
            methods.endOfTopics();
        }
    }

    private AdminMethods(Admin admin, String bootstrap) {
        this.admin = admin;
        this.bootstrap = bootstrap;
    }

    private void topics() {
        print("createTopics", () -> {
            var created = admin.createTopics(List.of(
                new NewTopic(TOPIC, Optional.of(2), Optional.empty()).configs(Map.of("retention.ms", "-1"))));
            return created.numPartitions(TOPIC).get() + " partitions, " + created.replicationFactor(TOPIC).get()
                + " replicas, retention.ms " + created.config(TOPIC).get().get("retention.ms").value();
        });
        print("createTopics again", () -> admin.createTopics(List.of(new NewTopic(TOPIC, 2, (short) 1))).all().get());
        print("createTopics with a config that is not one", () -> admin.createTopics(
            List.of(new NewTopic("wrong", 1, (short) 1).configs(Map.of("segment.bytes", "many")))).all().get());
        print("createTopics with no partitions",
            () -> admin.createTopics(List.of(new NewTopic("wrong", 0, (short) 1))).all().get());
        print("createPartitions",
            () -> admin.createPartitions(Map.of(TOPIC, NewPartitions.increaseTo(3))).all().get());
        print("createPartitions with as many",
            () -> admin.createPartitions(Map.of(TOPIC, NewPartitions.increaseTo(3))).all().get());
        print("createPartitions on a broker that is not there", () -> admin.createPartitions(
            Map.of(TOPIC, NewPartitions.increaseTo(4, List.of(List.of(7))))).all().get());
        print("listTopics", () -> admin.listTopics().names().get().contains(TOPIC));
        print("describeTopics by name", () -> describe(admin.describeTopics(List.of(TOPIC)).allTopicNames().get().get(TOPIC)));
        print("describeTopics by id", () -> {
            Uuid id = admin.describeTopics(List.of(TOPIC)).allTopicNames().get().get(TOPIC).topicId();
            return describe(admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get().get(id));
        });
        print("describeTopics by an id that is not one", () -> admin.describeTopics(
            TopicCollection.ofTopicIds(List.of(new Uuid(5, 5)))).allTopicIds().get());
        print("describeTopics of a topic that is not there",
            () -> admin.describeTopics(List.of("nowhere")).allTopicNames().get());
    }

    private static String describe(TopicDescription topic) {
        return topic.name() + (topic.isInternal() ? " (internal) " : " ") + topic.partitions().stream()
            .map(p -> p.partition() + " leader " + p.leader().id() + " replicas " + p.replicas().size() + " isr " + p.isr().size())
            .collect(Collectors.joining(", "))
            + ", operations " + topic.authorizedOperations();
    }

    private void records() {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "linger.ms", 0);
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (long timestamp : new long[] {1_000_000_000_000L, 1_000_000_000_200L, 1_000_000_000_100L}) {
                print("send at " + timestamp,
                    () -> producer.send(new ProducerRecord<>(TOPIC, 0, timestamp, "key", "value")).get());
            }
        }
        Map<String, OffsetSpec> specs = new LinkedHashMap<>();
        specs.put("earliest", OffsetSpec.earliest());
        specs.put("latest", OffsetSpec.latest());
        specs.put("maxTimestamp", OffsetSpec.maxTimestamp());
        specs.put("earliestLocal", OffsetSpec.earliestLocal());
        specs.put("latestTiered", OffsetSpec.latestTiered());
        specs.put("earliestPendingUpload", OffsetSpec.earliestPendingUpload());
        specs.put("a time", OffsetSpec.forTimestamp(1_000_000_000_050L));
        specs.put("a later time", OffsetSpec.forTimestamp(1_000_000_000_201L));
        specs.forEach((name, spec) -> print("listOffsets, " + name,
            () -> sorted(admin.listOffsets(Map.of(FIRST, spec, SECOND, spec)).all().get())));
        print("deleteRecords",
            () -> admin.deleteRecords(Map.of(FIRST, RecordsToDelete.beforeOffset(1))).lowWatermarks().get(FIRST).get().lowWatermark());
        print("deleteRecords past the end",
            () -> admin.deleteRecords(Map.of(FIRST, RecordsToDelete.beforeOffset(100))).all().get());
        print("describeProducers", () -> admin.describeProducers(List.of(FIRST)).all().get().get(FIRST).activeProducers()
            .stream().map(p -> "epoch " + p.producerEpoch() + " sequence " + p.lastSequence()
                + " coordinator epoch " + p.coordinatorEpoch() + " transaction " + p.currentTransactionStartOffset())
            .collect(Collectors.toList()));
    }

    private void configs() {
        print("describeConfigs of the topic", () -> admin.describeConfigs(List.of(CONFIGS),
                new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true)).all().get().get(CONFIGS)
            .entries().stream().filter(e -> e.name().equals("retention.ms") || e.name().equals("cleanup.policy"))
            .sorted((a, b) -> a.name().compareTo(b.name()))
            .map(e -> "\n    " + e + " documentation " + e.documentation()).collect(Collectors.joining()));
        print("incrementalAlterConfigs, set and append", () -> admin.incrementalAlterConfigs(Map.of(CONFIGS, List.of(
            new AlterConfigOp(new ConfigEntry("max.message.bytes", "2000000"), AlterConfigOp.OpType.SET),
            new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND)))).all().get());
        print("its configs", this::setConfigs);
        print("incrementalAlterConfigs, delete and subtract", () -> admin.incrementalAlterConfigs(Map.of(CONFIGS, List.of(
            new AlterConfigOp(new ConfigEntry("max.message.bytes", null), AlterConfigOp.OpType.DELETE),
            new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.SUBTRACT)))).all().get());
        print("its configs", this::setConfigs);
        print("incrementalAlterConfigs, append to a number", () -> admin.incrementalAlterConfigs(Map.of(CONFIGS, List.of(
            new AlterConfigOp(new ConfigEntry("retention.ms", "1"), AlterConfigOp.OpType.APPEND)))).all().get());
        print("listConfigResources", () -> admin.listConfigResources().all().get().stream()
            .map(r -> r.type() + " " + r.name()).filter(r -> r.contains(TOPIC) || r.startsWith("BROKER")).sorted()
            .collect(Collectors.toList()));
        print("listConfigResources of topics", () -> admin.listConfigResources(
                Set.of(ConfigResource.Type.TOPIC), new org.apache.kafka.clients.admin.ListConfigResourcesOptions())
            .all().get().stream().anyMatch(r -> r.name().equals(TOPIC)));
    }

    private List<String> setConfigs() throws Exception {
        return admin.describeConfigs(List.of(CONFIGS)).all().get().get(CONFIGS).entries().stream()
            .filter(e -> e.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG)
            .map(e -> e.name() + "=" + e.value()).sorted().collect(Collectors.toList());
    }

    private void groups() throws InterruptedException {
        print("alterConsumerGroupOffsets", () -> admin.alterConsumerGroupOffsets(GROUP, Map.of(
            FIRST, new OffsetAndMetadata(2, Optional.of(0), "a note"), SECOND, new OffsetAndMetadata(0))).all().get());
        print("alterConsumerGroupOffsets of a partition that is not there", () -> admin.alterConsumerGroupOffsets(GROUP,
            Map.of(MISSING, new OffsetAndMetadata(2))).all().get());
        print("listConsumerGroupOffsets", () -> sorted(admin.listConsumerGroupOffsets(GROUP).partitionsToOffsetAndMetadata().get()));
        print("listConsumerGroupOffsets of two groups", () -> sorted(admin.listConsumerGroupOffsets(Map.of(
            GROUP, new ListConsumerGroupOffsetsSpec().topicPartitions(List.of(FIRST)),
            "no-such-group", new ListConsumerGroupOffsetsSpec())).all().get()));
        print("deleteConsumerGroupOffsets", () -> admin.deleteConsumerGroupOffsets(GROUP, Set.of(SECOND)).all().get());
        print("listConsumerGroupOffsets", () -> sorted(admin.listConsumerGroupOffsets(GROUP).partitionsToOffsetAndMetadata().get()));
        print("describeConsumerGroups", () -> sorted(admin.describeConsumerGroups(List.of(GROUP)).all().get()));
        print("describeConsumerGroups of one that is not there",
            () -> admin.describeConsumerGroups(List.of("no-such-group")).all().get());
        print("describeClassicGroups", () -> sorted(admin.describeClassicGroups(List.of(GROUP)).all().get()));
        Member member = Member.join(bootstrap, GROUP, TOPIC, 9);
        print("describeConsumerGroups with a member", () -> admin.describeConsumerGroups(List.of(GROUP)).all().get()
            .get(GROUP).members().stream().map(m -> m.clientId() + " " + m.host() + " " + m.groupInstanceId() + " "
                + m.assignment().topicPartitions().stream().map(Object::toString).sorted().collect(Collectors.toList()))
            .collect(Collectors.toList()));
        print("alterConsumerGroupOffsets under a member", () -> admin.alterConsumerGroupOffsets(GROUP, Map.of(
            FIRST, new OffsetAndMetadata(1))).all().get());
        print("deleteConsumerGroups with a member", () -> admin.deleteConsumerGroups(List.of(GROUP)).all().get());
        print("removeMembersFromConsumerGroup",
            () -> admin.removeMembersFromConsumerGroup(GROUP, new RemoveMembersFromConsumerGroupOptions()).all().get());
        member.leave();
        print("deleteConsumerGroups", () -> admin.deleteConsumerGroups(List.of(GROUP)).all().get());
        print("deleteConsumerGroups again", () -> admin.deleteConsumerGroups(List.of(GROUP)).all().get());
        print("listGroups", () -> admin.listGroups().all().get().stream().noneMatch(g -> g.groupId().equals(GROUP)));
    }

    private void cluster() {
        print("describeCluster", () -> {
            var cluster = admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true));
            return cluster.nodes().get() + " controller " + cluster.controller().get()
                + " operations " + cluster.authorizedOperations().get().stream().sorted().collect(Collectors.toList());
        });
        print("describeFeatures", () -> admin.describeFeatures().featureMetadata().get().supportedFeatures().keySet()
            .stream().sorted().collect(Collectors.toList()));
        print("describeMetadataQuorum", () -> admin.describeMetadataQuorum().quorumInfo().get().leaderId());
        print("describeLogDirs", () -> admin.describeLogDirs(List.of(0)).allDescriptions().get().get(0).values().stream()
            .map(dir -> dir.error() + " " + sorted(dir.replicaInfos().entrySet().stream()
                .filter(e -> e.getKey().topic().equals(TOPIC))
                .collect(Collectors.toMap(Map.Entry::getKey, Map.Entry::getValue)))).collect(Collectors.toList()));
        print("describeReplicaLogDirs", () -> {
            TopicPartitionReplica replica = new TopicPartitionReplica(TOPIC, 0, 0);
            var info = admin.describeReplicaLogDirs(List.of(replica)).all().get().get(replica);
            return info.getCurrentReplicaOffsetLag() + " " + info.getFutureReplicaLogDir();
        });
        for (ElectionType type : ElectionType.values()) {
            print("electLeaders, " + type, () -> {
                Map<String, String> errors = new TreeMap<>();
                admin.electLeaders(type, Set.of(FIRST, MISSING)).partitions().get().forEach((partition, error) ->
                    errors.put(partition.toString(), error.map(e -> e.getClass().getSimpleName()).orElse("elected")));
                return errors;
            });
        }
        print("listPartitionReassignments", () -> admin.listPartitionReassignments().reassignments().get());
        print("alterPartitionReassignments to where it is", () -> admin.alterPartitionReassignments(
            Map.of(FIRST, Optional.of(new NewPartitionReassignment(List.of(0))))).all().get());
        print("alterPartitionReassignments to another broker", () -> admin.alterPartitionReassignments(
            Map.of(FIRST, Optional.of(new NewPartitionReassignment(List.of(7))))).all().get());
        print("alterPartitionReassignments, cancel", () -> admin.alterPartitionReassignments(
            Map.of(FIRST, Optional.empty()), new AlterPartitionReassignmentsOptions()).all().get());
    }

    /** Security, quotas and transactions: what is not there fails with a clear error. */
    private void notInUse() {
        print("describeUserScramCredentials", () -> admin.describeUserScramCredentials().all().get());
        print("describeClientQuotas", () -> admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get());
        print("describeAcls", () -> admin.describeAcls(AclBindingFilter.ANY).values().get());
        print("describeDelegationToken", () -> admin.describeDelegationToken().delegationTokens().get());
        print("listTransactions", () -> admin.listTransactions().all().get());
        print("describeTransactions", () -> admin.describeTransactions(List.of("nobody")).all().get());
    }

    private void endOfTopics() {
        print("deleteTopics by id", () -> {
            Uuid id = admin.describeTopics(List.of(TOPIC)).allTopicNames().get().get(TOPIC).topicId();
            return admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
        });
        print("deleteTopics again", () -> admin.deleteTopics(List.of(TOPIC)).all().get());
    }

    private static <K, V> Map<String, V> sorted(Map<K, V> map) {
        Map<String, V> sorted = new TreeMap<>();
        map.forEach((key, value) -> sorted.put(key.toString(), value));
        return sorted;
    }

    private static void print(String method, Callable<Object> call) {
        String answer;
        try {
            Object result = call.call();
            answer = result == null ? "done" : result.toString();
        } catch (ExecutionException e) {
            answer = "failed with " + e.getCause();
        } catch (Exception e) {
            answer = "failed with " + e;
        }
        System.out.println(method + ": " + answer);
    }
}
