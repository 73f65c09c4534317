//! What each request looks like on the wire: the table that [`super`] walks.
//!
//! Taken from the protocol's message definitions, request side only; a field is
//! `(name, kind, first version, last version)`. A test holds every line against the codec.

use kafka_protocol::messages::ApiKey;

use super::Kind::{
    Array, Blob, Bool, Int8, Int16, Int32, Int64, NullableStruct, Str, Struct, Uuid,
};
use super::{Field, Shape, field, tagged};

const PRODUCE_PARTITION_PRODUCE_DATA: &[Field] =
    &[field("index", Int32, 3, 13), field("records", Blob, 3, 13)];

const PRODUCE_TOPIC_PRODUCE_DATA: &[Field] = &[
    field("name", Str, 3, 12),
    field("topic_id", Uuid, 13, 13),
    field(
        "partition_data",
        Array(&Struct(PRODUCE_PARTITION_PRODUCE_DATA)),
        3,
        13,
    ),
];

const PRODUCE: &[Field] = &[
    field("transactional_id", Str, 3, 13),
    field("acks", Int16, 3, 13),
    field("timeout_ms", Int32, 3, 13),
    field(
        "topic_data",
        Array(&Struct(PRODUCE_TOPIC_PRODUCE_DATA)),
        3,
        13,
    ),
];

const FETCH_REPLICA_STATE: &[Field] = &[
    field("replica_id", Int32, 15, 18),
    field("replica_epoch", Int64, 15, 18),
];

const FETCH_PARTITION: &[Field] = &[
    field("partition", Int32, 4, 18),
    field("current_leader_epoch", Int32, 9, 18),
    field("fetch_offset", Int64, 4, 18),
    field("last_fetched_epoch", Int32, 12, 18),
    field("log_start_offset", Int64, 5, 18),
    field("partition_max_bytes", Int32, 4, 18),
    tagged(0, "replica_directory_id", Uuid, 17, 18),
    tagged(1, "high_watermark", Int64, 18, 18),
];

const FETCH_TOPIC: &[Field] = &[
    field("topic", Str, 4, 12),
    field("topic_id", Uuid, 13, 18),
    field("partitions", Array(&Struct(FETCH_PARTITION)), 4, 18),
];

const FETCH_FORGOTTEN_TOPIC: &[Field] = &[
    field("topic", Str, 7, 12),
    field("topic_id", Uuid, 13, 18),
    field("partitions", Array(&Int32), 7, 18),
];

const FETCH: &[Field] = &[
    tagged(0, "cluster_id", Str, 12, 18),
    field("replica_id", Int32, 4, 14),
    tagged(1, "replica_state", Struct(FETCH_REPLICA_STATE), 15, 18),
    field("max_wait_ms", Int32, 4, 18),
    field("min_bytes", Int32, 4, 18),
    field("max_bytes", Int32, 4, 18),
    field("isolation_level", Int8, 4, 18),
    field("session_id", Int32, 7, 18),
    field("session_epoch", Int32, 7, 18),
    field("topics", Array(&Struct(FETCH_TOPIC)), 4, 18),
    field(
        "forgotten_topics_data",
        Array(&Struct(FETCH_FORGOTTEN_TOPIC)),
        7,
        18,
    ),
    field("rack_id", Str, 11, 18),
];

const LIST_OFFSETS_PARTITION: &[Field] = &[
    field("partition_index", Int32, 1, 10),
    field("current_leader_epoch", Int32, 4, 10),
    field("timestamp", Int64, 1, 10),
];

const LIST_OFFSETS_TOPIC: &[Field] = &[
    field("name", Str, 1, 10),
    field("partitions", Array(&Struct(LIST_OFFSETS_PARTITION)), 1, 10),
];

const LIST_OFFSETS: &[Field] = &[
    field("replica_id", Int32, 1, 10),
    field("isolation_level", Int8, 2, 10),
    field("topics", Array(&Struct(LIST_OFFSETS_TOPIC)), 1, 10),
    field("timeout_ms", Int32, 10, 10),
];

const METADATA_TOPIC: &[Field] = &[field("topic_id", Uuid, 10, 13), field("name", Str, 0, 13)];

const METADATA: &[Field] = &[
    field("topics", Array(&Struct(METADATA_TOPIC)), 0, 13),
    field("allow_auto_topic_creation", Bool, 4, 13),
    field("include_cluster_authorized_operations", Bool, 8, 10),
    field("include_topic_authorized_operations", Bool, 8, 13),
];

