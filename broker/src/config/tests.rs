use inference::spec::ModelTopicSpec;

use super::*;
use crate::catalog::topic_config::ConfigSource;

fn refusal(text: &str) -> String {
    match Config::parse(text, Path::new("milena.toml")) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(
        Config::parse("", Path::new("milena.toml")),
        Ok(Config::default())
    );
}

#[test]
fn the_documented_file_has_every_key_with_its_default() {
    let text = include_str!("../../../config/milena.toml");
    let config = Config::parse(text, Path::new("milena.toml")).expect("it is legal");
    assert_eq!(config, Config::default());

    // Every section's keys, as the code knows them: an unknown key's error lists them.
    let table = DeTable::parse(text).expect("it is TOML");
    for section in ["broker", "log", "group", "transaction", "http"] {
        let known = refusal(&format!("[{section}]\nno_such_key = 1"));
        let (_, known) = known
            .split_once("expected ")
            .expect("the error lists the keys");
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        let written = table
            .get_ref()
            .get(section)
            .expect("the file has the section");
        let written = written.get_ref().as_table().expect("a table");
        for key in &known {
            assert!(
                written.contains_key(*key),
                "config/milena.toml lacks {section}.{key}"
            );
        }
        assert_eq!(written.len(), known.len());
    }
}

#[test]
fn the_examples_of_the_documented_file_are_legal() {
    let text = include_str!("../../../config/milena.toml");
    let examples: String = text
        .lines()
        .filter_map(|line| line.strip_prefix("#| "))
        .flat_map(|line| [line, "\n"])
        .collect();
    let config = deserialize(&examples, Path::new("milena.toml")).expect("legal");
    // The models' folders are not there.
    let others = |fault: &Problem| !fault.key.ends_with(".source");
    assert_eq!(config.check().into_iter().find(others), None);
    assert_eq!(config.topic.len(), 2);
    assert_eq!(config.model.len(), 3);
    // What is shown as a default is one.
    let shown = config.model_topic.first().expect("an example").get_ref();
    let least = "[[model_topic]]\nname = \"transactions.scored\"\ninput = \"transactions\"\nmodel = \"fraud\"\n";
    let least = deserialize(least, Path::new("milena.toml")).expect("legal");
    let least = least
        .model_topic
        .first()
        .expect("the same")
        .get_ref()
        .clone();
    assert_eq!(shown.dead_letter_topic(), least.dead_letter_topic());
    let without_dlq = |mut spec: ModelTopicSpec| {
        spec.on_error.dlq = None;
        spec
    };
    assert_eq!(without_dlq(shown.clone()), without_dlq(least));
}

#[test]
fn models_are_checked_with_line_and_value() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let good = folder.path().join("m");
    std::fs::create_dir(&good).expect("a folder");
    std::fs::write(good.join("config.json"), "{}").expect("a file");
    let model = "[[model]]\nname = \"m\"\nsource = \"m\"\n";
    let topic = |name: &str, input: &str| {
        format!("[[model_topic]]\nname = \"{name}\"\ninput = \"{input}\"\nmodel = \"m\"\n")
    };
    for (text, expected) in [
        (
            "[[model]]\nname = \"m\"\nsource = \"nowhere\"\n".to_owned(),
            "3: model[0].source = \"nowhere\": ",
        ),
        (
            format!("{model}sorce = 1\n"),
            "4: model[0].sorce: unknown field `sorce`",
        ),
        (
            format!("{model}{}", topic("out", "in").replace("\"m\"", "\"n\"")),
            "7: model_topic[0].model = \"n\": there is no model \"n\"",
        ),
        (
            format!("{model}{}drift = {{}}\n", topic("out", "in")),
            "8: model_topic[0].drift: unknown field `drift`",
        ),
        (
            format!("{model}{}{}", topic("a", "b"), topic("b", "a")),
            "10: model_topic[1].input = \"a\": model topics feed themselves: a -> b -> a",
        ),
    ] {
        let path = folder.path().join("milena.toml");
        let error = Config::parse(&text, &path)
            .expect_err("refused")
            .to_string();
        let expected = format!("{}:{expected}", path.display());
        assert!(error.starts_with(&expected), "{error}\nis not\n{expected}");
    }
    let text = format!("{model}{}{}", topic("a", "in"), topic("b", "a"));
    let path = folder.path().join("milena.toml");
    assert!(Config::parse(&text, &path).is_ok());
}

