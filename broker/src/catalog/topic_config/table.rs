//! The table of topic configs.

use super::{ConfigKind, TopicConfigDef};

const fn int(min: i32) -> ConfigKind {
    ConfigKind::Int { min, max: i32::MAX }
}

const fn long(min: i64) -> ConfigKind {
    ConfigKind::Long { min }
}

const DURABILITIES: ConfigKind = ConfigKind::Choice(&["disk", "page_cache"]);
const LONG_MAX: &str = "9223372036854775807";

/// Every topic config, sorted by name. Names, types, bounds and defaults: Kafka's `LogConfig` and
/// `ServerTopicConfigSynonyms`; those that begin with `milena.` are Milena's own.
pub const TOPIC_CONFIGS: &[TopicConfigDef] = &[
    TopicConfigDef::new(
        "cleanup.policy",
        "log.cleanup.policy",
        ConfigKind::List(&["compact", "delete"]),
        "delete",
        "What happens to old records. With \"delete\" old segments are removed, by retention.ms and \
         retention.bytes. With \"compact\" every record must have a key, or it is refused, and \
         of each key the newest record is kept; what is in the newest segment is left as it is.",
    ),
    TopicConfigDef::new(
        "compression.gzip.level",
        "compression.gzip.level",
        ConfigKind::IntOr {
            min: 1,
            max: 9,
            or: -1,
        },
        "-1",
        "The level of gzip where compression.type is gzip; -1 is gzip's own.",
    ),
    TopicConfigDef::new(
        "compression.lz4.level",
        "compression.lz4.level",
        ConfigKind::Int { min: 1, max: 17 },
        "9",
        "The level of lz4 where compression.type is lz4. What compresses lz4 here has one level, a fast \
         one.",
    )
    .not_acted_on(),
    TopicConfigDef::new(
        "compression.type",
        "compression.type",
        ConfigKind::Choice(&["gzip", "lz4", "producer", "snappy", "uncompressed", "zstd"]),
        "producer",
        "The codec in which the batches of clients are stored: with \"producer\" as they come, which \
         costs nothing; with another, those that come in another codec are opened and compressed anew, \
         and refused where they cannot be opened or hold more than 64 times max.message.bytes.",
    ),
    TopicConfigDef::new(
        "compression.zstd.level",
        "compression.zstd.level",
        ConfigKind::Int {
            min: -131_072,
            max: 22,
        },
        "3",
        "The level of zstd where compression.type is zstd.",
    ),
    TopicConfigDef::new(
        "delete.retention.ms",
        "log.cleaner.delete.retention.ms",
        long(0),
        "86400000",
        "How long a tombstone, a record without a value, is kept once the topic is compacted up to it, \
         milliseconds.",
    ),
    TopicConfigDef::new(
        "file.delete.delay.ms",
        "log.segment.delete.delay.ms",
        long(0),
        "60000",
        "How long the files of removed segments, and of a removed partition, stay on the disk, \
         milliseconds.",
    ),
    TopicConfigDef::new(
        "flush.messages",
        "log.flush.interval.messages",
        long(1),
        LONG_MAX,
        "After how many records that are not on the disk a partition is synced. The produce request \
         that makes it so many waits for it, whatever its acks; the others for what \
         milena.acks.all.durability and milena.acks.one.durability say.",
    ),
    TopicConfigDef::new(
        "flush.ms",
        "log.flush.interval.ms",
        long(0),
        LONG_MAX,
        "How long a record may be not on the disk before its partition is synced, milliseconds. What a \
         produce request waits for is set by milena.acks.all.durability and \
         milena.acks.one.durability.",
    )
    .follows(),
    TopicConfigDef::new(
        "follower.replication.throttled.replicas",
        "",
        ConfigKind::ReplicaList,
        "",
        "Which replicas' replication is throttled on the side of the follower. There are no followers.",
    )
    .of_topics_alone()
    .not_acted_on(),
    TopicConfigDef::new(
        "index.interval.bytes",
        "log.index.interval.bytes",
        int(0),
        "4096",
        "Bytes of log between two entries of the offset index.",
    ),
    TopicConfigDef::new(
        "leader.replication.throttled.replicas",
        "",
        ConfigKind::ReplicaList,
        "",
        "Which replicas' replication is throttled on the side of the leader. There are no followers.",
    )
    .of_topics_alone()
    .not_acted_on(),
    TopicConfigDef::new(
        "local.retention.bytes",
        "log.local.retention.bytes",
        long(-2),
        "-2",
        "How many bytes a partition keeps on the local disk where older segments are in remote storage; -2 is \
         as retention.bytes. There is no remote storage.",
    )
    .not_acted_on(),
    TopicConfigDef::new(
        "local.retention.ms",
        "log.local.retention.ms",
        long(-2),
        "-2",
        "For how many milliseconds a partition keeps on the local disk where older segments are in remote storage; -2 is \
         as retention.ms. There is no remote storage.",
    )
    .not_acted_on(),
    TopicConfigDef::new(
        "max.compaction.lag.ms",
        "log.cleaner.max.compaction.lag.ms",
        long(1),
        LONG_MAX,
        "The longest that a record of a compacted topic stays uncompacted, milliseconds. A segment \
         rolls at this age, too, with the next append.",
    ),
    TopicConfigDef::new(
        "max.message.bytes",
        "message.max.bytes",
        int(0),
        "1048588",
        "The largest record batch, as compressed, bytes: as it comes, and as it is stored where \
         compression.type has it compressed anew.",
    ),
    TopicConfigDef::new(
        "message.timestamp.after.max.ms",
        "log.message.timestamp.after.max.ms",
        long(0),
        "3600000",
        "How far a record's timestamp may be ahead of the broker's clock where it is the producer's, \
         milliseconds. Of a compressed batch that need not be opened the header is looked at: its first \
         and its largest.",
    ),
    TopicConfigDef::new(
        "message.timestamp.before.max.ms",
        "log.message.timestamp.before.max.ms",
        long(0),
        LONG_MAX,
        "How far a record's timestamp may be behind the broker's clock where it is the producer's, \
         milliseconds. Of a compressed batch that need not be opened the header is looked at: its first \
         and its largest.",
    ),
    TopicConfigDef::new(
        "message.timestamp.type",
        "log.message.timestamp.type",
        ConfigKind::Choice(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        "Which time a record carries: the producer's (CreateTime), or the broker's at append \
         (LogAppendTime).",
    ),
    TopicConfigDef::new(
        "milena.acks.all.durability",
        "milena.acks.all.durability",
        DURABILITIES,
        "disk",
        "What a produce with acks=all waits for: \"disk\" is a completed fdatasync, \"page_cache\" \
         survives the process but not the power.",
    ),
    TopicConfigDef::new(
        "milena.acks.one.durability",
        "milena.acks.one.durability",
        DURABILITIES,
        "page_cache",
        "What a produce with acks=1 waits for: \"disk\" is a completed fdatasync, \"page_cache\" \
         survives the process but not the power.",
    ),
    TopicConfigDef::new(
        "min.cleanable.dirty.ratio",
        "log.cleaner.min.cleanable.ratio",
        ConfigKind::Double { min: 0.0, max: 1.0 },
        "0.5",
        "The share of a compacted log that must be uncompacted before it is compacted.",
    ),
    TopicConfigDef::new(
        "min.compaction.lag.ms",
        "log.cleaner.min.compaction.lag.ms",
        long(0),
        "0",
        "The least time that a record of a compacted topic stays uncompacted, milliseconds.",
    ),
    TopicConfigDef::new(
        "min.insync.replicas",
        "min.insync.replicas",
        int(1),
        "1",
        "How many replicas a write with acks=all needs. Every partition has one replica, and \
         acks=all waits for milena.acks.all.durability on it.",
    )
    .not_acted_on(),
    TopicConfigDef::new(
        "preallocate",
        "log.preallocate",
        ConfigKind::Boolean,
        "false",
        "Whether room for a new segment is reserved on the disk when it is begun; what is left of it is \
         given back when the segment is closed. The file is as long as what is in it.",
    ),
    TopicConfigDef::new(
        "remote.log.copy.disable",
        "",
        ConfigKind::Boolean,
        "false",
        "Whether copying to remote storage has stopped. There is no remote storage.",
    )
    .of_topics_alone()
    .not_acted_on(),
    TopicConfigDef::new(
        "remote.log.delete.on.disable",
        "",
        ConfigKind::Boolean,
        "false",
        "Whether remote segments go when remote storage is switched off. There is no remote storage.",
    )
    .of_topics_alone()
    .not_acted_on(),
    TopicConfigDef::new(
        "remote.storage.enable",
        "",
        ConfigKind::NotServed,
        "false",
        "Whether old segments go to remote storage. There is no remote storage.",
    )
    .of_topics_alone()
    .not_acted_on(),
    TopicConfigDef::new(
        "retention.bytes",
        "log.retention.bytes",
        long(i64::MIN),
        "-1",
        "How large a partition may grow before its oldest segments are removed, bytes: they go while \
         what stays is not smaller. -1 is without a limit.",
    ),
    TopicConfigDef::new(
        "retention.ms",
        "log.retention.ms",
        long(-1),
        "604800000",
        "How old the newest record of a segment may grow before the segment is removed, milliseconds; \
         -1 is without a limit.",
    )
    .follows(),
    TopicConfigDef::new(
        "segment.bytes",
        "log.segment.bytes",
        int(1024 * 1024),
        "1073741824",
        "The size at which a segment rolls, bytes.",
    ),
    TopicConfigDef::new(
        "segment.index.bytes",
        "log.index.size.max.bytes",
        int(4),
        "10485760",
        "The size of the offset index at which a segment rolls, bytes.",
    ),
    TopicConfigDef::new(
        "segment.jitter.ms",
        "log.roll.jitter.ms",
        long(0),
        "0",
        "The most that is subtracted from segment.ms, a different part of it for each segment, \
         milliseconds.",
    )
    .follows(),
    TopicConfigDef::new(
        "segment.ms",
        "log.roll.ms",
        long(1),
        "604800000",
        "The age at which a segment rolls, milliseconds.",
    )
    .follows(),
    TopicConfigDef::new(
        "unclean.leader.election.enable",
        "unclean.leader.election.enable",
        ConfigKind::Boolean,
        "false",
        "Whether a replica that is not in sync may lead. Every partition has one replica.",
    )
    .not_acted_on(),
];