const OFFSET_COMMIT_PARTITION: &[Field] = &[
    field("partition_index", Int32, 2, 9),
    field("committed_offset", Int64, 2, 9),
    field("committed_leader_epoch", Int32, 6, 9),
    field("committed_metadata", Str, 2, 9),
];

const OFFSET_COMMIT_TOPIC: &[Field] = &[
    field("name", Str, 2, 9),
    field("partitions", Array(&Struct(OFFSET_COMMIT_PARTITION)), 2, 9),
];

const OFFSET_COMMIT: &[Field] = &[
    field("group_id", Str, 2, 9),
    field("generation_id_or_member_epoch", Int32, 2, 9),
    field("member_id", Str, 2, 9),
    field("group_instance_id", Str, 7, 9),
    field("retention_time_ms", Int64, 2, 4),
    field("topics", Array(&Struct(OFFSET_COMMIT_TOPIC)), 2, 9),
];

const OFFSET_FETCH_TOPIC: &[Field] = &[
    field("name", Str, 1, 7),
    field("partition_indexes", Array(&Int32), 1, 7),
];

const OFFSET_FETCH_TOPICS: &[Field] = &[
    field("name", Str, 8, 9),
    field("partition_indexes", Array(&Int32), 8, 9),
];

const OFFSET_FETCH_GROUP: &[Field] = &[
    field("group_id", Str, 8, 9),
    field("member_id", Str, 9, 9),
    field("member_epoch", Int32, 9, 9),
    field("topics", Array(&Struct(OFFSET_FETCH_TOPICS)), 8, 9),
];

const OFFSET_FETCH: &[Field] = &[
    field("group_id", Str, 1, 7),
    field("topics", Array(&Struct(OFFSET_FETCH_TOPIC)), 1, 7),
    field("groups", Array(&Struct(OFFSET_FETCH_GROUP)), 8, 9),
    field("require_stable", Bool, 7, 9),
];

const FIND_COORDINATOR: &[Field] = &[
    field("key", Str, 0, 3),
    field("key_type", Int8, 1, 6),
    field("coordinator_keys", Array(&Str), 4, 6),
];

const JOIN_GROUP_PROTOCOL: &[Field] = &[field("name", Str, 0, 9), field("metadata", Blob, 0, 9)];

const JOIN_GROUP: &[Field] = &[
    field("group_id", Str, 0, 9),
    field("session_timeout_ms", Int32, 0, 9),
    field("rebalance_timeout_ms", Int32, 1, 9),
    field("member_id", Str, 0, 9),
    field("group_instance_id", Str, 5, 9),
    field("protocol_type", Str, 0, 9),
    field("protocols", Array(&Struct(JOIN_GROUP_PROTOCOL)), 0, 9),
    field("reason", Str, 8, 9),
];

const HEARTBEAT: &[Field] = &[
    field("group_id", Str, 0, 4),
    field("generation_id", Int32, 0, 4),
    field("member_id", Str, 0, 4),
    field("group_instance_id", Str, 3, 4),
];

const LEAVE_GROUP_MEMBER_IDENTITY: &[Field] = &[
    field("member_id", Str, 3, 5),
    field("group_instance_id", Str, 3, 5),
    field("reason", Str, 5, 5),
];

const LEAVE_GROUP: &[Field] = &[
    field("group_id", Str, 0, 5),
    field("member_id", Str, 0, 2),
    field("members", Array(&Struct(LEAVE_GROUP_MEMBER_IDENTITY)), 3, 5),
];

const SYNC_GROUP_ASSIGNMENT: &[Field] = &[
    field("member_id", Str, 0, 5),
    field("assignment", Blob, 0, 5),
];

const SYNC_GROUP: &[Field] = &[
    field("group_id", Str, 0, 5),
    field("generation_id", Int32, 0, 5),
    field("member_id", Str, 0, 5),
    field("group_instance_id", Str, 3, 5),
    field("protocol_type", Str, 5, 5),
    field("protocol_name", Str, 5, 5),
    field("assignments", Array(&Struct(SYNC_GROUP_ASSIGNMENT)), 0, 5),
];

const DESCRIBE_GROUPS: &[Field] = &[
    field("groups", Array(&Str), 0, 6),
    field("include_authorized_operations", Bool, 3, 6),
];