#[test]
fn refusals_say_where_and_what() {
    for (text, expected) in [
        (
            "[broker]\n\nnum_partition = 3\n",
            "milena.toml:3: broker.num_partition: unknown field",
        ),
        (
            "[broken]\n",
            "milena.toml:1: broken: unknown field `broken`",
        ),
        ("\n\n[broker\n", "milena.toml:3: "),
        (
            "[broker]\nnode_id = \"one\"\n",
            "milena.toml:2: broker.node_id: invalid type: string \"one\"",
        ),
        (
            "[broker]\nnode_id = 1\nnum_partitions = 0\n",
            "milena.toml:3: broker.num_partitions = 0: must be at least 1",
        ),
        (
            "[broker]\nlisten = \"nowhere\"\n",
            "milena.toml:2: broker.listen = \"nowhere\": is not an address",
        ),
        (
            "[broker]\nlisten = \"0.0.0.0:9092\"\n",
            "milena.toml:1: broker.advertise: must be set",
        ),
        (
            "[broker]\nadvertise = \"a b:1\"\n",
            "milena.toml:2: broker.advertise = \"a b:1\": must be a host",
        ),
        (
            "[broker]\nlog_format = \"xml\"\n",
            "milena.toml:2: broker.log_format: unknown variant `xml`",
        ),
        (
            "[log]\nacks_all_durability = \"tape\"\n",
            "milena.toml:2: log.acks_all_durability = \"tape\": config milena.acks.all.durability",
        ),
        (
            "[log]\ncleaner_threads = 0\n",
            "milena.toml:2: log.cleaner_threads = 0: must be at least 1",
        ),
        (
            "[log]\ncleaner_threads = 3\ncleaner_dedupe_buffer_size = 3145727\n",
            "milena.toml:3: log.cleaner_dedupe_buffer_size = 3145727: must be at least 3145728",
        ),
        (
            "[log]\ncleaner_io_buffer_size = 2147483648\n",
            "milena.toml:2: log.cleaner_io_buffer_size = 2147483648: must be at most 2147483647",
        ),
        (
            "[log]\ncleaner_io_max_bytes_per_second = 0\n",
            "milena.toml:2: log.cleaner_io_max_bytes_per_second = 0: must be a number of at least 1",
        ),
        (
            "[log]\ncleaner_io_max_bytes_per_second = nan\n",
            "milena.toml:2: log.cleaner_io_max_bytes_per_second = nan: must be a number of at least 1",
        ),
        (
            "[log]\ncleaner_io_buffer_load_factor = 1.5\n",
            "milena.toml:2: log.cleaner_io_buffer_load_factor = 1.5: must be between 0.01 and 1",
        ),
        (
            "[log]\ncleaner_backoff_ms = -1\n",
            "milena.toml:2: log.cleaner_backoff_ms: invalid value: integer `-1`",
        ),
        (
            "[log]\ncleanup_policy = \"shred\"\n",
            "milena.toml:2: log.cleanup_policy = \"shred\": config cleanup.policy",
        ),
        (
            "[log]\nmin_cleanable_dirty_ratio = 2\n",
            "milena.toml:2: log.min_cleanable_dirty_ratio = 2: config min.cleanable.dirty.ratio",
        ),
        (
            "[log]\nmax_compaction_lag_ms = 0\n",
            "milena.toml:2: log.max_compaction_lag_ms = 0: config max.compaction.lag.ms",
        ),
        (
            "[group]\ngroup_max_session_timeout_ms = 5\n",
            "milena.toml:2: group.group_max_session_timeout_ms = 5: must be at least 6000",
        ),
        (
            "[http]\nport = 1\n",
            "milena.toml:2: http.port: unknown field `port`, expected `listen`",
        ),
        (
            "[[topic]]\nname = \"a\"\n\n[[topic]]\nname = \"a\"\n",
            "milena.toml:5: topic[1].name = \"a\": there are two topics named 'a'",
        ),
        (
            "[[topic]]\nname = \"a/b\"\n",
            "milena.toml:2: topic[0].name = \"a/b\": ",
        ),
        (
            "[[topic]]\nname = \"__consumer_offsets\"\n",
            "milena.toml:2: topic[0].name = \"__consumer_offsets\": the broker creates",
        ),
        (
            "[[topic]]\nname = \"o.dlq\"\n[[model_topic]]\nname = \"o\"\ninput = \"i\"\nmodel = \"m\"\n",
            "milena.toml:2: topic[0].name = \"o.dlq\": the broker creates",
        ),
        (
            "[[topic]]\npartitions = 4\n",
            "milena.toml:1: topic[0]: missing field `name`",
        ),
        (
            "[[topic]]\nname = \"a\"\npartitions = -1\n",
            "milena.toml:3: topic[0].partitions = -1: must be at least 1",
        ),
        (
            "[[topic]]\nname = \"a\"\nconfigs = { \"segment.byte\" = 1 }\n",
            "milena.toml:3: topic[0].configs: config segment.byte",
        ),
    ] {
        let error = refusal(text);
        assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
    }
}