const LIST_GROUPS: &[Field] = &[
    field("states_filter", Array(&Str), 4, 5),
    field("types_filter", Array(&Str), 5, 5),
];

const DELETE_GROUPS: &[Field] = &[field("groups_names", Array(&Str), 0, 2)];

const OFFSET_DELETE_PARTITION: &[Field] = &[field("partition_index", Int32, 0, 0)];

const OFFSET_DELETE_TOPIC: &[Field] = &[
    field("name", Str, 0, 0),
    field("partitions", Array(&Struct(OFFSET_DELETE_PARTITION)), 0, 0),
];

const OFFSET_DELETE: &[Field] = &[
    field("group_id", Str, 0, 0),
    field("topics", Array(&Struct(OFFSET_DELETE_TOPIC)), 0, 0),
];

const API_VERSIONS: &[Field] = &[
    field("client_software_name", Str, 3, 4),
    field("client_software_version", Str, 3, 4),
];

const CREATE_TOPICS_CREATABLE_REPLICA_ASSIGNMENT: &[Field] = &[
    field("partition_index", Int32, 2, 7),
    field("broker_ids", Array(&Int32), 2, 7),
];

const CREATE_TOPICS_CREATABLE_TOPIC_CONFIG: &[Field] =
    &[field("name", Str, 2, 7), field("value", Str, 2, 7)];

const CREATE_TOPICS_CREATABLE_TOPIC: &[Field] = &[
    field("name", Str, 2, 7),
    field("num_partitions", Int32, 2, 7),
    field("replication_factor", Int16, 2, 7),
    field(
        "assignments",
        Array(&Struct(CREATE_TOPICS_CREATABLE_REPLICA_ASSIGNMENT)),
        2,
        7,
    ),
    field(
        "configs",
        Array(&Struct(CREATE_TOPICS_CREATABLE_TOPIC_CONFIG)),
        2,
        7,
    ),
];

const CREATE_TOPICS: &[Field] = &[
    field(
        "topics",
        Array(&Struct(CREATE_TOPICS_CREATABLE_TOPIC)),
        2,
        7,
    ),
    field("timeout_ms", Int32, 2, 7),
    field("validate_only", Bool, 2, 7),
];

const DELETE_TOPICS_DELETE_TOPIC_STATE: &[Field] =
    &[field("name", Str, 6, 6), field("topic_id", Uuid, 6, 6)];

const DELETE_TOPICS: &[Field] = &[
    field(
        "topics",
        Array(&Struct(DELETE_TOPICS_DELETE_TOPIC_STATE)),
        6,
        6,
    ),
    field("topic_names", Array(&Str), 1, 5),
    field("timeout_ms", Int32, 1, 6),
];

const INIT_PRODUCER_ID: &[Field] = &[
    field("transactional_id", Str, 0, 5),
    field("transaction_timeout_ms", Int32, 0, 5),
    field("producer_id", Int64, 3, 5),
    field("producer_epoch", Int16, 3, 5),
];

const DESCRIBE_CONFIGS_RESOURCE: &[Field] = &[
    field("resource_type", Int8, 1, 4),
    field("resource_name", Str, 1, 4),
    field("configuration_keys", Array(&Str), 1, 4),
];

const DESCRIBE_CONFIGS: &[Field] = &[
    field("resources", Array(&Struct(DESCRIBE_CONFIGS_RESOURCE)), 1, 4),
    field("include_synonyms", Bool, 1, 4),
    field("include_documentation", Bool, 3, 4),
];

const DESCRIBE_CLUSTER: &[Field] = &[
    field("include_cluster_authorized_operations", Bool, 0, 2),
    field("endpoint_type", Int8, 1, 2),
    field("include_fenced_brokers", Bool, 2, 2),
];

const GET_TELEMETRY_SUBSCRIPTIONS: &[Field] = &[field("client_instance_id", Uuid, 0, 0)];

const CREATE_PARTITIONS_ASSIGNMENT: &[Field] = &[field("broker_ids", Array(&Int32), 0, 3)];

const CREATE_PARTITIONS_TOPIC: &[Field] = &[
    field("name", Str, 0, 3),
    field("count", Int32, 0, 3),
    field(
        "assignments",
        Array(&Struct(CREATE_PARTITIONS_ASSIGNMENT)),
        0,
        3,
    ),
];

const CREATE_PARTITIONS: &[Field] = &[
    field("topics", Array(&Struct(CREATE_PARTITIONS_TOPIC)), 0, 3),
    field("timeout_ms", Int32, 0, 3),
    field("validate_only", Bool, 0, 3),
];

const ALTER_CONFIGS_ALTERABLE_CONFIG: &[Field] =
    &[field("name", Str, 0, 2), field("value", Str, 0, 2)];

const ALTER_CONFIGS_RESOURCE: &[Field] = &[
    field("resource_type", Int8, 0, 2),
    field("resource_name", Str, 0, 2),
    field(
        "configs",
        Array(&Struct(ALTER_CONFIGS_ALTERABLE_CONFIG)),
        0,
        2,
    ),
];

const ALTER_CONFIGS: &[Field] = &[
    field("resources", Array(&Struct(ALTER_CONFIGS_RESOURCE)), 0, 2),
    field("validate_only", Bool, 0, 2),
];

const INCREMENTAL_ALTER_CONFIGS_ALTERABLE_CONFIG: &[Field] = &[
    field("name", Str, 0, 1),
    field("config_operation", Int8, 0, 1),
    field("value", Str, 0, 1),
];

const INCREMENTAL_ALTER_CONFIGS_RESOURCE: &[Field] = &[
    field("resource_type", Int8, 0, 1),
    field("resource_name", Str, 0, 1),
    field(
        "configs",
        Array(&Struct(INCREMENTAL_ALTER_CONFIGS_ALTERABLE_CONFIG)),
        0,
        1,
    ),
];

const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    field(
        "resources",
        Array(&Struct(INCREMENTAL_ALTER_CONFIGS_RESOURCE)),
        0,
        1,
    ),
    field("validate_only", Bool, 0, 1),
];

const LIST_CONFIG_RESOURCES: &[Field] = &[field("resource_types", Array(&Int8), 1, 1)];

const DESCRIBE_TOPIC_PARTITIONS_TOPIC_REQUEST: &[Field] = &[field("name", Str, 0, 0)];

const DESCRIBE_TOPIC_PARTITIONS_CURSOR: &[Field] = &[
    field("topic_name", Str, 0, 0),
    field("partition_index", Int32, 0, 0),
];

const DESCRIBE_TOPIC_PARTITIONS: &[Field] = &[
    field(
        "topics",
        Array(&Struct(DESCRIBE_TOPIC_PARTITIONS_TOPIC_REQUEST)),
        0,
        0,
    ),
    field("response_partition_limit", Int32, 0, 0),
    field(
        "cursor",
        NullableStruct(DESCRIBE_TOPIC_PARTITIONS_CURSOR),
        0,
        0,
    ),
];

const DELETE_RECORDS_PARTITION: &[Field] = &[
    field("partition_index", Int32, 0, 2),
    field("offset", Int64, 0, 2),
];

const DELETE_RECORDS_TOPIC: &[Field] = &[
    field("name", Str, 0, 2),
    field("partitions", Array(&Struct(DELETE_RECORDS_PARTITION)), 0, 2),
];

const DELETE_RECORDS: &[Field] = &[
    field("topics", Array(&Struct(DELETE_RECORDS_TOPIC)), 0, 2),
    field("timeout_ms", Int32, 0, 2),
];

const OFFSET_FOR_LEADER_PARTITION: &[Field] = &[
    field("partition", Int32, 2, 4),
    field("current_leader_epoch", Int32, 2, 4),
    field("leader_epoch", Int32, 2, 4),
];

const OFFSET_FOR_LEADER_TOPIC: &[Field] = &[
    field("topic", Str, 2, 4),
    field(
        "partitions",
        Array(&Struct(OFFSET_FOR_LEADER_PARTITION)),
        2,
        4,
    ),
];

const OFFSET_FOR_LEADER_EPOCH: &[Field] = &[
    field("replica_id", Int32, 3, 4),
    field("topics", Array(&Struct(OFFSET_FOR_LEADER_TOPIC)), 2, 4),
];

const DESCRIBE_LOG_DIRS_TOPIC: &[Field] = &[
    field("topic", Str, 1, 4),
    field("partitions", Array(&Int32), 1, 4),
];

const DESCRIBE_LOG_DIRS: &[Field] = &[field(
    "topics",
    Array(&Struct(DESCRIBE_LOG_DIRS_TOPIC)),
    1,
    4,
)];