#[test]
fn every_fault_is_told_with_its_line() {
    for (text, expected) in [
        // Syntax: what would come after it is not looked at.
        (
            "a = \n[broker\nnode_id = \"one\"\n",
            &["milena.toml:1: ", "milena.toml:2: "][..],
        ),
        // Keys and types.
        (
            "[broker]\nnode_id = \"one\"\nlissten = 1\n[[topic]]\npartitions = \"x\"\n[[topic]]\nname = 5\n\
             [[topic]]\nname = \"a\"\npartition = 1\nevent_time = { field = \"ts\", format = \"unix_ms\" }\n\
             [[model_topic]]\nname = \"o\"\ninput = \"i\"\n[[model_topic.feature]]\nname = \"f\"\nagg = \"sun\"\n\
             window = { slyding = \"5m\", grace = \"5x\" }\n",
            &[
                "milena.toml:2: broker.node_id: invalid type: string \"one\"",
                "milena.toml:3: broker.lissten: unknown field `lissten`",
                "milena.toml:4: topic[0]: missing field `name`",
                "milena.toml:5: topic[0].partitions: invalid type: string \"x\"",
                "milena.toml:7: topic[1].name: invalid type: integer `5`",
                "milena.toml:10: topic[2].partition: unknown field `partition`",
                "milena.toml:11: topic[2].event_time.field: \"ts\" is not a path",
                "milena.toml:12: model_topic[0]: missing field `model`",
                "milena.toml:17: model_topic[0].feature[0].agg: \"sun\" is none of count",
                "milena.toml:18: model_topic[0].feature[0].window.slyding: unknown field `slyding`",
                "milena.toml:18: model_topic[0].feature[0].window.grace: \"5x\" is not a duration",
            ],
        ),
        // Values, across sections.
        (
            "[broker]\nnode_id = -1\nnum_partitions = 0\nlisten = \"nowhere\"\n[log]\ncleaner_threads = 0\n\
             segment_bytes = 1\ncleanup_policy = \"shred\"\n[group]\ngroup_max_size = 0\n[[topic]]\nname = \"a/b\"\n\
             partitions = 0\n[[model]]\nname = \"m\"\n[[model_topic]]\nname = \"o\"\ninput = \"o\"\nmodel = \"n\"\n",
            &[
                "milena.toml:2: broker.node_id = -1: must be at least 0",
                "milena.toml:3: broker.num_partitions = 0: must be at least 1",
                "milena.toml:4: broker.listen = \"nowhere\": is not an address",
                "milena.toml:6: log.cleaner_threads = 0: must be at least 1",
                "milena.toml:7: log.segment_bytes = 1: config segment.bytes",
                "milena.toml:8: log.cleanup_policy = \"shred\": config cleanup.policy",
                "milena.toml:10: group.group_max_size = 0: must be at least 1",
                "milena.toml:12: topic[0].name = \"a/b\": ",
                "milena.toml:13: topic[0].partitions = 0: must be at least 1",
                "milena.toml:14: model[0]: a model has either source or versions, this one has neither",
                "milena.toml:18: model_topic[0].input = \"o\": model topics feed themselves: o -> o",
                "milena.toml:19: model_topic[0].model = \"n\": there is no model \"n\"",
            ],
        ),
    ] {
        let told = refusal(text);
        let told: Vec<&str> = told.lines().collect();
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for (line, expected) in told.iter().zip(expected) {
            assert!(line.starts_with(expected), "{line}\nis not\n{expected}");
        }
    }
}

#[test]
fn faults_without_end_are_cut() {
    let keys: String = (0..5000).map(|n| format!("key_{n} = 1\n")).collect();
    assert_eq!(refusal(&keys).lines().count(), 100);
    let topics = "[[topic]]\nname = 1\n".repeat(5000);
    assert_eq!(refusal(&topics).lines().count(), 100);
}

#[test]
fn addresses() {
    let bound = "127.0.0.1:4711".parse().expect("an address");
    for (listen, advertise, expected) in [
        ("localhost:0", "", ("localhost", 4711)),
        ("[::1]:0", "", ("::1", 4711)),
        ("0.0.0.0:0", "broker.example", ("broker.example", 4711)),
        (
            "0.0.0.0:0",
            "broker.example:19092",
            ("broker.example", 19092),
        ),
        ("0.0.0.0:0", "10.0.0.7", ("10.0.0.7", 4711)),
        ("0.0.0.0:0", "::1", ("::1", 4711)),
        ("0.0.0.0:0", "[::1]:9", ("::1", 9)),
    ] {
        let mut config = Config::default();
        config.broker.listen = listen.to_owned();
        config.broker.advertise = advertise.to_owned();
        assert_eq!(
            config.advertised(bound),
            Ok((expected.0.to_owned(), expected.1)),
            "{advertise}"
        );
    }
}

#[test]
fn only_what_the_file_changes_counts_as_set() {
    let config = Config::parse("[log]\nsegment_bytes = 2097152\n", Path::new("milena.toml"));
    let defaults = config.expect("legal").topic_defaults().expect("legal");
    let place = defaults.places("segment.bytes").next();
    assert_eq!(place, Some(("2097152", ConfigSource::BrokerFile)));
    assert_eq!(defaults.places("segment.ms").next(), None);
}