const DESCRIBE_PRODUCERS_TOPIC: &[Field] = &[
    field("name", Str, 0, 0),
    field("partition_indexes", Array(&Int32), 0, 0),
];

const DESCRIBE_PRODUCERS: &[Field] = &[field(
    "topics",
    Array(&Struct(DESCRIBE_PRODUCERS_TOPIC)),
    0,
    0,
)];

const ELECT_LEADERS_TOPIC: &[Field] = &[
    field("topic", Str, 0, 2),
    field("partitions", Array(&Int32), 0, 2),
];

const ELECT_LEADERS: &[Field] = &[
    field("election_type", Int8, 1, 2),
    field(
        "topic_partitions",
        Array(&Struct(ELECT_LEADERS_TOPIC)),
        0,
        2,
    ),
    field("timeout_ms", Int32, 0, 2),
];

const REASSIGNABLE_PARTITION: &[Field] = &[
    field("partition_index", Int32, 0, 1),
    field("replicas", Array(&Int32), 0, 1),
];

const REASSIGNABLE_TOPIC: &[Field] = &[
    field("name", Str, 0, 1),
    field("partitions", Array(&Struct(REASSIGNABLE_PARTITION)), 0, 1),
];

const ALTER_PARTITION_REASSIGNMENTS: &[Field] = &[
    field("timeout_ms", Int32, 0, 1),
    field("allow_replication_factor_change", Bool, 1, 1),
    field("topics", Array(&Struct(REASSIGNABLE_TOPIC)), 0, 1),
];

const LIST_PARTITION_REASSIGNMENTS_TOPIC: &[Field] = &[
    field("name", Str, 0, 0),
    field("partition_indexes", Array(&Int32), 0, 0),
];

const LIST_PARTITION_REASSIGNMENTS: &[Field] = &[
    field("timeout_ms", Int32, 0, 0),
    field(
        "topics",
        Array(&Struct(LIST_PARTITION_REASSIGNMENTS_TOPIC)),
        0,
        0,
    ),
];

/// Every request that is served.
const ADD_PARTITIONS_TO_TXN_TOPIC: &[Field] = &[
    field("name", Str, 0, 5),
    field("partitions", Array(&Int32), 0, 5),
];

const ADD_PARTITIONS_TO_TXN_TRANSACTION: &[Field] = &[
    field("transactional_id", Str, 4, 5),
    field("producer_id", Int64, 4, 5),
    field("producer_epoch", Int16, 4, 5),
    field("verify_only", Bool, 4, 5),
    field("topics", Array(&Struct(ADD_PARTITIONS_TO_TXN_TOPIC)), 4, 5),
];

const ADD_PARTITIONS_TO_TXN: &[Field] = &[
    field(
        "transactions",
        Array(&Struct(ADD_PARTITIONS_TO_TXN_TRANSACTION)),
        4,
        5,
    ),
    field("v3_and_below_transactional_id", Str, 0, 3),
    field("v3_and_below_producer_id", Int64, 0, 3),
    field("v3_and_below_producer_epoch", Int16, 0, 3),
    field(
        "v3_and_below_topics",
        Array(&Struct(ADD_PARTITIONS_TO_TXN_TOPIC)),
        0,
        3,
    ),
];

const ADD_OFFSETS_TO_TXN: &[Field] = &[
    field("transactional_id", Str, 0, 4),
    field("producer_id", Int64, 0, 4),
    field("producer_epoch", Int16, 0, 4),
    field("group_id", Str, 0, 4),
];

const END_TXN: &[Field] = &[
    field("transactional_id", Str, 0, 5),
    field("producer_id", Int64, 0, 5),
    field("producer_epoch", Int16, 0, 5),
    field("committed", Bool, 0, 5),
];

const TXN_OFFSET_COMMIT_PARTITION: &[Field] = &[
    field("partition_index", Int32, 0, 5),
    field("committed_offset", Int64, 0, 5),
    field("committed_leader_epoch", Int32, 2, 5),
    field("committed_metadata", Str, 0, 5),
];

const TXN_OFFSET_COMMIT_TOPIC: &[Field] = &[
    field("name", Str, 0, 5),
    field(
        "partitions",
        Array(&Struct(TXN_OFFSET_COMMIT_PARTITION)),
        0,
        5,
    ),
];

const TXN_OFFSET_COMMIT: &[Field] = &[
    field("transactional_id", Str, 0, 5),
    field("group_id", Str, 0, 5),
    field("producer_id", Int64, 0, 5),
    field("producer_epoch", Int16, 0, 5),
    field("generation_id", Int32, 3, 5),
    field("member_id", Str, 3, 5),
    field("group_instance_id", Str, 3, 5),
    field("topics", Array(&Struct(TXN_OFFSET_COMMIT_TOPIC)), 0, 5),
];

const WRITE_TXN_MARKERS_TOPIC: &[Field] = &[
    field("name", Str, 1, 1),
    field("partition_indexes", Array(&Int32), 1, 1),
];

const WRITE_TXN_MARKERS_MARKER: &[Field] = &[
    field("producer_id", Int64, 1, 1),
    field("producer_epoch", Int16, 1, 1),
    field("transaction_result", Bool, 1, 1),
    field("topics", Array(&Struct(WRITE_TXN_MARKERS_TOPIC)), 1, 1),
    field("coordinator_epoch", Int32, 1, 1),
];

const WRITE_TXN_MARKERS: &[Field] = &[field(
    "markers",
    Array(&Struct(WRITE_TXN_MARKERS_MARKER)),
    1,
    1,
)];

const DESCRIBE_TRANSACTIONS: &[Field] = &[field("transactional_ids", Array(&Str), 0, 0)];

const LIST_TRANSACTIONS: &[Field] = &[
    field("state_filters", Array(&Str), 0, 2),
    field("producer_id_filters", Array(&Int64), 0, 2),
    field("duration_filter", Int64, 1, 2),
    field("transactional_id_pattern", Str, 2, 2),
];

pub(super) const SHAPES: &[Shape] = &[
    Shape {
        api: ApiKey::Produce,
        versions: (3, 13),
        flexible_from: 9,
        fields: PRODUCE,
    },
    Shape {
        api: ApiKey::Fetch,
        versions: (4, 18),
        flexible_from: 12,
        fields: FETCH,
    },
    Shape {
        api: ApiKey::ListOffsets,
        versions: (1, 10),
        flexible_from: 6,
        fields: LIST_OFFSETS,
    },
    Shape {
        api: ApiKey::Metadata,
        versions: (0, 13),
        flexible_from: 9,
        fields: METADATA,
    },
    Shape {
        api: ApiKey::OffsetCommit,
        versions: (2, 9),
        flexible_from: 8,
        fields: OFFSET_COMMIT,
    },
    Shape {
        api: ApiKey::OffsetFetch,
        versions: (1, 9),
        flexible_from: 6,
        fields: OFFSET_FETCH,
    },
    Shape {
        api: ApiKey::FindCoordinator,
        versions: (0, 6),
        flexible_from: 3,
        fields: FIND_COORDINATOR,
    },
    Shape {
        api: ApiKey::JoinGroup,
        versions: (0, 9),
        flexible_from: 6,
        fields: JOIN_GROUP,
    },
    Shape {
        api: ApiKey::Heartbeat,
        versions: (0, 4),
        flexible_from: 4,
        fields: HEARTBEAT,
    },
    Shape {
        api: ApiKey::LeaveGroup,
        versions: (0, 5),
        flexible_from: 4,
        fields: LEAVE_GROUP,
    },
    Shape {
        api: ApiKey::SyncGroup,
        versions: (0, 5),
        flexible_from: 4,
        fields: SYNC_GROUP,
    },
    Shape {
        api: ApiKey::DescribeGroups,
        versions: (0, 6),
        flexible_from: 5,
        fields: DESCRIBE_GROUPS,
    },
    Shape {
        api: ApiKey::ListGroups,
        versions: (0, 5),
        flexible_from: 3,
        fields: LIST_GROUPS,
    },
    Shape {
        api: ApiKey::DeleteGroups,
        versions: (0, 2),
        flexible_from: 2,
        fields: DELETE_GROUPS,
    },
    Shape {
        api: ApiKey::OffsetDelete,
        versions: (0, 0),
        flexible_from: i16::MAX,
        fields: OFFSET_DELETE,
    },
    Shape {
        api: ApiKey::ApiVersions,
        versions: (0, 4),
        flexible_from: 3,
        fields: API_VERSIONS,
    },
    Shape {
        api: ApiKey::CreateTopics,
        versions: (2, 7),
        flexible_from: 5,
        fields: CREATE_TOPICS,
    },
    Shape {
        api: ApiKey::DeleteTopics,
        versions: (1, 6),
        flexible_from: 4,
        fields: DELETE_TOPICS,
    },
    Shape {
        api: ApiKey::InitProducerId,
        versions: (0, 5),
        flexible_from: 2,
        fields: INIT_PRODUCER_ID,
    },
    Shape {
        api: ApiKey::DescribeConfigs,
        versions: (1, 4),
        flexible_from: 4,
        fields: DESCRIBE_CONFIGS,
    },
    Shape {
        api: ApiKey::DescribeCluster,
        versions: (0, 2),
        flexible_from: 0,
        fields: DESCRIBE_CLUSTER,
    },
    Shape {
        api: ApiKey::GetTelemetrySubscriptions,
        versions: (0, 0),
        flexible_from: 0,
        fields: GET_TELEMETRY_SUBSCRIPTIONS,
    },
    Shape {
        api: ApiKey::CreatePartitions,
        versions: (0, 3),
        flexible_from: 2,
        fields: CREATE_PARTITIONS,
    },
    Shape {
        api: ApiKey::AlterConfigs,
        versions: (0, 2),
        flexible_from: 2,
        fields: ALTER_CONFIGS,
    },
    Shape {
        api: ApiKey::IncrementalAlterConfigs,
        versions: (0, 1),
        flexible_from: 1,
        fields: INCREMENTAL_ALTER_CONFIGS,
    },
    Shape {
        api: ApiKey::ListConfigResources,
        versions: (0, 1),
        flexible_from: 0,
        fields: LIST_CONFIG_RESOURCES,
    },
    Shape {
        api: ApiKey::DescribeTopicPartitions,
        versions: (0, 0),
        flexible_from: 0,
        fields: DESCRIBE_TOPIC_PARTITIONS,
    },
    Shape {
        api: ApiKey::DeleteRecords,
        versions: (0, 2),
        flexible_from: 2,
        fields: DELETE_RECORDS,
    },
    Shape {
        api: ApiKey::OffsetForLeaderEpoch,
        versions: (2, 4),
        flexible_from: 4,
        fields: OFFSET_FOR_LEADER_EPOCH,
    },
    Shape {
        api: ApiKey::DescribeLogDirs,
        versions: (1, 4),
        flexible_from: 2,
        fields: DESCRIBE_LOG_DIRS,
    },
    Shape {
        api: ApiKey::DescribeProducers,
        versions: (0, 0),
        flexible_from: 0,
        fields: DESCRIBE_PRODUCERS,
    },
    Shape {
        api: ApiKey::ElectLeaders,
        versions: (0, 2),
        flexible_from: 2,
        fields: ELECT_LEADERS,
    },
    Shape {
        api: ApiKey::AlterPartitionReassignments,
        versions: (0, 1),
        flexible_from: 0,
        fields: ALTER_PARTITION_REASSIGNMENTS,
    },
    Shape {
        api: ApiKey::ListPartitionReassignments,
        versions: (0, 0),
        flexible_from: 0,
        fields: LIST_PARTITION_REASSIGNMENTS,
    },
    Shape {
        api: ApiKey::AddPartitionsToTxn,
        versions: (0, 5),
        flexible_from: 3,
        fields: ADD_PARTITIONS_TO_TXN,
    },
    Shape {
        api: ApiKey::AddOffsetsToTxn,
        versions: (0, 4),
        flexible_from: 3,
        fields: ADD_OFFSETS_TO_TXN,
    },
    Shape {
        api: ApiKey::EndTxn,
        versions: (0, 5),
        flexible_from: 3,
        fields: END_TXN,
    },
    Shape {
        api: ApiKey::TxnOffsetCommit,
        versions: (0, 5),
        flexible_from: 3,
        fields: TXN_OFFSET_COMMIT,
    },
    Shape {
        api: ApiKey::WriteTxnMarkers,
        versions: (1, 1),
        flexible_from: 1,
        fields: WRITE_TXN_MARKERS,
    },
    Shape {
        api: ApiKey::DescribeTransactions,
        versions: (0, 0),
        flexible_from: 0,
        fields: DESCRIBE_TRANSACTIONS,
    },
    Shape {
        api: ApiKey::ListTransactions,
        versions: (0, 2),
        flexible_from: 0,
        fields: LIST_TRANSACTIONS,
    },
];
